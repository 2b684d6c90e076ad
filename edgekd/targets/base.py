"""The target record: a toolchain that turns ONNX into an engine, and the runtime that runs it.

A target is a package or module with `TARGET`, a `Target`: facts (`TargetInfo`), options, session class and functions. What a
target does not have is None in it. The record is made when the module is imported; a misspelt field is a TypeError then.

Vendor packages are imported inside functions. Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import importlib
import logging
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Callable, Dict, Literal, Mapping, Optional, Sequence, Tuple, Type, TypeVar

import numpy as np

from edgekd.board.choices import Choice
from edgekd.board.specs import ModelSpec
from edgekd.board.sysinfo import Facts
from edgekd.errors import TargetError, one_line

# Tensor name -> (numpy dtype name, shape), as an engine reports its own inputs or outputs.
Tensors = Mapping[str, Tuple[str, Tuple[int, ...]]]
SessionT = TypeVar("SessionT", bound="SessionBase")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Toolchain:
    """How a target compiles in another process: log patterns, time-out and locked requirements.

    log_errors: regular expressions, searched in each line of the log without colours; a match fails the job, whatever
        the vendor's return code says.
    log_notes: regular expressions of lines that look like errors but are not; they are recorded with the engine.
    timeout_s: seconds after which a job is killed.
    requirements: locked requirements file of the vendor virtualenv, with hashes; None for a target that compiles in this
        Python. Its head has the lines `# toolchain: <the toolchain's own package>` and `# python: <versions>`.
    """

    log_errors: Tuple[str, ...] = ()
    log_notes: Tuple[str, ...] = ()
    timeout_s: float = 3600.0
    requirements: Optional[Path] = None


@dataclass(frozen=True)
class TargetInfo:
    """Facts of a target, read without importing the vendor's package.

    suffix: file suffix of its engine.
    compile_at: `host` (in this process), `child` (in a child process of this Python, because the builder can crash),
        `toolchain` (in a vendor virtualenv) or `board` (in a child process on the machine that the engine runs on).
    quantizer: name of the plugin in `quantize/schemes` that makes the int8 model it compiles.
    precisions: precisions that a recipe may request.
    extra: the pip extra that installs it here, e.g. `openvino` for `edgekd[openvino]`.
    distributions: names on PyPI of the packages that its runtime can come from.
    tools: names on PyPI of further packages that change its engines, e.g. of its quantizer.
    calibration: calibration data for `build_engine` of a quantized engine: `none`, or `pixels`, see
        `CompileRequest`. Its quantizer writes them.
    rewrites: names in `rewrites` that `build_engine` applies, because its toolchain would refuse or misread
        the graph.
    toolchain: toolchain of a target that compiles in another process.
    support: YAML files of supported operators and patterns, see `preflight/tables.py`.
    chips: YAML files of chips that edgekd does not know by itself, see `core/chips.py`; a file's name is the chip's.
    """

    suffix: str
    compile_at: Literal["host", "child", "toolchain", "board"]
    quantizer: str
    precisions: Tuple[str, ...]
    extra: str
    distributions: Tuple[str, ...] = ()
    tools: Tuple[str, ...] = ()
    calibration: Literal["none", "pixels"] = "none"
    rewrites: Tuple[str, ...] = ()
    toolchain: Optional[Toolchain] = None
    support: Tuple[Path, ...] = ()
    chips: Tuple[Path, ...] = ()


def check_range(name: str, value: Optional[int], low: int, high: Optional[int] = None) -> None:
    """Check an option's number in `Options.__post_init__`; ValueError, to which the recipe reader adds the key."""
    if value is not None and not (low <= value and (high is None or value <= high)):
        limits = f"{low} to {high}" if high is not None else f"{low} or more"
        raise ValueError(f"{name}: expected {limits}, got {value}")


@dataclass(frozen=True)
class CompileRequest:
    """One compile job.

    model: an ONNX file, or what the target's quantizer wrote.
    spec: contract of the model.
    precision: precision of the engine.
    out_dir: existing folder for the engine.
    options: the target's own.
    calibration: .npy of uint8 images (N, H, W, 3) in the network's colour order, for a quantized engine of a target that
        wants pixels; else None.
    """

    model: Path
    spec: ModelSpec
    precision: str
    out_dir: Path
    options: Any
    calibration: Optional[Path] = None


@dataclass(frozen=True)
class CompileResult:
    """The engine file, the contract it now has, and what the toolchain reported (versions, flags, timings)."""

    engine: Path
    spec: ModelSpec
    details: Facts = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """A node that a toolchain refuses, and its reason on one line; `node` is "" when the toolchain names none."""

    node: str
    operator: str
    reason: str


@dataclass(frozen=True)
class Probe:
    """A toolchain's check of a model without building it: the tool, and the nodes that it refuses."""

    tool: str
    refusals: Tuple[Refusal, ...]


class SessionBase(ABC):
    """An engine loaded for inference. Subclasses fill `_open`, `_infer` and, where needed, `_close`.

    `infer` maps input names to C-contiguous arrays of the spec's dtype and shape and returns output arrays by name.
    `runtime` holds facts that the runtime reports after loading (version, threads, precision, device).
    """

    def __init__(self, engine: Path, spec: ModelSpec, options: Any) -> None:
        self.engine = Path(engine)
        self.spec = spec
        self.options = options
        self.runtime: Facts = {}

    def __enter__(self: SessionT) -> SessionT:
        try:
            self._open()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind: Optional[object], *exc: Optional[object]) -> None:
        try:
            self._close()
        except Exception as failed:
            if kind is None:
                raise
            log.warning("%s: after an error, closing it failed, too: %s", self.engine, one_line(failed))

    def infer(self, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Run once, synchronously, and return all outputs of the spec.

        Input arrays are read in place and must not change while this runs. Output arrays are valid until the next
        `infer` on the same session, which may write into the same memory, and until the session closes; copy what
        must live longer.
        """
        return self._infer(inputs)

    @abstractmethod
    def _open(self) -> None:
        """Load the engine and fill `runtime`."""

    @abstractmethod
    def _infer(self, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Run the loaded engine."""

    def _close(self) -> None:  # noqa: B027 - not every runtime has something to release
        """Release the runtime's objects. After a failed `_open` some of them do not exist."""


class TappedSession(SessionBase):
    """An engine that also gives inner tensors: `infer` returns them by name beside the outputs, as float32 or as they are.

    A tapped engine may be compiled otherwise than the engine itself, so its outputs can be others.

    Args:
        engine: the engine's file, see `SessionBase`.
        spec: its contract.
        options: the target's own.
        tensors: names in the ONNX graph that the engine was made from. When it is open, `tensors` are those that it has.
    """

    def __init__(self, engine: Path, spec: ModelSpec, options: Any, tensors: Sequence[str]) -> None:
        super().__init__(engine, spec, options)
        self.tensors = tuple(tensors)


def check_tensors(engine: Path, spec: ModelSpec, inputs: Tensors, outputs: Tensors) -> None:
    """Compare an engine's own tensors with its contract; outputs that the contract does not name are allowed.

    Raises:
        TargetError: a tensor is missing, or has another dtype or shape.
    """
    for kind, wanted, found in (("input", spec.inputs, inputs), ("output", spec.outputs, outputs)):
        for tensor in wanted:
            expected = (tensor.dtype, tuple(tensor.shape))
            if found.get(tensor.name) != expected:
                got = ", ".join(f"{name} {dtype} {list(shape)}" for name, (dtype, shape) in found.items())
                raise TargetError(
                    f"{engine}: expected {kind} {tensor.name} {expected[0]} {list(expected[1])}, got {got or 'none'}; "
                    "the engine does not belong to this contract, build it again"
                )
    unknown = set(inputs) - {tensor.name for tensor in spec.inputs}
    if unknown:
        raise TargetError(f"{engine}: needs inputs that its contract does not name: {', '.join(sorted(unknown))}")


def runs_on_any_machine(options: Optional[Any]) -> str:
    """Return "": every machine has the device that the engines run on."""
    return ""


@dataclass(frozen=True)
class Target:
    """A target: facts, options, session class and functions; None for a part that it does not have.

    info: its facts.
    options: a frozen dataclass, the target's own options in a recipe; every field has a default.
    session: opens an engine; `session(engine, spec, options)` is a context manager.
    runtime_version: returns the version of the runtime in this Python; TargetError with the install line when it is absent.
    build_engine: compiles a model.
    why_not_here: takes options, or None for any options, and returns why this machine cannot run such an engine, "" when it
        can. Whether the runtime is installed is not asked.
    probe: takes an ONNX file and options, and asks the toolchain which nodes it takes.
    check_engine: takes precision, options and the contract of a network; TargetError for what `build_engine` would refuse of
        any network under this contract. What is not installed is not asked.
    why_saturates: takes a quantized model, options and facts of a machine (`sysinfo.environment`), and returns why the engine
        would compute something else there, "" when it would not. None: it nowhere does.
    bound_to: takes options and returns "version" when an engine loads in no other version of the runtime, "machine" when it
        also loads on no other machine, else "". None: always "".
    board_version: returns the version of the runtime on the board, when that is not `runtime_version`; errors alike.
    simulator: a session class that computes what the chip computes, where the toolchain is.
    tap: a `TappedSession` class: the engine with inner tensors as further outputs.
    machine_facts: takes the root of a file system and returns facts (JSON) of the machine that edgekd does not know by
        itself; they are stored in manifests and identify the machine of a latency.
    power_mode: takes the root of a file system and returns performance settings (JSON) that a user makes before measuring.
    keeps_float: takes options and tensors, and returns the options (JSON) with which the toolchain computes the operators that
        write these tensors in float. None: the quantizer keeps operators in float.
    tunes: returns the choices that `edgekd tune` tries on this machine, see `board/choices.py`. None: there are none.
    """

    info: TargetInfo
    options: Type[Any]
    session: Type[SessionBase]
    runtime_version: Callable[[], str]
    build_engine: Callable[[CompileRequest], CompileResult]
    why_not_here: Callable[[Optional[Any]], str] = runs_on_any_machine
    probe: Optional[Callable[[Path, Any], Probe]] = None
    check_engine: Optional[Callable[[str, Any, ModelSpec], None]] = None
    why_saturates: Optional[Callable[[Path, Any, Facts], str]] = None
    bound_to: Optional[Callable[[Any], str]] = None
    board_version: Optional[Callable[[], str]] = None
    simulator: Optional[Type[SessionBase]] = None
    tap: Optional[Type[TappedSession]] = None
    machine_facts: Optional[Callable[[str], Facts]] = None
    power_mode: Optional[Callable[[str], Facts]] = None
    keeps_float: Optional[Callable[[Any, Sequence[str]], Facts]] = None
    tunes: Optional[Callable[[], Tuple[Choice, ...]]] = None


def target_of(module: str) -> Target:
    """Return the `TARGET` of a module that is imported by name."""
    found: Target = importlib.import_module(module).TARGET
    return found


def options_of(target: Target, given: Mapping[str, Any]) -> Any:
    """Return a target's options from JSON; TargetError for an option that it does not have."""
    known = {one.name for one in fields(target.options)}
    if not set(given) <= known:
        raise TargetError(f"unknown options {sorted(set(given) - known)}; known: {sorted(known)}")
    return target.options(**{key: _immutable(value) for key, value in given.items()})


def _immutable(value: Any) -> Any:
    """Return JSON with tuples for lists."""
    return tuple(map(_immutable, value)) if isinstance(value, list) else value
