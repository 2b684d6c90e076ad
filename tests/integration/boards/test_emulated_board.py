"""ONNX Runtime on emulated aarch64: the worker runs there unchanged, and computes what it computes here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edgekd.bundle.build import BundleRequest, build
from edgekd.core.artifact import open_artifact
from edgekd.core.deployment_sections import EngineParity
from edgekd.core.inventory import Board
from edgekd.deploy.deploy import deploy
from edgekd.executors.inference import engine_files, run_engine
from edgekd.executors.local import Local
from edgekd.executors.ssh.board import SshBoard
from edgekd.executors.ssh.doctor import examine
from edgekd.release.archive import unpack
from tests.boards.fixtures import SshdBoard

pytestmark = pytest.mark.slow
BOARD = Board(name="arm", ssh="emulated", chip="arm64")


@pytest.fixture
def there(emulated_board: SshdBoard, ssh_to: Callable[..., None]) -> Iterator[SshBoard]:
    """Return the executor of the emulated board."""
    ssh_to(emulated_board)
    assert emulated_board.host == BOARD.ssh
    with closing(SshBoard(BOARD)) as executor:
        yield executor


def test_the_worker_answers_on_aarch64(there: SshBoard) -> None:
    checks = {check.name: check for check in examine(BOARD, there)}
    assert [name for name, check in checks.items() if check.state == "wrong"] == []
    assert checks["chip"].text == "arm64 (QEMU user emulation of aarch64)"
    assert checks["runtime onnxruntime"].text == there.probe().distributions["onnxruntime"]
    assert checks["sensors: temperature"].text == "cpu-thermal"
    environment = there.facts()["environment"]
    assert environment["machine"] == "aarch64"
    assert environment["virtualized"] is True  # so that no row of it is taken for a measurement


@pytest.mark.parametrize(("precision", "largest"), [("fp32", 1e-5), ("int8", 0.02)])
def test_an_engine_gives_on_aarch64_what_it_gives_here(
    precision: str, largest: float, there: SshBoard, tiny_run: Path
) -> None:
    """The same file: float32 rounds otherwise there; int8 may round a value to the next step of its scale."""
    engine = engine_files(open_artifact(tiny_run / "engine" / f"onnxruntime-{precision}"))
    (tensor,) = engine.spec.inputs
    pixels = np.random.default_rng(0).standard_normal((2, *tensor.shape)).astype(tensor.dtype)
    inputs = [{tensor.name: one} for one in pixels]
    theirs, runtime = run_engine(engine, inputs, there)
    ours, _ = run_engine(engine, inputs, Local())
    assert runtime["runtime"] == "onnxruntime"
    limits = EngineParity()
    for one, other in zip(theirs, ours, strict=True):
        (name,) = other
        spread = other[name].std()
        assert np.abs(one[name] - other[name]).max() <= largest * spread
        assert np.sqrt(np.mean((one[name] - other[name]) ** 2)) <= limits.board_error * spread
        assert np.mean(one[name].argmax(1) != other[name].argmax(1)) <= limits.board_different


def test_a_bundle_is_deployed_to_aarch64_and_gives_what_it_gives_here(
    emulated_board: SshdBoard,
    ssh_to: Callable[..., None],
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ssh_to(emulated_board)
    inventory = tmp_path / "boards.yaml"
    inventory.write_text("schema: edgekd.boards/1\nboards:\n  arm:\n    ssh: emulated\n    chip: arm64\n")
    monkeypatch.setenv("EDGEKD_BOARDS", str(inventory))
    bundle = build(BundleRequest(tiny_run / "engine/onnxruntime-int8", tmp_path / "lane.tar"))
    steps = {step.name: step.text for step in deploy(bundle, "arm", "lane").steps}
    assert steps["fit"].startswith("arm64; onnxruntime ")
    assert "2 golden images: " in steps["golden"]
    unpack(bundle.path, tmp_path / "here")
    images = ["golden/0/image.npy", "golden/1/image.npy"]
    line = ["sh", "run", *images]
    here = subprocess.run(
        line, cwd=tmp_path / "here", env={"EDGEKD_PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}, capture_output=True
    )
    there = emulated_board.run(f"cd .local/share/edgekd/lane/current/ && {' '.join(line)}")
    ours, theirs = ([json.loads(one) for one in text.splitlines()] for text in (here.stdout.decode(), there))
    assert [one["source"] for one in theirs] == images
    for one, other in zip(ours, theirs, strict=True):
        names = one["classes"].keys() | other["classes"].keys()
        assert all(abs(one["classes"].get(name, 0) - other["classes"].get(name, 0)) <= 0.02 for name in names)
