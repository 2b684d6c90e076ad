"""Limits of a gate: from a YAML file, or the default ones of `edgekd gate --baseline`."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, get_args

from pydantic import Field, model_validator

from edgekd.comparison.figures import MEASURED_NAMES
from edgekd.core.recipe_file import read_tree
from edgekd.core.recipe_loading import validate
from edgekd.core.task_metrics import TASKS
from edgekd.core.training_sections import Section

SCHEMA: Final = "edgekd.limits/1"
BASELINE, FLOAT = "baseline", "float"
Undecided = Literal["fail", "pass", "value"]
Bound = Literal["min", "max", "max_drop", "max_ratio"]
_BOUNDS: tuple[Bound, ...] = get_args(Bound)


class Limit(Section):
    """One limit on one figure of the rows that a pattern names."""

    row: str = Field(
        min_length=1, description="Id of a row, or a pattern such as `*-int8`; each row that fits is held to the limit."
    )
    figure: str = Field(min_length=1, description="Name of a [metric](metrics.md), or one of the other figures below.")
    against: str = Field(
        "",
        description="What a drop or a ratio relates to: `baseline` (the same row of the baseline), `float` (the float engine of "
        "the same target and board), or the id of a row, e.g. `teacher`.",
    )
    min: float | None = Field(None, description="Smallest value.")
    max: float | None = Field(None, description="Largest value.")
    max_drop: float | None = Field(
        None, ge=0, description="Metrics: how much worse than `against`, as a fraction: 0.01 is one point."
    )
    max_ratio: float | None = Field(None, gt=0, description="Other figures: largest multiple of that of `against`.")
    undecided: Undecided | None = Field(None, description="For this limit instead of the file's.")

    @property
    def is_metric(self) -> bool:
        """Whether the figure is a metric, a fraction."""
        return self.figure not in MEASURED_NAMES

    @property
    def key(self) -> Bound:
        """Name of the bound that is set."""
        return next(key for key in _BOUNDS if getattr(self, key) is not None)

    @property
    def bound(self) -> float:
        """The bound that is set."""
        return float(getattr(self, self.key))

    @model_validator(mode="after")
    def _has_one_bound(self) -> Limit:
        given = [key for key in _BOUNDS if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of min, max, max_drop and max_ratio, got {', '.join(given) or 'none'}")
        if self.key in ("min", "max") and self.against:
            raise ValueError(
                f"{self.key} is a limit on the value itself; leave out `against`, or give max_drop or max_ratio"
            )
        if self.key not in ("min", "max") and not self.against:
            raise ValueError(f"{self.key} needs `against`: baseline, float, or the id of a row")
        if (self.key == "max_drop" and not self.is_metric) or (self.key == "max_ratio" and self.is_metric):
            raise ValueError("give max_drop for a metric, max_ratio for another figure")
        if self.is_metric and not 0 <= self.bound <= 1:
            raise ValueError(f"metrics are fractions from 0 to 1, got {self.bound:g}; 60 % is 0.6")
        return self


class Limits(Section):
    """A file of limits."""

    schema_: Literal["edgekd.limits/1"] = Field(alias="schema", description=f"`{SCHEMA}`.")
    undecided: Undecided = Field(
        "fail",
        description="A limit within the 95 % interval of the measurement: `fail` breaks it, `pass` does not, `value` decides by the "
        "measured value alone.",
    )
    limits: tuple[Limit, ...] = Field(min_length=1, description="The limits, see below.")


def read_limits(path: Path) -> Limits:
    """Return the limits in a YAML file.

    Raises:
        RecipeError: it cannot be read, has an unknown key, or has an invalid value.
    """
    return validate(Limits, read_tree(path, "a file of limits"), str(path))


def baseline_limits(task: str) -> Limits:
    """Return the default limits against a baseline: no row is measurably worse.

    A point of the primary metric, 5 % of the median latency (the drift that a bench takes as steady), 1 % of the size.
    """
    every = {"row": "*", "against": BASELINE}
    return Limits(
        schema=SCHEMA,
        undecided="pass",
        limits=(
            Limit(**every, figure=TASKS[task].metric, max_drop=0.01),
            Limit(**every, figure="latency_p50_ms", max_ratio=1.05),
            Limit(**every, figure="size_bytes", max_ratio=1.01),
        ),
    )
