"""Workspaces: one run at a time, nothing finished is lost, disk trouble is one line."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import pytest

from edgekd.core.artifact import SCRATCH, Artifact, StageResult, publish
from edgekd.core.workspace import Workspace, disk_errors
from edgekd.errors import GateError, WorkspaceError
from tests.conftest import REPOSITORY

KEY_A, KEY_B = "a" * 64, "b" * 64


def finish(workspace: Workspace, stage: str, key: str, text: str) -> Artifact:
    """Make the artifact of a stage under a key as the pipeline does."""
    work = workspace.work_dir(stage, key)
    (work / "file").write_text(text)
    workspace.set_aside(stage)
    return publish(work, workspace.artifact_dir(stage), {"kind": "x", "stage": stage, "key": key}, StageResult())


# --- the lock ---------------------------------------------------------------------------------------------------------

HOLD = """
import sys
from edgekd.core.workspace import Workspace
with Workspace(sys.argv[1]).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return another process that holds tmp_path/out until its stdin is closed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with (
        pytest.raises(WorkspaceError, match="out: another edgekd run is working in it"),
        Workspace(tmp_path / "out").locked(),
    ):
        pass


def test_the_lock_ends_with_kill_9(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with Workspace(tmp_path / "out").locked():
        pass


def test_the_lock_ends_when_the_first_process_is_done(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.communicate()
    with Workspace(tmp_path / "out").locked():
        pass


def test_a_second_lock_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with Workspace(tmp_path).locked(), pytest.raises(WorkspaceError), Workspace(tmp_path).locked():
        pass


def test_the_lock_ends_after_an_error_inside(tmp_path: Path) -> None:
    with pytest.raises(GateError), Workspace(tmp_path).locked():
        raise GateError("stop")
    with Workspace(tmp_path).locked():
        pass


def test_one_may_wait_for_another_to_leave(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    Timer(0.3, holder.kill).start()
    with Workspace(tmp_path / "out").locked(wait=True):
        assert holder.wait() != 0


def test_an_artifact_is_awaited_while_somebody_works_and_no_longer(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    workspace = Workspace(tmp_path / "out")
    assert not workspace.has("s", KEY_A)
    Timer(0.3, finish, (workspace, "s", KEY_A, "made")).start()
    made = workspace.awaited("s", KEY_A, poll_s=0.05)
    assert made is not None
    assert made.file("file").read_text() == "made"
    assert workspace.has("s", KEY_A)
    Timer(0.3, workspace.note_failure, ("engine/s",)).start()
    assert workspace.awaited("engine/s", KEY_A, poll_s=0.05) is None
    Timer(0.3, holder.kill).start()
    with pytest.raises(WorkspaceError, match="the process that this one trained with ended without s"):
        workspace.awaited("s", KEY_B, poll_s=0.05)
    with workspace.locked():  # another run, in which nothing failed yet
        Timer(0.3, finish, (workspace, "engine/s", KEY_A, "made")).start()
        assert workspace.awaited("engine/s", KEY_A, poll_s=0.05) is not None


# --- finished and earlier work ----------------------------------------------------------------------------------------


def test_an_artifact_is_finished_under_its_own_key_only(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.finished("engine/x", KEY_A) is None
    finish(workspace, "engine/x", KEY_A, "A")
    assert workspace.finished("engine/x", KEY_B) is None
    found = workspace.finished("engine/x", KEY_A)
    assert found is not None
    assert found.path == tmp_path / "engine" / "x"


def test_looking_for_other_settings_moves_nothing(tmp_path: Path) -> None:
    """A study asks for runs that another process may be at work on."""
    workspace = Workspace(tmp_path)
    finish(workspace, "s", KEY_A, "A")
    finish(workspace, "s", KEY_B, "B")
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*")}
    for key, text in ((KEY_A, "A"), (KEY_B, "B")):
        found = workspace.look("s", key)
        assert found is not None
        assert found.file("file").read_text() == text
    assert workspace.look("s", "c" * 64) is None
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*")} == before


def test_settings_a_then_b_then_a_bring_back_a_without_work(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first = finish(workspace, "s", KEY_A, "A").sha256()
    finish(workspace, "s", KEY_B, "B")
    assert (tmp_path / "s" / "file").read_text() == "B"
    for key, text in ((KEY_A, "A"), (KEY_B, "B"), (KEY_A, "A")):
        found = workspace.finished("s", key)
        assert found is not None
        assert found.file("file").read_text() == text
    assert workspace.finished("s", KEY_A).sha256() == first  # type: ignore[union-attr]


def test_of_two_artifacts_of_one_key_the_newer_comes_back(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for key, text in ((KEY_A, "with a failure"), (KEY_A, "mended"), (KEY_B, "other settings")):
        finish(workspace, "stage", key, text)
    found = workspace.finished("stage", KEY_A)
    assert found is not None
    assert found.file("file").read_text() == "mended"


def test_a_folder_of_images_is_not_taken_for_the_stage_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_text("precious")
    with pytest.raises(WorkspaceError, match="data: not made by edgekd, which would write its own there; give another"):
        Workspace(tmp_path).check_own(["plan", "data"])
    Workspace(tmp_path).check_own(["plan", "teacher"])


def test_a_damaged_artifact_of_edgekd_is_its_own(tmp_path: Path) -> None:
    with Workspace(tmp_path).locked() as workspace:
        finish(workspace, "data", KEY_A, "A")
    (tmp_path / "data" / "manifest.json").unlink()
    Workspace(tmp_path).check_own(["data"])  # it worked here before


def test_the_paths_of_a_workspace_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Workspace(Path("out")).locked() as workspace:
        finish(workspace, "data", KEY_A, "A")
    assert workspace.work_path("s", KEY_A).is_absolute()
    found = workspace.present("data")
    assert found is not None
    assert found.file("file") == tmp_path / "out/data/file"


def test_a_damaged_artifact_is_set_aside_and_not_deleted(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    finish(workspace, "s", KEY_A, "precious")
    (tmp_path / "s" / "manifest.json").write_text("{")
    assert workspace.finished("s", KEY_A) is None
    finish(workspace, "s", KEY_A, "new")
    kept = [path.read_text() for path in (tmp_path / ".previous").rglob("file")]
    assert kept == ["precious"]
    assert workspace.finished("s", KEY_A).file("file").read_text() == "new"  # type: ignore[union-attr]


def test_artifacts_damaged_again_and_again_are_all_kept(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for text in "xyz":
        finish(workspace, "s", KEY_A, text)
        (tmp_path / "s" / "manifest.json").unlink()
    finish(workspace, "s", KEY_A, "last")
    assert sorted(path.read_text() for path in (tmp_path / ".previous").rglob("file")) == ["x", "y", "z"]


def test_a_damaged_earlier_artifact_is_not_brought_back(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    finish(workspace, "s", KEY_A, "A")
    finish(workspace, "s", KEY_B, "B")
    (earlier,) = (tmp_path / ".previous").rglob("file")
    earlier.unlink()
    assert workspace.finished("s", KEY_A) is None
    finish(workspace, "s", KEY_A, "A again")
    assert workspace.finished("s", KEY_A).file("file").read_text() == "A again"  # type: ignore[union-attr]
    assert workspace.finished("s", KEY_B).file("file").read_text() == "B"  # type: ignore[union-attr]


def test_a_users_file_in_place_of_an_artifact_is_kept(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    (tmp_path / "s").write_text("mine")
    assert workspace.finished("s", KEY_A) is None
    finish(workspace, "s", KEY_A, "A")
    assert [p.read_text() for p in (tmp_path / ".previous").iterdir() if p.is_file()] == ["mine"]


def test_work_goes_on_with_its_resume_state_and_without_half_written_files(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    work = workspace.work_dir("s", KEY_A)
    (work / SCRATCH).mkdir()
    (work / SCRATCH / "resume.ckpt").touch()
    (work / "weights.tmp").touch()
    (work / "folder").mkdir()
    (work / "folder" / "half").touch()
    again = workspace.work_dir("s", KEY_A)
    assert again == work
    assert [path.name for path in again.iterdir()] == [SCRATCH]
    assert (again / SCRATCH / "resume.ckpt").exists()


def test_other_settings_and_other_stages_have_other_working_folders(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    folders = {workspace.work_dir(stage, key) for stage in ("s", "engine/s", "engine+t") for key in (KEY_A, KEY_B)}
    assert len(folders) == 6


def test_resume_state_that_a_kill_left_in_an_artifact_is_dropped(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    finish(workspace, "s", KEY_A, "A")
    (tmp_path / "s" / SCRATCH).mkdir()
    assert workspace.finished("s", KEY_A) is not None
    assert not (tmp_path / "s" / SCRATCH).exists()


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 64 KiB; skip where mounting is not permitted."""
    folder = tmp_path / "small"
    folder.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if done.returncode != 0:
        pytest.skip(f"mounting a small file system is not permitted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_told_with_advice_and_finished_work_stays(mount: Path) -> None:
    workspace = Workspace(mount / "out")
    with workspace.locked():
        finish(workspace, "s", KEY_A, "A")
    told = pytest.raises(WorkspaceError, match="No space left on device; finished stages are kept")
    with told, workspace.locked():
        finish(workspace, "t", KEY_A, "x" * 100_000)
    assert workspace.finished("s", KEY_A) is not None
    assert workspace.finished("t", KEY_A) is None


def test_a_vendors_own_error_on_a_full_disk_is_told_as_a_full_disk(mount: Path) -> None:
    with pytest.raises(WorkspaceError, match="No space left on device"), Workspace(mount).locked():
        raise RuntimeError("PytorchStreamWriter failed writing file")


def test_a_read_only_disk_is_told(mount: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
    with pytest.raises(WorkspaceError, match="Read-only file system"), Workspace(mount / "out").locked():
        pass


def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    program = (
        "import os, sys\n"
        "from edgekd.core.workspace import Workspace\n"
        "from edgekd.errors import WorkspaceError\n"
        "if os.getuid() == 0: os.setuid(65534)\n"  # root may write anywhere
        "try:\n"
        "    with Workspace(sys.argv[1]).locked(): pass\n"
        "except WorkspaceError as exc: print(exc)\n"
    )
    for parent in (tmp_path, *tmp_path.parents[:3]):
        if parent.stat().st_uid == os.getuid() and "pytest" in parent.name:
            parent.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder / "out")], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert "Permission denied; finished stages are kept" in done.stdout, done.stderr


@pytest.mark.parametrize("inner", ["out", "out/deeper"])
def test_a_file_in_place_of_the_folder_is_told_and_kept(tmp_path: Path, inner: str) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(WorkspaceError, match=r"out.*: is not a folder"), Workspace(tmp_path / inner).locked():
        pass
    assert (tmp_path / "out").read_text() == "precious"


def test_the_file_that_is_no_folder_is_the_one_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("x")
    with pytest.raises(WorkspaceError, match=r"images/a\.png: is not a folder"), disk_errors(tmp_path / "out"):
        (tmp_path / "images" / "a.png").read_bytes()


def test_a_place_where_no_folder_can_be_made_is_told(tmp_path: Path) -> None:
    out = tmp_path / "kernel" / "out"
    with pytest.raises(WorkspaceError, match=r"kernel: the folder cannot be made there"), disk_errors(out):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(out.parent))
    other = FileNotFoundError(errno.ENOENT, "No such file or directory", str(tmp_path / "image.png"))
    with pytest.raises(FileNotFoundError), disk_errors(out):
        raise other


def forbidden(path: Path) -> PermissionError:
    return PermissionError(errno.EACCES, "Permission denied", str(path))


def test_a_forbidden_file_elsewhere_is_not_taken_for_the_output_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(WorkspaceError) as told, disk_errors(out):
        raise forbidden(tmp_path / "images" / "a.png")
    assert str(told.value) == (
        f"{tmp_path}/images/a.png: Permission denied; allow edgekd to use it, or give another path"
    )
    with pytest.raises(WorkspaceError, match="out/data: Permission denied; finished stages are kept"), disk_errors(out):
        raise forbidden(out / "data")


def test_the_output_folder_is_known_under_a_relative_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkspaceError, match="finished stages are kept"), disk_errors(Path("out")):
        raise forbidden(tmp_path / "out" / "data")


def test_a_full_disk_elsewhere_is_named(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/cache/teacher.bin")
    with pytest.raises(WorkspaceError) as told, disk_errors(tmp_path):
        raise full
    assert str(told.value) == "/cache/teacher.bin: No space left on device; make room there"


def test_a_device_that_is_forbidden_is_no_file(tmp_path: Path) -> None:
    error = PermissionError(errno.EPERM, "Operation not permitted")  # of a system call: it names no file
    with pytest.raises(PermissionError) as passed, disk_errors(tmp_path):
        raise error
    assert passed.value is error


def test_errors_that_are_not_the_disks_pass_as_they_are(tmp_path: Path) -> None:
    for error in (ValueError("bug"), FileNotFoundError(errno.ENOENT, "absent"), GateError("gate")):
        with pytest.raises(type(error)) as passed, disk_errors(tmp_path):
            raise error
        assert passed.value is error
