"""The table of a study, for the terminal and as Markdown for a page."""

from __future__ import annotations

from typing import Any

from edgekd.core.tasks import TASKS, Task
from edgekd.evaluate.definitions import DEFINITIONS

MISSING = "–"


def headers(study: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the columns, which depend on the task."""
    task = _task(study)
    more = [
        f"{DEFINITIONS[name][0].split()[0] if task.metric == 'miou' else DEFINITIONS[name][0]} %" for name in task.more
    ]
    return (
        "arm", "seeds", f"{task.title} %", f"Δ {task.title} [95 %]", f"Δ {task.second_title} [95 %]", *more, "ms/step",
        "peak MiB", task.title,
    )  # fmt: skip


def rows(study: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return one row of texts per arm, in the order of `headers`; `–` where nothing was measured."""
    return [_row(arm, arm["name"] == study["baseline"], _task(study)) for arm in study["arms"]]


def markdown(study: dict[str, Any]) -> str:
    """Return the table as Markdown, with what it compares in the line above."""
    task, columns = _task(study), headers(study)
    teacher = 100 * study["teacher"]["metrics"][task.metric]
    lines = [
        f"`{study['recipe_name']}`: {study['steps']} steps each, seeds {', '.join(map(str, study['seeds']))}; "
        f"teacher {teacher:.2f} {task.title}. Mean ± standard deviation over the seeds; Δ is the difference to "
        f"`{study['baseline']}`, paired by seed, with the 95 % interval of its mean.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "|".join(["---"] + ["---:"] * (len(columns) - 2) + ["---"]) + "|",
        *("| " + " | ".join(row) + " |" for row in rows(study)),
    ]
    return "\n".join(lines) + "\n"


def _task(study: dict[str, Any]) -> Task:
    return TASKS[study["recipe"]["task"]]


def _row(arm: dict[str, Any], is_baseline: bool, task: Task) -> tuple[str, ...]:
    metrics = arm["metrics"]
    verdict = "baseline" if is_baseline else (_difference(metrics, task.metric) or {}).get("verdict", "not measured")
    pace, memory = arm["seconds_per_step"], arm["peak_memory_bytes"]
    return (
        arm["name"],
        str(sum(run["status"] == "measured" for run in arm["runs"])),
        _mean(metrics, task.metric),
        _interval(metrics, task.metric),
        _interval(metrics, task.second),
        *(_mean(metrics, name) for name in task.more),
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
    if not found:
        return MISSING
    mean = f"{100 * found['mean']:+.2f}"
    return mean if found["low"] is None else f"{mean} [{100 * found['low']:+.2f}, {100 * found['high']:+.2f}]"
