"""Exports torch to an ONNX file: static shape, simplified, with optional preprocessing, argmax and decoding in the graph."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import onnx
import onnxsim
import torch
from torch import Tensor, nn

from edgekd.board.specs import ModelSpec, TensorSpec
from edgekd.core import plugins, user_code
from edgekd.core.recipe import Export
from edgekd.errors import UserError
from edgekd.export import decode
from edgekd.export.upsampling import cut_upsampling
from edgekd.models.base import DenseModel
from edgekd.models.session import head_shapes
from edgekd.rewrites.graph import SCOPES, opsets

log = logging.getLogger(__name__)
MODEL = "model.onnx"
_PIXELS = (1 / 255,) * 3  # the std of a contract whose float inputs are pixels from 0 to 255


def deployed_spec(trained: ModelSpec, model: DenseModel, settings: Export) -> ModelSpec:
    """Return the contract of the exported graph under the recipe's export options."""
    height, width = trained.preprocess.size
    if settings.input in ("float32_nchw", "pixels_nchw"):
        preprocess = trained.preprocess
        if settings.input == "pixels_nchw":
            preprocess = replace(preprocess, mean=(0.0,) * 3, std=_PIXELS)
        image = TensorSpec("image", "float32", (1, 3, height, width), "image")
    else:
        layout = settings.input.removeprefix("uint8_").upper()
        shape = (1, 3, height, width) if layout == "NCHW" else (1, height, width, 3)
        preprocess = replace(trained.preprocess, mean=(0.0,) * 3, std=(1.0,) * 3, layout=layout, dtype="uint8")
        image = TensorSpec("image", "uint8", shape, "image")
    outputs = trained.outputs
    if settings.argmax:
        if trained.task != "semantic":
            raise UserError(f"export.argmax: a {trained.task} network has no class map; leave it out")
        outputs = (TensorSpec("class_map", "int32", (1, height, width), "class_map"),)
    if settings.detections != "heads":
        outputs = decode.decoded_outputs(trained, settings.detections)
    return replace(trained, inputs=(image,), outputs=outputs, preprocess=preprocess)


class _Deployed(nn.Module):
    """The module that torch exports: the student with the preprocessing, and the argmax, that the contract puts into the graph."""

    scale: Tensor
    offset: Tensor

    def __init__(self, model: DenseModel, spec: ModelSpec, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.normalise = spec.preprocess.dtype == "uint8" or spec.preprocess.std == _PIXELS
        self.nhwc = spec.preprocess.layout == "NHWC"
        self.argmax = self.names == ["class_map"]
        # pixel / 255, minus mean, over std: folded into one multiply and one add.
        self.register_buffer("scale", 1 / (255 * model.std))
        self.register_buffer("offset", -model.mean / model.std)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        if self.normalise:
            image = image.float()  # first: vendors refuse to transpose uint8
            image = image.permute(0, 3, 1, 2) if self.nhwc else image
            image = image * self.scale + self.offset
        outputs = self.model.forward_normalized(image)
        if self.argmax:
            return (outputs.logits.argmax(dim=1).to(torch.int32),)
        return tuple(outputs.heads[name] for name in self.names)


def export_onnx(model: DenseModel, spec: ModelSpec, settings: Export, path: Path) -> tuple[ModelSpec, dict[str, Any]]:
    """Write the simplified and rewritten ONNX file of `model`; return its contract and facts of the graph.

    The contract is `spec`, with smaller logits where the graph ends before the last upsampling.

    Raises:
        UserError: the exporter or the checker refuses the network.
    """
    is_raw = settings.detections == "heads"
    names = [tensor.name for tensor in spec.outputs] if is_raw else list(head_shapes(model, spec.preprocess.size))
    wrapper = _Deployed(model, spec, names).eval()
    image = spec.inputs[0]
    example = torch.zeros(image.shape, dtype=getattr(torch, image.dtype))
    try:
        with _without_dumps():
            program = torch.onnx.export(
                wrapper, (example,), dynamo=True, opset_version=settings.opset,
                input_names=[image.name], output_names=names, verbose=False,
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as exc:
        raise UserError(f"export: torch cannot export this network: {_reason(exc)}") from exc
    assert program is not None
    made = opsets(program.model_proto)["ai.onnx"]
    if made != settings.opset:
        raise UserError(f"export.opset: torch exports this network to opset {made}, not {settings.opset}; set {made}")
    _check_operators(program.model_proto, made)
    simplified, _ = onnxsim.simplify(program.model_proto)  # `measure_parity` compares the result with torch
    _keep_modules(program.model_proto, simplified)
    if not is_raw:
        decode.append(simplified, spec, settings.detections)
    if settings.upsampling == "host" and spec.task == "semantic" and not settings.argmax:
        spec = cut_upsampling(simplified, spec)
    rewritten = {name: plugins.load("rewrites", name).rewrite(simplified) for name in settings.rewrite}
    onnx.checker.check_model(simplified, full_check=True)
    onnx.save(simplified, path)
    operators = Counter(node.op_type for node in simplified.graph.node)
    return spec, {
        "opsets": opsets(simplified),
        "operators": dict(sorted(operators.items())),
        "nodes": len(simplified.graph.node),
        "rewritten": rewritten,
    }


@contextmanager
def _without_dumps() -> Iterator[None]:
    """Keep torch from printing whole graphs to stderr when it cannot export one: the error says why."""
    noisy = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        noisy.setLevel(level)


def _reason(error: BaseException) -> str:
    """Return the last line of a user's network that an export failed at, else its first cause."""
    if user_code.error_of(error) is None:
        while error.__cause__ is not None:
            error = error.__cause__
    return user_code.described(error)


def _check_operators(model: onnx.ModelProto, opset: int) -> None:
    """Check that an opset has the operators of a graph, which torch writes as the opset that it knows; UserError."""
    schemas = onnx.defs.get_all_schemas_with_history()
    for name in sorted({node.op_type for node in model.graph.node if node.domain in ("", "ai.onnx")}):
        first = min((one.since_version for one in schemas if (one.name, one.domain) == (name, "")), default=1)
        if first > opset:
            raise UserError(
                f"export.opset: the network has the operator {name}, expected an opset from {first} on, got {opset}; set "
                f"export.opset={first}"
            )


def _keep_modules(exported: onnx.ModelProto, simplified: onnx.ModelProto) -> None:
    """Copy the torch module of each node from the exported graph: onnxsim 0.8 drops it, but keeps the tensors' names."""
    scopes = {
        output: entry
        for node in exported.graph.node
        for entry in node.metadata_props
        if entry.key == SCOPES
        for output in node.output
    }
    for node in simplified.graph.node:
        known = [scopes[output] for output in node.output if output in scopes]
        if known and not node.metadata_props:
            node.metadata_props.append(known[0])
