"""Comparing studies: arms by name, seeds in pairs, and what is not compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekd.board.files import write_atomic
from edgekd.errors import UserError
from edgekd.report.part import Json
from edgekd.study.compared import StudyComparison, compare_studies, lines, table_rows
from edgekd.study.model import SCHEMA

DATA = {"format": "folder", "options": {"root": "/data"}, "val": "val", "split_seed": 0}


def study(folder: Path, arms: dict[str, dict[int, float]], **changed: Any) -> Path:
    """Write a study whose arms have an mIoU by seed."""
    recipe: Json = {"task": "semantic", "data": DATA, "student": {"train": {"steps": 10}}}
    content: Json = {
        "schema": SCHEMA, "recipe_name": "small", "recipe": recipe, "baseline": next(iter(arms)), "seeds": [0, 1, 2],
        "steps": 10, "teacher": {}, "images_sha256": "images",
        "arms": [{"name": name, "runs": [
            {"seed": seed, "status": "measured", "metrics": {"miou": value}} for seed, value in runs.items()
        ]} for name, runs in arms.items()],
    }  # fmt: skip
    folder.mkdir()

    write_atomic(folder / "study.json", json.dumps(content | changed))
    return folder


def test_arms_are_matched_by_name_and_seeds_in_pairs(tmp_path: Path) -> None:
    """Differences 0.01, 0.02, 0.03: mean 0.02, sd 0.01, t(2, 97.5 %) = 4.3027, half width 4.3027 * 0.01 / sqrt(3) = 0.02484."""
    old = study(tmp_path / "a", {"plain": {0: 0.5}, "kd": {0: 0.50, 1: 0.60, 2: 0.40, 9: 0.99}})
    new = study(tmp_path / "b", {"plain": {1: 0.5}, "kd": {0: 0.51, 1: 0.62, 2: 0.43, 8: 0.01}, "other": {0: 0.1}})
    (pair,) = compare_studies([old, new / "study.json"]).pairs
    plain, kd = pair.arms
    assert (kd.name, kd.figures[0].metric, kd.figures[0].seeds) == ("kd", "miou", [0, 1, 2])
    assert (kd.figures[0].old, kd.figures[0].new) == (pytest.approx(0.5), pytest.approx(0.52))
    found = kd.figures[0].difference
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((0.02, 0.02 - 0.024841, 0.02 + 0.024841), abs=1e-6)
    assert found.verdict == "no measurable difference"
    assert (plain.figures[0].difference, plain.figures[0].seeds) == (None, [])
    assert pair.only_new == ["other"]
    assert "not compared: arm other, only in B" in lines(pair)
    texts = list(table_rows(pair))
    assert texts[0][:2] == ("plain", "mIoU %")
    assert texts[0][-2:] == ("0", "no common seed")
    assert ("kd", "mIoU %", "50.0", "52.0", "+2.0 [−0.5, +4.5]", "3", "no measurable difference") in texts


def test_one_common_seed_has_no_interval(tmp_path: Path) -> None:
    paths = [study(tmp_path / name, {"plain": {0: value}}) for name, value in (("a", 0.5), ("b", 0.6))]
    (pair,) = compare_studies(paths).pairs
    assert next(table_rows(pair))[4:] == ("+10.0", "1", "one seed")


def test_the_recipes_keys_that_differ_are_listed(tmp_path: Path) -> None:
    recipe = {"task": "semantic", "data": DATA, "student": {"train": {"steps": 20}}}
    paths = [study(tmp_path / "a", {"plain": {0: 0.5}}), study(tmp_path / "b", {"plain": {0: 0.5}}, recipe=recipe)]
    (pair,) = compare_studies(paths).pairs
    assert pair.changes == ["student.train.steps: 10 -> 20"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"images_sha256": "others"}, "the scored images or labels differ (splits 'val' and 'val')"),
        (
            {"images_sha256": "", "recipe": {"task": "semantic", "data": {**DATA, "val": "test"}}},
            "the recipes differ in data.val, and a study does not say which images were scored; run it again",
        ),
    ],
)
def test_scores_on_other_images_are_refused_with_the_reason(tmp_path: Path, changed: Json, reason: str) -> None:
    paths = [study(tmp_path / "a", {"plain": {0: 0.5}}), study(tmp_path / "b", {"plain": {0: 0.5}}, **changed)]
    (pair,) = compare_studies(paths).pairs
    assert (pair.refused, pair.arms) == (reason, [])
    assert f"not compared: {reason}" in lines(pair)


def test_max_detections_must_agree_for_objects(tmp_path: Path) -> None:
    recipes = [{"task": "detection", "data": DATA, "evaluate": {"max_detections": most}} for most in (100, 300)]
    paths = [study(tmp_path / str(i), {"plain": {0: 0.5}}, recipe=recipe) for i, recipe in enumerate(recipes)]
    (pair,) = compare_studies(paths).pairs
    assert pair.refused == "evaluate.max_detections is 100 in one study and 300 in the other"


def test_studies_of_two_tasks_and_other_files_are_errors(tmp_path: Path) -> None:
    one = study(tmp_path / "a", {"plain": {0: 0.5}})
    other = study(tmp_path / "b", {"plain": {0: 0.5}}, recipe={"task": "detection"})
    with pytest.raises(UserError, match="is a study of task 'detection', .*a of 'semantic'; compare one task"):
        compare_studies([one, other])
    with pytest.raises(UserError, match="expected a study like the others, got no study.json"):
        compare_studies([one, tmp_path])
    with pytest.raises(UserError, match="expected 2 to 26 studies to compare, got 1"):
        compare_studies([one])


def test_a_comparison_reads_back_as_it_was_written(tmp_path: Path) -> None:
    comparison = compare_studies([study(tmp_path / "a", {"p": {0: 0.5}}), study(tmp_path / "b", {"p": {0: 0.6}})])
    assert StudyComparison.model_validate(comparison.to_dict()).to_dict() == comparison.to_dict()
