"""The Lightning task and the frozen teacher."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch.nn import functional as F

from edgekd.core.recipe import Method, Train
from edgekd.data.loader import TrainingBatch
from edgekd.distill.teacher import FrozenTeacher
from edgekd.train.module import DenseTask, Distiller
from tests.tiny_task import SIZE, TinyNet, distiller


def task_of(distilled: bool = True, **budget: object) -> DenseTask:
    student = TinyNet(6, seed=1, dropout=0.0)
    train = Train.model_validate({"steps": 100, **budget})
    return DenseTask(student, train, distiller(student) if distilled else None, channels_last=False)


def scheduled(config: Method, step: int) -> float:
    """Return the weight of `kd` at one of 100 steps."""
    student = TinyNet(6, seed=1)
    _, module = distiller(student).methods["kd"]
    made = Distiller(FrozenTeacher(TinyNet(8, seed=2)), {"kd": (config, module)})
    return DenseTask(student, Train(steps=100), made, channels_last=False).weight_at("kd", step)


def teacher_of(task: DenseTask) -> FrozenTeacher:
    assert task._teacher is not None
    return task._teacher


def batch_of(ignored: bool = False) -> TrainingBatch:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, *SIZE), generator=random, dtype=torch.uint8)
    masks = torch.randint(0, 3, (2, *SIZE), generator=random, dtype=torch.uint8)
    masks[:, :5] = 255
    return TrainingBatch(images, torch.full_like(masks, 255) if ignored else masks)


def test_teacher_stays_in_eval_mode_when_the_task_trains() -> None:
    task = task_of()
    task.train()
    assert task.student.training
    assert not any(module.training for module in teacher_of(task).model.modules())


def test_teacher_is_no_part_of_the_task() -> None:
    task = task_of()
    teacher = teacher_of(task).model
    assert not {id(p) for p in task.parameters()} & {id(p) for p in teacher.parameters()}
    assert teacher not in list(task.modules())
    own = {f"student.{name}" for name in task.student.state_dict()}
    assert set(task.state_dict()) == own


def test_a_copy_of_the_task_shares_the_teacher() -> None:
    task = task_of()
    copied = copy.deepcopy(task)
    assert copied._teacher is task._teacher
    assert copied.student is not task.student


def test_teacher_answers_without_gradients_and_never_changes() -> None:
    task = task_of()
    task.train()
    before = copy.deepcopy(teacher_of(task).model.state_dict())
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        task.training_step(batch_of(), 0)["loss"].backward()
        optimizer.step()
    teacher = teacher_of(task).model
    assert not teacher(torch.rand(1, 3, *SIZE)).logits.requires_grad
    assert all(p.grad is None for p in teacher.parameters())
    after = teacher.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)  # batch norm statistics too


def test_loss_is_the_task_loss_plus_the_weighted_terms() -> None:
    task = task_of()
    out = task.training_step(batch_of(), 0)
    assert set(out) == {"loss", "task", "kd.logits", "bckd.boundary", "bckd.context"}
    kd, bckd = task.weight_at("kd", 0), task.weight_at("bckd", 0)
    expected = out["task"] + kd * out["kd.logits"] + bckd * (out["bckd.boundary"] + out["bckd.context"])
    torch.testing.assert_close(out["loss"].detach(), expected)
    assert not any(value.requires_grad for name, value in out.items() if name != "loss")


def test_task_loss_is_the_mean_cross_entropy_over_labelled_pixels() -> None:
    task = task_of(distilled=False)
    images, masks, *_ = batch_of()
    logits = task.student(images.float() / 255).logits
    task.student.load_state_dict(TinyNet(6, seed=1).state_dict())  # undo the batch norm update
    out = task.training_step(TrainingBatch(images, masks), 0)
    assert set(out) == {"loss", "task"}
    oracle = F.cross_entropy(logits, masks.long(), ignore_index=255)
    assert out["loss"].item() == pytest.approx(oracle.item(), rel=1e-5)


def test_an_unlabelled_batch_gives_zero_and_finite_gradients() -> None:
    task = task_of()
    out = task.training_step(batch_of(ignored=True), 0)
    out["loss"].backward()
    assert out["loss"].item() == 0.0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in task.parameters())


@pytest.mark.parametrize(
    ("warmup", "step", "expected"),
    [(0.1, 0, 0.2), (0.1, 4, 1.0), (0.1, 9, 2.0), (0.1, 10, 2.0), (0.1, 99, 2.0), (0.0, 0, 2.0), (1.0, 49, 1.0)],
)
def test_weight_rises_linearly_over_the_warm_up(warmup: float, step: int, expected: float) -> None:
    assert scheduled(Method(weight=2.0, warmup=warmup), step) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("warmup", "step", "expected"),
    [(0.0, 0, 2.0), (0.0, 50, 1.0), (0.0, 99, 0.02), (0.2, 0, 0.1), (0.2, 20, 2.0), (0.2, 60, 1.0), (1.0, 99, 2.0)],
)
def test_a_decaying_weight_falls_linearly_from_the_end_of_the_warm_up(
    warmup: float, step: int, expected: float
) -> None:
    assert scheduled(Method(weight=2.0, warmup=warmup, schedule="decay"), step) == pytest.approx(expected)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_norms_and_biases_are_not_decayed(optimizer: str) -> None:
    task = task_of(distilled=False, optimizer=optimizer, weight_decay=0.05)
    groups = task.configure_optimizers()["optimizer"].param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    kernels = {
        "student.fine.0.weight",
        "student.coarse.0.weight",
        "student.lateral.weight",
        "student.classifier.weight",
    }
    for name, parameter in task.named_parameters():
        assert decay[id(parameter)] == (0.05 if name in kernels else 0.0), name


@pytest.mark.parametrize("schedule", ["one_cycle", "poly"])
def test_the_schedule_peaks_at_lr_and_ends_near_zero(schedule: str) -> None:
    task = task_of(distilled=False, schedule=schedule, lr=0.3, steps=50)
    configured = task.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]  # type: ignore[index]
    rates = []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert max(rates) == pytest.approx(0.3, rel=0.01)
    assert rates[-1] < 0.1 * 0.3
    assert rates.index(max(rates)) in ((0,) if schedule == "poly" else (4, 5))  # a tenth of the run


def test_channels_last_changes_the_layout_and_not_the_loss() -> None:
    plain = task_of()
    student = TinyNet(6, seed=1, dropout=0.0)
    fast = DenseTask(student, Train(steps=100), distiller(student), channels_last=True)
    fast.on_fit_start()
    assert not fast.student.get_parameter("coarse.0.weight").is_contiguous()
    expected, got = (task.training_step(batch_of(), 0)["loss"].item() for task in (plain, fast))
    assert got == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_teacher_says_the_same() -> None:
    model = TinyNet(8, seed=1)
    images = torch.rand(2, 3, *SIZE)
    expected, got = FrozenTeacher(model)(images), FrozenTeacher(model, compiled=True)(images)
    for name, value in got.tensors().items():
        torch.testing.assert_close(value, expected.tensors()[name], rtol=1e-4, atol=1e-5)
