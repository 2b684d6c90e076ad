"""Turns torch's errors in a training into one line that names the recipe key to change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from edgekd.core.recipe import Network, Train, Trainer
from edgekd.errors import EdgekdError, RecipeError, UserError, one_line
from edgekd.models.base import DenseModel, ReadyDetector
from edgekd.train.place import loader_processes, on_cpu, training_device

_ONE_VALUE = "Expected more than 1 value per channel when training"  # torch.nn.functional.batch_norm, 2.x
_ONE_PIXEL = "Expected more than 1 spatial element when training"  # torch.nn.functional.instance_norm, 2.x
_NO_MEMORY = ("can't allocate memory", "not enough memory")  # of torch's allocator for CPUs
_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (is killed by signal: [\w ]+|exited unexpectedly)")


def check_trainable(model: DenseModel, network: Network, section: str) -> None:
    """Check that edgekd can train a network.

    Raises:
        RecipeError: its family has no task loss here.
    """
    if network.train is not None and isinstance(model, ReadyDetector):
        instead = f"leave it out and give {section}.checkpoint, a file with trained weights"
        if section == "qat":
            instead = "leave out section `qat`"
        raise RecipeError(f"{section}.train: networks of family {network.family!r} are not trained here; {instead}")


def check_first_step(model: DenseModel, section: str, budget: Train, settings: Trainer, crop: tuple[int, int]) -> None:
    """Run an untrained network in training mode on one or two black images (the number that its norms see at a time).

    Args:
        model: the network; its statistics change, and it stays in training mode.
        section: its section of the recipe.
        budget: budget of the section.
        settings: the section `trainer`.
        crop: size of a training image (height, width).

    Raises:
        RecipeError: its norms need more images or larger ones.
    """
    count = min(2, images_per_norm(budget, settings))
    with training_errors(section, budget, settings), torch.no_grad():
        model.train()(torch.zeros(count, 3, *crop))


def check_compiles(budget: Train, settings: Trainer) -> None:
    """Compile a one-line function, if the recipe compiles its teacher.

    Raises:
        UserError: torch.compile does not work here, e.g. without a C++ compiler.
    """
    if settings.compile_teacher:
        with training_errors("student", budget, settings):
            torch.compile(_one_more)(torch.zeros(1, device=training_device(settings)))


def _one_more(numbers: torch.Tensor) -> torch.Tensor:
    return numbers + 1


def _killed(exc: Exception, settings: Trainer) -> str:
    """Return the end of a loader process that was killed, "" when none was."""
    if found := _WORKER.search(one_line(exc, None)):
        return found[1].strip()
    # The images lie in the memory of the killed process. torch asks it for them over a socket, which is dead.
    is_dead_socket = (
        isinstance(exc, ConnectionError | EOFError | FileNotFoundError) and getattr(exc, "filename", None) is None
    )
    return "was killed" if is_dead_socket and loader_processes(settings) else ""


def images_per_norm(budget: Train, settings: Trainer) -> int:
    """Return the number of images per batch norm: GPUs share statistics, CPU processes do not."""
    devices = str(settings.devices)
    count = int(devices) * settings.num_nodes if on_cpu(settings) and devices.isdigit() else settings.num_nodes
    return budget.batch_size // max(1, count)


@contextmanager
def training_errors(section: str, budget: Train, settings: Trainer) -> Iterator[None]:
    """Turn an error of torch that a recipe causes into one line.

    Raises:
        RecipeError: the norms of a network need more images or larger ones.
        UserError: no memory left, a killed loader process, a network that torch.compile cannot compile.
    """
    try:
        yield
    except EdgekdError:
        raise
    except Exception as exc:
        said = one_line(exc, None)
        if _ONE_VALUE in said:
            enough = 2 * (budget.batch_size // max(1, images_per_norm(budget, settings)))
            raise RecipeError(
                f"{section}.train.batch_size {budget.batch_size}: a norm of the network gets one value per channel, which has "
                f"no variance; raise {section}.train.batch_size to {enough}"
            ) from exc
        if _ONE_PIXEL in said:
            raise RecipeError(
                f"{section}: an instance norm of the network gets one pixel, which has no variance; raise data.size and "
                "data.augment.crop"
            ) from exc
        if killed := _killed(exc, settings):
            raise UserError(
                f"{section}: a process that loads images {killed} (often: out of memory, or of /dev/shm in a "
                f"container); lower trainer.workers (now {loader_processes(settings)}; 0 loads in the training process), and run the "
                "same command again to go on from the last checkpoint"
            ) from exc
        if isinstance(exc, torch.OutOfMemoryError | MemoryError) or any(words in said for words in _NO_MEMORY):
            raise UserError(
                f"{section}: the training needs more memory than there is ({one_line(exc, 120)}); lower "
                f"{section}.train.batch_size (now {budget.batch_size}) or data.augment.crop"
            ) from exc
        if type(exc).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise UserError(
                f"trainer.compile_teacher: torch.compile failed: {one_line(exc, 200)}; set trainer.compile_teacher to false"
            ) from exc
        raise
