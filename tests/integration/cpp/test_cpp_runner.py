"""The C++ runner on OpenVINO: 20 images per task give Python's class maps, boxes, scores and masks, to the byte."""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.board.specs import ModelSpec
from edgekd.bundle.build import BundleRequest, build
from edgekd.core import plugins
from edgekd.core.artifact import open_artifact
from tests.conftest import REPOSITORY
from tests.integration.cpp.bundles import assert_same_results, photos, run, write_bundle

openvino = pytest.importorskip("openvino")
DATA = Path(os.environ.get("EDGEKD_SHARED") or REPOSITORY.parent / "shared") / "data"
COUNT = 20


def opened(bundle: Path, spec: ModelSpec) -> Any:
    target = plugins.target("openvino")
    return target.session(bundle / "engine/engine.xml", spec, target.options())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_class_maps_are_pythons(
    program: Path, tiny_run: Path, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's sums of taps define them; its products of matrices may break a tie of two logits otherwise."""
    engine = open_artifact(tiny_run / f"engine/openvino-{precision}")
    bundle = write_bundle(tmp_path / "bundle", engine.spec, engine.file("engine.xml"), precision=precision)
    images = photos(DATA / "camvid/images", "*.jpg", COUNT)
    monkeypatch.setattr("edgekd.board.class_maps.has_fast_products", lambda: False)
    with opened(bundle, engine.spec) as session:
        maps = assert_same_results(program, bundle, session, images)
    assert len({label for class_map in maps for label in np.unique(class_map)}) > 1
    monkeypatch.undo()
    with opened(bundle, engine.spec) as session:
        assert_same_results(program, bundle, session, images)  # no tie in these


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_objects_are_pythons(program: Path, tiny_objects_run: Path, tmp_path: Path, precision: str) -> None:
    engine = open_artifact(tiny_objects_run / f"engine/openvino-{precision}")
    bundle = write_bundle(tmp_path / "bundle", engine.spec, engine.file("engine.xml"), precision=precision)
    images = photos(DATA / "nuclei", "*.jpg", COUNT)
    with opened(bundle, engine.spec) as session:
        found = assert_same_results(program, bundle, session, images, min_score=0.01)
    assert sum(len(result.boxes) for result in found) > COUNT
    assert all(result.masks is not None for result in found)


def test_boxes_are_pythons(program: Path, tiny_objects_run: Path, tmp_path: Path) -> None:
    """A detector: the instance segmenter without what its masks need."""
    engine = open_artifact(tiny_objects_run / "engine/openvino-int8")
    wanted = tuple(one for one in engine.spec.outputs if one.role in ("scores", "boxes"))
    spec = replace(engine.spec, task="detection", outputs=wanted)
    model = openvino.Core().read_model(engine.file("engine.xml"))
    names = {one.name for one in wanted}
    results = [one for one in model.get_results() if names & one.output(0).get_tensor().get_names()]
    detector = openvino.Model(results, model.get_parameters(), "detector")
    detector.set_rt_info("f32", ["edgekd", "inference_precision"])
    openvino.save_model(detector, tmp_path / "detector.xml", compress_to_fp16=False)
    bundle = write_bundle(tmp_path / "bundle", spec, tmp_path / "detector.xml", precision="int8")
    images = photos(DATA / "bccd", "*.jpg", COUNT)
    with opened(bundle, spec) as session:
        found = assert_same_results(program, bundle, session, images, min_score=0.01)
    assert sum(len(result.boxes) for result in found) > COUNT


@pytest.mark.parametrize(("run_of", "task"), [("tiny_run", "semantic"), ("tiny_objects_run", "instance")])
def test_a_bundle_of_edgekd_passes_and_one_with_other_outputs_fails(
    program: Path, tmp_path: Path, run_of: str, task: str, request: pytest.FixtureRequest
) -> None:
    engine = request.getfixturevalue(run_of) / "engine/openvino-int8"
    build(BundleRequest(engine, tmp_path / "bundle.tar"))
    with tarfile.open(tmp_path / "bundle.tar") as tar:
        tar.extractall(tmp_path / "bundle", filter="data")
    done = run(program, tmp_path / "bundle", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["golden"], report["error"], report["different"]) == (2, 0, 0)
    golden = tmp_path / "bundle/golden/0/outputs/0.npy"
    values = np.load(golden)
    np.save(golden, np.ascontiguousarray(values[..., ::-1]))
    done = run(program, tmp_path / "bundle", "--check")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"] > report["error"]


def test_an_engine_of_another_contract_is_refused(program: Path, tiny_run: Path, tmp_path: Path) -> None:
    engine = open_artifact(tiny_run / "engine/openvino-fp32")
    (output,) = engine.spec.outputs
    _, classes, height, width = output.shape
    wrong = replace(output, shape=(1, classes, height, width + 1))
    bundle = write_bundle(tmp_path / "bundle", replace(engine.spec, outputs=(wrong,)), engine.file("engine.xml"))
    np.save(tmp_path / "image.npy", np.zeros((8, 8, 3), np.uint8))
    done = run(program, bundle, tmp_path / "image.npy")
    assert done.returncode == 1
    assert "engine and spec.json do not belong together" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_damaged_engine_is_one_line(program: Path, tiny_run: Path, tmp_path: Path) -> None:
    engine = open_artifact(tiny_run / "engine/openvino-fp32")
    bundle = write_bundle(tmp_path / "bundle", engine.spec, engine.file("engine.xml"))
    (bundle / "engine/engine.xml").write_text("<net>")
    np.save(tmp_path / "image.npy", np.zeros((8, 8, 3), np.uint8))
    done = run(program, bundle, tmp_path / "image.npy")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("edgekd-run: ")]
    assert "refuses it: " in line
    assert done.stderr.endswith(f"{line}\n")  # OpenVINO logs lines of its own before
