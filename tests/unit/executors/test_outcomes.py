"""What a worker reports as its failure becomes an error of a job, whatever class the worker names."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.board.job import JobFailure, Result, write_result
from edgekd.errors import (
    ArtifactError,
    EdgekdError,
    ImageError,
    PackageError,
    TargetError,
    ToolchainCrashError,
    WorkspaceError,
)
from edgekd.executors.outcomes import value_of
from edgekd.targets.base import Toolchain


def raised(failure: JobFailure, folder: Path) -> EdgekdError:
    """Return the error of a worker that reports a failure."""
    write_result(Result(None, failure, 0.0), folder)
    log = folder / "log.txt"
    log.touch()
    with pytest.raises(EdgekdError) as caught:
        value_of(folder / "result.json", 0, log, Toolchain(), "onnxruntime probe")
    return caught.value


@pytest.mark.parametrize("kind", [ArtifactError, ImageError, PackageError, TargetError, WorkspaceError])
def test_an_error_that_a_job_raises_is_raised_here_as_the_same_class(kind: type[EdgekdError], tmp_path: Path) -> None:
    assert type(raised(JobFailure(kind.__name__, "no", True), tmp_path)) is kind


@pytest.mark.parametrize(
    "kind",
    ["GateError", "RecipeError", "BoardError", "EdgekdError", "UserError", "Iterable", "did_you_mean", "__doc__", ""],
)
def test_any_other_class_is_a_refusal_of_the_target(kind: str, tmp_path: Path) -> None:
    error = raised(JobFailure(kind, "no", True), tmp_path)
    assert type(error) is TargetError
    assert error.exit_code == 2


@pytest.mark.parametrize("is_user_error", [True, False])
def test_a_workers_words_hold_nothing_that_a_terminal_obeys(is_user_error: bool, tmp_path: Path) -> None:
    error = raised(JobFailure("Odd\x1b[2JError", "so\x1b]0;title\x07rry\nline two", is_user_error), tmp_path)
    assert "sorry line two" in str(error)
    assert str(error).isprintable()
    assert type(error) is (TargetError if is_user_error else ToolchainCrashError)
