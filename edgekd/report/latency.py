"""What a report says of an engine's time and memory: one latency distribution, one footprint."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from edgekd.report.part import Number, Part

# Stages of the wall time in order, and the decoding of the image file before them.
STAGES: Final = ("decode", "prepare", "engine", "result")


class Latency(Part):
    """Summary of one latency distribution in milliseconds. A percentile that `n` runs cannot carry is None."""

    p50: Number = None
    p90: Number = None
    p95: Number = None
    p99: Number = None
    mean: Number = None
    std: Number = None
    min: Number = None
    max: Number = None
    n: int = 0


class Footprint(Part):
    """Load time and memory of one engine, in a process of its own."""

    load_ms: Number = Field(
        None, description="from the engine's file to a session that is ready, runtime imported before"
    )
    first_ms: Number = Field(None, description="first run")
    base_bytes: int | None = Field(
        None, description="resident memory before loading: Python, numpy and the modules of the runtime"
    )
    peak_bytes: int | None = Field(
        None, description="highest resident memory of the process; memory of a GPU or an NPU is not in it"
    )
