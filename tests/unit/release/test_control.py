"""`NAME/control`: what a person or an update system does on the board, without the host."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

import edgekd
from edgekd.executors.portable import copy_to
from edgekd.release.install import Wanted, install
from edgekd.release.releases import Releases
from tests.boards.small_bundles import Small, make_bundle

WITHOUT_RUNTIME = find_spec("onnxruntime") is None
pytestmark = pytest.mark.skipif(WITHOUT_RUNTIME, reason="the bundles' target needs onnxruntime, which is not installed")


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    """The releases of a name on an empty board, in a folder with a space."""
    return Releases(tmp_path / "my root", "lane")


def served(releases: Releases) -> str:
    """Return what the current release says."""
    script = str(releases.folder / "current/run")
    return subprocess.run(["sh", script, "--check"], capture_output=True, text=True).stdout.strip()


def test_a_bundle_that_is_installed_on_the_board_keeps_the_boards_variables(releases: Releases, tmp_path: Path) -> None:
    """Those of the inventory, which no bundle holds."""
    source = str(Path(edgekd.__path__[0]).parent)
    variables = {"PYTHONPATH": source, "LD_LIBRARY_PATH": "/opt/it's here"}
    list(install(releases, Wanted(make_bundle(tmp_path / "one", Small("one", 1)), variables=variables)))
    bundle = make_bundle(tmp_path / "two", Small("two", 2, check='[ "$LD_LIBRARY_PATH" = "/opt/it\'s here" ]'))
    done = subprocess.run([releases.folder / "control", "install", bundle], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    current = releases.current()
    assert current is not None
    assert releases.variables(current).items() >= variables.items()


def test_control_changes_the_release_without_the_host(releases: Releases, tmp_path: Path) -> None:
    """The code that it runs is the current release's own: `runtime` in the bundle."""
    for number, word in enumerate(("one", "two"), 1):
        bundle = make_bundle(tmp_path / word, Small(word, number))
        list(install(releases, Wanted(bundle, variables={"PYTHONPATH": str(Path(edgekd.__path__[0]).parent)})))
    for command, output, word in (("list", "current", "two"), ("rollback", "switch", "one")):
        done = subprocess.run([releases.folder / "control", command], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert output in done.stdout
        assert served(releases) == word
    done = subprocess.run([releases.folder / "control", "rollback"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("no earlier release is kept; deploy one\n")


def own_code(releases: Releases, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Install releases which have a copy of edgekd's code each, beside them."""
    for number, word in enumerate(words, 1):
        code = copy_to(tmp_path / f"code {word}", [])
        list(
            install(
                releases, Wanted(make_bundle(tmp_path / word, Small(word, number)), variables={"PYTHONPATH": str(code)})
            )
        )


def test_control_goes_back_when_the_code_of_the_current_release_is_damaged(releases: Releases, tmp_path: Path) -> None:
    own_code(releases, tmp_path, ("one", "two"))
    (tmp_path / "code two/edgekd/release/install.py").write_bytes(bytes(4096))
    done = subprocess.run([releases.folder / "control", "rollback"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert served(releases) == "one"


def test_control_imports_nothing_from_the_current_folder(releases: Releases, tmp_path: Path) -> None:
    own_code(releases, tmp_path, ("one",))
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")
    done = subprocess.run([releases.folder / "control", "list"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_control_says_why_when_no_code_runs(releases: Releases, tmp_path: Path) -> None:
    variables = {"EDGEKD_PYTHON": "/absent/python"}
    list(install(releases, Wanted(make_bundle(tmp_path / "one"), variables=variables)))
    done = subprocess.run([releases.folder / "control", "list"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "/absent/python" in done.stderr
