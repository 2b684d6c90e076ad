"""Inner tensors of an engine as TensorRT's debug tensors, which a listener is handed while the engine runs.

They are marked when the engine is built (option `debug_tensors`) and are not fused, so such an engine is another one than that
without them. Not run on hardware: marking was run with TensorRT-RTX 1.7.1, reading was not.

Source: TensorRT 10 Python API, `INetworkDefinition.mark_debug`, `IDebugListener`, `IExecutionContext.set_tensor_debug_state`.
Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import ctypes
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any, Dict, Sequence

import numpy as np

from edgekd.errors import TargetError
from edgekd.targets.base import TappedSession

if TYPE_CHECKING:
    from edgekd.targets._nvidia.cuda import Cuda


def mark_debug(network: Any, patterns: Sequence[str], product: str) -> int:
    """Mark the tensors of a parsed network whose names match shell-style patterns; return their number.

    Raises:
        TargetError: a version without debug tensors, or no tensor matches.
    """
    if not patterns:
        return 0
    if not hasattr(network, "mark_debug"):
        raise TargetError(f"{product}: this version has no debug tensors; leave the option debug_tensors out")
    layers = [network.get_layer(place) for place in range(network.num_layers)]
    tensors = [layer.get_output(place) for layer in layers for place in range(layer.num_outputs)]
    wanted = [one for one in tensors if any(fnmatch(one.name, pattern) for pattern in patterns)]
    marked = sum(bool(network.mark_debug(one)) for one in wanted)
    if not marked:
        raise TargetError(f"{product}: debug_tensors: no tensor of the network matches {', '.join(patterns)}")
    return marked


class TappedPlan(TappedSession):
    """A mixin before a `PlanSession`: the engine with its debug tensors as further outputs. Not run on hardware."""

    _context: Any
    _cuda: Any
    loaded: Any

    def _open(self) -> None:
        super()._open()  # type: ignore[safe-super]  # the session that it is mixed into
        self.tensors = tuple(name for name in self.tensors if self.loaded.is_debug_tensor(name))
        if not self.tensors:
            raise TargetError(
                f"{self.engine}: none of its tensors can be read; build an engine with the option debug_tensors: ['*'] for it"
            )
        self._read = _listener(self._module(), self._cuda)  # type: ignore[attr-defined]
        self._context.set_debug_listener(self._read)
        for name in self.tensors:
            self._context.set_tensor_debug_state(name, True)

    def _infer(self, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        self._read.found.clear()
        outputs = super()._infer(inputs)  # type: ignore[safe-super]
        absent = [name for name in self.tensors if name not in self._read.found]
        if absent:
            raise TargetError(f"{self.engine}: its run did not give the debug tensors {', '.join(absent)}")
        return {**outputs, **self._read.found}


def _listener(trt: Any, cuda: Cuda) -> Any:
    """Return a listener that copies every debug tensor into its `found`, by name."""

    class Listener(trt.IDebugListener):  # type: ignore[misc] # TensorRT has no types
        def __init__(self) -> None:
            trt.IDebugListener.__init__(self)
            self.found: Dict[str, np.ndarray] = {}

        def process_debug_tensor(self, addr: Any, location: Any, type: Any, shape: Any, name: str, stream: int) -> bool:
            array = np.empty(tuple(shape), np.dtype(trt.nptype(type)))
            address = _address(addr)
            if location == trt.TensorLocation.HOST:
                ctypes.memmove(array.ctypes.data, address, array.nbytes)
            else:
                cuda.to_host(array, address)
                cuda.synchronize()
            self.found[name] = array.astype(np.float32)
            return True

    return Listener()


def _address(capsule: Any) -> int:
    """Return the pointer in a Python capsule."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    name = ctypes.pythonapi.PyCapsule_GetName
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    return int(get(capsule, name(capsule)) or 0)
