"""The change of an engine's score against the same engine of another student, on the same images."""

from __future__ import annotations

from pydantic import Field

from edgekd.report.part import Number, Part
from edgekd.report.units import points


class ScoreChange(Part):
    """Change of the primary metric between two engines that differ in their student alone."""

    against: str = Field("", description="id of the other row")
    change: Number = Field(
        None,
        description="score minus the other's, a fraction; null without both scores, and for `qat` without a control",
    )
    low: Number = Field(
        None,
        description="lower end of the 95 % interval of the change, by a bootstrap over the scored images; null for fewer than 20 "
        "images, or without counts or matches by image. It does not include training noise",
    )
    high: Number = Field(None, description="upper end")

    @property
    def is_better(self) -> bool:
        """Whether the interval shows that the score is higher than the other's."""
        return self.low is not None and self.low > 0

    @property
    def text(self) -> str:
        """The change in words, with its interval where it has one."""
        interval = f" ({points(self.low)} to {points(self.high)})" if self.low is not None else ", no interval"
        return f"{points(self.change)} points{interval}"
