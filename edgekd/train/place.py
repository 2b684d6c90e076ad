"""Accelerator, devices and precision of a training on this machine, from Lightning and torch."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from edgekd.core.recipe import Train, Trainer
from edgekd.errors import EdgekdError, RecipeError, one_line

_NODE_NUMBERS = ("NODE_RANK", "GROUP_RANK")  # variables that Lightning reads without a cluster scheduler


def check_trainer(settings: Trainer, budgets: Mapping[str, Train]) -> None:
    """Check that this machine can train with the section `trainer`, before anything is trained.

    Args:
        settings: the section.
        budgets: by the network's section of the recipe, e.g. `student`.

    Raises:
        RecipeError: an accelerator, strategy or number of devices that does not exist here, or that no batch is divisible by.
    """
    world = _world_size(settings)
    for section, budget in budgets.items():
        if budget.batch_size % world:
            raise RecipeError(
                f"{section}.train.batch_size {budget.batch_size} is not divisible by {world} devices "
                "(trainer.devices x trainer.num_nodes); change one of them"
            )


def trainer_arguments(settings: Trainer) -> dict[str, Any]:
    """Return the arguments of Lightning's Trainer that the section `trainer` gives."""
    names = ("accelerator", "num_nodes", "strategy")
    return {**{name: getattr(settings, name) for name in names}, "devices": devices_of(settings)}


@contextmanager
def trainer_errors(settings: Trainer) -> Iterator[None]:
    """Turn any error of Lightning about the section `trainer` into a RecipeError that lists the possible values here."""
    try:
        yield
    except (EdgekdError, OSError):  # the disk is not the section's
        raise
    except Exception as exc:  # Lightning raises four classes, and of packages that are absent others
        said = one_line(exc).partition(". ")[0].rstrip(".!")
        raise RecipeError(f"{_given(settings)}: {said}; possible here: {_possible(settings)}") from exc


def _world_size(settings: Trainer) -> int:
    with trainer_errors(settings):
        trainer = _built(settings)
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise RecipeError(
            f"trainer.strategy {settings.strategy!r} trains in processes whose results do not come back; "
            f"possible here: {_possible(settings)}"
        )
    alone = isinstance(trainer._accelerator_connector.cluster_environment, LightningEnvironment)
    if settings.num_nodes > 1 and alone and not any(name in os.environ for name in _NODE_NUMBERS):
        raise RecipeError(
            f"trainer.num_nodes {settings.num_nodes}: this is one machine, which would wait for the others for ever; start "
            "the command on each with MASTER_ADDR, MASTER_PORT and NODE_RANK set (torchrun and SLURM do), or set it to 1"
        )
    return trainer.world_size


def _built(settings: Trainer) -> L.Trainer:
    """Return a bare trainer; nothing is started."""
    said = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = said.level
    said.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return L.Trainer(
                **trainer_arguments(settings), logger=False, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False,
            )  # fmt: skip
    finally:
        said.setLevel(level)


def _given(settings: Trainer) -> str:
    """Return the recipe's keys that Lightning may have refused, e.g. `trainer.devices two`."""
    changed = {
        name: getattr(settings, name)
        for name in trainer_arguments(settings)
        if getattr(settings, name) != Trainer.model_fields[name].default
    }
    return ", ".join(f"trainer.{name} {value}" for name, value in changed.items()) or "trainer"


def _possible(settings: Trainer) -> str:
    """Return the accelerators, devices and strategies of this machine, as Lightning finds them."""
    found = {name: AcceleratorRegistry[name]["accelerator"] for name in sorted(AcceleratorRegistry)}
    here = {name: one for name, one in found.items() if one.is_available()}
    devices = [
        f"{name} with devices " + ("1 or more" if name == "cpu" else f"1 to {one.auto_device_count()}")
        for name, one in here.items()
    ]
    accelerator = settings.accelerator if settings.accelerator in here else "auto"
    strategies = [name for name in sorted(StrategyRegistry) if _is_strategy(accelerator, name)]
    return f"accelerator auto, {', '.join(devices)}; strategy auto, {', '.join(strategies)}"


def _is_strategy(accelerator: str, name: str) -> bool:
    try:
        trainer = _built(Trainer(accelerator=accelerator, strategy=name))
    except Exception:  # noqa: BLE001 - asked whether it can be built
        return False
    return not isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def devices_of(settings: Trainer) -> int | str:
    """Return the number of devices. `auto` is one in a notebook: its process cannot start others that use a GPU."""
    return 1 if settings.devices == "auto" and "ipykernel" in sys.modules else settings.devices


def training_device(settings: Trainer) -> torch.device:
    """Return the device on which this process trains, among the processes that Lightning starts."""
    accelerator = None if on_cpu(settings) else torch.accelerator.current_accelerator()
    if accelerator is None:
        return torch.device("cpu")
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    named = (
        [int(index) for index in str(settings.devices).split(",") if index.strip()]
        if "," in str(settings.devices)
        else []
    )
    return torch.device(accelerator.type, named[rank] if rank < len(named) else rank)


def on_cpu(settings: Trainer) -> bool:
    """Whether Lightning trains on the CPU."""
    return settings.accelerator == "cpu" or (settings.accelerator == "auto" and not torch.accelerator.is_available())


def loader_processes(settings: Trainer) -> int:
    """Return how many processes load training images."""
    if settings.workers is not None:
        return settings.workers
    return 0 if on_cpu(settings) else 4


def precision(budget: Train, settings: Trainer) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    """Return the precision to train in; `auto` is bf16 where the hardware has it, else it would be emulated."""
    if budget.precision != "auto":
        return budget.precision
    if on_cpu(settings):
        return "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() else "32-true"
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if has_bf16 else "32-true"
