"""`edgekd layers` and the stage `layers/<engine>` on a tiny run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgekd.report.stored import read_report
from tests.command import edgekd

INT8 = ("onnxruntime-int8", "openvino-int8")


@pytest.fixture(scope="module")
def run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run in which the stages were asked for afterwards."""
    folder = tmp_path_factory.mktemp("layers")
    shutil.copytree(tiny_run, folder / "run")
    shutil.copy(tiny_run.parent / "recipe.yaml", folder / "recipe.yaml")
    done = edgekd("run", "recipe.yaml", "--out", "run", "--set", "layers.images=2", cwd=folder)
    ran = {line.partition(":")[0] for line in done.stderr.splitlines() if ": done in" in line}
    assert ran == {f"layers/{name}" for name in INT8}
    return folder / "run"


def test_the_report_has_the_layers_of_each_int8_engine(run: Path) -> None:
    report = read_report(run)
    assert set(report.layers) == set(INT8)
    for one in report.layers.values():
        assert one.images == 2
        assert one.answer["runtime"] is not None
        convolutions = [layer for layer in one.layers if layer["op"] == "Conv" and not layer["is_float"]]
        assert convolutions
        assert all(layer["alone"] is not None and layer["engine_own"] > layer["allowed"] for layer in convolutions)
        assert not [blame for blame in one.blamed if blame["comparison"] != "quantization"]
    assert 'id="layers"' in (run / "report.html").read_text()


@pytest.mark.parametrize("engine", INT8)
def test_the_command_measures_what_the_stage_measured(run: Path, engine: str) -> None:
    done = edgekd("layers", str(run / "engine" / engine), "--images", "2", "--json")
    found = json.loads(done.stdout)
    stored = json.loads((run / "layers" / engine / "manifest.json").read_text())["details"]
    assert [one["name"] for one in found["layers"]] == [one["name"] for one in stored["layers"]]
    assert [one["alone"] for one in found["layers"]] == [one["alone"] for one in stored["layers"]]
    assert found["sentence"] == stored["sentence"]


def test_a_float_engine_has_one_comparison_and_says_so(run: Path) -> None:
    done = edgekd("layers", str(run / "engine" / "openvino-fp32"), "--images", "1")
    assert "Nothing stands out: every layer of the engine computes its graph, up to rounding." in done.stdout
    assert "alone" not in done.stdout.splitlines()[0]
    assert f"next: edgekd report {run}" in done.stdout


def test_what_is_no_engine_of_a_run_is_refused_in_one_line(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "engine" / "onnxruntime-int8", tmp_path / "lonely")
    for folder, words in (
        (tmp_path / "lonely", "RUN/engine/ID"),
        (run / "export", "expected an artifact of kind engine"),
    ):
        done = edgekd("layers", str(folder))
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
