"""What a board says of a job's progress and state: words that make no sense are no progress, and no traceback."""

from __future__ import annotations

import pytest

from edgekd.errors import ArtifactError, BoardAnswerError, BoardError
from edgekd.executors.machine import machine_of
from edgekd.executors.ssh.jobs import _status as status_of


@pytest.mark.parametrize(
    "said",
    ["[" * 100_000, f'["steps", {"9" * 400}]', '["steps", NaN]', '["steps", Infinity]', '["steps", -0.1]',
     '["steps", 1.1]', '["steps"]', '{"a": 1}', "0.5", "steps", ""],
)  # fmt: skip
def test_a_progress_without_a_fraction_is_none(said: str) -> None:
    assert status_of(f"state running\nprogress {said}\n").progress is None


@pytest.mark.parametrize("fraction", [0, 0.5, 1])
def test_a_progress_is_a_word_and_a_fraction(fraction: float) -> None:
    assert status_of(f'state running\nprogress ["steps", {fraction}]\n').progress == ("steps", fraction)


def test_a_holders_name_holds_nothing_that_a_terminal_obeys() -> None:
    status = status_of("state waiting\nholder eve\x1b]0;title\x07@lab\x1b[2J: measure\n")
    assert status.holder == "eve@lab: measure"
    assert status_of('state running\nprogress ["\\u001b[2Jsteps", 0.5]\n').progress == ("steps", 0.5)


@pytest.mark.parametrize("said", ["state asleep\n", "state ended\ncode 0\n", "state ended\ncode x\ncomplete\n"])
def test_a_bad_answer_is_an_error_of_the_board(said: str) -> None:
    with pytest.raises(BoardAnswerError, match="unexpected job status: 'state") as caught:
        status_of(said)
    assert isinstance(caught.value, BoardError)
    assert isinstance(caught.value, ArtifactError)


@pytest.mark.parametrize("value", [{}, {"identity": {}}, {"identity": None, "facts": {}}, {"identity": {"x": 1}}])
def test_a_machine_that_is_none_is_an_error_of_the_board(value: dict[str, object]) -> None:
    with pytest.raises(BoardAnswerError, match="expected identity and facts"):
        machine_of(value)
