"""The verdict of a report in plain words: gain of distillation, cost and gain of int8, largest loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekd.report.line import StageLine, reference_of
from edgekd.report.model import Row, Training
from edgekd.report.units import milliseconds, percent, points, ratio, scaled

# MLPerf Inference accepts a quantized network with 99 % of the fp32 quality.
GOOD_SHARE = 0.99


@dataclass(frozen=True)
class Finding:
    """One statement of the verdict. `tone` is good, bad, plain, or unknown where it was not measured."""

    tone: str
    headline: str
    text: str


def findings(rows: Sequence[Row], line: StageLine, training: Mapping[str, Training]) -> list[Finding]:
    """Return the verdict: distillation, then each quantized engine, then the size against the teacher, then the largest loss."""
    by_stage = {row.stage: row for row in reversed(rows) if row.stage != "engine"}
    result = [_distillation(by_stage.get("student"), by_stage.get("distilled"), training)]
    quantized = [row for row in rows if row.is_quantized]
    result += [_quantized(row, reference_of(rows, row.branch)) for row in quantized]
    if not quantized:
        result.append(
            Finding("unknown", "No int8 engine yet", "This run has no int8 engine, so its cost and speed are open.")
        )
    compact = _compactness(by_stage.get("teacher"), by_stage.get("distilled") or by_stage.get("student"))
    return [*result, *([compact] if compact else []), _losses(line)]


def _losses(line: StageLine) -> Finding:
    known = any(step.delta is not None for step in line.steps)
    worst = line.largest_loss
    where = f", {worst.row.label}" if worst and worst.row.stage == "engine" else ""
    headline = "Losses not known yet"
    if worst or known:
        headline = f"Largest loss: {worst.name}{where}" if worst else f"No step lost {line.steps[-1].row.score_title}"
    return Finding("plain" if known else "unknown", headline, line.sentence)


def _distillation(student: Row | None, distilled: Row | None, training: Mapping[str, Training]) -> Finding:
    missing = _missing("baseline student", student) or _missing("distilled student", distilled)
    if missing or student is None or distilled is None or student.score is None or distilled.score is None:
        return Finding("unknown", "Whether distillation helped is not known", missing)
    gain = distilled.score - student.score
    budget, is_equal = _budget(training)
    edge_student, edge_distilled = student.second, distilled.second
    title, second = student.score_title, student.second_title
    text = f"{title} {percent(student.score)} → {percent(distilled.score)} % ({points(gain)} points)"
    edge = None
    if edge_student is not None and edge_distilled is not None:
        edge = edge_distilled - edge_student
        text += f", {second} {percent(edge_student)} → {percent(edge_distilled)} % ({points(edge)} points)"
    text += f", {_images(student, distilled)}. {budget} One run of each: a single seed cannot tell a small gain from chance."
    verb = "gained" if gain > 0 else "lost" if gain < 0 else "changed nothing:"
    headline = f"Distillation {verb} {points(abs(gain)).lstrip('+')} points {title}"
    if is_equal:
        headline += " at equal budget"
    is_good = gain >= 0 and (edge is None or edge >= 0)
    return Finding("bad" if gain < 0 or is_equal is False else "good" if is_good else "plain", headline, text)


def _budget(training: Mapping[str, Training]) -> tuple[str, bool | None]:
    """Return a sentence about both students' budgets, and whether they are equal (None: not recorded)."""
    runs = [training.get(name, Training()) for name in ("student", "distilled")]
    budgets = [(run.steps, run.batch_size) for run in runs]
    if any(None in budget for budget in budgets):
        return "The training budgets are not recorded in this report.", None
    (steps, batch), other = budgets
    if budgets[0] == other:
        return f"Both students trained {steps} steps of {batch} images.", True
    return (
        f"The budgets differ: baseline {steps} steps of {batch} images, distilled {other[0]} of {other[1]}, "
        "so the comparison is not fair."
    ), False


def _images(*rows: Row) -> str:
    counts = {row.num_images for row in rows}
    if len(counts) > 1:
        return "measured on different numbers of images (" + " and ".join(str(row.num_images) for row in rows) + ")"
    count = counts.pop()
    return f"on {count} images" if count else "on an unrecorded number of images"


def _quantized(row: Row, reference: Row | None) -> Finding:
    where = row.runtime_label if row.has_default_id else row.id
    compared = reference.label if reference else f"{row.runtime_label} fp32 or fp16"
    missing = _missing(row.label, row) or _missing(compared, reference)
    if missing or reference is None:
        return Finding("unknown", f"{where}: the cost of {row.precision} is not known", missing)
    parts, facts, tone = [], [], "unknown"
    if row.score is not None and reference.score:
        share = row.score / reference.score
        tone = "good" if share >= GOOD_SHARE else "bad"
        parts.append(f"keeps {percent(share)} % of the {reference.precision} {row.score_title}")
        facts.append(
            f"{row.score_title} {percent(reference.score)} → {percent(row.score)} %, {_images(reference, row)}"
        )
    if row.p50_ms and reference.p50_ms:
        speed = reference.p50_ms / row.p50_ms
        tone = "bad" if speed < 1 and tone == "good" else tone
        parts.append(f"is {ratio(speed)} as fast" if speed >= 1 else f"is slower ({ratio(speed)} the speed)")
        facts.append(f"engine p50 {milliseconds(reference.p50_ms)} → {milliseconds(row.p50_ms)} ms in the same run")
        if row.warnings or reference.warnings:
            facts.append("the timing was not quiet, see the warnings under Latency")
    else:
        facts.append("the speed of one of the two was not measured")
    if row.size_bytes and reference.size_bytes:
        facts.append(f"file {ratio(reference.size_bytes / row.size_bytes)} smaller")
    if not parts:
        return Finding(
            "unknown", f"{where}: the cost of {row.precision} is not known", "; ".join(facts).capitalize() + "."
        )
    return Finding(
        tone, f"{where}: {row.precision} {' and '.join(parts)}", f"Against {reference.label}: {'; '.join(facts)}."
    )


def _compactness(teacher: Row | None, student: Row | None) -> Finding | None:
    if teacher is None or student is None or not teacher.score or student.score is None:
        return None
    text = f"{student.label} {percent(student.score)} %, teacher {percent(teacher.score)} % {student.score_title}."
    headline = f"The student keeps {percent(student.score / teacher.score)} % of the teacher's {student.score_title}"
    if teacher.params and student.params:
        headline += f" with {ratio(teacher.params / student.params)} fewer parameters"
        text += f" Parameters: {scaled(student.params).strip()} against {scaled(teacher.params).strip()}."
    if teacher.macs and student.macs:
        text += f" Multiply-adds: {scaled(student.macs).strip()} against {scaled(teacher.macs).strip()}."
    return Finding("plain", headline, text)


def _missing(name: str, row: Row | None) -> str:
    """Return why a row cannot be used; empty when it can."""
    if row is None:
        return f"This run has no row for the {name}."
    if not row.is_measured:
        start = name if row.stage == "engine" else f"{name[:1].upper()}{name[1:]}"
        return f"{start}: {row.status}" + (f" ({row.reason})." if row.reason else ".")
    return ""
