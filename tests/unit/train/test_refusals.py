"""What torch refuses in a training is one line that says what to change."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from edgekd.core.recipe import Network, Train, Trainer
from edgekd.errors import RecipeError, UserError
from edgekd.models.base import Outputs
from edgekd.train.loop import fit
from edgekd.train.refusals import check_compiles, check_first_step, check_trainable, images_per_norm, training_errors
from tests.tiny_task import STEPS, Boxes, TinyNet, job

CPU = Trainer(accelerator="cpu", devices=1, workers=2)


class Pooled(TinyNet):
    """A network that pools globally before a norm, as DeepLabV3 does."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__(4, seed=0)
        self.pooled_norm = norm(8)

    def forward_normalized(self, images: Tensor) -> Outputs:
        outputs = super().forward_normalized(images)
        pooled = self.pooled_norm(outputs.features[8].mean((2, 3), keepdim=True))
        return replace(outputs, decoder=outputs.decoder + pooled.mean())


def refusal(norm: type[nn.Module], batch_size: int, settings: Trainer = CPU) -> str:
    with pytest.raises(RecipeError) as refused:
        check_first_step(Pooled(norm), "teacher", Train(steps=1, batch_size=batch_size), settings, (32, 48))
    return str(refused.value)


def test_a_batch_of_one_is_refused_with_the_batch_that_works() -> None:
    assert refusal(nn.BatchNorm2d, 1).endswith("raise teacher.train.batch_size to 2")
    check_first_step(Pooled(nn.BatchNorm2d), "teacher", Train(steps=1, batch_size=2), CPU, (32, 48))


def test_every_process_on_a_cpu_needs_two_images() -> None:
    assert refusal(nn.BatchNorm2d, 4, Trainer(accelerator="cpu", devices=4)).endswith("batch_size to 8")


def test_a_batch_of_one_trains_a_network_whose_norms_see_many_pixels() -> None:
    check_first_step(TinyNet(4, seed=0), "student", Train(steps=1, batch_size=1), CPU, (32, 48))


def test_a_norm_of_one_pixel_is_refused_for_any_batch() -> None:
    assert refusal(nn.InstanceNorm2d, 8).startswith("teacher: an instance norm of the network gets one pixel")


def test_gpus_share_their_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Train(steps=1, batch_size=8)
    assert images_per_norm(budget, Trainer(accelerator="cpu", devices="4", num_nodes=2)) == 1
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    assert images_per_norm(budget, Trainer(devices=4)) == 8


def test_a_compiler_that_is_absent_is_told_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    class InvalidCxxCompiler(Exception):
        __module__ = "torch._inductor.exc"

    def compiled(function: object) -> object:
        def fail(*arguments: object) -> None:
            raise InvalidCxxCompiler("No working C++ compiler found")

        return fail

    monkeypatch.setattr("torch.compile", compiled)
    wanted = CPU.model_copy(update={"compile_teacher": True})
    with pytest.raises(UserError) as told:
        check_compiles(Train(steps=1), wanted)
    assert str(told.value) == (
        "trainer.compile_teacher: torch.compile failed: No working C++ compiler found; set trainer.compile_teacher to false"
    )
    check_compiles(Train(steps=1), CPU)


def test_a_detector_that_is_not_trained_here_is_refused() -> None:
    from edgekd.models.base import ReadyDetector

    class Ready(ReadyDetector):
        def forward_normalized(self, images: Tensor) -> Outputs:
            raise AssertionError

        def detect_normalized(self, images: Tensor) -> dict[str, Tensor]:
            raise AssertionError

    model, network = Ready((0, 0, 0), (1, 1, 1)), Network(family="f", variant="v", train=Train(steps=1))
    with pytest.raises(RecipeError, match="teacher.train: networks of family 'f' are not trained here"):
        check_trainable(model, network, "teacher")
    check_trainable(model, Network(family="f", variant="v", checkpoint=Path("w")), "teacher")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "lower student.train.batch_size (now 8)",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."),
            "batch_size (now 8)",
        ),
        (MemoryError(), "needs more memory than there is (MemoryError)"),
        (RuntimeError("DataLoader worker (pid(s) 7, 9) exited unexpectedly"), "images exited unexpectedly (often: out"),
        (ConnectionResetError(104, "Connection reset by peer"), "a process that loads images was killed (often: out"),
        (FileNotFoundError(2, "No such file or directory"), "a process that loads images was killed (often: out"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that"),
            "images is killed by signal: Bus error (often: out of memory, or of /dev/shm",
        ),
    ],
    ids=str,
)
def test_errors_of_the_machine_say_what_to_lower(error: Exception, said: str) -> None:
    with pytest.raises(UserError) as told, training_errors("student", Train(steps=1), CPU):
        raise error
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_a_missing_file_and_a_socket_of_others_are_no_loader() -> None:
    with pytest.raises(FileNotFoundError), training_errors("student", Train(steps=1), CPU):
        raise FileNotFoundError(2, "No such file or directory", "a.png")
    with pytest.raises(ConnectionResetError), training_errors("student", Train(steps=1), Trainer(workers=0)):
        raise ConnectionResetError(104, "Connection reset by peer")


def test_other_errors_pass_as_they_are() -> None:
    error = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug") as passed, training_errors("student", Train(steps=1), CPU):
        raise error
    assert passed.value is error


def test_a_killed_loader_process_is_one_line_and_the_run_goes_on(tmp_path: Path) -> None:
    def kill(number: int) -> None:
        if get_worker_info() is not None and number == 20:
            os.kill(os.getpid(), signal.SIGKILL)

    def trained(workers: int, boxes: Boxes) -> dict[str, Any]:
        place = Trainer(accelerator="cpu", devices=1, workers=workers)
        run = replace(job(tmp_path, boxes), trainer=place)
        with training_errors("student", run.budget, place):
            return fit(run)

    with pytest.raises(UserError) as told:
        trained(1, Boxes(on_load=kill))
    assert "student: a process that loads images" in str(told.value)
    assert "lower trainer.workers (now 1;" in str(told.value)
    assert "\n" not in str(told.value)
    assert trained(0, Boxes())["steps"] == STEPS
