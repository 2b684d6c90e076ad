"""Tables of a study of quantization: each engine against the baseline's float network, and against the same engine of every arm."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.core.task_metrics import TASKS
from edgekd.evaluate.definitions import DEFINITIONS
from edgekd.study.difference import MISSING, between, interval_text
from edgekd.study.model import FLOAT, Arm, Study


def baseline_arm(study: Study) -> str:
    """Return the arm that a study of quantization compares with, without its engine."""
    return str(study.recipe["study"]["quantized"]["baseline"])


def float_reference(study: Study) -> Arm | None:
    """Return the float network that engines are compared with: the baseline's, the first if QAT trained that; None without any."""
    arms = study.float_arms
    return next((arm for arm in arms if arm.name == f"{baseline_arm(study)}{FLOAT}"), arms[0] if arms else None)


def arm_name(arm: Arm) -> str:
    """Return the name of a row's arm, without its engine."""
    return arm.name.removesuffix(f" {arm.engine}") if arm.engine else arm.name.removesuffix(FLOAT)


def headers(study: Study) -> tuple[str, ...]:
    """Return the columns of `rows`: the networks that are subtracted."""
    reference = float_reference(study)
    return ("arm", *([f"- {reference.name}"] if reference else []), *(f"- {name}" for name in _arms(study)))


def rows(study: Study, metric: str) -> list[tuple[str, ...]]:
    """Return a row for each engine: its differences in a metric, in points, to the networks of `headers`."""
    reference = float_reference(study)
    found = []
    for arm in (one for one in study.arms if one.engine):
        same = {arm_name(one): one for one in study.arms if one.engine == arm.engine}
        others = [*([reference] if reference else []), *(same[name] for name in _arms(study))]
        texts = (MISSING if one is arm else interval_text(between(arm, one, metric)) for one in others)
        found.append((arm.name, *texts))
    return found


def title(study: Study, metric: str) -> str:
    """Return the sentence above the table of a metric."""
    reference = float_reference(study)
    trained = " (trained as long)" if reference and _is_control(study, reference) else ""
    to_float = f"`{reference.name}`{trained} and that of " if reference else ""
    return (
        f"{DEFINITIONS[metric][0]} of each engine minus that of {to_float}the same engine of each arm, in points, paired by seed, "
        "with the 95 % interval:"
    )


def markdown_tables(study: Study) -> list[str]:
    """Return the tables of the two main metrics as lines of Markdown, [] for a study without engines."""
    if not study.is_quantized:
        return []
    task, columns = TASKS[study.task], headers(study)
    lines: list[str] = []
    for metric in (task.metric, task.second):
        lines += ["", title(study, metric), "", _line(columns), "|---|" + "---:|" * (len(columns) - 1)]
        lines += map(_line, rows(study, metric))
    return lines


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _arms(study: Study) -> list[str]:
    return list(dict.fromkeys(arm_name(arm) for arm in study.arms if arm.engine))


def _is_control(study: Study, reference: Arm) -> bool:
    name = arm_name(reference)
    settings = study.recipe["study"]["quantized"]["arms"].get(name)
    return bool(settings["student"] == "control" if settings else name == "control")
