"""`edgekd stack` on the engines of finished runs, and Model API's results beside those of `edgekd predict`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgekd
from edgekd.board.detection import Selection
from edgekd.core.artifact import open_artifact
from edgekd.data.formats import scenes
from edgekd.stacks import write_all
from tests.command import edgekd as run_edgekd
from tests.integration.conftest import TINY
from tests.stack_checks import CHECKS, needs_checks

# Opens an IR with Model API and writes its results for images, in a process of its own, as a user's application is one.
_APPLICATION = """
import sys
import numpy as np
sys.path.append(sys.argv[1])
from model_api.adapters import OpenvinoAdapter, create_core
from model_api.models import Model
settings = {"INFERENCE_PRECISION_HINT": "f32"}
model = Model.create_model(OpenvinoAdapter(create_core(), sys.argv[2], device="CPU", plugin_config=settings))
found = [model(image) for image in np.load(sys.argv[3])]
if hasattr(found[0], "resultImage"):
    np.savez(sys.argv[4], maps=[one.resultImage for one in found])
else:
    np.savez(sys.argv[4], **{f"{part}{i}": getattr(one, part) for i, one in enumerate(found) for part in ("bboxes", "labels")})
"""


def images() -> np.ndarray:
    dataset = scenes.open_dataset(scenes.Options(**TINY["data"]["options"]), "val")
    return np.stack([dataset.load(number).image for number in range(4)])


def model_api_on(ir: Path, pictures: np.ndarray, scratch: Path) -> dict[str, np.ndarray]:
    np.save(scratch / "images.npy", pictures[..., ::-1])  # OpenCV's order
    arguments = [str(CHECKS), str(ir), str(scratch / "images.npy"), str(scratch / "found.npz")]
    done = subprocess.run([sys.executable, "-c", _APPLICATION, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(np.load(scratch / "found.npz"))


@needs_checks
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_model_api_gives_the_class_maps_of_edgekd(tiny_run: Path, tmp_path: Path, precision: str) -> None:
    folder = tiny_run / "engine" / f"openvino-{precision}"
    done = run_edgekd("stack", str(folder), "--for", "model_api", "--out", str(tmp_path / "made"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(tmp_path / "made")
    assert "next: pip install openvino-model-api" in done.stdout
    theirs = model_api_on(tmp_path / "made/model.xml", images(), tmp_path)["maps"]
    with edgekd.load_engine(folder) as engine:
        ours = np.stack([engine(image) for image in images()])
    assert (theirs != ours).mean() <= 1e-3


@needs_checks
def test_model_api_gives_the_boxes_of_edgekd(tiny_objects_run: Path, tmp_path: Path) -> None:
    folder = tiny_objects_run / "engine" / "openvino-fp32"
    assert write_all(open_artifact(folder), tmp_path / "stacks") == {"model_api": "", "triton": ""}
    pictures = images()
    theirs = model_api_on(tmp_path / "stacks/model_api/model.xml", pictures, tmp_path)
    with edgekd.load_engine(folder, Selection(min_score=0.3)) as engine:
        for number, image in enumerate(pictures):
            found = engine(image)
            for box, label in zip(found.boxes, found.labels, strict=True):
                same = theirs[f"labels{number}"] == label + 1  # its first label is the background
                assert np.abs(theirs[f"bboxes{number}"][same] - box).max(axis=1).min() < 0.501


def test_the_command_says_which_software_takes_an_engine(tiny_run: Path, tmp_path: Path) -> None:
    done = run_edgekd("stack", str(tiny_run / "engine" / "onnxruntime-int8"))
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert set(lines) == {"deepstream", "triton"}
    assert "no: nvinfer has one scale for all channels" in lines["deepstream"]
    refused = run_edgekd(
        "stack", str(tiny_run / "engine" / "onnxruntime-int8"), "--for", "deepstream", "--out", str(tmp_path / "made")
    )
    assert refused.returncode == 2
    assert "set export.input: pixels_nchw" in refused.stderr
    assert not (tmp_path / "made").exists()
    other = run_edgekd("stack", str(tiny_run / "export"), "--for", "triton", "--out", str(tmp_path / "made"))
    assert other.returncode == 2
    assert "expected an engine, got an artifact of kind onnx" in other.stderr
