"""The reasons why an artifact is made again, in the words of the recipe."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edgekd.core.artifact import MANIFEST, open_artifact
from edgekd.core.key_changes import reasons
from tests.unit.core.fake_stages import run_fake_pipeline
from tests.unit.core.small_recipe import small_recipe

CONTENT = {
    "stage": ["s", "onnx", "", 1], "edgekd": "0.1.0", "task": "semantic", "seed": 3, "config": {"data": {"size": [64, 96]}},
    "files": {"teacher.checkpoint": "1"}, "code": {}, "external_state": {"version": "1"}, "inputs": {"export": "1", "data": "1"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"seed": 4}, "seed 3 -> 4"),
        ({"edgekd": "0.2.0"}, "edgekd 0.1.0 -> 0.2.0"),
        ({"stage": ["s", "onnx", "", 2]}, "this edgekd makes it differently"),
        ({"config": {"data": {"size": [32, 96]}}}, "data.size [64, 96] -> [32, 96]"),
        ({"config": {"data": {"size": [64, 96], "val": "x"}}}, 'data.val null -> "x"'),
        ({"files": {"teacher.checkpoint": "2"}}, "the file teacher.checkpoint changed"),
        ({"code": {"mine": "1"}}, "the code of mine changed"),
        ({"external_state": {"version": "2"}}, 'outside of the run: version "1" -> "2"'),
        ({"inputs": {"export": "2", "data": "1"}}, "its input export changed"),
        ({"inputs": {"data": "1"}}, "its input export changed"),
        ({"seed": 4, "task": "detection", "edgekd": "2", "inputs": {}},
         "edgekd 0.1.0 -> 2; task semantic -> detection; seed 3 -> 4 and 2 more"),
    ],
)  # fmt: skip
def test_each_kind_of_change_has_its_words(change: dict, words: str) -> None:
    assert reasons(CONTENT, {**CONTENT, **change}) == words


def test_a_list_and_a_tuple_of_the_same_values_are_equal() -> None:
    assert reasons(CONTENT, {**CONTENT, "config": {"data": {"size": (64, 96)}}}) == ""


def test_a_run_says_which_stages_it_makes_again_and_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run_fake_pipeline(small_recipe(tmp_path), tmp_path / "out")
    assert [line for line in caplog.messages if "again" in line] == []
    run_fake_pipeline(small_recipe(tmp_path, "student.train.steps=3"), tmp_path / "out")
    assert [line for line in caplog.messages if "again" in line] == [
        "slow: running again: student.train.steps 10 -> 3",
        "group/last: running again: its input slow changed",
    ]


def test_an_artifact_of_an_older_edgekd_is_made_again_for_that_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    recipe, out = small_recipe(tmp_path), tmp_path / "out"
    run_fake_pipeline(recipe, out)
    manifest = out / "first" / MANIFEST
    text = manifest.read_text()
    content = open_artifact(out / "first").manifest["key_content"]
    assert content["config"]["data"]["size"] == [64, 96]
    manifest.write_text(text.replace('"key_content"', '"something"').replace('"key": "', '"key": "older'))
    run_fake_pipeline(recipe, out)
    assert (
        "first: running again: it was made by an older edgekd, whose manifests do not say what they depend on"
        in caplog.messages
    )
