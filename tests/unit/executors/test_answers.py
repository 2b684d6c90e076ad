"""What a job's value holds is checked before it is used: another machine may have written it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekd.board.job import Json
from edgekd.errors import BoardAnswerError
from edgekd.executors.answers import mapping_of, path_of, reasons_of, rows_of, spec_of, texts_of
from edgekd.executors.logs import printable

NO_TEXTS = [None, "ab", ["a"], ["a", "b", "c"], ["a", 1], {"0": "a", "1": "b"}]
NO_ROWS: list[Any] = [
    None,
    [],
    {"a": 1},
    {"a": {}},
    {"a": {"warnings": "b"}},
    {"a": {"warnings": [1]}},
    {"z": {"warnings": []}},
]
NO_PATHS = [None, 1, "/etc/passwd", "../engine.bin", "a/../../b"]


@pytest.mark.parametrize("found", NO_TEXTS)
def test_texts_of_another_number_or_kind_are_refused(found: Any) -> None:
    with pytest.raises(BoardAnswerError, match="a job's reasons: expected 2 texts"):
        texts_of({"reasons": found}, "reasons", 2)


@pytest.mark.parametrize("found", NO_ROWS)
def test_rows_of_other_engines_or_without_warnings_are_refused(found: Any) -> None:
    with pytest.raises(BoardAnswerError):
        rows_of({"rows": found}, "rows", ["a", "b"])


@pytest.mark.parametrize("found", NO_PATHS)
def test_paths_that_leave_the_jobs_folder_are_refused(found: Any) -> None:
    with pytest.raises(BoardAnswerError, match="a job's engine: expected"):
        path_of({"engine": found}, "engine")


@pytest.mark.parametrize("found", [None, {}, {"preprocess": 1}, {"preprocess": {}, "task": "semantic"}])
def test_a_contract_that_is_none_is_refused(found: Any) -> None:
    with pytest.raises(BoardAnswerError, match="a job's spec: expected"):
        spec_of({"spec": found}, "spec")


def test_right_values_come_back_as_they_are_without_control_characters() -> None:
    row: Json = {"warnings": ["h\x1b[1mot"], "p50": 1}
    assert rows_of({"rows": {"a": row}}, "rows", ["a", "b"]) == {"a": {"warnings": ["hot"], "p50": 1}}
    assert mapping_of({"runtime": {"x": 1}}, "runtime") == {"x": 1}
    assert texts_of({"reasons": ["", "no\x1b[31m GPU"]}, "reasons", 2) == ["", "no GPU"]
    assert reasons_of({"failures": {"a": "re\x07fused"}}, "failures") == {"a": "re fused"}
    assert path_of({"engine": "deep/engine.bin"}, "engine") == Path("deep/engine.bin")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain  text\n", "plain text"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("clear\x1b[2J\x1b[Hscreen", "clearscreen"),
        ("back\b\b\bspace", "back space"),
        ("right\u202eleft", "right left"),
        ("\x9b31mC1", "31mC1"),
        ("ü 漢 °C", "ü 漢 °C"),
    ],
)
def test_a_text_of_another_machine_holds_nothing_that_a_terminal_obeys(text: str, shown: str) -> None:
    assert printable(text) == shown
