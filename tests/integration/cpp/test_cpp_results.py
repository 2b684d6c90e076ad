"""The C++ runner around recorded outputs: inputs, class maps, boxes and masks are Python's to the byte."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekd.board.postprocess import Predictor
from edgekd.board.run_masks import runs_of
from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.runner.golden import GoldenImage
from tests.integration.cpp.bundles import Recorded, assert_same_results, run, write_bundle

HEIGHT, WIDTH = 48, 64
SIZES = [(48, 64), (37, 91), (200, 300), (5, 3), (1, 1), (24, 32), (90, 30), (300, 400)]
NORMALISED = Preprocess((HEIGHT, WIDTH), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LETTERBOX = replace(NORMALISED, resize="letterbox")
PIXELS = Preprocess((HEIGHT, WIDTH), layout="NHWC", dtype="uint8", color_order="BGR", resize="letterbox")
PREPROCESSES = {"stretch": NORMALISED, "letterbox": LETTERBOX, "pixels": PIXELS}
HEADS: dict[str, list[tuple[str, tuple[int, ...]]]] = {
    "levels": [
        ("scores", (3, 6, 8)), ("boxes", (68, 6, 8)), ("coefficients", (5, 6, 8)), ("scores", (3, 3, 4)),
        ("boxes", (68, 3, 4)), ("coefficients", (5, 3, 4)), ("prototypes", (5, 12, 16)),
    ],
    "decoded": [
        ("decoded_boxes", (4, 60)), ("decoded_scores", (3, 60)), ("decoded_coefficients", (5, 60)),
        ("prototypes", (5, 12, 16)),
    ],
    "found": [
        ("found_boxes", (40, 4)), ("found_scores", (40,)), ("found_labels", (40,)), ("found_coefficients", (40, 5)),
        ("prototypes", (5, 12, 16)),
    ],
    "pasted": [
        ("found_boxes", (40, 4)), ("found_scores", (40,)), ("found_labels", (40,)), ("found_masks", (40, 7, 7)),
    ],
}  # fmt: skip
MASKS = ("coefficients", "prototypes", "masks")


def spec_of(task: str, outputs: list[tuple[str, tuple[int, ...]]], preprocess: Preprocess, classes: int) -> ModelSpec:
    whole = (1, 3, HEIGHT, WIDTH) if preprocess.layout == "NCHW" else (1, HEIGHT, WIDTH, 3)
    integers = {"found_labels": "int64", "class_map": "int32"}
    tensors = tuple(
        TensorSpec(f"out{number}", integers.get(role, "float32"), (1, *shape), role)
        for number, (role, shape) in enumerate(outputs)
    )
    image = TensorSpec("image", preprocess.dtype, whole, "image")
    return ModelSpec(task, tuple(f"class {i}" for i in range(classes)), 255, (image,), tensors, preprocess)


def recorded(spec: ModelSpec, seed: int) -> Recorded:
    rng = np.random.default_rng(seed)
    outputs = {one.name: (2 * rng.standard_normal(one.shape)).astype(one.dtype) for one in spec.outputs}
    for one in spec.outputs:
        if one.role in ("decoded_boxes", "found_boxes"):
            corners = rng.uniform(-10, 70, (1, 60 if one.role == "decoded_boxes" else 40, 4)).astype(np.float32)
            corners[..., 2:] = corners[..., :2] + rng.uniform(-1, 40, corners[..., 2:].shape)
            outputs[one.name] = np.ascontiguousarray(
                corners.transpose(0, 2, 1) if one.role == "decoded_boxes" else corners
            )
        if one.role in ("decoded_scores", "found_scores", "found_masks"):
            outputs[one.name] = rng.random(one.shape).astype(np.float32)
        if one.role in ("found_labels", "class_map"):
            outputs[one.name] = rng.integers(0, len(spec.classes), one.shape).astype(one.dtype)
    return Recorded(spec, outputs)


def bundle_of(folder: Path, session: Recorded) -> Path:
    image = np.random.default_rng(9).integers(0, 256, (37, 53, 3)).astype(np.uint8)
    result = Predictor(session).finish(session.outputs, (37, 53))
    return write_bundle(folder, session.spec, golden=[GoldenImage(image, session.outputs, result)])


def images(seed: int) -> list[np.ndarray]:
    """Return noise, and a slow gradient: most of its sums lie close to half a grey level."""
    rng = np.random.default_rng(seed)
    made = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in SIZES]
    ramp = np.linspace(0, 40, 150)[:, None, None] + np.linspace(0, 30, 170)[None, :, None]
    return [*made, np.repeat(ramp, 3, axis=2).astype(np.uint8)]


@pytest.mark.parametrize("resize", PREPROCESSES)
@pytest.mark.parametrize("shape", [(3, 12, 16), (9, 48, 64), (256, 5, 7)])
def test_class_maps_are_pythons(program: Path, tmp_path: Path, resize: str, shape: tuple[int, ...]) -> None:
    spec = spec_of("semantic", [("logits", shape)], PREPROCESSES[resize], shape[0])
    session = recorded(spec, shape[0])
    bundle = bundle_of(tmp_path / "bundle", session)
    for threads in ("1", "2"):
        assert_same_results(program, bundle, session, images(1), ["--replay", "--threads", threads])


def test_class_maps_of_what_is_no_number_are_those_of_pythons_sums_of_taps(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.board.class_maps.has_fast_products", lambda: False)
    session = recorded(spec_of("semantic", [("logits", (4, 12, 16))], NORMALISED, 4), 3)
    session.outputs["out0"][0, 1, 3, 4] = np.nan
    session.outputs["out0"][0, 2, 8, 2] = np.inf
    session.outputs["out0"][0, 0, 5, 9:] = -np.inf
    assert_same_results(program, bundle_of(tmp_path / "bundle", session), session, images(2), ["--replay"])


@pytest.mark.parametrize("resize", PREPROCESSES)
def test_class_maps_of_the_graph_are_resized_to_the_nearest_pixel_as_in_python(
    program: Path, tmp_path: Path, resize: str
) -> None:
    session = recorded(spec_of("semantic", [("class_map", (24, 32))], PREPROCESSES[resize], 7), 4)
    assert_same_results(program, bundle_of(tmp_path / "bundle", session), session, images(3), ["--replay"])


@pytest.mark.parametrize("resize", PREPROCESSES)
@pytest.mark.parametrize("form", HEADS)
@pytest.mark.parametrize("task", ["detection", "instance"])
def test_objects_are_pythons(program: Path, tmp_path: Path, resize: str, form: str, task: str) -> None:
    outputs = [one for one in HEADS[form] if task == "instance" or not one[0].endswith(MASKS)]
    session = recorded(spec_of(task, outputs, PREPROCESSES[resize], 3), 5)
    bundle = bundle_of(tmp_path / "bundle", session)
    for min_score in (0.05, 0.0, 0.9):
        results = assert_same_results(program, bundle, session, images(4), ["--replay"], min_score)
    assert sum(len(result.boxes) for result in results) > 10
    done = run(program, bundle, "--check", "--replay")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["different"] == 0


def test_lines_say_what_python_finds(program: Path, tmp_path: Path) -> None:
    session = recorded(spec_of("instance", HEADS["levels"], LETTERBOX, 3), 6)
    bundle = bundle_of(tmp_path / "bundle", session)
    results = assert_same_results(program, bundle, session, images(5), ["--replay"])
    files = [bundle / f"out/image{number}.npy" for number in range(len(results))]
    lines = [json.loads(line) for line in run(program, bundle, *files, "--replay").stdout.splitlines()]
    for line, result, image in zip(lines, results, images(5), strict=True):
        assert (line["schema"], line["height"], line["width"]) == ("edgekd.results/1", *image.shape[:2])
        assert [one["class"] for one in line["objects"]] == [f"class {label}" for label in result.labels]
        assert [one["mask"]["counts"] for one in line["objects"]] == [
            runs_of(result.masks, number) for number in range(len(result.boxes))
        ]
        boxes = [one["box_xyxy"] for one in line["objects"]]
        np.testing.assert_allclose(np.array(boxes).reshape(-1, 4), result.boxes, atol=0.0051)


@pytest.mark.parametrize(
    ("task", "outputs"), [("semantic", [("logits", (9, 12, 16))]), ("instance", HEADS["levels"]), ("instance", HEADS["pasted"])]
)  # fmt: skip
def test_an_image_of_a_known_size_allocates_nothing(
    built: Path, tmp_path: Path, task: str, outputs: list[tuple[str, tuple[int, ...]]]
) -> None:
    session = recorded(spec_of(task, outputs, NORMALISED, 9), 7)
    bundle = bundle_of(tmp_path / "bundle", session)
    np.save(tmp_path / "image.npy", images(6)[2])
    done = run(built / "edgekd-allocations", bundle, tmp_path / "image.npy")
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_a_ppm_file_is_the_same_image(program: Path, tmp_path: Path) -> None:
    session = recorded(spec_of("semantic", [("logits", (9, 12, 16))], NORMALISED, 9), 8)
    bundle = bundle_of(tmp_path / "bundle", session)
    image = images(7)[1]
    np.save(tmp_path / "image.npy", image)
    header = f"P6\n# a comment\n{image.shape[1]} {image.shape[0]}\n255\n".encode()
    (tmp_path / "image.ppm").write_bytes(header + image.tobytes())
    first, second = (
        json.loads(run(program, bundle, tmp_path / f"image.{suffix}", "--replay").stdout) for suffix in ("npy", "ppm")
    )
    assert first.pop("source") != second.pop("source")
    assert first == second
