"""The differences between the versions of TensorRT, 8.6 to 11, and of TensorRT-RTX: functions of the version alone.

Sources: Python bindings of TensorRT 8.6 to 11.1 (github.com/NVIDIA/TensorRT, `python/src`), binding wheel 11.4.0;
TensorRT 11.4 documentation, "Working with DLA" and the support matrix's section on version compatibility.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from edgekd.board.precision import Precision
from edgekd.errors import TargetError

Version = Tuple[int, int]
OLDEST: Version = (8, 6)
NEWEST_MAJOR = 11
# The first four bytes of a plan -> what wrote it. TensorRT: trtexec, samples/common/sampleEngines.cpp, getPlanVersion;
# TensorRT-RTX: read from engines of 1.7.1.
_MAGICS = {b"ftrt": "TensorRT", b"vtrt": "TensorRT-RTX"}
_VERSION_AT = 24  # of four bytes: major, minor, patch, build
# Engines built version-compatible run on a later minor version, and on the next major version in these two cases only.
_MAJOR_STEPS = {(8, 10), (10, 11)}


@dataclass(frozen=True)
class BuildFlags:
    """TensorRT's flags for a precision.

    network: members of `NetworkDefinitionCreationFlag`.
    builder: members of `BuilderFlag` to set.
    is_fp16_graph: the graph itself has to be converted to float16, because no flag asks for it.
    """

    network: Tuple[str, ...]
    builder: Tuple[str, ...]
    is_fp16_graph: bool


@dataclass(frozen=True)
class PlanHeader:
    """The header of an engine file: `TensorRT` or `TensorRT-RTX`, and the four numbers of its version."""

    product: str
    version: Tuple[int, int, int, int]


def version_of(text: str) -> Version:
    """Return (major, minor) of a TensorRT version such as `10.3.0.30`.

    Raises:
        TargetError: older than 8.6, or of a major version that edgekd does not know.
    """
    numbers = text.split(".")
    version = (int(numbers[0]), int(numbers[1]))
    if version < OLDEST or version[0] > NEWEST_MAJOR:
        raise TargetError(f"tensorrt: expected version 8.6 to {NEWEST_MAJOR}, got {text}; JetPack 6 and later has one")
    return version


def build_flags(version: Version, precision: str, float_layers: str) -> BuildFlags:
    """Return the flags that request a precision from a version of TensorRT.

    Up to 10, layers are weakly typed: a flag allows float16 and int8 beside float32. From 11 on the graph is taken as it
    is typed, and the flags are gone.

    Args:
        version: (major, minor).
        precision: precision of the engine.
        float_layers: of int8 and mixed engines, `fp32` or `fp16`: what is not quantized.
    """
    is_quantized = Precision(precision).is_quantized
    is_half = precision == "fp16" or (is_quantized and float_layers == "fp16")
    network = ("EXPLICIT_BATCH",) if version[0] < 10 else ()  # accepted and without effect in 10, gone in 11
    if version[0] >= 11:
        return BuildFlags(network, (), is_half)
    builder = (("INT8",) if is_quantized else ()) + (("FP16",) if is_half else ())
    return BuildFlags(network, builder, False)


def has_dla(version: Version) -> bool:
    """Return whether a version of TensorRT knows the DLA: up to 10.7, and from 11.4 on."""
    return version <= (10, 7) or version >= (11, 4)


def check_dla(version: Version, precision: str, core: int, cores: int) -> None:
    """Refuse a DLA core that is not there, or that cannot run the precision.

    Args:
        version: (major, minor) of TensorRT.
        precision: precision of the engine.
        core: number asked for.
        cores: how many the builder reports.

    Raises:
        TargetError: this version or chip has no such core, fp32, or int8 before 11, which wants implicit quantization.
    """
    said = f"dla_core {core}"
    if not has_dla(version):
        raise TargetError(
            f"tensorrt: {said}: TensorRT {version[0]}.{version[1]} has no DLA, only up to 10.7 and from 11.4 on; leave it out"
        )
    if not 0 <= core < cores:
        raise TargetError(f"tensorrt: {said}: expected an existing core, got {cores} DLA cores on this chip")
    check_dla_precision(precision, core)
    if Precision(precision).is_quantized and version[0] < 11:
        raise TargetError(
            f"tensorrt: {said}: the DLA of TensorRT {version[0]} does not take explicit Q/DQ, got precision {precision}; "
            "ask for fp16 on the DLA, or for int8 on the GPU"
        )


def check_dla_precision(precision: str, core: int) -> None:
    """Refuse a precision that no DLA computes in; TargetError."""
    if precision == "fp32":
        raise TargetError(
            f"tensorrt: dla_core {core}: the DLA computes in fp16 and int8, got precision fp32; ask for fp16"
        )


def read_plan_header(plan: bytes) -> Optional[PlanHeader]:
    """Return the header in the first bytes of an engine, None when they are not an engine's.

    Versions below 8.6 and serialization formats other than 0 are not read.
    """
    product = _MAGICS.get(plan[:4])
    if product is None or len(plan) < _VERSION_AT + 4 or plan[4:8] != bytes(4):
        return None
    major, minor, patch, build = plan[_VERSION_AT : _VERSION_AT + 4]
    return PlanHeader(product, (major, minor, patch, build))


def why_not_loadable(header: Optional[PlanHeader], product: str, runtime: str, is_version_compatible: bool) -> str:
    """Return why a runtime cannot load an engine, "" if it can.

    Args:
        header: header of the engine.
        product: `TensorRT` or `TensorRT-RTX`, whose runtime is here.
        runtime: its version, e.g. `10.3.0.30`.
        is_version_compatible: the engine was built with `version_compatible`.
    """
    if header is None:
        return f"not a {product} engine"
    if header.product != product:
        return f"an engine of {header.product}, and the runtime here is {product} {runtime}"
    here = tuple(int(number) for number in runtime.split(".")[:3])
    built = header.version[:3]
    if built == here or (is_version_compatible and _runs_on_later(built, here)):
        return ""
    wrote = ".".join(map(str, header.version))
    return f"built with {product} {wrote}, and the runtime here is {runtime}"


def _runs_on_later(built: Tuple[int, ...], here: Tuple[int, ...]) -> bool:
    return built <= here and (built[0] == here[0] or (built[0], here[0]) in _MAJOR_STEPS)
