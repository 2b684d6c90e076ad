"""The difference of one figure of one row between two runs: interval, verdict, or the reason for none."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from edgekd.board.bench import MAX_DRIFT
from edgekd.comparison.comparable import why_not_energy, why_not_scores, why_not_times
from edgekd.comparison.figures import Figure, value_of
from edgekd.comparison.intervals import ratio_interval, round_ratio_interval
from edgekd.comparison.model import Difference, Verdict, Weights
from edgekd.comparison.runs import Run
from edgekd.evaluate.intervals import MIN_IMAGES, Interval, score_change_intervals
from edgekd.report.model import Row

# Two benches at different times: the bench itself takes a drift of this fraction within one run as steady.
MARGIN = MAX_DRIFT
SIZE_MARGIN = 0.01  # metadata and compression change a file by some bytes
_TRAINED = ("teacher", "student", "distilled", "control", "qat")
_TRAINING_NOISE = "one training of each: training noise is not in the interval"
_NOT_QUIET = "a bench warns that its machine was not quiet"


@dataclass(frozen=True)
class Rows:
    """One row in two runs.

    margin: a change of a time or an energy up to this fraction gets the verdict `not decided` or `same`.
    """

    old_run: Run
    new_run: Run
    old: Row
    new: Row
    margin: float = MARGIN

    @cached_property
    def score_intervals(self) -> dict[str, Interval]:
        """Metric -> interval of the difference; {} for too few images, or without counts of the same images."""
        old, new = self.old_run.image_scores(self.old), self.new_run.image_scores(self.new)
        if old is None or new is None or old.num_images != new.num_images:
            return {}
        return score_change_intervals(old, new)

    @property
    def is_one_run(self) -> bool:
        """Whether both rows are in one run, whose bench interleaved them."""
        return self.old_run is self.new_run

    @property
    def is_quiet(self) -> bool:
        """Whether neither bench has a reason to doubt its latency."""
        return self.old.is_quiet and self.new.is_quiet

    @property
    def weights(self) -> Weights:
        """Whether both rows come from one training."""
        before, after = (_trained_sha256(run, row) for run, row in ((self.old_run, self.old), (self.new_run, self.new)))
        if not before or not after:
            return "unknown"
        return "same" if before == after else "retrained"


def difference(figure: Figure, rows: Rows) -> Difference:
    """Return the difference of one figure, its interval and the verdict.

    Raises:
        ArtifactError: raw samples or image counts are damaged.
    """
    old, new = value_of(rows.old, figure.name), value_of(rows.new, figure.name)

    def result(
        verdict: Verdict, note: str = "", change: float | None = None, interval: Interval | None = None
    ) -> Difference:
        low, high = interval or (None, None)
        return Difference(
            figure=figure.name, title=figure.title, kind=figure.kind, unit=figure.unit, old=old, new=new, change=change,
            low=low, high=high, verdict=verdict, reservation=_reservation(figure, rows, verdict), note=note,
        )  # fmt: skip

    if old is None or new is None:
        missing = rows.old if old is None else rows.new
        return result("not measured", missing.reason)
    if reason := _why_not(figure, rows):
        return result("not comparable", reason)
    if figure.unit != "fraction" and (old <= 0 or new <= 0):
        return result("same" if old == new else "not decided", "a value is not positive, so there is no ratio")
    change = new - old if figure.unit == "fraction" else new / old
    interval, note = _interval(figure, rows, change)
    return result(_verdict(figure, rows, change, interval), note, change, interval)


def margin_of(old: Run, new: Run) -> float:
    """Return the change of latency between two benches, a fraction, up to which no verdict is given.

    Engines with the same file, settings and runtime are the control: their change comes from the machine.
    """
    margin = MARGIN
    for row in old.rows.values():
        other = new.rows.get(row.id)
        if other is None or not row.p50_ms or not other.p50_ms or not _is_control(row, other):
            continue
        if not why_not_times(old, new, row, other):
            ratio = other.p50_ms / row.p50_ms
            margin = max(margin, ratio - 1, 1 / ratio - 1)
    return margin


def _is_control(old: Row, new: Row) -> bool:
    settings = [{key: value for key, value in row.runtime.items() if key != "load_ms"} for row in (old, new)]
    return bool(old.sha256) and old.sha256 == new.sha256 and settings[0] == settings[1]


def _why_not(figure: Figure, rows: Rows) -> str:
    if figure.kind == "score":
        return why_not_scores(rows.old_run, rows.new_run, rows.old, rows.new)
    if figure.kind == "file":
        return ""
    reason = "other boards" if rows.old.board != rows.new.board else ""
    if not rows.is_one_run:
        reason = why_not_times(rows.old_run, rows.new_run, rows.old, rows.new)
    return reason or (why_not_energy(rows.old, rows.new) if figure.kind == "energy" else "")


def _interval(figure: Figure, rows: Rows, change: float) -> tuple[Interval | None, str]:
    """Return the interval of a change, and a reservation about its verdict."""
    if figure.kind == "file":
        return (change, change), ""
    if figure.kind == "score":
        return _score_interval(figure, rows)
    if figure.kind == "energy":
        return _energy_interval(rows, change)
    if (
        rows.old.id == rows.new.id
        and rows.old.latency_ms == rows.new.latency_ms
        and rows.old.wall_ms == rows.new.wall_ms
    ):
        return (1.0, 1.0), "one measurement, which both runs have"
    old, new = rows.old_run.times(rows.old, figure.series), rows.new_run.times(rows.new, figure.series)
    notes = [] if rows.is_quiet else [_NOT_QUIET]
    if rows.margin > MARGIN:
        notes.append(
            f"an unchanged engine differs by {rows.margin:.0%} between the benches, and that is the resolution"
        )
    found = None
    if old and new:
        is_paired = rows.is_one_run and figure.percentile == 50
        found = round_ratio_interval(old, new) if is_paired else ratio_interval(old, new, figure.percentile)
    if found is None:
        notes.append("no raw samples" if old is None or new is None else "too few rounds of the bench for an interval")
        return None, "; ".join(notes)
    return (min(found[0], change), max(found[1], change)), "; ".join(notes)


def _score_interval(figure: Figure, rows: Rows) -> tuple[Interval | None, str]:
    if _is_unchanged(rows):
        return (0.0, 0.0), ""
    is_retrained = rows.weights != "same"
    if figure.name in rows.score_intervals:
        return rows.score_intervals[figure.name], _TRAINING_NOISE if is_retrained else ""
    if rows.score_intervals:
        reason = "no interval for this metric"
    elif (images := rows.new_run.image_scores(rows.new)) is not None and images.num_images < MIN_IMAGES:
        reason = f"{images.num_images} images are too few for an interval (at least {MIN_IMAGES})"
    else:
        reason = "no counts or matches by image, so no interval"
    return None, f"{reason}; one seed cannot tell training noise from a gain" if is_retrained else reason


def _energy_interval(rows: Rows, change: float) -> tuple[Interval | None, str]:
    assert rows.old.energy is not None  # `difference` has values of both
    assert rows.new.energy is not None
    old, new = rows.old.energy.first.uncertainty, rows.new.energy.first.uncertainty
    if old is None or new is None or max(old, new) >= 1:
        return None, "the meter's uncertainty is unknown"
    return (change * (1 - new) / (1 + old), change * (1 + new) / (1 - old)), ""


def _is_unchanged(rows: Rows) -> bool:
    """Whether both rows are the same file, with the same scores."""
    return bool(rows.old.sha256) and rows.old.sha256 == rows.new.sha256 and rows.old.metrics == rows.new.metrics


def _verdict(figure: Figure, rows: Rows, change: float, interval: Interval | None) -> Verdict:
    neutral = 0.0 if figure.unit == "fraction" else 1.0
    margin = rows.margin if figure.kind in ("latency", "energy") else SIZE_MARGIN if figure.unit == "bytes" else 0.0
    lowest, highest = (neutral, neutral) if margin == 0 else (1 / (1 + margin), 1 + margin)
    low, high = interval or (None, None)
    if low is None or high is None:
        return "not decided"
    if low >= lowest and high <= highest:
        return "same"
    if low > highest or high < lowest:
        return "better" if (low > highest) == figure.higher_is_better else "worse"
    return "not decided"


def _reservation(figure: Figure, rows: Rows, verdict: Verdict) -> str:
    """Return another possible cause of a decided verdict; "" for none."""
    if verdict not in ("better", "worse"):
        return ""
    if figure.kind == "score":
        return "" if rows.weights == "same" else "one seed"
    return "" if figure.kind == "file" or rows.is_quiet else "machine not quiet"


def _trained_sha256(run: Run, row: Row) -> str:
    """Return the hash of the trained weights behind a row; "" where it is not known."""
    if row.stage in _TRAINED:
        return row.sha256
    trained = {one.stage: one.sha256 for one in run.report.rows}
    stages = ("distilled", "student") if row.student == "deployed" else (row.student,)
    return next((trained[stage] for stage in stages if stage in trained), "")
