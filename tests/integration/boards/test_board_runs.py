"""A recipe with engines here and on a board ends in one report, with and without the board; results are those of this machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import edgekd
from edgekd.board.detection import Detections
from edgekd.bundle.build import BundleRequest, build
from edgekd.core.artifact import open_artifact
from edgekd.data.predictions import ReadImage
from edgekd.errors import BundleError
from edgekd.executors.boards import connected
from edgekd.release.archive import unpack
from edgekd.report.stored import read_report
from edgekd.report.verdict import quantized_rows
from edgekd.runner.contract import read_spec
from edgekd.runner.golden import read_golden
from tests.boards.fixtures import PYTHON_38, SshdBoard, board_python
from tests.boards.scripted import FOLDER, wait_until
from tests.integration.conftest import TINY

pytestmark = pytest.mark.slow
PLACES: dict[str, Any] = {"board": ["local", "lab"]}
ENGINES = [
    {"target": "onnxruntime", "precision": "fp32", **PLACES},
    {"target": "onnxruntime", "precision": "int8", **PLACES},
    {"target": "openvino", "precision": "fp32", "board": "lab"},
]
OURS, THEIRS = ("onnxruntime-fp32", "onnxruntime-int8"), ("onnxruntime-fp32@lab", "onnxruntime-int8@lab")


def inventory(folder: Path, destination: str) -> None:
    """Write the inventory beside a recipe, of one board."""
    entry = {"schema": "edgekd.boards/1", "boards": {"lab": {"ssh": destination}}}
    (folder / "boards.yaml").write_text(yaml.safe_dump(entry))


def run(folder: Path) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """Run the recipe in a folder; return the report, the stages that were not skipped, and the failures."""
    made: list[str] = []
    failures: dict[str, str] = {}
    report = edgekd.run(
        folder / "recipe.yaml",
        folder / "run",
        on_stage=lambda one: None if one.skipped else made.append(one.stage.name),
        on_failure=lambda one: failures.update({one.name: one.reason}),
    )
    return report, made, failures


@pytest.fixture(scope="module")
def lab(loopback_board: SshdBoard, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshdBoard]:
    """The loopback board under the host name that `ssh` knows it by, for every test of this file."""
    folder = tmp_path_factory.mktemp("ssh")
    real = shutil.which("ssh", path="/usr/bin:/bin:/usr/local/bin")
    (folder / "ssh").write_text(f'#!/bin/sh\nexec {real} -F "{loopback_board.ssh_config}" "$@"\n')
    (folder / "ssh").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder), prepend=":")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.delenv("EDGEKD_BOARDS", raising=False)
        yield loopback_board


@pytest.fixture(scope="module")
def finished(tiny_run: Path, lab: SshdBoard, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run that was trained before, with engines here and on the board: its folder, and the stages that it added."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(tiny_run, folder / "run")
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**TINY, "engines": ENGINES}))
    inventory(folder, lab.host)
    _, made, failures = run(folder)
    assert failures == {}
    return folder, made


def rows_of(folder: Path) -> dict[str, Any]:
    return {row.id: row for row in read_report(folder / "run").rows if row.stage == "engine"}


def test_engines_here_and_there_stand_in_one_report(finished: tuple[Path, list[str]]) -> None:
    folder, made = finished
    assert set(made) == {
        "check",  # of other engines than before
        "bench",
        "bench@lab",
        "engine/openvino-fp32@lab",
        *(f"{kind}/{name}" for kind in ("engine", "evaluate", "agreement") for name in THEIRS),
    }
    rows = rows_of(folder)
    assert list(rows) == [*(name for pair in zip(OURS, THEIRS, strict=True) for name in pair), "openvino-fp32@lab"]
    for name, other in zip(OURS, THEIRS, strict=True):
        here, there = rows[name], rows[other]
        assert (here.board, there.board) == ("local", "lab")
        assert (here.status, there.status) == ("measured", "measured")
        assert there.sha256 == here.sha256
        assert there.score == pytest.approx(here.score, abs=1e-3)
        assert there.latency_ms.p50 > 0
        assert there.parity["here"].rms_error < 1e-4
        assert there.parity["here"].different == 0
        assert "here" not in here.parity


def test_an_engine_whose_runtime_the_board_lacks_has_a_row_with_the_reason(finished: tuple[Path, list[str]]) -> None:
    if board_python() != PYTHON_38:
        pytest.skip("the board's Python is ours, with every runtime")
    row = rows_of(finished[0])["openvino-fp32@lab"]
    assert row.status == "not measured"
    assert "openvino is not installed" in row.reason


def test_the_report_tells_the_machines_apart(finished: tuple[Path, list[str]]) -> None:
    folder, _ = finished
    report = read_report(folder / "run")
    assert set(report.boards) == {"local", "lab"}
    python = report.boards["lab"].environment["python"]
    assert (python != report.boards["local"].environment["python"]) == (board_python() == PYTHON_38)
    gates = {gate.name: gate for gate in report.gates}
    for name in THEIRS:
        assert gates[f"{name} as here"].passed
        assert "difference 0.0000, limit 0.01" in gates[f"{name} as here"].text
    with np.load(folder / "run/report_data/samples.npz") as samples:
        assert {name.split("/")[0] for name in samples.files} == {*OURS, *THEIRS}


def test_no_statement_compares_the_speed_of_two_machines(finished: tuple[Path, list[str]]) -> None:
    report = read_report(finished[0] / "run")
    compared = {one.row.id: (one.compared, one.row.speed) for one in quantized_rows(report.rows)}
    assert [name for name, _ in compared.values()] == ["onnxruntime-fp32", "onnxruntime-fp32@lab"]
    boards = {row.id: row.board for row in report.rows}
    for row_id, (_, speed) in compared.items():
        assert speed is not None
        assert boards[speed.against] == boards[row_id]


def test_a_second_run_does_nothing_again(finished: tuple[Path, list[str]]) -> None:
    _, made, failures = run(finished[0])
    assert (made, failures) == ([], {})


def test_an_engine_predicts_on_a_board_what_it_predicts_here(finished: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, _ = finished
    rng = np.random.default_rng(0)
    images = [ReadImage(Path(f"{n}.png"), rng.integers(0, 256, (50 + n, 70, 3), dtype=np.uint8)) for n in range(3)]
    with connected(folder):
        there = list(edgekd.predict(folder / "run/engine/onnxruntime-int8@lab", images))
        moved = list(edgekd.predict(folder / "run/engine/onnxruntime-int8", images, board="lab"))
        here = list(edgekd.predict(folder / "run/engine/onnxruntime-int8", images))
    for image, one, other, third in zip(images, there, moved, here, strict=True):
        assert one.image is image
        np.testing.assert_array_equal(one.result, other.result)
        assert (one.result != third.result).mean() < 1e-3


def test_objects_and_their_masks_come_from_a_board(lab: SshdBoard, tiny_objects_run: Path) -> None:
    inventory(tiny_objects_run.parent, lab.host)
    images = [np.random.default_rng(n).integers(0, 256, (64, 96, 3), dtype=np.uint8) for n in range(2)]
    shown = [ReadImage(Path(f"{n}.png"), image) for n, image in enumerate(images)]
    engine = tiny_objects_run / "engine/onnxruntime-fp32"
    with connected(tiny_objects_run.parent):
        here, there = (list(edgekd.predict(engine, shown, board=board)) for board in ("local", "lab"))
    for one, other in zip(here, there, strict=True):
        found: Detections = other.result
        assert len(found.scores) == len(one.result.scores) > 0
        np.testing.assert_allclose(found.scores, one.result.scores, atol=1e-4)
        assert found.masks is not None
        assert found.masks.size == (64, 96)


@pytest.fixture
def away(finished: tuple[Path, list[str]], tmp_path: Path) -> Path:
    """A copy of the run whose board cannot be reached."""
    shutil.copytree(finished[0], tmp_path / "copy")
    inventory(tmp_path / "copy", "nobody@127.0.0.1")
    return tmp_path / "copy"


def test_what_was_measured_stays_while_the_board_is_away(away: Path) -> None:
    before = rows_of(away)
    _, made, failures = run(away)
    assert (made, failures) == ([], {})
    for name, row in rows_of(away).items():
        if before[name].status == "measured":
            assert row == before[name]


def test_a_board_that_is_away_fails_its_rows_and_not_the_run(away: Path) -> None:
    for stage in ("bench@lab", "evaluate/onnxruntime-int8@lab"):
        shutil.rmtree(away / "run" / stage)
    done = subprocess.run(
        [sys.executable, "-m", "edgekd.cli.main", "run", "recipe.yaml", "--out", "run"],
        cwd=away, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "edgekd: bench@lab failed: board lab: " in done.stderr
    rows = rows_of(away)
    assert {rows[name].status for name in OURS} == {"measured"}
    assert {rows[name].status for name in THEIRS} == {"failed"}  # none of them has a latency
    assert rows["onnxruntime-int8@lab"].reason.startswith("board lab: ")
    assert rows["onnxruntime-fp32@lab"].score is not None  # it was scored before


def test_a_board_that_lacks_what_every_job_needs_fails_its_rows_and_not_the_run(away: Path, lab: SshdBoard) -> None:
    entry = {"ssh": lab.host, "python": "no-such-python"}
    (away / "boards.yaml").write_text(yaml.safe_dump({"schema": "edgekd.boards/1", "boards": {"lab": entry}}))
    shutil.rmtree(away / "run/bench@lab")
    _, made, failures = run(away)
    assert made == []
    assert set(failures) >= {"bench@lab"}
    assert "board lab: python: " in failures["bench@lab"]
    rows = rows_of(away)
    assert {rows[name].status for name in OURS} == {"measured"}
    assert {rows[name].status for name in THEIRS} == {"failed"}


def test_a_bench_whose_host_was_killed_is_joined_by_the_next_run(
    finished: tuple[Path, list[str]], lab: SshdBoard, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    command = [sys.executable, "-m", "edgekd.cli.main", "bench", "recipe.yaml", "--out", "run"]
    command += ["--set", "bench.min_seconds=1"]
    killed = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    progress = f"grep -q measure {FOLDER}/holder && cat {FOLDER}/jobs/*/progress.json"
    wait_until(lambda: lab.run(progress, check=False).startswith("["))  # it has read the board's state before
    killed.kill()
    killed.wait()
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "is in use by" not in done.stderr
    assert open_artifact(folder / "run/bench@lab").details["state"]["before"]["uptime_s"] < uptime_s


def test_the_engines_of_a_recipe_move_to_the_board_that_the_command_names(finished: tuple[Path, list[str]]) -> None:
    folder, _ = finished
    (folder / "plain.yaml").write_text(yaml.safe_dump(TINY))
    done = subprocess.run(
        [sys.executable, "-m", "edgekd.cli.main", "bench", "plain.yaml", "--out", "run", "--board", "lab"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "run/bench@lab" in done.stdout
    assert done.stdout.splitlines()[-1] == "next: edgekd evaluate plain.yaml --out run --board lab"
    assert "student: running" not in done.stderr
    measured = open_artifact(folder / "run/bench@lab").details["rows"]
    assert set(THEIRS) <= set(measured)


def test_the_golden_outputs_of_a_bundle_come_from_the_engines_own_board(
    finished: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished[0])
    found = {}
    for name in ("onnxruntime-int8", "onnxruntime-int8@lab"):
        made = build(BundleRequest(Path("run/engine") / name, tmp_path / f"{name}.tar"))
        unpack(made.path, tmp_path / name)
        spec = read_spec(tmp_path / name, made.manifest)
        found[name] = made.manifest, read_golden(tmp_path / name, spec, 0).outputs[spec.outputs[0].name]
    (here, ours), (there, theirs) = found.values()
    assert (here.name, there.name) == ("onnxruntime-int8", "onnxruntime-int8")
    assert there.made_by["golden"] == {"from": "engine", "board": "lab"}
    np.testing.assert_allclose(theirs, ours, atol=1e-3 * np.ptp(ours))
    if board_python() == PYTHON_38:
        assert there.runtime != here.runtime  # an older one


def test_a_bundle_of_an_engine_that_its_board_cannot_run_needs_a_choice(
    finished: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if board_python() != PYTHON_38:
        pytest.skip("the board's Python is ours, with every runtime")
    monkeypatch.chdir(finished[0])
    request = BundleRequest(Path("run/engine/openvino-fp32@lab"), tmp_path / "one.tar")
    with pytest.raises(
        BundleError, match=r"board lab cannot give .*openvino is not installed.*--golden: reference or none"
    ):
        build(request)
    made = build(replace(request, golden="reference"))
    assert (made.manifest.golden, made.manifest.tolerance.error) == (2, 0.05)
