"""Loggers that a recipe names get the losses of the training; one that is not installed is said."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from edgekd.cli.run import with_loggers
from edgekd.core.recipe import Trainer
from edgekd.core.recipe_loading import load_recipe
from edgekd.errors import PackageError, RecipeError, UserError
from edgekd.train.loop import FitJob, fit
from tests.tiny_task import STEPS, Boxes, job


def job_with(scratch: Path, **trainer: Any) -> FitJob:
    plain = job(scratch, Boxes())
    settings = Trainer(accelerator="cpu", devices=1, workers=0, **trainer)
    return dataclasses.replace(plain, trainer=settings, project="small")


def test_csv_and_tensorboard_get_the_losses_of_the_record(tmp_path: Path) -> None:
    run = job_with(tmp_path / "scratch", loggers=("csv", "tensorboard"), log_dir=tmp_path / "logs")
    record = fit(run)["record"]
    with (tmp_path / "logs/csv/small/tiny/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["task"]) for row in rows] == [row["task"] for row in record]
    events = EventAccumulator(str(tmp_path / "logs/tensorboard/small/tiny/version_0")).Reload()
    assert [one.step for one in events.Scalars("task")] == list(range(1, STEPS + 1))
    hyperparameters = (tmp_path / "logs/csv/small/tiny/version_0/hparams.yaml").read_text()
    assert f"steps: {STEPS}" in hyperparameters


def test_without_loggers_no_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fit(job_with(tmp_path / "scratch"))
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_logger_that_is_not_installed_is_named(tmp_path: Path, name: str) -> None:
    if importlib.util.find_spec(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(PackageError, match=rf"trainer\.loggers: {name} is not installed; pip install {name}"):
        fit(job_with(tmp_path / "scratch", loggers=(name,), log_dir=tmp_path))


def test_a_logger_that_cannot_begin_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"trainer\.loggers: csv does not work: "):
        fit(job_with(tmp_path / "scratch", loggers=("csv",), log_dir=tmp_path / "file"))


def test_the_option_is_an_override_of_the_recipe() -> None:
    overrides = with_loggers(["seed=1"], ["csv", "mlflow"])
    assert load_recipe("quickstart", overrides).trainer.loggers == ("csv", "mlflow")
    assert with_loggers(["seed=1"], []) == ["seed=1"]
    with pytest.raises(RecipeError, match="trainer.loggers"):
        load_recipe("quickstart", with_loggers([], ["comet"]))
