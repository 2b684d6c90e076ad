"""The section `trainer` is checked against this machine, and refused in one line that says what exists here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekd.core.recipe import Train, Trainer
from edgekd.errors import RecipeError
from edgekd.train.loop import fit
from edgekd.train.place import check_trainer
from tests.tiny_task import Boxes, job

ON_A_CPU = pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
BUDGETS = {"teacher": Train(steps=1, batch_size=4)}


def refusal(**settings: Any) -> str:
    with pytest.raises(RecipeError) as refused:
        check_trainer(Trainer(**settings), BUDGETS)
    line = str(refused.value)
    assert "\n" not in line
    return line


@ON_A_CPU
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"accelerator": "gpu"}, "trainer.accelerator gpu: "),
        ({"accelerator": "cuda:0"}, "trainer.accelerator cuda:0: "),
        ({"accelerator": "mps"}, "trainer.accelerator mps: "),
        ({"accelerator": "tpu"}, "trainer.accelerator tpu: "),
        ({"strategy": "dpp"}, "trainer.strategy dpp: "),
        ({"strategy": "deepspeed"}, "trainer.strategy deepspeed: "),
        ({"strategy": "fsdp", "devices": 2}, "trainer.strategy fsdp, trainer.devices 2: "),
        ({"devices": "two"}, "trainer.devices two: "),
        ({"devices": "0,1"}, "trainer.devices 0,1: "),
        ({"devices": -1}, "trainer.devices -1: "),
        ({"devices": 0}, "trainer.devices 0: "),
    ],
    ids=str,
)
def test_what_lightning_refuses_here_names_the_key_and_what_is_possible(settings: dict[str, Any], said: str) -> None:
    line = refusal(**settings)
    assert line.startswith(said)
    assert "; possible here: accelerator auto, cpu with devices 1 or more; strategy auto, ddp, " in line
    assert "spawn" not in line.partition("possible here")[2]


@ON_A_CPU
def test_a_strategy_whose_processes_keep_their_results_is_refused() -> None:
    line = refusal(accelerator="cpu", strategy="ddp_spawn", devices=2)
    assert line.startswith(
        "trainer.strategy 'ddp_spawn' trains in processes whose results do not come back; possible here"
    )


def test_a_batch_that_the_devices_cannot_share_is_refused() -> None:
    assert refusal(accelerator="cpu", devices=3) == (
        "teacher.train.batch_size 4 is not divisible by 3 devices (trainer.devices x trainer.num_nodes); change one of them"
    )


def test_machines_that_nobody_starts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NODE_RANK", raising=False)
    assert refusal(accelerator="cpu", num_nodes=2).startswith("trainer.num_nodes 2: this is one machine")
    monkeypatch.setenv("NODE_RANK", "0")
    check_trainer(Trainer(accelerator="cpu", num_nodes=2), BUDGETS)


@pytest.mark.parametrize("settings", [{}, {"strategy": "ddp"}, {"devices": 2}, {"devices": "4"}], ids=str)
def test_what_exists_everywhere_is_taken(settings: dict[str, Any]) -> None:
    check_trainer(Trainer(accelerator="cpu", **settings), BUDGETS)


@ON_A_CPU
def test_a_training_that_was_not_checked_before_is_refused_alike(tmp_path: Path) -> None:
    run = replace(job(tmp_path, Boxes()), trainer=Trainer(accelerator="gpu"))
    with pytest.raises(RecipeError, match="^trainer.accelerator gpu: .*; possible here: accelerator auto, cpu"):
        fit(run)
