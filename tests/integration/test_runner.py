"""A release gives, by its own `run`, what `edgekd predict` gives: on a folder, and on the same images as a video."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekd.board.runs import encode_runs
from edgekd.core.artifact import open_artifact
from edgekd.release.archive import unpack
from tests.boards.fixtures import SshdBoard
from tests.command import edgekd
from tests.readers import reader_or_skip

MIN_SCORE = "0.05"  # the tiny detectors are not sure of much


@pytest.fixture(scope="module", params=["semantic", "instance", "detection"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `release`, `images` of one size, `predicted` (what `edgekd predict` writes) and `task`."""
    task = request.param
    run = request.getfixturevalue(
        {"semantic": "tiny_run", "instance": "tiny_objects_run", "detection": "tiny_detection_run"}[task]
    )
    folder, engine = tmp_path_factory.mktemp(task), run / "engine/onnxruntime-fp32"
    (folder / "task").write_text(task)
    (folder / "images").mkdir()
    for number, image in enumerate(scenes()):
        Image.fromarray(image).save(folder / f"images/{number:02}.png")
    done = edgekd("bundle", str(engine), "-o", str(folder / "one.tar"))
    assert done.returncode == 0, done.stderr
    unpack(folder / "one.tar", folder / "release")
    options = [] if task == "semantic" else ["--min-score", MIN_SCORE]
    done = edgekd("predict", str(engine), str(folder / "images"), "--out", str(folder / "predicted"), *options)
    assert done.returncode == 0, done.stderr
    assert open_artifact(engine).spec.task == task
    yield folder
    shutil.rmtree(folder)


def scenes() -> list[np.ndarray]:
    """Return pictures of bright boxes and balls, of another size than the network's."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[0:100, 0:130]
    pictures = []
    for _ in range(6):
        picture = rng.integers(60, 110, (100, 130, 3), np.uint8)
        for _ in range(4):
            y, x, size = rng.integers(10, 90), rng.integers(10, 120), rng.integers(6, 22)
            picture[(rows - y) ** 2 + (columns - x) ** 2 < size**2] = rng.integers(0, 255, 3)
        pictures.append(picture)
    return pictures


def run(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run the release's own code and return its results."""
    environment = {**os.environ, "EDGEKD_PYTHON": sys.executable}
    environment.pop("PYTHONPATH", None)
    command = [str(folder / "release/run"), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_all(results: list[dict[str, Any]], folder: Path) -> None:
    """Hold results, in the order of the images, to the files of `edgekd predict`."""
    assert len(results) == 6
    for number, result in enumerate(results):
        if (folder / "task").read_text() == "semantic":
            expected = np.array(Image.open(folder / f"predicted/{number:02}_mask.png"))
            np.testing.assert_array_equal(np.array(Image.open(folder / result["class_map_file"])), expected)
            runs = result["class_map"]
            decoded = np.repeat(runs["values"], runs["counts"]).reshape(runs["size"][::-1]).T
            np.testing.assert_array_equal(decoded, expected)
            assert sum(result["classes"].values()) == pytest.approx(1, abs=1e-3)
        else:
            expected = json.loads((folder / f"predicted/{number:02}_objects.json").read_text())
            assert expected
            assert result["objects"] == expected


def test_a_folder_gives_the_results_of_predict(case: Path) -> None:
    results = run(case, "images", "--maps", "maps", "--class-map", "--min-score", MIN_SCORE)
    assert [result["source"] for result in results] == [f"images/{number:02}.png" for number in range(6)]
    check_all(results, case)


@pytest.mark.parametrize("reader", ["opencv", "gstreamer", "ffmpeg"])
def test_a_video_gives_the_results_of_predict(case: Path, reader: str) -> None:
    reader_or_skip(reader)
    cv2 = pytest.importorskip("cv2")
    video = case / "video.mkv"
    writer = cv2.VideoWriter(str(video), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"FFV1"), 10, (130, 100))
    for image in scenes():
        writer.write(np.ascontiguousarray(image[..., ::-1]))
    writer.release()
    arguments = ["video.mkv", "--maps", "maps", "--class-map", "--min-score", MIN_SCORE, "--reader", reader]
    results = run(case, *arguments)
    assert [(result["source"], result["index"]) for result in results] == [("video.mkv", i) for i in range(6)]
    check_all(results, case)


def test_an_old_board_gives_the_results_of_predict(case: Path, loopback_board: SshdBoard) -> None:
    task = (case / "task").read_text()
    (case / "arrays").mkdir()
    for number, image in enumerate(scenes()):
        np.save(case / f"arrays/{number:02}.npy", image)
    with subprocess.Popen(["tar", "-cf", "-", "release", "arrays"], cwd=case, stdout=subprocess.PIPE) as packed:
        assert packed.stdout is not None
        loopback_board.run(f"mkdir {task} && tar -xf - -C {task}", stdin=packed.stdout.read())
    said = loopback_board.run(f"cd {task} && release/run arrays --class-map --maps maps --min-score {MIN_SCORE}")
    results = [json.loads(line) for line in said.splitlines()]
    assert len(results) == 6
    different, pixels = 0, 0
    for number, result in enumerate(results):
        if task == "semantic":
            expected = np.array(Image.open(case / f"predicted/{number:02}_mask.png"))
            runs = result["class_map"]
            found = np.repeat(runs["values"], runs["counts"]).reshape(runs["size"][::-1]).T
            different, pixels = different + int((found != expected).sum()), pixels + found.size
        else:  # another ONNX Runtime: the last digits differ
            expected = json.loads((case / f"predicted/{number:02}_objects.json").read_text())
            assert [one["class"] for one in result["objects"]] == [one["class"] for one in expected]
            for one, other in zip(result["objects"], expected, strict=True):
                assert one["score"] == pytest.approx(other["score"], abs=2e-4)
                assert one["box_xyxy"] == pytest.approx(other["box_xyxy"], abs=0.02)
    assert different <= pixels / 10_000


def test_masks_are_those_of_coco(case: Path) -> None:
    if (case / "task").read_text() != "instance":
        pytest.skip("no masks")
    masks = pytest.importorskip("pycocotools.mask")
    result = run(case, "images/00.png", "--min-score", MIN_SCORE)[0]
    numbers = np.array(Image.open(case / "predicted/00_mask.png"))
    best = masks.decode(masks.frPyObjects(result["objects"][0]["mask"], *result["objects"][0]["mask"]["size"]))
    assert encode_runs(best.astype(bool)) == encode_runs(numbers == 1)


def test_the_release_passes_its_own_check_and_nothing_was_written_into_it(case: Path) -> None:
    environment = {**os.environ, "EDGEKD_PYTHON": sys.executable}
    done = subprocess.run(["sh", "release/run", "--check"], cwd=case, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 golden images: " in done.stdout
    assert not list((case / "release").rglob("__pycache__"))
    golden = case / "release/golden/0/outputs/0.npy"
    changed = golden.read_bytes()
    golden.write_bytes(changed[:200] + bytes(byte ^ 0x40 for byte in changed[200:]))
    done = subprocess.run(["sh", "release/run", "--check"], cwd=case, env=environment, capture_output=True, text=True)
    golden.write_bytes(changed)
    assert done.returncode == 1
    assert "outputs on this machine differ from the golden outputs" in done.stderr
    assert len(done.stderr.splitlines()) == 1
