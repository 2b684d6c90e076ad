"""TensorRT's debug tensors: marking is run with TensorRT-RTX, the listener on memory of this process. No engine runs."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekd.errors import TargetError
from edgekd.targets._nvidia.builder import Build
from edgekd.targets._nvidia.tapping import _listener, mark_debug
from edgekd.targets._nvidia.versions import BuildFlags
from edgekd.targets.base import CompileRequest
from edgekd.targets.tensorrt_rtx import target as tensorrt_rtx
from tests.small_nets import segmenter

trt: Any = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 is not installed")


def network(folder: Path) -> Build:
    net = segmenter()[0]
    build = Build(trt, "TensorRT-RTX", BuildFlags((), (), False))
    build.parse(net.SerializeToString(), folder / "model.onnx")
    return build


def test_tensors_are_marked_by_pattern_and_their_names_are_those_of_the_graph(tmp_path: Path) -> None:
    build = network(tmp_path)
    assert mark_debug(build.network, ("block.*.out", "head.out"), "TensorRT-RTX") >= 4
    layers = [build.network.get_layer(place) for place in range(build.network.num_layers)]
    marked = {layer.get_output(0).name for layer in layers if build.network.is_debug_tensor(layer.get_output(0))}
    assert {"block.a.relu.out", "block.b.out", "block.relu.out", "head.out"} <= marked
    assert "stem.relu.out" not in marked


def test_no_pattern_marks_nothing_and_one_that_fits_nothing_is_refused(tmp_path: Path) -> None:
    build = network(tmp_path)
    assert mark_debug(build.network, (), "TensorRT-RTX") == 0
    with pytest.raises(TargetError, match="no tensor of the network matches nothing"):
        mark_debug(build.network, ("nothing",), "TensorRT-RTX")
    with pytest.raises(TargetError, match="this version has no debug tensors"):
        mark_debug(object(), ("*",), "TensorRT 9")


def test_an_engine_with_debug_tensors_is_built(tmp_path: Path) -> None:
    onnx.save(segmenter()[0], tmp_path / "model.onnx")
    options = tensorrt_rtx.Options(debug_tensors=("*",))
    request = CompileRequest(tmp_path / "model.onnx", segmenter()[1], "fp32", tmp_path, options)
    assert tensorrt_rtx.build_engine(request).engine.stat().st_size > 1000


def test_the_listener_copies_what_it_is_handed() -> None:
    values = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    listener = _listener(trt, cuda=None)  # type: ignore[arg-type]  # the memory is the host's
    address = new(values.ctypes.data, None, None)
    shape = trt.Dims(values.shape)
    assert listener.process_debug_tensor(address, trt.TensorLocation.HOST, trt.float32, shape, "conv.out", 0)
    assert np.array_equal(listener.found["conv.out"], values)
