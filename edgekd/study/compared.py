"""Compares studies: arms matched by name, differences paired by seed with their 95 % interval.

Pairing is by the seed's number. Where student, data order and budget are the same in both studies, a pair also shares its initial
weights and batches, which narrows the interval. It covers other seeds, not other data or another teacher.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from edgekd.core.key_changes import differences, short
from edgekd.core.task_metrics import TASKS
from edgekd.errors import UserError
from edgekd.evaluate.definitions import COCO_DETECTIONS, definitions
from edgekd.report.part import Part, TaskName
from edgekd.report.units import MISSING, percent, points
from edgekd.study.difference import by_seed, compare
from edgekd.study.model import Arm, Difference, Study
from edgekd.study.results import STUDY, read_study

SCHEMA: Final = "edgekd.study-comparison/1"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SCORED = ("format", "options", "val", "split_seed")  # keys of the section `data` that decide which images are scored
_SHOWN_CHANGES = 20


class ArmDifference(Part):
    """One metric of one arm in two studies."""

    metric: str = Field(description="name of a [metric](metrics.md)")
    title: str = Field(description="title for a reader")
    seeds: list[int] = Field([], description="seeds that both studies have measured")
    old: float | None = Field(None, description="mean over these seeds in the baseline, a fraction")
    new: float | None = Field(None, description="mean over these seeds in the other study")
    difference: Difference | None = Field(
        None, description="`new` minus `old`, paired by seed; null without a common seed"
    )


class ComparedArm(Part):
    """One arm that both studies have."""

    name: str = Field(description="name of the arm")
    figures: list[ArmDifference] = Field([], description="the metrics of the study's table that one of the studies has")


class StudyPair(Part):
    """The baseline study and one other study."""

    old: str = Field(description="letter of the baseline")
    new: str = Field(description="letter of the other study")
    changes: list[str] = Field([], description="keys of the recipe that differ, `key: old -> new`")
    refused: str = Field("", description="why the scores are not compared")
    arms: list[ComparedArm] = Field([], description="arms of both studies, by name")
    only_old: list[str] = Field([], description="arms of the baseline alone")
    only_new: list[str] = Field([], description="arms of the other study alone")


class ComparedStudy(Part):
    """One of the compared studies."""

    letter: str = Field(description="its name in the tables: `A` is the baseline")
    path: str = Field(description="folder or file as it was given")
    recipe_name: str = Field("", description="name of the recipe")


class StudyComparison(Part):
    """Comparison of studies with the first of them."""

    schema_: Literal["edgekd.study-comparison/1"] = Field(alias="schema", description=f"`{SCHEMA}`")
    task: TaskName = Field(description="`semantic`, `detection` or `instance`")
    studies: list[ComparedStudy] = Field(description="in the order of the command line")
    pairs: list[StudyPair] = Field(description="one per study after the first")


def is_study(path: Path) -> bool:
    """Whether a path is a `study.json` or a folder with one."""
    return path.name == STUDY or (path.is_dir() and (path / STUDY).is_file())


def compare_studies(paths: Sequence[Path]) -> StudyComparison:
    """Return the comparison of studies with the first one.

    Args:
        paths: folders of `edgekd study`, or study.json files.

    Raises:
        UserError: fewer than two or too many studies, not a study, or studies of different tasks.
    """
    if not 2 <= len(paths) <= len(LETTERS):
        raise UserError(f"expected 2 to {len(LETTERS)} studies to compare, got {len(paths)}")
    for path in paths:
        if not is_study(path):
            raise UserError(f"{path}: expected a study like the others, got no {STUDY}; compare studies with studies")
    studies = [read_study(path.parent if path.name == STUDY else path) for path in paths]
    for path, study in zip(paths, studies, strict=True):
        if study.task != studies[0].task:
            raise UserError(
                f"{path} is a study of task {study.task!r}, {paths[0]} of {studies[0].task!r}; compare one task"
            )
    named = list(zip(LETTERS, paths, studies, strict=False))
    return StudyComparison(
        schema=SCHEMA,
        task=studies[0].task,
        studies=[
            ComparedStudy(letter=letter, path=str(path), recipe_name=one.recipe_name) for letter, path, one in named
        ],
        pairs=[_pair(studies[0], study, letter) for letter, _, study in named[1:]],
    )


def _pair(old: Study, new: Study, letter: str) -> StudyPair:
    before, after = ({arm.name: arm for arm in study.arms} for study in (old, new))
    refused = why_not(old, new)
    return StudyPair(
        old="A",
        new=letter,
        changes=[f"{path}: {short(was)} -> {short(now)}" for path, was, now in differences(old.recipe, new.recipe)],
        refused=refused,
        arms=[] if refused else [_compared(arm, after[name], new) for name, arm in before.items() if name in after],
        only_old=[name for name in before if name not in after],
        only_new=[name for name in after if name not in before],
    )


def why_not(old: Study, new: Study) -> str:
    """Return why the scores of two studies cannot be compared: other images, labels or maximum detections; "" if they can."""
    if old.images_sha256 and new.images_sha256:
        if old.images_sha256 != new.images_sha256:
            return (
                f"the scored images or labels differ (splits {_data(old).get('val')!r} and {_data(new).get('val')!r})"
            )
    elif key := next((key for key in _SCORED if _data(old).get(key) != _data(new).get(key)), ""):
        return f"the recipes differ in data.{key}, and a study does not say which images were scored; run it again"
    most = [_max_detections(study) for study in (old, new)]
    if old.task != "semantic" and most[0] != most[1]:
        return f"evaluate.max_detections is {most[0]} in one study and {most[1]} in the other"
    return ""


def _data(study: Study) -> dict[str, Any]:
    found = study.recipe.get("data")
    return found if isinstance(found, dict) else {}


def _max_detections(study: Study) -> int:
    found = study.recipe.get("evaluate")
    return int(found.get("max_detections", COCO_DETECTIONS)) if isinstance(found, dict) else COCO_DETECTIONS


def _compared(old: Arm, new: Arm, study: Study) -> ComparedArm:
    task, known = TASKS[study.task], definitions(_max_detections(study))
    figures = []
    for metric in (task.metric, task.second, *task.more):
        title, _, higher_is_better = known[metric]
        before, after = by_seed(old.runs, metric), by_seed(new.runs, metric)
        if not before and not after:
            continue
        seeds = sorted(set(before) & set(after))
        old_mean, new_mean = (statistics.mean(one[s] for s in seeds) if seeds else None for one in (before, after))
        figures.append(
            ArmDifference(
                metric=metric, title=title, seeds=seeds, old=old_mean, new=new_mean,
                difference=compare(after, before, higher_is_better),
            )
        )  # fmt: skip
    return ComparedArm(name=old.name, figures=figures)


HEADERS = ("arm", "metric", "A", "B", "change [95 %]", "seeds", "verdict")


def table_rows(pair: StudyPair) -> Iterator[tuple[str, ...]]:
    """Yield the table's rows, texts in the order of `HEADERS` (`B` stands for the other study); an arm's name is in its first row."""
    for arm in pair.arms:
        for place, one in enumerate(arm.figures):
            found, name = one.difference, "" if place else arm.name
            verdict = found.verdict if found else "no common seed"
            yield (
                name,
                f"{one.title} %",
                percent(one.old),
                percent(one.new),
                _change(found),
                str(len(one.seeds)),
                verdict,
            )


def lines(pair: StudyPair) -> list[str]:
    """Return the lines about a pair: changed keys, why scores are not compared, and arms of one study alone."""
    shown = [f"changed: {line}" for line in pair.changes[:_SHOWN_CHANGES]] or ["changed: nothing in the recipe"]
    if len(pair.changes) > _SHOWN_CHANGES:
        shown.append(f"changed: {len(pair.changes) - _SHOWN_CHANGES} more keys, see --json")
    refused = [f"not compared: {pair.refused}"] if pair.refused else []
    alone = ((pair.old, pair.only_old), (pair.new, pair.only_new))
    return (
        shown + refused + [f"not compared: arm {name}, only in {letter}" for letter, names in alone for name in names]
    )


def _change(found: Difference | None) -> str:
    if found is None or not math.isfinite(found.mean):
        return MISSING
    if found.low is None or found.high is None:
        return points(found.mean)
    return f"{points(found.mean)} [{points(found.low)}, {points(found.high)}]"
