"""Parts of a report about an engine's time and memory: latency distribution, footprint, speed ratio."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from edgekd.report.part import Number, Part

# Stages of the wall time in order, and the decoding of the image file before them.
STAGES: Final = ("decode", "prepare", "engine", "result")
Verdict = Literal["faster", "slower", "same", "not decided"]
SAME: Final = 0.02  # relative difference of two times that counts as equal, as in `edgekd tune`


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
    """Load time and memory of one engine, measured in a separate process."""

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


class RatioInterval(Part):
    """Median over the rounds of a ratio of two round medians, and its 95 % interval."""

    ratio: Number = Field(None, description="times of the other engine over its own: 1.5 is 1.5 times as fast")
    low: Number = Field(None, description="lower end of the interval; null where the rounds carry none")
    high: Number = Field(None, description="upper end")

    @property
    def verdict(self) -> Verdict:
        """Whether the interval shows a difference; `same` within SAME of 1."""
        if self.low is None or self.high is None:
            return "not decided"
        if self.low >= 1 - SAME and self.high <= 1 + SAME:
            return "same"
        return "faster" if self.low > 1 else "slower" if self.high < 1 else "not decided"


class SpeedRatio(Part):
    """Speed of an engine relative to another of the same interleaved bench."""

    against: str = Field("", description="id of the other row")
    rounds: int = Field(0, description="rounds of the bench in which both were measured")
    wall: RatioInterval | None = Field(None, description="ratio of the wall times, from image to result")
    engine: RatioInterval | None = Field(None, description="ratio of the engine times")

    @property
    def first(self) -> RatioInterval:
        """The ratio for the verdict: of the wall times, else of the engine times."""
        return self.wall or self.engine or RatioInterval()

    @property
    def verdict(self) -> Verdict:
        """Verdict by `first`; `not decided` if the engine times do not show the same difference."""
        verdict = self.first.verdict
        if verdict in ("faster", "slower") and self.engine is not None and self.engine.verdict not in (verdict, "same"):
            return "not decided"
        return verdict
