"""Plugins: the file name is the key, entry points add more, and what is missing is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import edgekd
from edgekd.core import plugins
from edgekd.errors import UserError
from tests.conftest import REPOSITORY


def run(program: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run a program with more folders on its module path."""
    search = [str(folder) for folder in (*path, REPOSITORY)]
    program = f"import sys; sys.path[:0] = {search!r}\n{program}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def register(site: Path, kind: str, name: str, value: str) -> None:
    """Write the metadata of an installed package with one entry point."""
    info = site / f"thing_{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: thing-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[edgekd.{kind}]\n{name} = {value}\n")


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_the_names_of_a_kind_are_its_files(kind: str) -> None:
    folder = Path(edgekd.__file__).parents[1] / Path(*plugins.KINDS[kind].split("."))
    found = [*folder.glob("*.py"), *(path.parent for path in folder.glob("[!_]*/__init__.py"))]
    files = {path.stem for path in found if not path.stem.startswith("_")} - {"base", "graph", "pairs"}
    assert files
    assert set(plugins.names(kind)) >= files


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_listing_imports_no_plugin(kind: str) -> None:
    done = run(
        "from edgekd.core import plugins\n"
        f"for name in plugins.names({kind!r}): assert plugins.KINDS[{kind!r}] + '.' + name not in sys.modules, name\n"
        "assert 'torch' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("kind", "typo", "words"),
    [
        ("targets", "openvno", "no target is called 'openvno'; did you mean 'openvino'?"),
        ("families", "edgesegg", "no family is called 'edgesegg'; did you mean 'edgeseg'?"),
        ("methods", "bckdd", "no method is called 'bckdd'; did you mean 'bckd'?"),
        ("formats", "vox", "no format is called 'vox'; did you mean 'voc'?"),
        ("targets", "base", "no target is called 'base'"),
        ("targets", "../core/recipe", "no target is called '../core/recipe'"),
    ],
)
def test_an_unknown_name_gets_a_suggestion(kind: str, typo: str, words: str) -> None:
    with pytest.raises(UserError) as refusal:
        plugins.load(kind, typo)
    assert words in str(refusal.value)


def test_an_entry_point_adds_a_plugin(tmp_path: Path) -> None:
    register(tmp_path, "formats", "mine", "my_format")
    (tmp_path / "my_format.py").write_text("NAME, Options, TASKS = 'my own', object, ()\n")
    done = run(
        "from edgekd.core import plugins\n"
        "assert 'mine' in plugins.names('formats') and 'my_format' not in sys.modules\n"
        "print(plugins.load('formats', 'mine').NAME)",
        tmp_path,
    )
    assert done.stdout == "my own\n", done.stderr


def test_an_entry_point_cannot_take_the_name_of_an_own_plugin(tmp_path: Path) -> None:
    register(tmp_path, "formats", "folder", "my_format")
    done = run("from edgekd.core import plugins; plugins.load('formats', 'folder')", tmp_path)
    assert "UserError: two formats are called 'folder': edgekd's own and my_format" in done.stderr


@pytest.mark.slow
def test_a_plugin_whose_package_is_not_installed_says_so() -> None:
    done = run("sys.modules['timm'] = None\nfrom edgekd.core import plugins; plugins.load('families', 'smp')")
    if "UserError" not in done.stderr and "segmentation_models_pytorch" in done.stderr:
        pytest.skip("segmentation-models-pytorch is not installed here")
    assert "UserError: family 'smp' needs the package 'timm', which is not installed; `edgekd doctor`" in done.stderr


def test_a_broken_import_inside_edgekd_is_not_blamed_on_the_installation(tmp_path: Path) -> None:
    register(tmp_path, "formats", "broken", "broken_format")
    (tmp_path / "broken_format.py").write_text("import edgekd.no_such_module\n")
    done = run("from edgekd.core import plugins; plugins.load('formats', 'broken')", tmp_path)
    assert "ModuleNotFoundError: No module named 'edgekd.no_such_module'" in done.stderr.splitlines()[-1]


def test_doctor_says_on_a_board_whether_its_engines_can_run_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines for a Rockchip chip are built elsewhere: what a board needs is the runtime, not the toolchain."""
    from edgekd import doctor

    assert [check.name for check in doctor.examine().checks if check.name.startswith("runtime")] == []
    monkeypatch.setattr("edgekd.targets.rknn.target.why_not_on", lambda chip: "")
    (runtime,) = [check for check in doctor.examine().checks if check.name.startswith("runtime")]
    assert (runtime.name, runtime.ok) == ("runtime rknn", False)
    assert "pip install rknn-toolkit-lite2" in runtime.text


def test_doctor_shows_a_target_that_does_not_load_beside_those_that_do(tmp_path: Path) -> None:
    register(tmp_path, "targets", "vendor", "vendor_target")
    register(tmp_path, "targets", "odd", "odd_target")
    (tmp_path / "vendor_target.py").write_text("import somevendor\n")
    (tmp_path / "odd_target.py").write_text("raise OSError('libvendor.so: cannot open')\n")
    done = run(
        "from edgekd.doctor import examine\n"
        "for one in examine().checks:\n"
        "    if one.name.startswith('target'): print(one.name, one.ok, one.text)",
        tmp_path,
    )
    assert "target vendor False target 'vendor' needs the package 'somevendor'" in done.stdout, done.stderr
    assert "odd_target.py:1, `raise OSError('libvendor.so: cannot open')`: OSError: libvendor.so: cannot" in done.stdout
    assert "target openvino" in done.stdout
