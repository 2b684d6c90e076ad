"""The parser for nvinfer, compiled against the interface of its headers, gives what `board` gives; the configuration fits."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from configparser import ConfigParser
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.board.detection import Selection, detections
from edgekd.board.postprocess import class_map
from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.stacks import deepstream, write
from edgekd.stacks.base import Engine

HERE = Path(__file__).with_name("nvinfer")
SIZE, CLASSES, BINS, MIXES = (64, 96), ("ball", "ring", "sign; stop"), 5, 4
MIN_SCORE = 0.3
# Keys of nvinfer's group `property` that the configuration uses (src/gst-plugins/gst-nvinfer/gstnvinfer_property_parser.h, 2026).
KEYS = {
    *("gpu-id", "gie-unique-id", "process-mode", "batch-size", "network-mode", "network-type", "num-detected-classes"),
    *("model-engine-file", "onnx-file", "labelfile-path", "infer-dims", "network-input-order", "model-color-format"),
    *(
        "net-scale-factor",
        "offsets",
        "maintain-aspect-ratio",
        "symmetric-padding",
        "scaling-filter",
        "output-blob-names",
    ),
    *("custom-lib-path", "parse-bbox-func-name", "parse-bbox-instance-mask-func-name", "parse-segmentation-func-name"),
    *(
        "segmentation-threshold",
        "cluster-mode",
        "crop-objects-to-roi-boundary",
        "output-instance-mask",
        "strongly-typed",
    ),
}


def contract(task: str, outputs: tuple[TensorSpec, ...], **preprocess: Any) -> ModelSpec:
    image = TensorSpec("image", "float32", (1, 3, *SIZE), "image")
    return ModelSpec(task, CLASSES, 255, (image,), outputs, Preprocess(SIZE, **preprocess))


def segmenter(role: str = "logits", size: tuple[int, int] = (16, 24)) -> ModelSpec:
    if role == "class_map":
        return contract("semantic", (TensorSpec("class_map", "int32", (1, *SIZE), role),))
    return contract("semantic", (TensorSpec("logits", "float32", (1, len(CLASSES), *size), role),))


def detector(how: str, has_masks: bool = False) -> ModelSpec:
    cells = [(8, 12), (4, 6)]
    points, mixes = sum(h * w for h, w in cells), MIXES if has_masks else 0
    tensors: list[tuple[str, str, tuple[int, ...]]] = []
    if how == "heads":
        for level, size in enumerate(cells):
            tensors += [(f"scores_{level}", "scores", (1, 3, *size)), (f"boxes_{level}", "boxes", (1, 4 * BINS, *size))]
            tensors += [(f"coefficients_{level}", "coefficients", (1, mixes, *size))] * has_masks
    elif how == "boxes":
        shapes = {"boxes": (1, 4, points), "scores": (1, 3, points), "coefficients": (1, mixes, points)}
        tensors = [(f"decoded_{part}", f"decoded_{part}", shapes[part]) for part in list(shapes)[: 2 + has_masks]]
    else:
        shapes = {"boxes": (1, 20, 4), "scores": (1, 20), "labels": (1, 20), "coefficients": (1, 20, mixes)}
        tensors = [(f"found_{part}", f"found_{part}", shapes[part]) for part in list(shapes)[: 3 + has_masks]]
    if has_masks:
        tensors.append(("prototypes", "prototypes", (1, MIXES, 16, 24)))
    specs = tuple(
        TensorSpec(name, "int32" if role == "found_labels" else "float32", shape, role) for name, role, shape in tensors
    )
    return contract("instance" if has_masks else "detection", specs)


def outputs_of(spec: ModelSpec, seed: int = 0) -> dict[str, np.ndarray]:
    """Return random outputs: boxes that lie on the input and partly beyond, scores above and below the least."""
    rng = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {}
    for tensor in spec.outputs:
        values = rng.normal(-1, 1.5, tensor.shape)
        if tensor.role.endswith("_scores"):
            values = rng.uniform(0, 0.6, tensor.shape)
        if tensor.role.endswith("_labels"):
            values = rng.integers(0, 3, tensor.shape)
        if tensor.role.endswith("_boxes"):
            low = rng.uniform(-10, 60, tensor.shape)
            axis = 1 if tensor.role == "decoded_boxes" else 2
            first, last = np.split(low, 2, axis)
            values = np.concatenate([first, first + np.abs(last) + 1], axis)
        made[tensor.name] = np.ascontiguousarray(values, tensor.dtype)
    return made


def engine_of(spec: ModelSpec, folder: Path, **change: Any) -> Engine:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "engine.plan"
    file.write_bytes(b"a plan")
    return replace(Engine("tensorrt-fp16", "tensorrt", "fp16", file, spec), **change)


class Parser:
    """The parser of an engine, compiled and called with arrays."""

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        self.spec = spec
        write("deepstream", engine_of(spec, folder / "engine"), folder / "made")
        library = folder / "parser.so"
        command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Wno-unused-variable", "-Werror", "-shared", "-fPIC",
                   f"-I{HERE}", f"-I{folder / 'made'}", str(HERE / "driver.cpp"), "-o", str(library)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self.library = ctypes.CDLL(str(library))

    def layers(self, outputs: dict[str, np.ndarray]) -> list[Any]:
        types = [0 if array.dtype == np.float32 else 3 for array in outputs.values()]
        names = (ctypes.c_char_p * len(outputs))(*(name.encode() for name in outputs))
        counts = (ctypes.c_uint * len(outputs))(*(array.size for array in outputs.values()))
        buffers = (ctypes.c_void_p * len(outputs))(*(array.ctypes.data for array in outputs.values()))
        return [
            len(outputs),
            names,
            (ctypes.c_int * len(outputs))(*types),
            counts,
            buffers,
            *self.spec.preprocess.size,
            3,
        ]

    def class_map(self, outputs: dict[str, np.ndarray]) -> np.ndarray:
        found = np.full(self.spec.preprocess.size, -1, np.int32)
        assert self.library.run_segmentation(*self.layers(outputs), found.ctypes.data_as(ctypes.c_void_p)) == 1
        return found

    def objects(self, outputs: dict[str, np.ndarray]) -> np.ndarray:
        """Return rows of left, top, width, height, score, class."""
        rows = np.zeros((2000, 6), np.float32)
        least = ctypes.c_float(MIN_SCORE)
        count = self.library.run_objects(*self.layers(outputs), least, rows.ctypes.data_as(ctypes.c_void_p), len(rows))
        assert count >= 0
        return rows[:count]

    def instances(self, outputs: dict[str, np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        rows, masks = np.zeros((200, 8), np.float32), np.zeros(1 << 18, np.float32)
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (rows, masks)]
        count = self.library.run_instances(*self.layers(outputs), ctypes.c_float(MIN_SCORE), *pointers, masks.size)
        assert count >= 0
        sizes = rows[:count, 6:].astype(int)
        parts = np.split(masks, np.cumsum(sizes.prod(axis=1)))[:count]
        return rows[:count], [part.reshape(size) for part, size in zip(parts, sizes, strict=True)]


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here, which compiles the parser")


@needs_compiler
@pytest.mark.parametrize("size", [(16, 24), SIZE])
def test_logits_of_any_size_give_the_class_map_of_the_networks_size(tmp_path: Path, size: tuple[int, int]) -> None:
    spec = segmenter(size=size)
    outputs = outputs_of(spec)
    assert np.array_equal(Parser(spec, tmp_path).class_map(outputs), class_map(outputs, spec, SIZE))
    assert len(np.unique(class_map(outputs, spec, SIZE))) == 3


@needs_compiler
def test_a_class_map_is_handed_on(tmp_path: Path) -> None:
    spec = segmenter("class_map")
    given = {"class_map": np.random.default_rng(0).integers(0, 3, (1, *SIZE), np.int32)}
    assert np.array_equal(Parser(spec, tmp_path).class_map(given), given["class_map"][0])


@needs_compiler
@pytest.mark.parametrize("how", ["heads", "boxes", "nms"])
def test_the_boxes_are_those_of_edgekd_before_suppression(tmp_path: Path, how: str) -> None:
    spec = detector(how)
    outputs = outputs_of(spec)
    rows = Parser(spec, tmp_path).objects(outputs)
    # Without suppression: two boxes of one class overlap by at most one.
    expected = detections(outputs, spec, SIZE, Selection(min_score=MIN_SCORE, iou=1.0, candidates=5000, most=5000))
    assert len(expected.scores) == len(rows) > 5
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
    corners = np.clip(corners, 0, [SIZE[1], SIZE[0]] * 2)  # by nvinfer, after its suppression
    assert np.allclose(rows[:, 4], expected.scores, atol=1e-6)
    assert np.array_equal(rows[:, 5], expected.labels)
    assert np.allclose(corners, expected.boxes, atol=1e-3)


@needs_compiler
@pytest.mark.parametrize("how", ["heads", "boxes", "nms"])
def test_instances_are_suppressed_and_have_the_masks_of_edgekd(tmp_path: Path, how: str) -> None:
    spec = detector(how, has_masks=True)
    outputs = outputs_of(spec)
    if how == "nms":  # has been suppressed
        outputs["found_boxes"] = np.array(
            [[[20 * i % 70, 9 * i % 50, 20 * i % 70 + 18, 9 * i % 50 + 8] for i in range(20)]], np.float32
        )
    rows, masks = Parser(spec, tmp_path).instances(outputs)
    expected = detections(outputs, spec, SIZE, Selection(min_score=MIN_SCORE))
    assert expected.masks is not None
    assert len(rows) == len(expected.scores) > 3
    agreement = []
    for row, mask in zip(rows, masks, strict=True):  # scores that differ by rounding only may have changed places
        left, top, width, height = row[:4]
        apart = np.abs(expected.boxes - [left, top, left + width, top + height]).max(axis=1)
        apart += 1000 * (expected.labels != row[5])  # classes share the boxes of a cell
        number = int(apart.argmin())
        assert apart[number] < 1e-3
        assert abs(row[4] - expected.scores[number]) < 1e-5
        # The value at the centre of each pixel inside the box: nvinfer stretches the mask over it.
        ys, xs = np.mgrid[int(np.ceil(top)) : int(top + height), int(np.ceil(left)) : int(left + width)]
        cells = (
            ((ys + 0.5 - top) / height * mask.shape[0]).astype(int),
            ((xs + 0.5 - left) / width * mask.shape[1]).astype(int),
        )
        agreement.append((mask[cells] > 0.5) == expected.masks[number][ys, xs])
    assert np.mean(np.concatenate([one.ravel() for one in agreement])) > 0.85  # a value per four pixels of the input


@needs_compiler
def test_the_outputs_of_another_engine_are_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    parser = Parser(segmenter(), tmp_path)
    found = np.zeros(SIZE, np.int32)
    for outputs in ({"other": np.zeros((1, 3, 16, 24), np.float32)}, {"logits": np.zeros((1, 3, 8, 8), np.float32)}):
        assert parser.library.run_segmentation(*parser.layers(outputs), found.ctypes.data_as(ctypes.c_void_p)) == -1
    said = capfd.readouterr().err
    assert "no output logits" in said
    assert "expected 1152 values of type 0, got 192" in said


def config(engine: Engine, folder: Path) -> ConfigParser:
    write("deepstream", engine, folder)
    parsed = ConfigParser(delimiters=("=",), interpolation=None)
    parsed.read(folder / deepstream.CONFIG)
    assert set(parsed["property"]) <= KEYS
    return parsed


def test_scale_and_offsets_are_the_contracts_normalisation(tmp_path: Path) -> None:
    spec = replace(segmenter(), preprocess=Preprocess(SIZE, (0.5, 0.4, 0.25), (0.2, 0.2, 0.2)))
    group = config(engine_of(spec, tmp_path / "e"), tmp_path / "made")["property"]
    offsets = [float(value) for value in group["offsets"].split(";")]
    pixel = np.array([10.0, 200.0, 255.0])
    fed = float(group["net-scale-factor"]) * (pixel - offsets)
    assert np.allclose(fed, (pixel / 255 - [0.5, 0.4, 0.25]) / 0.2, atol=1e-6)
    assert (group["infer-dims"], group["network-type"], group["maintain-aspect-ratio"]) == ("3;64;96", "2", "0")
    assert (group["model-engine-file"], group["network-mode"]) == ("model.plan", "2")
    assert (
        tmp_path / "made/labels.txt"
    ).read_text() == "ball\nring\nsign, stop\n"  # nvinfer splits lines at semicolons


def test_float_pixels_are_fed_as_they_are(tmp_path: Path) -> None:
    spec = replace(segmenter(), preprocess=Preprocess(SIZE, std=(1 / 255,) * 3))
    group = config(engine_of(spec, tmp_path / "e"), tmp_path / "made")["property"]
    assert (group["net-scale-factor"], group["offsets"]) == ("1", "0;0;0")


@pytest.mark.parametrize(
    ("preprocess", "reason"),
    [
        (
            Preprocess(SIZE, std=(0.229, 0.224, 0.225)),
            "the engine's std is 0.229, 0.224, 0.225; set export.input: pixels_nchw",
        ),
        (
            Preprocess(SIZE, dtype="uint8", layout="NHWC"),
            "feeds float32 NCHW, the engine takes uint8 NHWC; set export.input",
        ),
    ],
)
def test_an_input_that_nvinfer_cannot_feed_is_refused(tmp_path: Path, preprocess: Preprocess, reason: str) -> None:
    engine = engine_of(replace(segmenter(), preprocess=preprocess), tmp_path)
    assert reason in deepstream.why_not(engine)


def test_an_output_that_the_parser_cannot_read_is_refused(tmp_path: Path) -> None:
    half = contract("semantic", (TensorSpec("logits", "float16", (1, 3, 16, 24), "logits"),))
    assert "logits is float16" in deepstream.why_not(engine_of(half, tmp_path))


def test_detections_are_suppressed_once(tmp_path: Path) -> None:
    modes = {how: config(engine_of(detector(how), tmp_path / "e"), tmp_path / how) for how in ("heads", "boxes", "nms")}
    assert {how: one["property"]["cluster-mode"] for how, one in modes.items()} == {
        "heads": "2",
        "boxes": "2",
        "nms": "4",
    }
    assert dict(modes["heads"]["class-attrs-all"]) == {
        "pre-cluster-threshold": "0.3",
        "nms-iou-threshold": "0.6",
        "topk": "100",
    }


def test_an_int8_graph_keeps_its_own_scales(tmp_path: Path) -> None:
    """Without a calibration file network-mode 1 becomes FP16 (nvdsinfer_model_builder.cpp)."""
    file = tmp_path / "engine.onnx"
    file.write_bytes(b"a graph")
    engine = Engine("onnxruntime-int8", "onnxruntime", "int8", file, segmenter())
    group = config(engine, tmp_path / "made")["property"]
    assert (group["onnx-file"], group["network-mode"], group["strongly-typed"]) == ("model.onnx", "0", "1")
