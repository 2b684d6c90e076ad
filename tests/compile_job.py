"""A job of the compile stage on a graph made by hand, with the rendered scenes as training images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.core.artifact import Artifact
from edgekd.core.recipe import Recipe
from edgekd.core.stage import StageJob

SIZE, CLASSES = (32, 48), ("sky", "road", "car")


def network(nodes: list[Any], **constants: Any) -> tuple[onnx.ModelProto, ModelSpec]:
    """Return a segmenter and its contract: the nodes from `x` (1, 4, 32, 48) to `y`, between convolutions of one pixel."""
    rng = np.random.default_rng(0)
    first, last = rng.normal(size=(4, 3, 1, 1)), rng.normal(size=(3, 4, 1, 1))
    weights = {"first.w": first.astype(np.float32), "last.w": last.astype(np.float32), **constants}
    ends = (
        helper.make_node("Conv", ["image", "first.w"], ["x"], name="first"),
        helper.make_node("Conv", ["y", "last.w"], ["logits"], name="last"),
    )
    graph = helper.make_graph(
        [ends[0], *nodes, ends[1]],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, *SIZE))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), data_prop=True
    )
    shape = tuple(dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim)
    image = TensorSpec("image", "float32", (1, 3, *SIZE), "image")
    logits = TensorSpec("logits", "float32", shape, "logits")
    return model, ModelSpec("semantic", CLASSES, 255, (image,), (logits,), Preprocess(SIZE, (0.5,) * 3, (0.25,) * 3))


def job(
    folder: Path,
    model: onnx.ModelProto,
    spec: ModelSpec,
    engine: dict[str, Any],
    quantized: Path | None = None,
    **sections: Any,
) -> StageJob:
    """Return the compile job of one engine.

    Args:
        folder: empty; gets the export, and a folder for the engine.
        model: what was exported.
        spec: its contract.
        engine: as in a recipe.
        quantized: what a quantizer made of it.
        sections: further sections of the recipe.
    """  # fmt: skip
    recipe = Recipe.model_validate(
        {
            "name": "compiled",
            "data": {"format": "scenes", "options": {"height": 64, "width": 96, "train": 6, "val": 2}, "size": SIZE},
            "teacher": {"family": "edgeseg", "variant": "n", "train": {"steps": 1}},
            "student": {"family": "edgeseg", "variant": "n", "train": {"steps": 1}},
            "engines": [engine],
            **sections,
        }
    )
    (folder / "export").mkdir()
    (folder / "engine").mkdir()
    onnx.save(model, folder / "export/model.onnx")
    inputs = {"export": _artifact(folder / "export", "onnx", spec, {"model": "model.onnx"})}
    if quantized is not None:
        inputs["quantize"] = _artifact(quantized.parent, "quantized", spec, {"model": quantized.name})
    return StageJob(recipe, inputs, folder / "engine", recipe.engines[0].id)


def _artifact(folder: Path, kind: str, spec: ModelSpec, details: dict[str, Any]) -> Artifact:
    manifest: Any = {"kind": kind, "model_spec": spec.to_dict(), "details": {"params": 1, "macs": 1, **details}}
    return Artifact(folder, manifest)
