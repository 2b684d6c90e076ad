"""The table of a study, for the terminal and as Markdown for a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from edgekd.core.recipe import PLAIN
from edgekd.core.task_metrics import TASKS, Task
from edgekd.evaluate.definitions import COCO_DETECTIONS, DEFINITIONS, definitions
from edgekd.study.difference import MISSING, between, by_seed, difference_of, interval_text, pairs_of
from edgekd.study.model import Arm, Study
from edgekd.study.quantized_table import float_reference, markdown_tables


def headers(study: Study) -> tuple[str, ...]:
    """Return the names of the columns, which depend on the task."""
    task = _task(study)
    more = [
        f"{DEFINITIONS[name][0].split()[0] if task.metric == 'miou' else DEFINITIONS[name][0]} %" for name in task.more
    ]
    against = ("compared with",) if study.is_quantized else ()
    return (
        "arm", "seeds", f"{task.title} %", *against, f"Δ {task.title} [95 %]", f"Δ {task.second_title} [95 %]", *more, "ms/step",
        "peak MiB", "verdict",
    )  # fmt: skip


def rows(study: Study) -> list[tuple[str, ...]]:
    """Return the teacher's row, then one per arm: texts in the order of `headers`, `–` where nothing was measured."""
    found = [_teacher(study), *(_row(arm, study.is_baseline(arm), _task(study)) for arm in study.arms)]
    if not study.is_quantized:
        return found
    against = [
        _taught(study).name,
        *(MISSING if study.is_baseline(arm) else arm.baseline or study.baseline for arm in study.arms),
    ]
    return [(*row[:3], name, *row[3:]) for row, name in zip(found, against, strict=True)]


def markdown(study: Study) -> str:
    """Return the table as Markdown, below a paragraph that says what it compares."""
    task, columns = _task(study), headers(study)
    teacher = _percent(study.teacher.metrics.get(task.metric))
    trained, compared, taught = "steps each", f"`{study.baseline}`", "the baseline's mean"
    if study.is_quantized:
        trained = "further steps of each arm that trains"
        taught = f"the mean of `{_taught(study).name}`"
        compared = "the row in the column `compared with`"
    lines = [
        f"`{study.recipe_name}`: {study.steps} {trained}, seeds {', '.join(map(str, study.seeds))}; "
        f"teacher {teacher} {task.title}. Mean ± standard deviation over the seeds; Δ is the difference to "
        f"{compared}, paired by seed, with the 95 % interval of its mean; "
        "the columns of the last two metrics give the arm's mean, then its difference. The verdict is on the first metric. The "
        f"teacher is one network: its difference is to {taught}, not paired.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "|".join(["---"] + ["---:"] * (len(columns) - 2) + ["---"]) + "|",
        *("| " + " | ".join(row) + " |" for row in rows(study)),
    ]
    return "\n".join(lines + versus(study) + markdown_tables(study) + _remarks(study)) + "\n"


def csv_lines(study: Study) -> str:
    """Return a line per measured run: arm, seed, its metrics as shares of 1, pace and memory; for spreadsheets and statistics."""
    runs = [(arm.name, run) for arm in study.arms for run in arm.runs if run.status == "measured"]
    known = definitions(study.recipe.get("evaluate", {}).get("max_detections", COCO_DETECTIONS))
    metrics = [name for name in known if any(run.metrics.get(name) is not None for _, run in runs)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seed", *metrics, "steps", "seconds_per_step", "peak_memory_bytes"])
    for arm, run in runs:
        scores = [run.metrics.get(name) for name in metrics]
        writer.writerow([arm, run.seed, *scores, run.steps, run.seconds_per_step, run.peak_memory_bytes])
    return text.getvalue()


def _remarks(study: Study) -> list[str]:
    """Return remarks on the numbers as lines of Markdown."""
    measured = [run for arm in study.arms for run in arm.runs if run.status == "measured"]
    trained = sorted({f"{run.precision} on {run.device.partition(':')[0]}" for run in measured if run.device})
    found = []
    compared = sum(bool(pairs_of(arm, _task(study).metric)) for arm in study.arms)
    if compared > 1:
        found.append(
            f"Each interval is of its arm alone; for the best of {compared}, picked afterwards, it is too narrow."
        )
    if len(trained) > 1:
        found.append(f"**The runs differ in more than methods and seeds**: trained in {' and in '.join(trained)}.")
    if len({run.world_size for run in measured} - {None}) > 1:
        found.append(
            "**The runs differ in more than methods and seeds**: they were trained on different numbers of devices."
        )
    answers = {run.teacher_answers for run in measured} - {None}
    if "kept" in answers:
        whose = "of some runs " if len(answers) > 1 else ""
        found.append(f"ms/step {whose}is without the teacher, whose answers were kept on disk.")
    lines = [line for remark in found for line in ("", remark)]
    failed = [
        f"- {arm.name} seed {run.seed}: {run.reason}"
        for arm in study.arms
        for run in arm.runs
        if run.status == "failed"
    ]
    return [*lines, "", "**Without a result**, because they failed:", "", *failed] if failed else lines


def versus(study: Study) -> list[str]:
    """Return a Markdown table of the first arm against each other arm.

    It is empty without other arms, and when the baseline is not the plain student.
    """
    task = _task(study)
    if study.baseline != PLAIN:
        return []
    arms = [arm for arm in study.arms if arm.name != study.baseline]
    if len(arms) < 2:
        return []
    first, *others = arms
    metrics = (task.metric, task.second, *task.more)
    return [
        "",
        f"`{first.name}` minus each other arm, paired by seed, with the 95 % interval:",
        "",
        "| arm | seeds | " + " | ".join(f"{DEFINITIONS[name][0]} %" for name in metrics) + " |",
        "|---|---:|" + "---:|" * len(metrics),
        *("| " + " | ".join(_versus(first, arm, metrics)) + " |" for arm in others),
    ]


def _versus(first: Arm, arm: Arm, metrics: Sequence[str]) -> list[str]:
    common = set(by_seed(first.runs, metrics[0])) & set(by_seed(arm.runs, metrics[0]))
    return [arm.name, str(len(common)), *(interval_text(between(first, arm, metric)) for metric in metrics)]


def _task(study: Study) -> Task:
    return TASKS[study.task]


def _teacher(study: Study) -> tuple[str, ...]:
    """Return the teacher's row, with its differences to the baseline's mean. Small differences leave little to teach."""
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


def _taught(study: Study) -> Arm:
    """Return the arm whose mean the teacher is compared with: a float network where there is one."""
    return float_reference(study) or study.baseline_arm


def _teachers(study: Study, metric: str, digits: int = 2) -> tuple[str, str]:
    """Return the teacher's score in a metric, and the score minus the baseline's mean."""
    score = study.teacher.metrics.get(metric)
    if score is None:
        return MISSING, MISSING
    baseline = _taught(study).metrics.get(metric)
    difference = f"{100 * (score - baseline.mean):+.{digits}f}" if baseline else MISSING
    return _percent(score, digits), difference


def _row(arm: Arm, is_baseline: bool, task: Task) -> tuple[str, ...]:
    measured, pairs = sum(run.status == "measured" for run in arm.runs), pairs_of(arm, task.metric)
    difference = difference_of(arm, task.metric)
    no_verdict = "no seed in common" if measured else "not measured"
    pace, memory = arm.seconds_per_step, arm.peak_memory_bytes
    return (
        arm.name,
        f"{measured}" if is_baseline or pairs == measured else f"{measured} ({pairs} paired)",
        _mean(arm, task.metric),
        interval_text(difference),
        interval_text(difference_of(arm, task.second)),
        *(_mean_and_difference(arm, name) for name in task.more),
        MISSING if pace is None else f"{1000 * pace:.0f}",
        MISSING if memory is None else f"{memory / 2**20:.0f}",
        "baseline" if is_baseline else difference.verdict if difference else no_verdict,
    )


def _percent(value: float | None, digits: int = 2) -> str:
    return MISSING if value is None else f"{100 * value:.{digits}f}"


def _mean(arm: Arm, metric: str) -> str:
    summary = arm.metrics.get(metric)
    if summary is None:
        return MISSING
    return _percent(summary.mean) + ("" if summary.sd is None else f" ± {_percent(summary.sd)}")


def _mean_and_difference(arm: Arm, metric: str) -> str:
    summary = arm.metrics.get(metric)
    if summary is None:
        return MISSING
    mean = _percent(summary.mean, digits=1)
    return f"{mean}: {interval_text(summary.difference, digits=1)}" if summary.difference else mean
