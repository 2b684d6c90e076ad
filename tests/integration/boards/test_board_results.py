"""A board is not trusted: what it sends as a job's result is checked, and nothing of it leaves the job's folder here."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.core import plugins
from edgekd.errors import ArtifactError, BoardError
from edgekd.executors.inference import EngineFiles, run_engine
from tests.boards.fixtures import SshdBoard, StartBoard
from tests.boards.scripted import DONE, FOLDER, RAN, RESULT, executor, kill_host_in_job, random_file, run, wait_until
from tests.small_nets import segmenter

pytestmark = pytest.mark.slow
NOTHING = hashlib.sha256(b"").hexdigest()


def listed(ended: str, name: str, sha256: str = NOTHING, size: int = 0) -> str:
    """Add a file to what a job says that it wrote."""
    return ended.replace("complete", f"file {sha256}  {name}\nsize {size} {name}\ncomplete")


def with_size(ended: str, size: int) -> str:
    """Change the size of `out/x`."""
    return ended.replace("size 1000 out/x", f"size {size} out/x")


def of_another_job(ended: str) -> str:
    """Change the hash of the job that was done."""
    return re.sub("file .{64}  job.json", f"file {NOTHING}  job.json", ended)


LIES: dict[str, tuple[Callable[[str], str], str]] = {
    "outside": (lambda ended: listed(ended, "out/../../x"), "no job writes: 'out/../../x'"),
    "absolute": (lambda ended: listed(ended, "/tmp/x"), "no job writes: '/tmp/x'"),
    "hidden": (lambda ended: listed(ended, "out/.bashrc"), "no job writes: 'out/.bashrc'"),
    "10 GB": (
        lambda ended: listed(ended, "out/y", size=10_000_000_000),
        "4 files of 10.00 GB; expected at most 100000 of 8.59 GB",
    ),
    "negative": (lambda ended: listed(ended, "out/y", size=-1), "no job writes: 'out/y' of -1 bytes"),
    "too long": (lambda ended: with_size(ended, 1001), "out/x comes without its last 1 bytes"),
    "too short": (lambda ended: with_size(ended, 10), "out/x does not match its hash"),
    "twice": (lambda ended: listed(ended, "out/x", "0" * 64, 1000), "out/x does not match its hash"),
    "no hash": (lambda ended: listed(ended, "out/y", "x" * 64), "no job writes: 'out/y'"),
    "another job": (of_another_job, "the files are of another job"),
    "not a number": (lambda ended: ended.replace("code 0", "code zero"), "expected a state and output files"),
    "endless": (lambda ended: "x" * 1_000_000 + "\ncomplete\n", "the files are of another job"),
}


def test_what_no_job_writes_is_refused_and_nothing_of_it_stays(
    start_board: StartBoard, ssh_to: Callable[..., None], tmp_path: Path
) -> None:
    board = start_board()
    ssh_to(board)
    data = random_file(tmp_path / "x", 1000)
    with executor(board, f"{RAN}; while [ ! -e ~/go ]; do sleep 0.1; done; cp in/x out/x; {DONE}") as there:
        kill_host_in_job(board, tmp_path, data)
        (board.home / "go").touch()
        wait_until(lambda: bool(list(board.home.glob(f"{FOLDER}/jobs/*/ended"))))
        (job,) = board.home.glob(f"{FOLDER}/jobs/*")
        board.run(f"cp -a {FOLDER}/jobs kept")
        for name, (lie, message) in LIES.items():
            ended = (board.home / "kept" / job.name / "ended").read_text()
            board.run(f"rm -rf {FOLDER}/jobs; cp -a kept {FOLDER}/jobs")
            (job / "ended").write_text(lie(ended))
            with pytest.raises(ArtifactError, match=message):
                run(there, tmp_path / name, x=data)
            found = {path.name for path in (tmp_path / name).rglob("*") if path.is_file()}
            assert found <= {"x", "log.txt", "x.part"}, name
        board.run(f"rm -rf {FOLDER}/jobs; cp -a kept {FOLDER}/jobs")
        assert run(there, tmp_path, x=data) == {"done": True}
    assert (board.home / "runs").read_text() == "ran\n"
    assert sorted(os.listdir(tmp_path / "out")) == ["x"]


def growing_zip(path: Path) -> None:
    """Write a small file that holds a large array."""
    np.savez_compressed(path, y=np.zeros(10_000_000, np.float32))


OUTPUTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickle": (lambda path: np.savez(path, y=np.array([print], object)), "allow_pickle=False"),
    "large": (growing_zip, "larger than the outputs of its engine"),
    "no zip": (lambda path: path.write_bytes(b"1234"), "not a zip file"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_that_are_none_are_refused_and_never_unpickled(
    name: str, loopback_board: SshdBoard, ssh_to: Callable[..., None], tmp_path: Path
) -> None:
    ssh_to(loopback_board)
    write, message = OUTPUTS[name]
    write(tmp_path / "lie.npz")
    result = RESULT.replace('{"done": true}', '{"runtime": {}, "outputs": ["../../0.npz"]}')
    script = f"cp in/lie.npz out/0.npz; echo '{result}' >result.json"
    _, spec = segmenter()
    options = plugins.target("onnxruntime").options()
    engine = EngineFiles("onnxruntime", "net.onnx", {"lie.npz": tmp_path / "lie.npz"}, spec, options)
    with executor(loopback_board, script) as there, pytest.raises(ArtifactError, match=message):
        run_engine(engine, [{"x": np.zeros(1, np.float32)}], there)


def test_a_board_that_never_stops_talking_is_left(
    start_board: StartBoard, ssh_to: Callable[..., None], tmp_path: Path
) -> None:
    board = start_board()
    ssh_to(board)
    board.run("cat >talks && chmod +x talks", b'#!/bin/sh\n[ $1 = -c ] && exec python3 "$@"; exec cat /dev/zero\n')
    with executor(board, python="~/talks") as there, pytest.raises(BoardError, match="got more than 32 MiB"):
        run(there, tmp_path)


def test_what_a_login_prints_is_no_part_of_a_result(
    start_board: StartBoard, ssh_to: Callable[..., None], tmp_path: Path
) -> None:
    board = start_board()
    ssh_to(board)
    with open(board.folder / "etc/sshd_config", "a") as file:
        file.write('ForceCommand echo Welcome; exec sh -c "$SSH_ORIGINAL_COMMAND"\n')
    board.reboot()
    data = random_file(tmp_path / "x", 5_000_000)
    with executor(board, f"cp in/x out/x; {DONE}") as there:
        assert run(there, tmp_path, x=data) == {"done": True}
    assert (tmp_path / "out/x").read_bytes() == data.read_bytes()
