"""OpenVINO's Model API loads the IRs and gives what edgekd gives: its own package, which `make stack-checks` brings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest

from edgekd.board.detection import Detections, Selection
from edgekd.board.postprocess import Predictor
from edgekd.board.specs import ModelSpec
from edgekd.core import plugins
from edgekd.stacks import model_api, write
from edgekd.stacks.base import Engine
from edgekd.targets.base import CompileRequest
from edgekd.targets.openvino.runtime import shared_core
from tests import small_nets
from tests.stack_checks import CHECKS, needs_checks
from tests.unit.export.test_decode import contract, detector

TARGET = plugins.target("openvino")
Wrapper = Callable[[Path], Any]


@pytest.fixture
def wrapper(monkeypatch: pytest.MonkeyPatch) -> Wrapper:
    """Return a function that opens an IR with Model API, on the CPU in f32."""
    monkeypatch.syspath_prepend(str(CHECKS))
    from model_api.adapters import OpenvinoAdapter
    from model_api.models import Model

    settings = {"INFERENCE_PRECISION_HINT": "f32"}

    def open_(path: Path) -> Any:
        return Model.create_model(OpenvinoAdapter(shared_core(), str(path), device="CPU", plugin_config=settings))

    return open_


def built(model: onnx.ModelProto, spec: ModelSpec, folder: Path) -> Engine:
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    made = TARGET.build_engine(CompileRequest(folder / "model.onnx", spec, "fp32", folder, TARGET.options()))
    return Engine("openvino-fp32", "openvino", "fp32", made.engine, spec, {}, (folder / "engine.bin",))


def result_of(engine: Engine, image: np.ndarray, selection: Selection | None = None) -> Any:
    with TARGET.session(engine.file, engine.spec, TARGET.options()) as session:
        return Predictor(session, selection)(image)


def picture(size: tuple[int, int]) -> np.ndarray:
    """Return an image (H, W, 3) uint8 RGB of coarse colours."""
    coarse = np.random.default_rng(5).integers(0, 256, (size[0] // 4 + 1, size[1] // 4 + 1, 3), np.uint8)
    return np.ascontiguousarray(np.kron(coarse, np.ones((4, 4, 1), np.uint8))[: size[0], : size[1]])


def bgr(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., ::-1])


@needs_checks
@pytest.mark.parametrize("is_uint8", [False, True], ids=["float", "uint8"])
def test_an_engines_own_ir_gives_the_class_map_of_an_image_of_its_size(
    tmp_path: Path, wrapper: Wrapper, is_uint8: bool
) -> None:
    model, spec = small_nets.segmenter(is_uint8)
    engine = built(model, replace(spec, classes=("the sky", "road", "car")), tmp_path)
    image = picture((32, 48))
    opened = wrapper(engine.file)
    assert np.array_equal(opened(bgr(image)).resultImage, result_of(engine, image))
    assert opened.params.labels == ["the_sky", "road", "car"]


@needs_checks
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("has_argmax", [False, True], ids=["logits", "class_map"])
@pytest.mark.parametrize("is_uint8", [False, True], ids=["float", "uint8"])
def test_the_stacks_ir_gives_the_class_map_of_any_image(
    tmp_path: Path, wrapper: Wrapper, is_uint8: bool, has_argmax: bool, resize: str
) -> None:
    model, spec = small_nets.segmenter(is_uint8, has_argmax)
    engine = built(model, replace(spec, preprocess=replace(spec.preprocess, resize=resize)), tmp_path)
    write("model_api", engine, tmp_path / "made")
    opened = wrapper(tmp_path / "made/model.xml")
    for size in ((32, 48), (100, 70), (20, 90)):
        image = picture(size)
        theirs, ours = opened(bgr(image)).resultImage, result_of(engine, image)
        assert theirs.shape == ours.shape
        assert (theirs != ours).mean() <= (
            0 if size == (32, 48) else 3e-3
        )  # resized pixels on a half are rounded apart
        assert len(np.unique(ours)) > 1


@needs_checks
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("how", ["heads", "nms"])
def test_the_boxes_are_edgekds_in_whole_pixels(tmp_path: Path, wrapper: Wrapper, how: str, resize: str) -> None:
    model, spec = detector(contract("detection", resize), how, slope=1.0)
    engine = built(model, spec, tmp_path)
    write("model_api", engine, tmp_path / "made")
    opened = wrapper(tmp_path / "made/model.xml")
    for size in ((64, 96), (200, 170)):
        image = picture(size)
        ours: Detections = result_of(engine, image, Selection(min_score=0.3))
        theirs = opened(bgr(image))
        assert len(theirs.scores) == len(ours.scores) > 5
        for box, label, score in zip(ours.boxes, ours.labels, ours.scores, strict=True):
            apart = np.abs(theirs.bboxes - box).max(axis=1) + (theirs.labels != label) + np.abs(theirs.scores - score)
            assert apart.min() < 0.501
        assert set(theirs.label_names) <= set(spec.classes)


@needs_checks
@pytest.mark.parametrize("how", ["heads", "nms"])
def test_the_masks_are_edgekds_to_a_cell_of_the_prototypes(tmp_path: Path, wrapper: Wrapper, how: str) -> None:
    model, spec = detector(contract("instance"), how, slope=0.3)
    engine = built(model, spec, tmp_path)
    write("model_api", engine, tmp_path / "made")
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    ours: Detections = result_of(engine, image, Selection(min_score=0.3))
    theirs = wrapper(tmp_path / "made/model.xml")(bgr(image))
    assert len(theirs.scores) == len(ours.scores) > 2
    assert ours.masks is not None
    for number, score in enumerate(ours.scores):
        other = int(np.abs(theirs.scores - score).argmin())
        assert theirs.label_names[other] == spec.classes[ours.labels[number]]
        assert np.abs(theirs.bboxes[other] - ours.boxes[number]).max() < 0.501
        one, two = ours.masks[number], theirs.masks[other] > 0
        assert (one & two).sum() / (one | two).sum() > 0.8


@pytest.mark.parametrize(
    ("spec", "file", "reason"),
    [
        (contract("detection"), "engine.blob", "reads .xml files, got engine.blob"),
        (contract("instance", "letterbox"), "engine.xml", "set data.resize: stretch"),
        (detector(contract("detection"), "boxes")[1], "engine.xml", "set export.detections: heads or nms"),
    ],
)
def test_what_the_graph_cannot_do_is_refused(tmp_path: Path, spec: ModelSpec, file: str, reason: str) -> None:
    assert reason in model_api.why_not(Engine("x", "openvino", "fp32", tmp_path / file, spec))


def info_of(path: Path) -> dict[str, str]:
    found = ElementTree.parse(path).find("rt_info/model_info")
    return {one.tag: one.attrib["value"] for one in found} if found is not None else {}


def test_an_engine_has_metadata_where_a_wrapper_reads_it(tmp_path: Path) -> None:
    model, spec = small_nets.segmenter()
    assert info_of(built(model, spec, tmp_path / "one").file) == {
        "model_type": "Segmentation",
        "labels": "sky road car",
        "resize_type": "standard",
        "reverse_input_channels": "True",
        "mean_values": "127.5 127.5 127.5",
        "scale_values": "63.75 63.75 63.75",
    }
    other, class_map = small_nets.segmenter(has_argmax=True)
    assert info_of(built(other, class_map, tmp_path / "two").file) == {}


@pytest.mark.parametrize("task", ["semantic", "detection"])
def test_the_stacks_ir_is_the_same_bytes_when_it_is_written_again(tmp_path: Path, task: str) -> None:
    model, spec = small_nets.segmenter() if task == "semantic" else detector(contract("detection"), "heads")
    engine = built(model, spec, tmp_path)
    for name in ("one", "two"):
        write("model_api", engine, tmp_path / name)
    for file in ("model.xml", "model.bin"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
