"""Progress of a training: a bar on a terminal, a line a minute elsewhere, and where a training resumes."""

from __future__ import annotations

import io
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from edgekd.train import progress
from edgekd.train.progress import TrainingProgress, time_text


def train(shown: TrainingProgress, steps: range, monkeypatch: pytest.MonkeyPatch, step_s: float) -> None:
    """Take `steps` as a trainer would, `step_s` seconds each by the clock that the callback reads."""
    trainer: Any = SimpleNamespace(global_step=steps.start - 1)
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    shown.on_train_start(trainer, None)  # type: ignore[arg-type]
    for step in steps:
        trainer.global_step, now = step, now + step_s
        shown.on_train_batch_end(trainer, None, {"loss": 0.5}, None, step)  # type: ignore[arg-type]
    shown.teardown(trainer, None, "fit")  # type: ignore[arg-type]


def test_without_a_terminal_there_is_a_line_a_minute_and_one_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgekd")
    train(TrainingProgress("teacher", 8, Console(file=io.StringIO())), range(1, 9), monkeypatch, step_s=25)
    assert caplog.messages == [
        "teacher: step 3/8, loss 0.500, 25.00 s/step, 0:02:05 left",
        "teacher: step 6/8, loss 0.500, 25.00 s/step, 0:00:50 left",
        "teacher: step 8/8, loss 0.500, 25.00 s/step, 0:00:00 left",
    ]


def test_a_resumed_training_says_its_step_and_counts_only_its_own_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgekd")
    train(TrainingProgress("student", 10, Console(file=io.StringIO())), range(9, 11), monkeypatch, step_s=60)
    assert caplog.messages == [
        "student: resumed at step 8 of 10",
        "student: step 9/10, loss 0.500, 60.00 s/step, 0:01:00 left",
        "student: step 10/10, loss 0.500, 60.00 s/step, 0:00:00 left",
    ]


def test_on_a_terminal_there_is_one_bar(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edgekd")
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    train(TrainingProgress("teacher", 4, console), range(1, 5), monkeypatch, step_s=1)
    assert "step 4/4, loss 0.500, 1.00 s/step, 0:00:00 left" in screen.getvalue()
    assert "teacher" in screen.getvalue()
    assert caplog.messages == []


def test_a_time_is_hours_minutes_and_seconds() -> None:
    assert [time_text(s) for s in (0, 59.6, 3599, 36061)] == ["0:00:00", "0:01:00", "0:59:59", "10:01:01"]
