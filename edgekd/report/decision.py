"""The decision of a report: which engine to deploy on each board, by one rule, and what that engine costs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.core.recipe import DEPLOYED, LOCAL
from edgekd.report.latency import SpeedRatio
from edgekd.report.line import reference_of
from edgekd.report.model import Report, Row
from edgekd.report.qat import proven
from edgekd.report.speed import Samples, speed_ratio, speed_text, speed_verdict
from edgekd.report.units import milliseconds, percent, points, ratio

MAX_DROP = 0.01  # of the primary metric, against the float network: one percentage point


@dataclass(frozen=True)
class Decision:
    """Which engine to deploy on one board.

    row: the engine; None where none is recommended, and `reason` says why.
    rule: how it was chosen, one sentence.
    doubt: why another engine may be as good, or "".
    """

    board: str
    row: Row | None
    rule: str
    reason: str = ""
    doubt: str = ""


@dataclass(frozen=True)
class Cost:
    """One line of what the engine costs against another network: name of the quantity, value, comparison in words."""

    name: str
    value: str
    compared: str


def decide(report: Report, samples: Samples) -> list[Decision]:
    """Return a decision for each board of the report's engines, in the report's order.

    Args:
        report: the report.
        samples: raw latency samples, for the doubt about the runner-up.
    """
    engines = [row for row in report.rows if row.stage == "engine"]
    boards = dict.fromkeys(row.board for row in engines)
    return [_on_board(board, [row for row in engines if row.board == board], report, samples) for board in boards]


def float_row(rows: Sequence[Row], board: str) -> Row | None:
    """Return the float network that engines of a board are compared with: the ONNX graph, else an fp32 engine, else a student."""
    onnx = [row for row in rows if row.stage == "onnx"]
    references = [reference_of(rows, row.branch) for row in rows if row.stage == "engine" and row.board == board]
    trained = [row for name in ("distilled", "student") for row in rows if row.stage == name]
    return next((row for row in (*onnx, *references, *trained) if row and row.score is not None), None)


def wall_or_engine_ms(row: Row) -> float | None:
    """Return the median time from image to result, or the engine time where that was not measured."""
    return row.wall_ms.p50 if row.wall_ms and row.wall_ms.p50 is not None else row.p50_ms


def costs(row: Row, rows: Sequence[Row]) -> list[Cost]:
    """Return accuracy, size and compute of an engine against the teacher; [] without a measured teacher."""
    teacher = next((one for one in rows if one.stage == "teacher" and one.score is not None), None)
    if teacher is None:
        return []
    found = []
    if row.score is not None and teacher.score is not None:
        change = points(row.score - teacher.score)
        found.append(
            Cost(
                row.score_title,
                f"{change} points",
                f"{percent(row.score)}\u00a0% against {percent(teacher.score)}\u00a0%",
            )
        )
    for name, own, its in (
        ("file", row.size_bytes, teacher.size_bytes),
        ("parameters", row.params, teacher.params),
        ("multiply-adds", row.macs, teacher.macs),
    ):
        if own and its:
            word = "fewer" if name != "file" else "smaller"
            value = (
                f"{ratio(its / own)} {word}"
                if its >= own
                else f"{ratio(own / its)} {'more' if word == 'fewer' else 'larger'}"
            )
            found.append(Cost(name, value, ""))
    return found


def _on_board(board: str, engines: Sequence[Row], report: Report, samples: Samples) -> Decision:
    reference = float_row(report.rows, board)
    title = engines[0].score_title
    if reference is None or reference.score is None:
        return Decision(board, None, _rule(title, None), f"no float network has a measured {title}")
    further = any(row.student != DEPLOYED for row in engines)
    rule, limit = _rule(title, reference, further), reference.score - MAX_DROP
    refused = {gate.name for gate in report.gates if not gate.passed}
    scored = proven(
        [row for row in engines if row.is_measured and row.score is not None and f"{row.id} as here" not in refused],
        report.rows,
    )
    if not scored:
        return Decision(board, None, rule, f"no engine has a measured {title} and passed its gates")
    held = [row for row in scored if row.score is not None and row.score >= limit - 1e-9]
    if not held:
        best = max(scored, key=lambda row: row.score or 0.0)
        reason = (
            f"the best engine, {best.label}, loses {points(best.score - reference.score)} points" if best.score else ""
        )
        return Decision(board, None, rule, reason)
    timed = sorted(
        ((wall_or_engine_ms(row) or 0.0, row) for row in held if wall_or_engine_ms(row)), key=lambda one: one[0]
    )
    if not timed:
        return Decision(board, None, rule, "no engine within the limit has a measured latency")
    chosen = timed[0][1]
    if chosen.board == "simulator":
        return Decision(board, None, rule, "a simulator's times are not those of the chip")
    return Decision(board, chosen, rule, doubt=_doubt(chosen, [row for _, row in timed[1:]], samples))


def _rule(title: str, reference: Row | None, further: bool = False) -> str:
    more = (
        " An engine of a further trained student counts only where it scores higher than the same engine of the simpler student, "
        "and the interval over the images shows it."
    )
    base = f" ({reference.label}, {percent(reference.score)}\u00a0%)" if reference else ""
    return (
        f"Rule: the engine with the lowest median latency from image to result, among those at most {100 * MAX_DROP:g} point "
        f"{title} below the float network{base}.{more if further else ''}"
    )


def _doubt(chosen: Row, others: Sequence[Row], samples: Samples) -> str:
    """Return the first of the slower engines whose interval does not show that it is slower, in words; "" when all do."""
    for other in others:
        speed: SpeedRatio | None = speed_ratio(samples, chosen.id, other.id)
        if speed is None:
            return (
                f"Speed against {other.label} ({milliseconds(wall_or_engine_ms(other))} ms): no interval was recorded."
            )
        if speed_verdict(speed, chosen, other) != "faster":
            return f"Speed against {other.label} is {speed_text(speed, chosen, other)}."
    return ""


@dataclass(frozen=True)
class Choice:
    """A decision as the page shows it: with the costs against the teacher and the commands to deploy it."""

    decision: Decision
    costs: list[Cost]
    commands: list[str]

    @property
    def row(self) -> Row | None:
        """The engine to deploy, None where there is none."""
        return self.decision.row


def choices_of(report: Report, samples: Samples, folder: Path) -> list[Choice]:
    """Return the decision for each board with costs and commands.

    Args:
        report: the report.
        samples: raw latency samples.
        folder: folder of the run, as the commands name it.
    """
    found = []
    for decision in decide(report, samples):
        row = decision.row
        commands = _commands(row, folder) if row else []
        found.append(Choice(decision, costs(row, report.rows) if row else [], commands))
    return found


def _commands(row: Row, folder: Path) -> list[str]:
    """Return the commands that deploy an engine to a board and pack it; the folder relative to this one where it is below."""
    place = folder.relative_to(Path.cwd()) if folder.is_absolute() and folder.is_relative_to(Path.cwd()) else folder
    engine = shlex.quote(str(place / "engine" / row.id))
    board = "NAME" if row.board in ("", LOCAL) else shlex.quote(row.board)
    return [f"edgekd deploy {engine} --board {board}", f"edgekd bundle {engine}"]
