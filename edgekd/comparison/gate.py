"""Checks a run against limits. A limit without its row or figure is broken; an unresolved difference is marked."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal

from pydantic import Field

from edgekd.comparison.compare import check_task
from edgekd.comparison.difference import Rows, difference
from edgekd.comparison.figures import Figure, figures_of, value_of
from edgekd.comparison.intervals import time_interval
from edgekd.comparison.limits import BASELINE, FLOAT, Limit, Limits, Undecided
from edgekd.comparison.runs import Run
from edgekd.comparison.table import UNITS, value_text
from edgekd.errors import UserError, did_you_mean
from edgekd.evaluate.definitions import DEFINITIONS
from edgekd.evaluate.intervals import Interval, score_intervals
from edgekd.report.line import reference_of
from edgekd.report.model import Row
from edgekd.report.part import Number, Part
from edgekd.report.units import percent, points, ratio

SCHEMA: Final = "edgekd.gate/1"


class Check(Part):
    """One limit and one row."""

    row: str = Field(description="id of the row, or the pattern that no row fits")
    limit: str = Field(description="the limit in words, e.g. `mIoU at least 60.0 %`")
    outcome: Literal["passed", "broken"] = Field(description="`passed` or `broken`")
    is_decided: bool = Field(True, description="false where the limit lies within the interval of the measurement")
    value: Number = Field(None, description="measured value, drop or ratio")
    low: Number = Field(None, description="lower end of its 95 % interval; null without one")
    high: Number = Field(None, description="upper end")
    text: str = Field(description="the measurement in words, or why there is none")


class GateResult(Part):
    """All checks of a run."""

    schema_: Literal["edgekd.gate/1"] = Field(alias="schema", description=f"`{SCHEMA}`")
    run: str = Field(description="folder or report as it was given")
    baseline: str = Field("", description="the same of the baseline; empty without one")
    checks: list[Check] = Field(description="one per limit and row")

    @property
    def broken(self) -> list[Check]:
        """The checks that are broken."""
        return [check for check in self.checks if check.outcome == "broken"]


@dataclass(frozen=True)
class _Measured:
    """A value, drop or ratio with its interval; `reason` instead of it where there is none."""

    value: float = 0.0
    interval: Interval | None = None
    reason: str = ""


def gate(run: Run, limits: Limits, baseline: Run | None, needs_every_figure: bool = True) -> GateResult:
    """Return the checks of a run.

    Args:
        run: the run to check.
        limits: the limits.
        baseline: the run that `against: baseline` refers to.
        needs_every_figure: whether a figure that is missing in both runs breaks a limit.

    Raises:
        UserError: a limit names an unknown figure, a baseline that is not given, or the baseline is of another task.
        ArtifactError: raw samples or image counts are damaged.
    """
    if baseline is not None:
        check_task(baseline, run)
    known = {name: Figure(name, name, "score", "fraction") for name in DEFINITIONS} | figures_of(run.report)
    checks = []
    for limit in limits.limits:
        if limit.figure not in known:
            raise UserError(f"limit on {limit.row}: unknown figure {limit.figure!r}{did_you_mean(limit.figure, known)}")
        if limit.against == BASELINE and baseline is None:
            raise UserError(f"limit on {limit.row}: `against: baseline` needs a baseline; give --baseline REPORT")
        figure, undecided = known[limit.figure], limit.undecided or limits.undecided
        for name in _row_ids(limit, run, baseline):
            before = baseline.rows.get(name) if baseline else None
            if not needs_every_figure and (before is None or value_of(before, figure.name) is None):
                continue
            checks.append(_check(name, limit, figure, undecided, _measured(name, limit, figure, run, baseline)))
    if not checks:
        raise UserError(f"{run.path}: no limit applies to a row; the baseline has no figures")
    return GateResult(schema=SCHEMA, run=str(run.path), baseline=str(baseline.path) if baseline else "", checks=checks)


def _row_ids(limit: Limit, run: Run, baseline: Run | None) -> list[str]:
    """Return the ids of both runs that match the pattern; the pattern itself if none matches."""
    ids = dict.fromkeys([*run.rows, *(baseline.rows if baseline else ())])
    return [name for name in ids if name == limit.row or fnmatchcase(name, limit.row)] or [limit.row]


def _measured(name: str, limit: Limit, figure: Figure, run: Run, baseline: Run | None) -> _Measured:
    row = run.rows.get(name)
    if row is None:
        return _Measured(reason="no such row in the run")
    value = value_of(row, figure.name)
    if value is None:
        return _Measured(reason=f"not measured{': ' + row.reason if row.reason else ''}")
    if not limit.against:
        return _Measured(value, _interval(run, row, figure))
    rows = _related(row, limit, run, baseline)
    if isinstance(rows, str):
        return _Measured(reason=rows)
    found = difference(figure, rows)
    if found.change is None:
        return _Measured(reason=f"{found.verdict}: {found.note}" if found.note else found.verdict)
    interval = None if found.low is None or found.high is None else (found.low, found.high)
    if figure.unit != "fraction":
        return _Measured(found.change, interval)
    sign = -1 if figure.higher_is_better else 1  # a drop is positive where the figure is worse
    ends = sorted(sign * end for end in interval) if interval else None
    return _Measured(sign * found.change + 0.0, (ends[0] + 0.0, ends[1] + 0.0) if ends else None)


def _related(row: Row, limit: Limit, run: Run, baseline: Run | None) -> Rows | str:
    """Return the row and the row that its limit relates to, or the reason why there is none."""
    if limit.against == BASELINE:
        assert baseline is not None  # `gate` refuses it
        other = baseline.rows.get(row.id)
        return Rows(baseline, run, other, row) if other else "the baseline has no such row"
    other = reference_of(run.report.rows, row.branch) if limit.against == FLOAT else run.rows.get(limit.against)
    if other is None:
        return "no float engine of its target and board" if limit.against == FLOAT else f"no row {limit.against!r}"
    return Rows(run, run, other, row)


def _interval(run: Run, row: Row, figure: Figure) -> Interval | None:
    """Return the interval of a value; None where there is none, or the value is exact."""
    if figure.kind == "score":
        images = run.image_scores(row)
        return score_intervals(images).get(figure.name) if images is not None else None
    if figure.kind == "latency":
        times = run.times(row, figure.series)
        return time_interval(times, figure.percentile) if times else None
    if figure.kind == "energy" and row.energy and row.energy.first.uncertainty is not None:
        value, spread = value_of(row, figure.name) or 0.0, row.energy.first.uncertainty
        return value * (1 - spread), value * (1 + spread)
    return None


def _check(name: str, limit: Limit, figure: Figure, undecided: Undecided, measured: _Measured) -> Check:
    words = _limit_text(limit, figure)
    if measured.reason:
        return Check(row=name, limit=words, outcome="broken", text=measured.reason)
    is_met = _is_within(limit, measured.value)
    ends = [_is_within(limit, end) for end in measured.interval or (measured.value,)]
    is_decided = all(ends) or not any(ends)
    if not is_decided and undecided != "value":
        is_met = undecided == "pass"
    low, high = measured.interval or (None, None)
    text = _measured_text(limit, figure, measured) + ("" if is_decided else "; the limit is within the interval")
    return Check(
        row=name, limit=words, outcome="passed" if is_met else "broken", is_decided=is_decided, value=measured.value, low=low,
        high=high, text=text,
    )  # fmt: skip


def _is_within(limit: Limit, value: float) -> bool:
    return value >= limit.bound if limit.key == "min" else value <= limit.bound


def _limit_text(limit: Limit, figure: Figure) -> str:
    title = figure.title
    if limit.key == "max_drop":
        return f"{title} at most {percent(limit.bound)} points worse than {limit.against}"
    if limit.key == "max_ratio":
        return f"{title} at most {ratio(limit.bound)} that of {limit.against}"
    return f"{title} at {'least' if limit.key == 'min' else 'most'} {_with_unit(limit.bound, figure)}"


def _with_unit(value: float, figure: Figure) -> str:
    return f"{value_text(value, figure.unit)} {UNITS[figure.unit]}".strip()


def _measured_text(limit: Limit, figure: Figure, measured: _Measured) -> str:
    if limit.key == "max_drop":
        return _drop_text(measured)

    def text(value: float) -> str:
        return ratio(value) if limit.key == "max_ratio" else value_text(value, figure.unit)

    unit = "" if limit.key == "max_ratio" else f" {UNITS[figure.unit]}".rstrip()
    low, high = measured.interval or (measured.value, measured.value)
    return text(measured.value) + unit + (f" [{text(low)}, {text(high)}]" if low != high else "")


def _drop_text(measured: _Measured) -> str:
    """Return a drop in words, its interval as changes, e.g. `1.2 points worse [−1.9, −0.4]`."""
    word = {"+": " better", "−": " worse"}.get(points(-measured.value)[0], "")
    low, high = measured.interval or (measured.value, measured.value)
    interval = f" [{points(-high)}, {points(-low)}]" if low != high else ""
    return f"{percent(abs(measured.value))} points{word}{interval}"
