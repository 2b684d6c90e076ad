"""`edgekd`, or a function, in a process of its own, forked from a server that has imported the heavy libraries once.

Importing torch, Lightning and the rest takes longer than the work of most tests. The server has none of edgekd
imported: each process imports what lies on its path, as it would from a shell.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

LIBRARIES = ["lightning.pytorch", "torchvision.transforms.v2", "segmentation_models_pytorch", "nncf", "onnxruntime",
             "onnxsim", "onnxscript", "matplotlib.figure", "jinja2", "pytest"]  # fmt: skip
TIMEOUT = 600.0  # seconds
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(LIBRARIES)


def edgekd(*arguments: str, cwd: Path | None = None, path: Sequence[Path] = ()) -> subprocess.CompletedProcess[str]:
    """Run the command line; `arguments` are those after the word `edgekd`, the rest is as in `forked`."""
    return forked(_edgekd, *arguments, cwd=cwd, path=path)


def pytest(*arguments: str, cwd: Path | None = None, path: Sequence[Path] = ()) -> subprocess.CompletedProcess[str]:
    """Run `pytest`, on the tests of the working folder."""
    return forked(_pytest, *arguments, cwd=cwd, path=path)


def script(text: str, cwd: Path | None = None, path: Sequence[Path] = ()) -> subprocess.CompletedProcess[str]:
    """Run a Python script."""
    return forked(_script, text, cwd=cwd, path=path)


def forked(
    function: Callable[..., None], *arguments: str, cwd: Path | None = None, path: Sequence[Path] = ()
) -> subprocess.CompletedProcess[str]:
    """Call a function of a module in a process of its own; return its exit code and what it printed.

    Args:
        function: at the top of a module; what it returns is lost.
        arguments: of the function.
        cwd: working folder; None is this process's.
        path: folders to search for modules first, as in PYTHONPATH.
    """
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("stdout", "stderr")]
        search = [str(Path(entry).resolve()) for entry in path]
        process = _server.Process(target=_call, args=(function, arguments, str(cwd or Path.cwd()), search, streams))
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired([function.__name__, *arguments], TIMEOUT)
        stdout, stderr = (stream.read_text(encoding="utf-8") for stream in streams)
    return subprocess.CompletedProcess(arguments, process.exitcode, stdout, stderr)


def _call(
    function: Callable[..., None], arguments: Sequence[str], cwd: str, search: list[str], streams: list[Path]
) -> None:
    for target, stream in zip((1, 2), streams, strict=True):
        os.dup2(os.open(stream, os.O_CREAT | os.O_WRONLY | os.O_APPEND), target)
    os.chdir(cwd)
    sys.path[:0] = search
    os.environ["PYTHONPATH"] = os.pathsep.join([*search, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    function(*arguments)


def _edgekd(*arguments: str) -> None:
    sys.argv = ["edgekd", *arguments]
    from edgekd.cli.main import main

    main()


def _pytest(*arguments: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]  # this one; the working folder has its own
    import pytest

    sys.exit(pytest.main([*arguments]))


def _script(text: str) -> None:
    exec(compile(text, "<script>", "exec"), {"__name__": "__main__"})
