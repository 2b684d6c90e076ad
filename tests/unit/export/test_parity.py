"""The proof that an ONNX file is the torch network: it holds for the network itself, and for nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgekd.board.preprocess import prepare
from edgekd.board.specs import ModelSpec
from edgekd.core.recipe import Export
from edgekd.errors import GateError, UserError
from edgekd.export.onnx_graph import deployed_spec, export_onnx
from edgekd.export.parity import measure_parity
from edgekd.export.stage import check_parity
from edgekd.models.base import DenseModel
from edgekd.models.build import build_model
from edgekd.models.families import edgedet, edgeseg
from edgekd.models.session import torch_spec
from tests.small_nets import images

SIZE, CLASSES = (64, 64), ("ball", "ring", "sign")


def network(task: str, seed: int) -> tuple[DenseModel, ModelSpec]:
    torch.manual_seed(seed)
    family, options = ("edgeseg", edgeseg.Options()) if task == "semantic" else ("edgedet", edgedet.Options())
    model = build_model(family, "n", task, len(CLASSES), options).eval()
    return model, torch_spec(model, task, CLASSES, SIZE)


def exported(model: DenseModel, trained: ModelSpec, settings: Export, path: Path) -> ModelSpec:
    spec = deployed_spec(trained, model, settings)
    spec, _ = export_onnx(model, spec, settings, path)
    return spec


@pytest.mark.parametrize("how", ["heads", "boxes", "nms"])
def test_another_networks_file_is_refused_also_when_nothing_is_detected(tmp_path: Path, how: str) -> None:
    model, trained = network("instance", seed=0)
    settings = Export.model_validate({"detections": how})
    spec = exported(model, trained, settings, tmp_path / "model.onnx")
    own = measure_parity(model, trained, tmp_path / "model.onnx", spec, images(2))
    assert own["outputs_relative"] < 1e-4
    assert own["compared"] == 0  # untrained: no score reaches 0.05
    check_parity(own, "instance", settings)
    other, _ = network("instance", seed=1)
    with pytest.raises(GateError, match="an ONNX output differs from torch by"):
        check_parity(measure_parity(other, trained, tmp_path / "model.onnx", spec, images(2)), "instance", settings)


@pytest.mark.parametrize("argmax", [False, True])
def test_pixels_are_counted(tmp_path: Path, argmax: bool) -> None:
    model, trained = network("semantic", seed=0)
    spec = exported(model, trained, Export(argmax=argmax), tmp_path / "model.onnx")
    parity = measure_parity(model, trained, tmp_path / "model.onnx", spec, images(3))
    assert (parity["images"], parity["compared"]) == (3, 3 * 64 * 64)
    assert parity["different"] <= 1e-3
    assert (parity["outputs_relative"] is None) == argmax


def test_a_graph_that_takes_float_pixels_normalises_them(tmp_path: Path) -> None:
    model, trained = network("semantic", seed=0)
    spec = exported(model, trained, Export(input="pixels_nchw"), tmp_path / "model.onnx")
    picture = images(1)[0]
    fed = prepare(picture, spec.preprocess)
    assert (fed.dtype, fed.shape) == (np.float32, (1, 3, *SIZE))
    assert np.array_equal(fed[0], prepare(picture, replace(trained.preprocess, dtype="uint8"))[0])
    parity = measure_parity(model, trained, tmp_path / "model.onnx", spec, images(2))
    assert parity["outputs_relative"] < 1e-4


@pytest.mark.parametrize("whose", ["torch", "ONNX"])
def test_values_that_are_not_finite_prove_nothing(tmp_path: Path, whose: str) -> None:
    model, trained = network("semantic", seed=0)
    path = tmp_path / "model.onnx"
    spec = exported(model, trained, Export(), path)
    if whose == "torch":
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))
    else:
        graph = onnx.load(path)
        weight: Any = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32("nan"), weight.name))
        onnx.save(graph, path)
    with pytest.raises(GateError, match=f"of the {whose} network holds values that are not finite"):
        measure_parity(model, trained, path, spec, images(1))


def test_an_opset_that_torch_does_not_make_is_refused(tmp_path: Path) -> None:
    model, trained = network("semantic", seed=0)
    with pytest.raises(UserError, match=r"export\.opset: torch exports this network to opset \d+, not 99"):
        exported(model, trained, Export(opset=99), tmp_path / "model.onnx")
