"""Options of a quantizer that follow from the machines that run its engines: the bits of the weights.

x86 CPUs without VNNI add two products of 8-bit integers in 16 bits, which saturates with 8-bit weights. A file can be copied to
such a CPU from one that has VNNI, so `auto` is 7 bits wherever an engine runs on x86, and 8 bits where all run on ARM.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from edgekd.core import chips
from edgekd.core.recipe import LOCAL, Quantize
from edgekd.executors.boards import chip_of

AUTO = "auto"
_ARM = ("aarch64", "arm64", "armv7l")  # as Linux and macOS name it


def options_of(settings: Quantize, quantizer: str) -> Any:
    """Return a quantizer's options with `weight_bits: auto` resolved for the boards that run the engines.

    Raises:
        RecipeError: the options do not fit, or the inventory lacks a board.
    """
    options = settings.typed_options(quantizer)
    return replace(options, weight_bits=weight_bits(settings.boards)) if _is_auto(options) else options


def state_of(settings: Quantize, quantizer: str) -> dict[str, Any] | None:
    """Return the machine facts that the model depends on (JSON); None if it depends on no machine."""
    if not _is_auto(settings.typed_options(quantizer)) or weight_bits(settings.boards) == 7:
        return None
    return {"weight_bits": weight_bits(settings.boards)}


def weight_bits(boards: Sequence[str]) -> int:
    """Return the bits of weights that no CPU of these boards saturates with: 8 where all are known to be ARM, else 7."""
    return 8 if boards and all(map(_is_arm, boards)) else 7


def _is_auto(options: Any) -> bool:
    return any(field.name == "weight_bits" for field in fields(options)) and options.weight_bits == AUTO


def _is_arm(board: str) -> bool:
    """Return whether a board has an ARM processor: this machine by its name, another one by its chip in the inventory."""
    if board == LOCAL:
        return platform.machine() in _ARM
    name = chip_of(board)
    if name is None:
        return False
    chip = chips.load(name)  # device trees, which `compatible` is of, are those of ARM boards here
    return bool(chip.compatible) or any(machine in _ARM for machine in chip.machines)
