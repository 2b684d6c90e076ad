"""The store of a board: what is there is not sent again, what is damaged is, and a full disk leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekd.board.files import sha256_of
from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.core import plugins
from edgekd.errors import WorkspaceError
from edgekd.executors.inference import EngineFiles, run_engine
from tests.boards.fixtures import SshdBoard, StartBoard
from tests.boards.scripted import DONE, FOLDER, executor, random_file, run, slow_down, wait_until

pytestmark = pytest.mark.slow
Know = Callable[..., None]
MB = 1_000_000
COPY = f"cp in/x out/x; {DONE}"


@pytest.fixture
def board(loopback_board: SshdBoard, ssh_to: Know) -> SshdBoard:
    """The shared board, without what other tests left on it."""
    ssh_to(loopback_board)
    loopback_board.run(f"rm -rf {FOLDER}")
    return loopback_board


def stored(board: SshdBoard, path: Path) -> Path:
    """Return where a file of this machine is in the store of a board."""
    return board.home / FOLDER / "store" / sha256_of(path)


@pytest.mark.parametrize("size", [1000, 5 * MB])
def test_a_file_is_sent_once(size: int, board: SshdBoard, tmp_path: Path) -> None:
    data = random_file(tmp_path / "x", size)
    with executor(board, COPY) as there:
        run(there, tmp_path, x=data)
        before = stored(board, data).stat()
        run(there, tmp_path, x=data)
        after = stored(board, data).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert after.st_mode & 0o777 == 0o444


@pytest.mark.parametrize("size", [1000, 5 * MB])
@pytest.mark.parametrize("damage", ["another byte", "cut short"])
def test_a_file_that_is_damaged_on_the_board_is_sent_again(
    size: int, damage: str, board: SshdBoard, tmp_path: Path
) -> None:
    data = random_file(tmp_path / "x", size)
    with executor(board, COPY) as there:
        run(there, tmp_path, x=data)
        wrong = bytearray(data.read_bytes())
        wrong[10] ^= 1
        stored(board, data).write_bytes(wrong if damage == "another byte" else wrong[:500])
        run(there, tmp_path, x=data)
    assert (tmp_path / "out/x").read_bytes() == data.read_bytes()


def test_after_a_reboot_the_store_is_not_believed_unseen(start_board: StartBoard, ssh_to: Know, tmp_path: Path) -> None:
    board = start_board()
    ssh_to(board)
    data = random_file(tmp_path / "x", 1000)
    with executor(board, COPY) as there:
        run(there, tmp_path, x=data)
        place = stored(board, data)
        times = place.stat().st_atime_ns, place.stat().st_mtime_ns
        place.write_bytes(bytes(1000))  # as after a loss of power: size and time are right, the content is not
        os.utime(place, ns=times)
        board.reboot()
        run(there, tmp_path, x=data)
    assert (tmp_path / "out/x").read_bytes() == data.read_bytes()


def test_the_least_recently_used_files_make_room(board: SshdBoard, tmp_path: Path) -> None:
    first, second, third = (random_file(tmp_path / name, 2 * MB) for name in "abc")
    with executor(board, COPY, store_gb=0.005) as there:
        for file in (first, second, first, third):
            run(there, tmp_path, x=file)
        run(there, tmp_path, x=third)
    assert [stored(board, file).exists() for file in (first, second, third)] == [True, False, True]


def test_a_file_that_is_larger_than_the_store_is_used_all_the_same(board: SshdBoard, tmp_path: Path) -> None:
    data = random_file(tmp_path / "x", 2 * MB)
    with executor(board, COPY, store_gb=0.001) as there:
        assert run(there, tmp_path, x=data) == {"done": True}


def test_a_push_without_room_says_how_much_is_needed_and_leaves_nothing(
    start_board: StartBoard, ssh_to: Know, tmp_path: Path
) -> None:
    board = start_board("--disk", "20m")
    ssh_to(board)
    data = random_file(tmp_path / "x", 30 * MB)
    message = r"board board: no room in /home/board/.cache/edgekd: (1[5-9]|2\d)\.\d MB free, 33\.\d MB needed; make room there"
    with executor(board, COPY) as there, pytest.raises(WorkspaceError, match=message):
        run(there, tmp_path, x=data)
    assert board.run(f"ls {FOLDER}/in {FOLDER}/jobs").split() == [f"{FOLDER}/in:", f"{FOLDER}/jobs:"]


@pytest.mark.parametrize("size", [1, 12])
def test_a_disk_that_fills_up_during_a_push_leaves_nothing_half_named(
    size: int, start_board: StartBoard, ssh_to: Know, tmp_path: Path
) -> None:
    board = start_board("--disk", "36m")
    ssh_to(board)
    slow_down(board, 8 * MB)
    files = {f"{number}": random_file(tmp_path / f"{number}", size * MB) for number in range(12 // size)}
    with executor(board, COPY) as there, ThreadPoolExecutor() as pool:
        done = pool.submit(run, there, tmp_path, **files)
        wait_until(lambda: any(is_content(name) for name in board.run(f"ls {FOLDER}/in", check=False).split()))
        board.run("dd if=/dev/zero of=other bs=1M", check=False)
        with pytest.raises(WorkspaceError, match=r"no room in .*/edgekd: .* (needed|needs more)"):
            done.result()
    assert board.run(f"ls {FOLDER}/in {FOLDER}/jobs").split() == [f"{FOLDER}/in:", f"{FOLDER}/jobs:"]
    board.run("rm other")
    with executor(board, f"cat in/* >out/all; {DONE}") as there:
        assert run(there, tmp_path, **files) == {"done": True}


def is_content(name: str) -> bool:
    """Return whether content is coming under a name in the folder of what is not whole."""
    return name.startswith("small.") or len(name) == 64


def test_an_engine_whose_outputs_fill_the_disk_says_so(start_board: StartBoard, ssh_to: Know, tmp_path: Path) -> None:
    board = start_board("--disk", "30m")
    ssh_to(board)
    size = 12 * MB  # of float32: 48 MB
    with (
        executor(board) as there,
        pytest.raises(WorkspaceError, match=r"no room in .*/edgekd: .*No space left on device"),
    ):
        run_engine(growing_engine(tmp_path, size), [{"x": np.ones(1, np.float32)}], there)
    assert board.run(f"ls {FOLDER}/in {FOLDER}/jobs").split() == [f"{FOLDER}/in:", f"{FOLDER}/jobs:"]


def growing_engine(folder: Path, size: int) -> EngineFiles:
    """Return an engine that repeats its one input value."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [size])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [most]) for name, most in (("x", 1), ("y", size)))
    graph = helper.make_graph([helper.make_node("Expand", ["x", "shape"], ["y"])], "grows", [x], [y], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(folder / "net.onnx"))
    tensors = (TensorSpec("x", "float32", (1,), "image"),), (TensorSpec("y", "float32", (size,), "logits"),)
    spec = ModelSpec("semantic", ("a", "b"), 255, *tensors, Preprocess((1, 1), (0.5,) * 3, (0.25,) * 3))
    options = plugins.target("onnxruntime").options()
    return EngineFiles("onnxruntime", "net.onnx", {"net.onnx": folder / "net.onnx"}, spec, options)


@pytest.mark.parametrize("ending", ["exit 1", "kill -s KILL $$", DONE])
def test_a_job_that_fills_the_disk_is_said_to_have_done_so(
    ending: str, start_board: StartBoard, ssh_to: Know, tmp_path: Path
) -> None:
    board = start_board("--disk", "20m")
    ssh_to(board)
    script, message = (
        f"dd if=/dev/zero of=out/x bs=1M; {ending}",
        r"no room in /home/board/.cache/edgekd: 0\.\d MB free",
    )
    with executor(board, script) as there, pytest.raises(WorkspaceError, match=message):
        run(there, tmp_path)
    assert board.run(f"ls {FOLDER}/in {FOLDER}/jobs").split() == [f"{FOLDER}/in:", f"{FOLDER}/jobs:"]
