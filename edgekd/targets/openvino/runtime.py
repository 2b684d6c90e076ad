"""OpenVINO without its telemetry: import, model reading, devices and their precisions, and the owner of a blob.

Source: OpenVINO 2026.4, "CPU device", "GPU device" and "NPU device" of its documentation; what CPU does was run.
Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Tuple

from edgekd.board.installation import install
from edgekd.errors import TargetError, one_line

IR, BLOB, BUILT_WITH = ".xml", ".blob", "engine.json"
# Precision of an engine -> allowed precisions of its float operators by kind of device, the default first.
_COMPUTES: Dict[str, Dict[str, Tuple[str, ...]]] = {
    "CPU": {"fp32": ("f32",), "fp16": ("f16",), "int8": ("f32", "f16", "bf16"), "mixed": ("f32", "f16", "bf16")},
    "GPU": {"fp32": ("f32",), "fp16": ("f16",), "int8": ("f16", "f32"), "mixed": ("f16", "f32")},
    "NPU": {"fp16": ("f16",), "int8": ("f16",), "mixed": ("f16",)},
}
DEVICES = tuple(_COMPUTES)
# In the file's own metadata: what the IR's float operators are computed in.
_MARK = ["edgekd", "inference_precision"]


def import_openvino() -> Any:
    """Import OpenVINO; TargetError when it is not installed."""
    try:
        with without_telemetry():
            import openvino
    except ImportError as exc:
        raise TargetError(f"openvino is not installed; {install('openvino')}") from exc
    return openvino


@lru_cache(maxsize=None)
def shared_core() -> Any:
    """Return OpenVINO's core, the same one for the life of the process.

    With the CPU, each core sets an alternate signal stack for its thread (for AMX) and later restores the old one (2026.4,
    intel_cpu/src/plugin.cpp, SigAltStackSetup). When two cores are destroyed in the order of their creation, the second restores
    the unmapped stack of the first, and the next signal handler (Ctrl+C) crashes the process.

    Raises:
        TargetError: OpenVINO is not installed.
    """
    return import_openvino().Core()


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Import Intel's packages as if `openvino_telemetry` were not installed.

    OpenVINO 2026.4 and NNCF 3.4 write an id into the home folder and send usage data when they are imported, unless
    the user opted out beforehand (openvino/tools/ovc/__init__.py, nncf/telemetry/wrapper.py). Delete this when
    consent becomes opt-in.
    """
    name = "openvino_telemetry"
    before = {name: sys.modules[name]} if name in sys.modules else {}
    sys.modules[name] = None  # type: ignore[assignment]  # importing it now raises ImportError
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update(before)


def read_model(path: Path) -> Any:
    """Return the `openvino.Model` of an ONNX or IR file; an ONNX file's constants are folded.

    OpenVINO's ONNX reader (2026.4) leaves biases behind a Reshape, where NNCF does not see them and silently skips
    its bias correction. `openvino.convert_model` folds them too, but reports usage to the vendor. An IR must not be
    folded: int8 weights would become float, and the CPU plugin would run the convolutions in float.

    Raises:
        TargetError: OpenVINO is not installed, or cannot read the file.
    """
    openvino = import_openvino()
    from openvino.passes import ConstantFolding, Manager

    try:
        model = shared_core().read_model(str(path))
    except RuntimeError as exc:
        raise TargetError(f"{path}: OpenVINO {openvino.__version__} cannot read it: {reason_of(exc)}") from exc
    if path.suffix == IR:
        return model
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)
    return model


def reason_of(exc: BaseException) -> str:
    """Drop the `Exception from src/...` and `Check ... failed at` lines of OpenVINO's messages."""
    lines = [line for line in str(exc).splitlines() if line and not line.startswith(("Exception from", "Check '"))]
    return one_line(RuntimeError(" ".join(lines) or str(exc)))


def check_is_one_device(device: str) -> None:
    """Refuse OpenVINO's devices that choose another device (AUTO, MULTI, HETERO), and empty names; TargetError."""
    if not device or not device[0].isalpha():
        raise TargetError(f"openvino: expected a device, e.g. CPU, GPU or NPU, got {device!r}")
    if kind_of(device) in ("AUTO", "MULTI", "HETERO", "BATCH"):
        raise TargetError(
            f"openvino: device {device} chooses by itself what runs where, also the CPU; expected one device, e.g. CPU, GPU or "
            "NPU"
        )


def check_device(core: Any, device: str) -> None:
    """Refuse a device that is not one of this machine's, and those that choose one by themselves.

    Raises:
        TargetError: with the devices that are here, and OpenVINO's reason for the absent one where it has one.
    """
    check_is_one_device(device)
    said, here = f"OpenVINO {import_openvino().__version__}", core.available_devices
    if device in here or any(one.startswith(f"{device}.") for one in here):
        return
    reason = ""
    try:
        core.get_property(device, "AVAILABLE_DEVICES")
    except RuntimeError as exc:
        reason = f" ({reason_of(exc)})"
    raise TargetError(
        f"{said}: no device {device} here{reason}; available: {', '.join(here)}; edgekd does not fall back to another device"
    )


def kind_of(device: str) -> str:
    """Return `GPU` for `GPU.0`, and so on."""
    return device.partition(".")[0].partition(":")[0].upper()


def precision_of(device: str, precision: str, asked: Optional[str]) -> str:
    """Return the precision of an engine's float operators: `f32`, `f16` or `bf16`.

    Args:
        device: OpenVINO's name.
        precision: precision of the engine, `fp32`, `fp16` or `int8`.
        asked: the option `inference_precision`.

    Raises:
        TargetError: the device does not have the precision, or the option contradicts it.
    """
    choices = _COMPUTES.get(kind_of(device), _COMPUTES["CPU"])
    if precision not in choices:
        raise TargetError(
            f"openvino: the {kind_of(device)} computes in {', '.join(choices)}, got precision {precision}; ask for fp16"
        )
    if asked is None:
        return str(choices[precision][0])
    if asked not in choices[precision]:
        expected = " or ".join(choices[precision])
        raise TargetError(
            f"openvino: precision {precision} contradicts inference_precision {asked}; expected {expected} on "
            f"{kind_of(device)}, or leave the option out"
        )
    return asked


def mark(model: Any, precision: str) -> None:
    """Write into a model's metadata what its float operators are computed in."""
    model.set_rt_info(precision, _MARK)


def marked(model: Any) -> str:
    """Return the precision that `mark` wrote; `f32` for an IR without it, which edgekd wrote before it knew others."""
    return str(model.get_rt_info(_MARK).astype(str)) if model.has_rt_info(_MARK) else "f32"


def write_built_with(blob: Path, core: Any, device: str, precision: str) -> None:
    """Write beside a blob what it belongs to."""
    facts = {**_belongs(core, device), "inference_precision": precision}
    blob.with_name(BUILT_WITH).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def precision_of_blob(blob: Path, core: Any, device: str) -> str:
    """Return the precision of a blob's float operators, after checking that it belongs here.

    Raises:
        TargetError: no such file, none beside it that says what it belongs to, or another device or version.
    """
    if not blob.is_file():
        raise TargetError(f"{blob}: no such engine; build it with edgekd compile")
    try:
        built = json.loads(blob.with_name(BUILT_WITH).read_text(encoding="utf-8"))
        wrong = [
            f"{name.replace('_', ' ')} {built[name]}, here {here}"
            for name, here in _belongs(core, device).items()
            if built.get(name, here) != here
        ]
        precision = str(built["inference_precision"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise TargetError(f"{blob}: expected {BUILT_WITH} beside itwith its device and version: {exc!r}") from exc
    if wrong:
        raise TargetError(
            f"{blob}: a blob runs only where it was compiled: built for {'; '.join(wrong)}; remove {blob.parent.name}/ and compile "
            "it here"
        )
    return precision


def _belongs(core: Any, device: str) -> Dict[str, str]:
    """Return the device and versions that a blob belongs to.

    All NPUs have one name, so their architecture and driver count where the device reports them.
    """
    supported = core.get_property(device, "SUPPORTED_PROPERTIES")
    told = [name for name in ("DEVICE_ARCHITECTURE", "NPU_DRIVER_VERSION") if name in supported]
    return {
        "openvino": import_openvino().__version__,
        "device": device,
        "device_name": str(core.get_property(device, "FULL_DEVICE_NAME")),
        **{name.lower(): str(core.get_property(device, name)) for name in told},
    }
