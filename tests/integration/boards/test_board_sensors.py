"""Sensors of a board through ssh: a real sshd with Python 3.8 whose /sys is a recorded one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from edgekd.bench.stage import _described
from edgekd.board.arguments import MeasureArguments
from edgekd.board.bench import BenchSettings
from edgekd.board.job import Job
from edgekd.board.long_runs import LongRunSettings
from edgekd.board.sampling import load_samples
from edgekd.core.artifact import open_artifact
from tests.boards.fixtures import SshdBoard, StartBoard
from tests.boards.scripted import executor
from tests.recorded_tree import make_tree

pytestmark = pytest.mark.slow
LONGER = LongRunSettings(energy_seconds=1, sustained_seconds=2, cool_down_seconds=0, sensor_hz=10)


@pytest.fixture
def orin(tmp_path: Path, start_board: StartBoard, ssh_to: Callable[..., None]) -> SshdBoard:
    """A board that shows the /sys of a Jetson Orin."""
    tree = make_tree("jetson-orin", tmp_path / "tree")
    board = start_board("--sys", f"{tree}/sys", host="orin")
    ssh_to(board)
    return board


def test_facts_of_a_board_are_those_of_its_sensors(orin: SshdBoard) -> None:
    with executor(orin) as there:
        facts = there.facts()
    readings = facts["state"]["readings"]
    assert readings["power_w/VDD_IN"] == 7.4592
    assert readings["clock_mhz/ga10b"] == 918.0
    assert readings["count/over-current oc3"] == 3.0
    assert readings["temp_c/cv0-thermal"] is None
    assert facts["state"]["clocks_locked"] is True
    assert facts["environment"]["core_names"] == {"Cortex-A78AE": 2}


def test_an_engine_is_measured_beside_the_boards_sensors(orin: SshdBoard, tiny_run: Path, tmp_path: Path) -> None:
    out, image = tmp_path / "out", tmp_path / "image.npy"
    out.mkdir()
    np.save(image, np.zeros((64, 96, 3), np.uint8))
    files = {"image": image}
    arguments: MeasureArguments = {
        "images": ["image"],
        "settings": asdict(BenchSettings(min_samples=2, min_seconds=0.0, warmup_max_seconds=0.0)),
        "engines": {"net": _described("net", open_artifact(tiny_run / "engine/onnxruntime-fp32"), files)},
        "decode": None,
        "long_runs": asdict(LONGER),
    }
    with executor(orin) as there:
        row = there.run_job(Job("measure", "", arguments), files, out, tmp_path / "log.txt")["rows"]["net"]
    (meter,) = row["energy"]["meters"]
    assert meter["meter"] == "VDD_IN"
    assert meter["busy_w"] == pytest.approx(7.4592)
    assert meter["reason"].startswith("1 different values while the engine ran")  # a recording does not move
    assert row["sustained"]["seconds"] == pytest.approx(2.0, abs=1.0)
    assert (row["sustained"]["hottest"], row["sustained"]["end_c"]) == ("cpu-thermal", 48.531)
    assert row["sampling"]["rounds"] >= 4
    samples = load_samples(out / "sensors.jsonl")
    assert set(samples.series["power_w/VDD_IN"].values) == {7.4592}
