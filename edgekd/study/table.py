"""The table of a study, for the terminal and as Markdown for a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from edgekd.core.recipe import PLAIN
from edgekd.core.task_metrics import TASKS, Task
from edgekd.evaluate.definitions import COCO_DETECTIONS, DEFINITIONS, definitions
from edgekd.study.difference import by_seed, compare, difference_of, pairs_of
from edgekd.study.model import FLOAT, Arm, Difference, Study

MISSING = "–"


def headers(study: Study) -> tuple[str, ...]:
    """Return the names of the columns, which depend on the task."""
    task = _task(study)
    more = [
        f"{DEFINITIONS[name][0].split()[0] if task.metric == 'miou' else DEFINITIONS[name][0]} %" for name in task.more
    ]
    return (
        "arm", "seeds", f"{task.title} %", f"Δ {task.title} [95 %]", f"Δ {task.second_title} [95 %]", *more, "ms/step",
        "peak MiB", "verdict",
    )  # fmt: skip


def rows(study: Study) -> list[tuple[str, ...]]:
    """Return the teacher's row, then one per arm: texts in the order of `headers`, `–` where nothing was measured."""
    return [_teacher(study), *(_row(arm, study.is_baseline(arm), _task(study)) for arm in study.arms)]


def markdown(study: Study) -> str:
    """Return the table as Markdown, below a paragraph that says what it compares."""
    task, columns = _task(study), headers(study)
    teacher = _percent(study.teacher.metrics.get(task.metric))
    trained, compared = "steps each", f"`{study.baseline}`"
    if study.is_quantized:
        trained = "further steps of each arm that trains"
        baselines = dict.fromkeys(arm.baseline or study.baseline for arm in study.arms if arm.engine)
        compared = " or ".join(f"`{name}`" for name in baselines) + f", the same engine of arm `{_baseline(study)}`"
    lines = [
        f"`{study.recipe_name}`: {study.steps} {trained}, seeds {', '.join(map(str, study.seeds))}; "
        f"teacher {teacher} {task.title}. Mean ± standard deviation over the seeds; Δ is the difference to "
        f"{compared}, paired by seed, with the 95 % interval of its mean; "
        "the columns of the last two metrics give the arm's mean, then its difference. The verdict is on the first metric. The "
        "teacher is one network: its difference is to the baseline's mean, not paired.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "|".join(["---"] + ["---:"] * (len(columns) - 2) + ["---"]) + "|",
        *("| " + " | ".join(row) + " |" for row in rows(study)),
    ]
    return "\n".join(lines + versus(study) + to_float(study) + _remarks(study)) + "\n"


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
    failed = [f"{arm.name} seed {run.seed}" for arm in study.arms for run in arm.runs if run.status == "failed"]
    if failed:
        found.append(f"**Without a result**, because they failed: {', '.join(failed)}.")
    return [line for remark in found for line in ("", remark)]


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
        *("| " + " | ".join(_versus(first, arm, metrics, arm.name)) + " |" for arm in others),
    ]


def to_float(study: Study) -> list[str]:
    """Return a Markdown table of every engine against the float network of its baseline, [] for a study without engines.

    The float network of the control has had the same training, so the difference is what the engine loses by being int8.
    """
    if not study.is_quantized:
        return []
    floats = {arm.name: arm for arm in study.arms if not arm.engine}
    baseline = _baseline(study)
    name = f"{baseline}{FLOAT}"
    if name not in floats:
        return []
    settings = study.recipe["study"]["quantized"]["arms"].get(baseline)
    is_control = settings["student"] == "control" if settings else baseline == "control"
    trained = ", which has had as much training" if is_control else ""
    metrics = (_task(study).metric, _task(study).second, *_task(study).more)
    return [
        "",
        f"Every engine minus `{name}`{trained}, paired by seed, with the 95 % interval:",
        "",
        "| arm | seeds | " + " | ".join(f"{DEFINITIONS[metric][0]} %" for metric in metrics) + " |",
        "|---|---:|" + "---:|" * len(metrics),
        *("| " + " | ".join(_versus(arm, floats[name], metrics, arm.name)) + " |" for arm in study.arms if arm.engine),
    ]


def _baseline(study: Study) -> str:
    """Return the arm that a study of quantization compares with, without its engine."""
    return str(study.recipe["study"]["quantized"]["baseline"])


def _versus(first: Arm, arm: Arm, metrics: Sequence[str], name: str) -> list[str]:
    common = set(by_seed(first.runs, metrics[0])) & set(by_seed(arm.runs, metrics[0]))
    return [name, str(len(common)), *(_between(first, arm, name) for name in metrics)]


def _between(arm: Arm, other: Arm, metric: str) -> str:
    higher_is_better = DEFINITIONS[metric][2]
    return _interval(compare(by_seed(arm.runs, metric), by_seed(other.runs, metric), higher_is_better))


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


def _teachers(study: Study, metric: str, digits: int = 2) -> tuple[str, str]:
    """Return the teacher's score in a metric, and the score minus the baseline's mean."""
    score = study.teacher.metrics.get(metric)
    if score is None:
        return MISSING, MISSING
    baseline = study.baseline_arm.metrics.get(metric)
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
        _interval(difference),
        _interval(difference_of(arm, task.second)),
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
    return f"{mean}: {_interval(summary.difference, digits=1)}" if summary.difference else mean


def _interval(difference: Difference | None, digits: int = 2) -> str:
    """Return the mean of a difference in points, with the interval where it has one."""
    if difference is None:
        return MISSING
    mean = f"{100 * difference.mean:+.{digits}f}"
    if difference.low is None or difference.high is None:
        return mean
    return f"{mean} [{100 * difference.low:+.{digits}f}, {100 * difference.high:+.{digits}f}]"
