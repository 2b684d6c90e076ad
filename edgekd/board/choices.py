"""Choices that change the speed of an engine and not its result, as a target declares them for `edgekd tune`.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Mapping, Tuple

from edgekd.board.sysinfo import usable_cores


@dataclass(frozen=True)
class Choice:
    """One change of an engine's settings.

    name: name of the choice in tables, e.g. `1 thread`.
    options: options of the target by name. A mapping is merged with the one that the recipe gives.
    export: keys of the recipe's section `export`; the choice then needs another ONNX graph.
    is_built: whether the engine file depends on `options`. False: the same file is opened with other options.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    export: Mapping[str, Any] = field(default_factory=dict)
    is_built: bool = False


# Pixels as they come, normalised in the graph.
UINT8_NCHW = Choice("uint8 NCHW input", export={"input": "uint8_nchw"})
UINT8_NHWC = Choice("uint8 NHWC input", export={"input": "uint8_nhwc"})
# Segmenters only: a class map instead of logits. It equals that of resized logits only for images of the network's size.
ARGMAX = Choice("argmax in the graph", export={"argmax": True})
GRAPHS = (UINT8_NCHW, UINT8_NHWC, ARGMAX)


def thread_counts() -> Tuple[int, ...]:
    """Return the numbers of threads to try on this machine: 1, half of the physical cores, all CPUs; not the default, all cores."""
    cores = usable_cores()
    return tuple(sorted({1, max(1, cores // 2), max(cores, os.cpu_count() or 1)} - {cores}))


def threads(option: str) -> Tuple[Choice, ...]:
    """Return choices that set an option to each of `thread_counts()`."""
    return tuple(Choice(f"{n} thread{'s' if n > 1 else ''}", options={option: n}) for n in thread_counts())
