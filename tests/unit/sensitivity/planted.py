"""A network with planted range outliers: the function stays what it was, int8 loses it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edgekd.board.specs import ModelSpec
from tests.small_nets import _Builder, _model, _spec

PAIRS = tuple((f"block{number}.a", f"block{number}.b") for number in range(3))


def deep_segmenter(seed: int, width: int = 12) -> tuple[onnx.ModelProto, ModelSpec]:
    """Return a segmenter of 8 convolutions, three pairs with a skip each, with random weights; 32x48 to 3 classes."""
    net = _Builder(seed)
    x = net.node("Relu", [net.conv("image", "stem", (3, width), 3, stride=2)], "stem.relu")
    for a, b in PAIRS:
        y = net.node("Relu", [net.conv(x, a, (width, width), 3)], f"{a}.relu")
        y = net.conv(y, b, (width, width), 3)
        x = net.node("Relu", [net.node("Add", [x, y], f"{b}.add")], f"{b}.relu")
    x = net.conv(x, "head", (width, 3), 1)
    scales = net.constant("scales", np.array([1, 1, 2, 2], np.float32))
    net.node("Resize", [x, "", scales], "up", "logits", mode="linear")
    spec = _spec(is_uint8=False, has_argmax=False)
    return _model(net, spec), spec


def blown_up(model: onnx.ModelProto, pair: tuple[str, str], factor: float, seed: int) -> None:
    """Multiply a few channels between two convolutions and divide them again in the second; in place.

    A ReLU between them commutes with positive factors, so the outputs stay the same but for rounding.
    """
    rng = np.random.default_rng(seed)
    weights = {one.name: one for one in model.graph.initializer}
    first, bias, second = (f"{pair[0]}.weight", f"{pair[0]}.bias", f"{pair[1]}.weight")
    channels = numpy_helper.to_array(weights[first]).shape[0]
    scale = np.ones(channels, np.float32)
    scale[rng.choice(channels, max(1, channels // 6), replace=False)] = factor
    changed: dict[str, np.ndarray] = {
        first: numpy_helper.to_array(weights[first]) * scale[:, None, None, None],
        bias: numpy_helper.to_array(weights[bias]) * scale,
        second: numpy_helper.to_array(weights[second]) / scale[None, :, None, None],
    }
    for name, value in changed.items():
        weights[name].CopyFrom(numpy_helper.from_array(value, name))
