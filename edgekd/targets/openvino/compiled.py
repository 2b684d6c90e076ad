"""Facts that OpenVINO gives about a compiled model: its tensors, its properties, and the precision of its layers.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Dict, Sequence, Tuple

from edgekd.board.specs import TensorSpec
from edgekd.board.sysinfo import Facts
from edgekd.targets.base import Tensors

PRECISION = "INFERENCE_PRECISION_HINT"
_PROPERTIES = (
    "INFERENCE_NUM_THREADS",
    "NUM_STREAMS",
    "OPTIMAL_NUMBER_OF_INFER_REQUESTS",
    "PERFORMANCE_HINT",
    "EXECUTION_MODE_HINT",
    "EXECUTION_DEVICES",
    "ENABLE_CPU_PINNING",
    "ENABLE_HYPER_THREADING",
    "RUNTIME_REQUIREMENTS",
)
Ports = Dict[str, Any]  # tensor name -> OpenVINO's port


def ports_by_name(ports: Sequence[Any], wanted: Sequence[TensorSpec]) -> Ports:
    """Return the ports by name, each under the contract's name when it is one of the port's names."""
    names = {tensor.name for tensor in wanted}
    return {next(iter(names & port.get_names()), port.get_any_name()): port for port in ports}


def tensors_of(ports: Ports) -> Tensors:
    """Return dtype and shape of each port; -1 for a dynamic side."""
    return {name: (port.get_element_type().to_dtype().name, _shape(port.partial_shape)) for name, port in ports.items()}


def properties_of(compiled: Any) -> Facts:
    """Return the properties that latency depends on, those that the device has, in lower case."""
    supported = compiled.get_property("SUPPORTED_PROPERTIES")
    return {key.lower(): _plain(compiled.get_property(key)) for key in _PROPERTIES if key in supported}


def reported_precision(compiled: Any) -> str:
    """Return the precision that the device says it computes in, "" where it has no such property."""
    if PRECISION not in compiled.get_property("SUPPORTED_PROPERTIES"):
        return ""
    return str(compiled.get_property(PRECISION).to_string())


def layers_of(compiled: Any) -> Dict[str, int]:
    """Return the number of layers by precision, without inputs, outputs and constants.

    Empty where the device has no such graph, e.g. on the NPU.
    """
    try:
        operators = compiled.get_runtime_model().get_ops()
    except RuntimeError:
        return {}
    counts = Counter(
        info["runtimePrecision"].astype(str)
        for info in (op.get_rt_info() for op in operators)
        if info["layerType"].astype(str) not in ("Input", "Output", "Const")
    )
    return dict(sorted(counts.items()))


def _shape(partial: Any) -> Tuple[int, ...]:
    if partial.rank.is_dynamic:
        return (-1,)
    return tuple(size.get_length() if size.is_static else -1 for size in partial)


def _plain(value: Any) -> Any:
    """Return a property as JSON-ready data."""
    return value if isinstance(value, (bool, int, float, list)) else getattr(value, "name", str(value))
