"""What commands print of stages that failed, and the exit codes."""

from __future__ import annotations

import pytest
import typer

from edgekd.cli import show
from edgekd.errors import GateError
from edgekd.pipeline import StageFailure

ENGINE = StageFailure("engine/a", "an operator\nis not supported")
FOLLOWING = StageFailure("evaluate/a", "engine/a failed: no", cause="engine/a")


@pytest.mark.parametrize(("is_bug", "code"), [(False, 1), (True, 70)])
def test_failures_are_told_at_the_end_and_decide_the_exit_code(
    capsys: pytest.CaptureFixture[str], is_bug: bool, code: int
) -> None:
    with pytest.raises(typer.Exit) as ended, show.failures() as failed:
        failed += [ENGINE, FOLLOWING, StageFailure("bench", "it broke", is_bug=is_bug)]
    assert ended.value.exit_code == code
    assert capsys.readouterr().err.splitlines() == [
        "edgekd: engine/a failed: an operator is not supported",
        "edgekd: bench failed: it broke",
    ]


def test_an_error_that_ends_the_run_hides_no_failure_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(GateError), show.failures() as failed:
        failed.append(ENGINE)
        raise GateError("the export is not the network")
    assert "engine/a failed" in capsys.readouterr().err


def test_without_a_failure_nothing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with show.failures():
        pass
    assert capsys.readouterr().err == ""
