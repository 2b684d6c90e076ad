"""The figure of a study: the difference of each arm to the baseline, and learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.core.task_metrics import TASKS
from edgekd.evaluate.definitions import DEFINITIONS
from edgekd.study.difference import between, difference_of, pairs_of
from edgekd.study.model import Arm, Difference, Study
from edgekd.study.quantized_table import arm_name, baseline_arm, float_reference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK, _MUTED, _BETTER, _WORSE = "#222222", "#8a8a8a", "#0072b2", "#d55e00"  # Okabe and Ito's palette


def draw(study: Study, path: Path) -> Figure:
    """Write the figure of a study as PNG, and return it: a panel per metric, then learning curves if there are any."""
    from matplotlib.figure import Figure

    task = TASKS[study.task]
    panels = quantized_panels(study) if study.is_quantized else _panels(study)
    arms = panels[0].names
    has_curves = any(run.validation for arm in study.arms for run in arm.runs)
    rows = 2 if has_curves else 1
    figure = Figure(figsize=(13, rows * 1.2 + 0.34 * len(arms) + (3.0 if has_curves else 0)), layout="constrained")
    grid = figure.add_gridspec(rows, len(panels), height_ratios=[1.2 + 0.34 * len(arms), 3.2][:rows])
    first = None
    for column, panel in enumerate(panels):
        axes = figure.add_subplot(grid[0, column], sharey=first)
        _differences(axes, panel, with_names=first is None)
        first = first or axes
    if has_curves:
        _curves(figure.add_subplot(grid[1, :]), _trainings(study), study.teacher.metrics.get(task.metric), task.title)
    pairs = sorted({number for arm in study.arms if (number := pairs_of(arm, task.metric))}) or [0]
    seeds = f"{pairs[0]} to {pairs[-1]} seeds" if len(pairs) > 1 else f"{pairs[0]} seed" + "s" * (pairs[0] != 1)
    what = f"difference to {study.baseline} after {study.steps} steps"
    if study.is_quantized:
        what = f"differences of int8 engines, {study.steps} further steps of each arm that trains"
    figure.suptitle(
        f"{study.recipe_name}: {what}, {seeds} "
        "(bar: 95 % interval of the mean, dots: single seeds)",
        fontsize=10, color=_INK, parse_math=False,
    )  # fmt: skip
    figure.savefig(path, dpi=130, format="png")
    return figure


@dataclass(frozen=True)
class Panel:
    """Differences in one metric: a row for each name, None where there is none."""

    title: str
    rows: Mapping[str, Difference | None]

    @property
    def names(self) -> list[str]:
        """Names of the rows from the top."""
        return list(self.rows)


def _panels(study: Study) -> list[Panel]:
    task, arms = TASKS[study.task], [arm for arm in study.arms if not study.is_baseline(arm)]
    return [
        Panel(_title(metric), {arm.name: difference_of(arm, metric) for arm in arms})
        for metric in (task.metric, task.second, *task.more)
    ]


def quantized_panels(study: Study) -> list[Panel]:
    """Return two panels for each main metric: every engine minus the same engine of the baseline, and minus its float network."""
    task, engines = TASKS[study.task], [arm for arm in study.arms if arm.engine]
    reference, panels = float_reference(study), []
    floats = [arm for arm in study.float_arms if arm is not reference]
    for metric in (task.metric, task.second):
        rows = {arm.name: difference_of(arm, metric) for arm in engines} | {arm.name: None for arm in floats}
        panels.append(Panel(f"{_title(metric)}\nminus the same engine of {baseline_arm(study)}", rows))
        if reference is not None:
            rows = {arm.name: between(arm, reference, metric) for arm in (*engines, *floats)}
            panels.append(Panel(f"{_title(metric)}\nminus {reference.name}", rows))
    return panels


def _title(metric: str) -> str:
    title, _, higher_is_better = DEFINITIONS[metric]
    return f"{title}, points ({'more' if higher_is_better else 'less'} is better)"


def _trainings(study: Study) -> dict[str, Arm]:
    """Return name -> an arm for each training, which all engines of an arm share."""
    if not study.is_quantized:
        return {arm.name: arm for arm in study.arms}
    return {arm_name(arm): arm for arm in reversed(study.arms) if arm.engine}


def _differences(axes: Any, panel: Panel, with_names: bool) -> None:
    axes.axvline(0, color=_MUTED, linewidth=1)
    for height, difference in enumerate(panel.rows.values()):
        if difference is None:
            continue
        color = {"better": _BETTER, "worse": _WORSE}.get(difference.verdict, _MUTED)
        if difference.low is not None and difference.high is not None:
            ends = [100 * difference.low, 100 * difference.high]
            axes.plot(ends, [height, height], color=color, linewidth=5, alpha=0.35)
        dots = [100 * value for value in difference.by_seed]
        axes.plot(dots, [height] * len(dots), ".", color=color, markersize=4)
        axes.plot(100 * difference.mean, height, "o", color=color, markersize=6)
    if with_names:  # all panels share the axis, and another call would remove the names
        axes.set_yticks(range(len(panel.names)), panel.names, parse_math=False)
    axes.tick_params(labelleft=with_names, labelsize=8)
    axes.set_ylim(max(len(panel.names), 1) - 0.5, -0.5)
    axes.set_title(panel.title, fontsize=9, color=_INK, parse_math=False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _curves(axes: Any, arms: Mapping[str, Arm], teacher: float | None, title: str) -> None:
    """Draw the mean validation score over the seeds against the step, and the teacher's."""
    from matplotlib import colormaps

    if teacher is not None:
        axes.axhline(100 * teacher, color=_MUTED, linewidth=1, linestyle="--", label="teacher")
    for number, (name, arm) in enumerate(arms.items()):
        curves = [{step: value for step, value in run.validation if value is not None} for run in arm.runs]
        curves = [curve for curve in curves if curve]
        steps = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
        if steps:
            values = [100 * sum(curve[step] for curve in curves) / len(curves) for step in steps]
            color = colormaps["tab20"](number % 20)
            axes.plot(steps, values, color=color, linewidth=1.6, label=name.replace("$", r"\$"))
    axes.legend(fontsize=8, ncols=2, loc="lower right", frameon=False)
    axes.set_xlabel("optimizer step", fontsize=9)
    axes.set_ylabel(f"validation {title}, %", fontsize=9)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
