"""The error of an engine layer by layer: the numbers, as JSON and as they are read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

QUANTIZATION, RUNTIME, BOARD, TAPS = "quantization", "runtime", "board", "taps"
# The four comparisons, in the order of a network's way to a board.
COMPARISONS = {
    QUANTIZATION: "float ONNX – Q/DQ graph",
    RUNTIME: "Q/DQ graph – engine",
    BOARD: "engine here – engine on its board",
    TAPS: "tapped – untapped engine",
}

# What makes most of a layer's quantization noise.
RANGE, INPUTS, WEIGHTS = "range", "inputs", "weights"


@dataclass(frozen=True)
class LayerError:
    """Signal-to-noise ratios of one layer in dB; None where it was not measured.

    name, op, module, macs: as `graphs.Layer`.
    is_float: not quantized, in a quantized model.
    alone: of the network's outputs when only this layer is quantized.
    single: of this layer's output from float inputs, as a toolchain's own analysis says.
    accumulated: of this layer's output in the Q/DQ graph against the float graph.
    engine: of the engine's tensor against the Q/DQ graph's.
    engine_own: of the engine's tensor against the same layer of the Q/DQ graph, computed from the engine's own inputs, without the
        noise of roundings that the engine leaves out.
    board, board_own: as `engine`: of the board's tensor against the engine's here, and of its own.
    allowed: what rounding explains of `engine_own`.
    cause: what makes most of this layer's quantization noise: its inputs' range, which is too small, the rounding of its inputs, or
        that of its weights; "" where it is not quantized.
    outside: with the cause RANGE, the share of values outside the range of an input.
    number: which of the layers of the same module and operator, from 1; 0 for the only one. Detectors run a module on each level.
    """

    name: str
    op: str = ""
    module: str = ""
    macs: float = 0.0
    is_float: bool = False
    alone: float | None = None
    single: float | None = None
    accumulated: float | None = None
    engine: float | None = None
    engine_own: float | None = None
    board: float | None = None
    board_own: float | None = None
    allowed: float | None = None
    cause: str = ""
    outside: float = 0.0
    number: int = 0

    @property
    def title(self) -> str:
        """Name for a reader: the module, the operator in it, and its number."""
        number = f" #{self.number}" if self.number else ""
        return f"{self.module} ({self.op}){number}" if self.module else self.name


@dataclass(frozen=True)
class Blame:
    """The layer to blame.

    comparison: a key of COMPARISONS.
    layer: its node; "" where the comparison names none.
    text: one sentence.
    cause: of a loss by quantization, as that of its layer.
    others: nodes of the layers that stand out with it.
    """

    comparison: str
    layer: str
    text: str
    cause: str = ""
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerErrors:
    """The errors of an engine.

    engine: its id.
    images: number of images.
    layers: in graph order.
    answer: dB of the network's outputs, by comparison; None where it was not made.
    blamed: the layers to blame, the worst comparison first; empty when nothing stands out.
    sentence: the first of them in words, or why nothing stands out.
    notes: what was not compared, and why.
    """

    engine: str
    images: int
    layers: tuple[LayerError, ...]
    answer: Mapping[str, float | None]
    blamed: tuple[Blame, ...]
    sentence: str
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> LayerErrors:
        """Return the object that `to_dict` wrote; unknown keys are ignored."""
        known = {field.name for field in fields(LayerError)}
        layers = tuple(LayerError(**{key: one[key] for key in known & set(one)}) for one in value["layers"])
        blamed = tuple(Blame(**{**one, "others": tuple(one.get("others", ()))}) for one in value["blamed"])
        rest = {name: value[name] for name in ("engine", "images", "answer", "sentence")}
        return cls(**rest, layers=layers, blamed=blamed, notes=tuple(value["notes"]))
