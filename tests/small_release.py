"""Releases of tiny engines whose answers are known, as a bundle is unpacked on a board."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.runner.manifest import Manifest, Tolerance

HEIGHT, WIDTH, COLORS = 32, 48, ("red", "green", "blue")


def color_segmenter() -> tuple[onnx.ModelProto, ModelSpec]:
    """Return a network whose logits are the image: each pixel is of the class of its strongest colour."""
    shape = (1, 3, HEIGHT, WIDTH)
    one = numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), "one")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "one"], ["logits"])],
        "color",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [one],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    spec = ModelSpec(
        "semantic",
        COLORS,
        255,
        (TensorSpec("image", "float32", shape, "image"),),
        (TensorSpec("logits", "float32", shape, "logits"),),
        Preprocess((HEIGHT, WIDTH)),
    )
    return model, spec


def striped(red: int, green: int) -> np.ndarray:
    """Return an image of so many red and green pixels, the others blue, row by row."""
    image = np.zeros((HEIGHT * WIDTH, 3), np.uint8)
    image[:red, 0] = 255
    image[red : red + green, 1] = 255
    image[red + green :, 2] = 255
    return image.reshape(HEIGHT, WIDTH, 3)


def write_color_release(folder: Path) -> Path:
    """Write a release of `color_segmenter` for ONNX Runtime and return its folder."""
    model, spec = color_segmenter()
    (folder / "engine").mkdir(parents=True)
    onnx.save(model, str(folder / "engine/engine.onnx"))
    return _write_contract(folder, spec, "onnxruntime", "engine/engine.onnx", {"intra_op_threads": 1})


def _write_contract(folder: Path, spec: ModelSpec, target: str, engine: str, options: dict[str, Any]) -> Path:
    manifest = Manifest(
        name="tiny",
        version=1,
        task=spec.task,
        target=target,
        precision="fp32",
        engine=engine,
        tolerance=Tolerance(0.05, 0.02),
        golden=0,
        options=options,
    )
    (folder / "manifest.json").write_text(manifest.to_json())
    (folder / "spec.json").write_text(json.dumps(spec.to_dict()))
    return folder
