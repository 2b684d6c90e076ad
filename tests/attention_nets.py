"""Segmenters with one block of masked attention, whose masks are written in the ways that exporters write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec

SIZE, CLASSES, TOKENS, WIDTH = (32, 48), ("sky", "road", "car"), 24, 16
VALUES = {"-1e9": -1e9, "finfo": float(np.finfo(np.float32).min), "-inf": -np.inf, "half": -65504.0, "swin": -100.0}
FORMS = ("add", "constant", "where", "where_bool", "computed", "scaled", "expanded")


def smooth_images(count: int, seed: int) -> list[np.ndarray]:
    """Return uint8 RGB images (H, W, 3) of noise that changes slowly."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, *SIZE, 3))
    for axis in (1, 2):
        noise = (noise + np.roll(noise, 1, axis) + np.roll(noise, 2, axis)) / 1.7
    return list(np.clip(noise * 40 + 128, 0, 255).astype(np.uint8))


def masked_attention(form: str, value: float, is_named: bool = True) -> tuple[onnx.ModelProto, ModelSpec]:
    """Return a segmenter in which a token attends to half of the tokens, and its contract.

    Args:
        form: `add` an initializer, add the output of a `constant` node, `where` with the scores and a number, `where_bool`:
            the same with a condition computed from the image, `computed`: a triangle made by ConstantOfShape and Trilu,
            `scaled`: (1 - mask) * value, `expanded`: a mask of fewer dimensions.
        value: of the tokens that it does not attend to.
        is_named: give nodes names.
    """
    rng = np.random.default_rng(3)
    nodes: list[Any] = []
    constants: dict[str, np.ndarray] = {}

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=f"n.{output}" if is_named else "", **attributes))
        return output

    def const(name: str, array: Any) -> str:
        constants[name] = np.asarray(array)
        return name

    def weight(name: str, *shape: int, spread: float = 1.0) -> str:
        return const(name, (rng.standard_normal(shape) * spread).astype(np.float32))

    node("Conv", ["image", weight("patch.w", WIDTH, 3, 8, 8, spread=0.1)], "patches", strides=[8, 8])
    node("Reshape", ["patches", const("flat", np.array([1, WIDTH, TOKENS]))], "columns")
    x = node("Transpose", ["columns"], "tokens", perm=[0, 2, 1])
    for name in ("q", "k", "v"):
        node("MatMul", [x, weight(f"{name}.w", WIDTH, WIDTH, spread=WIDTH**-0.5)], name)
    node("Transpose", ["k"], "kt", perm=[0, 2, 1])
    node("MatMul", ["q", "kt"], "products")
    node("Mul", ["products", const("root", np.float32(WIDTH**-0.5))], "scores")
    blocked = (np.arange(TOKENS)[:, None] + np.arange(TOKENS)[None, :]) % 2 == 1
    mask = np.where(blocked, value, 0).astype(np.float32)[None]
    if form == "add":
        node("Add", ["scores", const("mask", mask)], "masked")
    elif form == "constant":
        nodes.append(helper.make_node("Constant", [], ["mask"], name="n.mask", value=numpy_helper.from_array(mask)))
        node("Add", ["mask", "scores"], "masked")
    elif form == "where":
        node("Where", [const("blocked", blocked[None]), const("least", np.float32(value)), "scores"], "masked")
    elif form == "where_bool":
        node("Greater", ["scores", const("limit", np.float32(1.0))], "chosen")
        node("Where", ["chosen", const("least", np.float32(value)), "scores"], "masked")
    elif form == "computed":
        fill = numpy_helper.from_array(np.array([value], np.float32))
        node("ConstantOfShape", [const("square", np.array([TOKENS, TOKENS]))], "filled", value=fill)
        node("Trilu", ["filled", const("above", np.array(1))], "triangle", upper=1)
        node("Add", ["scores", "triangle"], "masked")
    elif form == "scaled":
        node("Sigmoid", [node("Mul", ["scores", const("steep", np.float32(1e3))], "steeper")], "gate")
        node("Round", ["gate"], "open")
        node("Sub", [const("one", np.float32(1)), "open"], "shut")
        node("Mul", ["shut", const("least", np.float32(max(value, -3e38)))], "penalty")
        node("Add", ["scores", "penalty"], "masked")
    else:
        node("Unsqueeze", [const("row", mask[0, 0]), const("axes", np.array([0, 1]))], "wide")
        node("Expand", ["wide", const("full", np.array([1, TOKENS, TOKENS]))], "mask")
        node("Add", ["scores", "mask"], "masked")
    node("Softmax", ["masked"], "shares", axis=-1)
    node("MatMul", ["shares", "v"], "mixed")
    node("Add", ["mixed", x], "residual")
    node("Transpose", ["residual"], "turned", perm=[0, 2, 1])
    node("Reshape", ["turned", const("map", np.array([1, WIDTH, 4, 6]))], "coarse")
    node("Conv", ["coarse", weight("mid.w", WIDTH, WIDTH, 1, 1, spread=WIDTH**-0.5)], "mid")
    node("Relu", ["mid"], "active")
    node("Conv", ["active", weight("head.w", len(CLASSES), WIDTH, 1, 1)], "coarse_logits")
    node("Resize", ["coarse_logits", "", const("scales", np.array([1, 1, 8, 8], np.float32))], "logits", mode="linear")
    image, logits = (
        TensorSpec("image", "float32", (1, 3, *SIZE), "image"),
        TensorSpec("logits", "float32", (1, len(CLASSES), *SIZE), "logits"),
    )
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info(one.name, TensorProto.FLOAT, one.shape) for one in (image,)],
        [helper.make_tensor_value_info(one.name, TensorProto.FLOAT, one.shape) for one in (logits,)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    preprocess = Preprocess(SIZE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return model, ModelSpec("semantic", CLASSES, 255, (image,), (logits,), preprocess)
