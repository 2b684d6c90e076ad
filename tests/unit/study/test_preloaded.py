"""Commands that are forked from a process with imports: streams, environment, signals and exit codes are a child's own."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekd.study.preloaded import MODULES, Preloaded, Started

SCRIPT = """
import os, signal, sys, time
print("out", sys.argv[1:], os.environ.get("PLACE"), os.environ.get("GONE"), "colorsys" in sys.modules, __spec__.name)
print("err", signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, file=sys.stderr, flush=True)
if sys.argv[1] == "wait":
    sys.stdout.flush()
    time.sleep(60)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def preloaded(tmp_path: Path) -> Iterator[Preloaded]:
    """Return one that has imported `colorsys`, and finds the module `work`, which has not been there when it started."""
    (tmp_path / "work.py").write_text(SCRIPT)
    with Preloaded(environment(tmp_path, GONE="here"), ["colorsys", "no_such_module"]) as made:
        yield made


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(folder), os.getcwd()]), **more}


def begin(preloaded: Preloaded, folder: Path, argument: str, log: str = "log") -> Started:
    with open(folder / log, "ab", buffering=0) as file:
        return preloaded.start([sys.executable, "-m", "work", argument], file, environment(folder, PLACE=log))


def words_of(file: Path, word: str) -> str:
    """Text of a log, as soon as a word is in it."""
    while not file.exists() or word not in file.read_text():
        time.sleep(0.01)
    return file.read_text()


def test_a_command_has_its_own_log_environment_and_exit_code(preloaded: Preloaded, tmp_path: Path) -> None:
    first, second = begin(preloaded, tmp_path, "0", "a"), begin(preloaded, tmp_path, "3", "b")
    assert (second.wait(), first.wait()) == (3, 0)
    assert set((tmp_path / "a").read_text().splitlines()) == {"out ['0'] a None True work", "err True"}
    assert set((tmp_path / "b").read_text().splitlines()) == {"out ['3'] b None True work", "err True"}
    assert first.pid != second.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_a_signal_ends_has_its_number(
    number: signal.Signals, preloaded: Preloaded, tmp_path: Path
) -> None:
    child = begin(preloaded, tmp_path, "wait")
    words_of(tmp_path / "log", "err")
    child.terminate() if number == signal.SIGTERM else kill_the_forked(tmp_path)
    assert child.wait() == -number
    child.terminate()  # of one that has ended: nothing


def kill_the_forked(folder: Path) -> None:
    """Send SIGKILL to the process whose streams go to the log."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "fd/1") == str(folder / "log"):
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue


def test_a_command_is_stopped_that_has_not_begun(preloaded: Preloaded, tmp_path: Path) -> None:
    child = begin(preloaded, tmp_path, "wait")
    child.terminate()
    assert child.wait() == -signal.SIGTERM


def test_a_command_outlives_the_process_that_forked_it(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(SCRIPT)
    with Preloaded(environment(tmp_path), []) as made:
        child = begin(made, tmp_path, "wait")
        words_of(tmp_path / "log", "err")
    assert child.wait() == -signal.SIGKILL  # nobody says how it ends
    os.kill(child.pid, signal.SIGTERM)  # it was there


@pytest.mark.slow
def test_the_imports_call_no_gpu_and_start_no_pool(tmp_path: Path) -> None:
    """After a call of CUDA, or with threads of torch's pools, a forked process could not use them."""
    pytest.importorskip("torch")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/count.py").write_text(
        "import torch\ncalls = []\ntorch._C._cuda_getDeviceCount = torch._C._cuda_init = lambda: calls.append(1) or 0\n"
    )
    (tmp_path / "pack/tell.py").write_text(
        "import os\nfrom pack.count import calls\nif __name__ == '__main__':\n"
        "    print('threads', len(os.listdir('/proc/self/task')), 'calls', len(calls))\n"
    )
    own = environment(tmp_path, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    modules = ["pack.count", "pack.tell", *MODULES]
    with Preloaded(own, modules) as made, open(tmp_path / "log", "ab", buffering=0) as file:
        assert made.start([sys.executable, "-m", "pack.tell"], file, own).wait() == 0
    assert (tmp_path / "log").read_text() == "threads 1 calls 0\n"  # and no warning
