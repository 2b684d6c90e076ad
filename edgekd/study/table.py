"""The table of a study, for the terminal and as Markdown for a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edgekd.core.recipe import PLAIN
from edgekd.core.task_metrics import TASKS, Task
from edgekd.evaluate.definitions import DEFINITIONS
from edgekd.study.difference import by_seed, compare, pairs_of

MISSING = "–"


def headers(study: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the columns, which depend on the task."""
    task = _task(study)
    more = [
        f"{DEFINITIONS[name][0].split()[0] if task.metric == 'miou' else DEFINITIONS[name][0]} %" for name in task.more
    ]
    return (
        "arm", "seeds", f"{task.title} %", f"Δ {task.title} [95 %]", f"Δ {task.second_title} [95 %]", *more, "ms/step",
        "peak MiB", "verdict",
    )  # fmt: skip


def rows(study: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return one row of texts per arm, in the order of `headers`, below that of the teacher; `–` where nothing was measured."""
    return [_teacher(study), *(_row(arm, arm["name"] == study["baseline"], _task(study)) for arm in study["arms"])]


def markdown(study: dict[str, Any]) -> str:
    """Return the table as Markdown, with what it compares in the line above."""
    task, columns = _task(study), headers(study)
    teacher = 100 * study["teacher"]["metrics"][task.metric]
    lines = [
        f"`{study['recipe_name']}`: {study['steps']} steps each, seeds {', '.join(map(str, study['seeds']))}; "
        f"teacher {teacher:.2f} {task.title}. Mean ± standard deviation over the seeds; Δ is the difference to "
        f"`{study['baseline']}`, paired by seed, with the 95 % interval of its mean; "
        "the columns of the last two metrics give the arm's mean, then its difference. The verdict is on the first metric. The "
        "teacher is one network: its difference is to the baseline's mean, not paired.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "|".join(["---"] + ["---:"] * (len(columns) - 2) + ["---"]) + "|",
        *("| " + " | ".join(row) + " |" for row in rows(study)),
    ]
    return "\n".join(lines + versus(study) + _remarks(study)) + "\n"


def csv_lines(study: dict[str, Any]) -> str:
    """Return a line per measured run: arm, seed, its metrics as shares of 1, pace and memory; for spreadsheets and statistics."""
    runs = [(arm["name"], run) for arm in study["arms"] for run in arm["runs"] if run["status"] == "measured"]
    metrics = [name for name in DEFINITIONS if any(run["metrics"].get(name) is not None for _, run in runs)]
    other = ["steps", "seconds_per_step", "peak_memory_bytes"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seed", *metrics, *other])
    for arm, run in runs:
        writer.writerow(
            [arm, run["seed"], *(run["metrics"].get(name) for name in metrics), *(run[name] for name in other)]
        )
    return text.getvalue()


def _remarks(study: dict[str, Any]) -> list[str]:
    """Return lines of Markdown: what a reader of the numbers has to know."""
    measured = [run for arm in study["arms"] for run in arm["runs"] if run["status"] == "measured"]
    trained = sorted({f"{run['precision']} on {run['device'].partition(':')[0]}" for run in measured})
    found = []
    compared = sum(bool(pairs_of(arm, _task(study).metric)) for arm in study["arms"])
    if compared > 1:
        found.append(
            f"Each interval is of its arm alone; for the best of {compared}, picked afterwards, it is too narrow."
        )
    if len(trained) > 1:
        found.append(f"**The runs differ in more than methods and seeds**: trained in {' and in '.join(trained)}.")
    if len({run.get("world_size") for run in measured} - {None}) > 1:
        found.append(
            "**The runs differ in more than methods and seeds**: they were trained on different numbers of devices."
        )
    answers = {run.get("teacher_answers") for run in measured} - {None}
    if "kept" in answers:
        whose = "of some runs " if len(answers) > 1 else ""
        found.append(f"ms/step {whose}is without the teacher, whose answers were kept on disk.")
    failed = [
        f"{arm['name']} seed {run['seed']}" for arm in study["arms"] for run in arm["runs"] if run["status"] == "failed"
    ]
    if failed:
        found.append(f"**Without a result**, because they failed: {', '.join(failed)}.")
    return [line for remark in found for line in ("", remark)]


def versus(study: dict[str, Any]) -> list[str]:
    """Return lines of Markdown: the first arm against each of the others but the plain student, the baseline; none without
    others, or where the baseline is such an arm itself."""
    task = _task(study)
    if study["baseline"] != PLAIN:
        return []
    first, *others = [arm for arm in study["arms"] if arm["name"] != study["baseline"]] or [None]
    if first is None or not others:
        return []
    metrics = (task.metric, task.second, *task.more)
    return [
        "",
        f"`{first['name']}` minus each other arm, paired by seed, with the 95 % interval:",
        "",
        "| arm | seeds | " + " | ".join(f"{DEFINITIONS[name][0]} %" for name in metrics) + " |",
        "|---|---:|" + "---:|" * len(metrics),
        *("| " + " | ".join(_versus(first, arm, metrics)) + " |" for arm in others),
    ]


def _versus(first: dict[str, Any], arm: dict[str, Any], metrics: Sequence[str]) -> list[str]:
    common = set(by_seed(first["runs"], metrics[0])) & set(by_seed(arm["runs"], metrics[0]))
    return [arm["name"], str(len(common)), *(_between(first, arm, name) for name in metrics)]


def _between(arm: dict[str, Any], other: dict[str, Any], metric: str) -> str:
    higher_is_better = DEFINITIONS[metric][2]
    found = compare(by_seed(arm["runs"], metric), by_seed(other["runs"], metric), higher_is_better)
    return MISSING if found is None else _change(asdict(found))


def _task(study: dict[str, Any]) -> Task:
    return TASKS[study["recipe"]["task"]]


def _teacher(study: dict[str, Any]) -> tuple[str, ...]:
    """Return the teacher's row, with its differences to the baseline's mean: where there are none, there is little to teach."""
    task = _task(study)
    return (
        "teacher",
        MISSING,
        *_teachers(study, task.metric),
        _teachers(study, task.second)[1],
        *(
            ": ".join(part for part in _teachers(study, name, digits=1) if part != MISSING) or MISSING
            for name in task.more
        ),
        MISSING,
        MISSING,
        MISSING,
    )


def _teachers(study: dict[str, Any], metric: str, digits: int = 2) -> tuple[str, str]:
    """Return the teacher's score in a metric, and that minus the baseline's mean."""
    score = study["teacher"]["metrics"].get(metric)
    if score is None:
        return MISSING, MISSING
    baseline = next(arm["metrics"] for arm in study["arms"] if arm["name"] == study["baseline"]).get(metric)
    difference = f"{100 * (score - baseline['mean']):+.{digits}f}" if baseline else MISSING
    return f"{100 * score:.{digits}f}", difference


def _row(arm: dict[str, Any], is_baseline: bool, task: Task) -> tuple[str, ...]:
    metrics = arm["metrics"]
    measured, pairs = sum(run["status"] == "measured" for run in arm["runs"]), pairs_of(arm, task.metric)
    no_verdict = "no seed in common" if measured else "not measured"
    verdict = "baseline" if is_baseline else (_difference(metrics, task.metric) or {}).get("verdict", no_verdict)
    pace, memory = arm["seconds_per_step"], arm["peak_memory_bytes"]
    return (
        arm["name"],
        f"{measured}" if is_baseline or pairs == measured else f"{measured} ({pairs} paired)",
        _mean(metrics, task.metric),
        _interval(metrics, task.metric),
        _interval(metrics, task.second),
        *(_mean_and_change(metrics, name) for name in task.more),
        MISSING if pace is None else f"{1000 * pace:.0f}",
        MISSING if memory is None else f"{memory / 2**20:.0f}",
        verdict,
    )


def _mean(metrics: dict[str, Any], name: str) -> str:
    if name not in metrics:
        return MISSING
    spread = metrics[name]["sd"]
    return f"{100 * metrics[name]['mean']:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


def _difference(metrics: dict[str, Any], name: str) -> dict[str, Any] | None:
    return metrics.get(name, {}).get("difference")


def _interval(metrics: dict[str, Any], name: str) -> str:
    found = _difference(metrics, name)
    return _change(found) if found else MISSING


def _mean_and_change(metrics: dict[str, Any], name: str) -> str:
    if name not in metrics:
        return MISSING
    mean, found = f"{100 * metrics[name]['mean']:.1f}", _difference(metrics, name)
    return f"{mean}: {_change(found, digits=1)}" if found else mean


def _change(difference: dict[str, Any], digits: int = 2) -> str:
    mean = f"{100 * difference['mean']:+.{digits}f}"
    if difference["low"] is None:
        return mean
    return f"{mean} [{100 * difference['low']:+.{digits}f}, {100 * difference['high']:+.{digits}f}]"
