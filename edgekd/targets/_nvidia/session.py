"""An engine of TensorRT or TensorRT-RTX on the first CUDA device: one stream, buffers allocated once.

Not run on hardware.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Mapping, Tuple

import numpy as np

from edgekd.board.specs import TensorSpec
from edgekd.errors import ImageError, TargetError
from edgekd.targets._nvidia.builder import Log
from edgekd.targets._nvidia.cuda import Cuda, device_facts, why_no_gpu
from edgekd.targets._nvidia.versions import read_plan_header, why_not_loadable
from edgekd.targets.base import SessionBase, check_tensors

if TYPE_CHECKING:
    import tensorrt


class PlanSession(SessionBase):
    """Loads `engine.plan`. Subclasses name the product and give its module; output memory is reused by each `infer`."""

    product: str
    target: str

    @abstractmethod
    def _module(self) -> Any:
        """Return the vendor's module."""

    @abstractmethod
    def _prepare(self, runtime: tensorrt.Runtime, plan: bytes) -> None:
        """Set up the runtime before the engine is loaded; TargetError when it cannot run the engine.

        Facts that the runtime reports about the engine go into `self.runtime`.
        """

    def _is_version_compatible(self) -> bool:
        return False

    def _open(self) -> None:
        trt, plan = self._module(), self._readable_plan()
        reason = why_no_gpu()
        if reason:
            raise TargetError(f"{self.engine}: {self.product} engines run on an NVIDIA GPU, and there is {reason}")
        self._log = Log(trt)
        self._runtime: tensorrt.Runtime = trt.Runtime(self._log.logger)
        self._prepare(self._runtime, plan)
        loaded = self._runtime.deserialize_cuda_engine(plan)
        if loaded is None:
            raise TargetError(f"{self.engine}: {self.product} cannot load it: {self._log.last_error()}")
        self.loaded: tensorrt.ICudaEngine = loaded
        self._check(trt)
        self._context: tensorrt.IExecutionContext = self.loaded.create_execution_context()
        if self._context is None:  # e.g. too little memory on the GPU; github.com/NVIDIA/TensorRT, issue 3017
            raise TargetError(f"{self.engine}: {self.product} has no execution context: {self._log.last_error()}")
        self._cuda = Cuda()
        self._buffers = {t.name: self._cuda.allocate(_bytes_of(t)) for t in (*self.spec.inputs, *self.spec.outputs)}
        for name, address in self._buffers.items():
            self._context.set_tensor_address(name, address)
        self._outputs = {t.name: np.empty(t.shape, t.dtype) for t in self.spec.outputs}
        self.runtime.update(runtime=self.target, version=trt.__version__, threads=1, **device_facts())

    def _readable_plan(self) -> bytes:
        """Return the engine's bytes after comparing its header and `engine.json` with the runtime and GPU here."""
        try:
            plan = self.engine.read_bytes()
        except OSError as exc:
            raise TargetError(f"{self.engine}: no such engine; build it with edgekd compile") from exc
        version = self._module().__version__
        reason = why_not_loadable(read_plan_header(plan), self.product, version, self._is_version_compatible())
        if reason:
            raise TargetError(f"{self.engine}: {reason}; build it again here")
        return plan

    def _check(self, trt: Any) -> None:
        engine = self.loaded
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        facts: Dict[str, Tuple[str, Tuple[int, ...]]] = {}
        for name in names:
            shape = engine.get_tensor_shape(name)
            dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name
            facts[name] = (dtype, tuple(int(shape[i]) for i in range(len(shape))))
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        check_tensors(self.engine, self.spec, {n: facts[n] for n in inputs}, {n: facts[n] for n in outputs})

    def _infer(self, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        cuda = self._cuda
        for tensor in self.spec.inputs:
            check_array(self.engine, tensor, inputs.get(tensor.name))
        for tensor in self.spec.inputs:
            cuda.to_device(self._buffers[tensor.name], inputs[tensor.name])
        if not self._context.execute_async_v3(cuda.stream):
            raise TargetError(f"{self.engine}: {self.product} failed to run it: {self._log.last_error()}")
        for name, array in self._outputs.items():
            cuda.to_host(array, self._buffers[name])
        cuda.synchronize()
        return dict(self._outputs)

    def _close(self) -> None:
        cuda = vars(self).pop("_cuda", None)
        for name in ("_context", "loaded", "_runtime", "_log"):  # before the buffers, which the context uses
            vars(self).pop(name, None)
        if cuda is not None:
            cuda.close()


def check_array(engine: Path, tensor: TensorSpec, array: Any) -> None:
    """Refuse an input that is not exactly what is copied to the device; ImageError."""
    fits = (
        isinstance(array, np.ndarray)
        and (array.dtype.name, array.shape) == (tensor.dtype, tuple(tensor.shape))
        and array.flags.c_contiguous
    )
    if not fits:
        got = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ImageError(
            f"{engine.name}: input refused: expected {tensor.name} {tensor.dtype} {list(tensor.shape)}, C-contiguous, got {got}"
        )


def write_device(engine: Path, facts: Mapping[str, str]) -> None:
    """Write the GPU that an engine was built on into `engine.json` beside it."""
    engine.with_suffix(".json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def check_device(engine: Path, here: Mapping[str, str]) -> None:
    """Compare the GPU that an engine was built on with the one here; an engine without `engine.json` is not compared.

    Raises:
        TargetError: another compute capability, or an `engine.json` that does not say which.
    """
    beside = engine.with_suffix(".json")
    if not beside.is_file():
        return
    try:
        built = json.loads(beside.read_text(encoding="utf-8"))
        device, capability = built["device"], built["compute_capability"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise TargetError(
            f"{engine}: expected {beside.name} beside it with the GPU that it was built on: {exc!r}; build it again on this "
            "machine"
        ) from exc
    if capability != here["compute_capability"]:
        raise TargetError(
            f"{engine}: built on {device} (compute capability {capability}), and here is "
            f"{here['device']} ({here['compute_capability']}); build it again on this machine"
        )


def _bytes_of(tensor: TensorSpec) -> int:
    return int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize
