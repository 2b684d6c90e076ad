"""Tiny ONNX networks made by hand, their contracts, and images; for tests of quantizers, targets and the bench."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec

HEIGHT, WIDTH, CLASSES = 32, 48, ("sky", "road", "car")


class _Builder:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def conv(self, source: str, name: str, channels: tuple[int, int], kernel: int, stride: int = 1) -> str:
        """Append a convolution with He-initialised weights and a bias; return its output."""
        into, out = channels
        spread = np.sqrt(2 / (into * kernel * kernel))
        weight = self.rng.standard_normal((out, into, kernel, kernel)) * spread
        self.constant(f"{name}.weight", weight.astype(np.float32))
        self.constant(f"{name}.bias", (self.rng.standard_normal(out) * 0.1).astype(np.float32))
        return self.node(
            "Conv", [source, f"{name}.weight", f"{name}.bias"], name, strides=[stride] * 2, pads=[kernel // 2] * 4
        )

    def node(self, kind: str, inputs: list[str], name: str, output: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output or f"{name}.out"], name=name, **attributes))
        return output or f"{name}.out"

    def constant(self, name: str, value: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(value, name))
        return name


def segmenter(is_uint8: bool = False, has_argmax: bool = False, seed: int = 0) -> tuple[onnx.ModelProto, ModelSpec]:
    """Return a strided net with a residual and an upsampling, and its contract.

    Args:
        is_uint8: take uint8 (1, H, W, 3) and normalise inside, instead of float32 (1, 3, H, W).
        has_argmax: give `class_map` (1, H, W) uint8 instead of `logits` (1, 3, H, W) float32.
        seed: of the weights.
    """
    net = _Builder(seed)
    x = _normalised(net) if is_uint8 else "image"
    x = net.node("Relu", [net.conv(x, "stem", (3, 8), 3, stride=2)], "stem.relu")
    y = net.node("Relu", [net.conv(x, "block.a", (8, 8), 3)], "block.a.relu")
    y = net.conv(y, "block.b", (8, 8), 3)
    x = net.node("Relu", [net.node("Add", [x, y], "block.add")], "block.relu")
    x = net.conv(x, "head", (8, len(CLASSES)), 1)
    scales = net.constant("scales", np.array([1, 1, 2, 2], np.float32))
    x = net.node("Resize", [x, "", scales], "up", "" if has_argmax else "logits", mode="linear")
    if has_argmax:
        best = net.node("ArgMax", [x], "argmax", axis=1, keepdims=0)
        net.node("Cast", [best], "cast", "class_map", to=TensorProto.UINT8)
    spec = _spec(is_uint8, has_argmax)
    return _model(net, spec), spec


def images(count: int, seed: int = 1) -> list[np.ndarray]:
    """Return smooth uint8 RGB images (H, W, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, HEIGHT // 8, WIDTH // 8, 3))
    return list(np.kron(coarse, np.ones((1, 8, 8, 1))).astype(np.uint8))


def prepared(spec: ModelSpec, image: np.ndarray) -> dict[str, np.ndarray]:
    """Return the network's input for an image of its own size, worked out independently of edgekd's preprocessing."""
    if spec.preprocess.dtype == "uint8":
        return {"image": np.ascontiguousarray(image[None])}
    pixels = (image.astype(np.float64) / 255 - spec.preprocess.mean) / spec.preprocess.std
    return {"image": np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)}


def _normalised(net: _Builder) -> str:
    x = net.node("Cast", ["image"], "to_float", to=TensorProto.FLOAT)
    x = net.node("Transpose", [x], "to_nchw", perm=[0, 3, 1, 2])
    shift = net.constant("mean255", np.array([127.5] * 3, np.float32).reshape(1, 3, 1, 1))
    scale = net.constant("std255", np.array([63.75] * 3, np.float32).reshape(1, 3, 1, 1))
    return net.node("Div", [net.node("Sub", [x, shift], "minus_mean"), scale], "by_std")


def _spec(is_uint8: bool, has_argmax: bool) -> ModelSpec:
    size = (HEIGHT, WIDTH)
    shape = (1, *size, 3) if is_uint8 else (1, 3, *size)
    dtype, layout = ("uint8", "NHWC") if is_uint8 else ("float32", "NCHW")
    output = TensorSpec("logits", "float32", (1, len(CLASSES), *size), "logits")
    if has_argmax:
        output = TensorSpec("class_map", "uint8", (1, *size), "class_map")
    return ModelSpec(
        task="semantic",
        classes=CLASSES,
        ignore_index=255,
        inputs=(TensorSpec("image", dtype, shape, "image"),),
        outputs=(output,),
        preprocess=Preprocess(size, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), layout, dtype),
    )


def _model(net: _Builder, spec: ModelSpec) -> onnx.ModelProto:
    def info(tensor: TensorSpec) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(
            tensor.name, helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype)), tensor.shape
        )

    graph = helper.make_graph(
        net.nodes, "segmenter", [info(t) for t in spec.inputs], [info(t) for t in spec.outputs], net.weights
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model
