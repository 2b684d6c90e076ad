"""A board's last answers: only those of this board and this boot are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.executors.ssh.questions import Questions


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_an_answer_is_that_of_its_board_and_boot(cache: Path) -> None:
    Questions("pi", "boot 1").keep("q", {"version": "1"})
    assert Questions("pi", "boot 1").answer("q") == {"version": "1"}
    assert Questions("pi", "boot 1").answer("other") is None
    assert Questions("pi", "boot 2").answer("q") is None
    assert Questions("orin", "boot 1").answer("q") is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        '{"ssh": "pi"}',
        '{"ssh": "pi", "boot": "boot 1"}',
        '{"ssh": "pi", "boot": "boot 1", "value": 3}',
    ],
)
def test_a_damaged_answer_is_none(content: str, cache: Path) -> None:
    questions = Questions("pi", "boot 1")
    questions.keep("q", {})
    (file,) = cache.rglob("q.json")
    file.write_text(content)
    assert questions.answer("q") is None
