"""The watchdog and the depthwise convolutions of bf16 training, on real runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.core.recipe import Method
from edgekd.data.base import Sample
from edgekd.errors import GateError
from edgekd.train.callbacks import Watchdog
from edgekd.train.loop import FitJob, fit
from edgekd.train.module import DenseTask, Distiller
from edgekd.train.resume import AveragedWeights
from tests.tiny_task import Boxes, job


def weighted(run: FitJob, ratio: float, **weights: float) -> FitJob:
    """Return the run with these methods at these weights, no warm-up and a watchdog ratio."""
    assert run.distiller is not None
    modules = {name: run.distiller.methods[name][1] for name in weights}
    methods = {name: (Method(weight=weights[name], warmup=0.0), module) for name, module in modules.items()}
    return dataclasses.replace(run, distiller=Distiller(run.distiller.teacher, methods), watchdog_ratio=ratio)


def long_run(scratch: Path) -> FitJob:
    return job(scratch, Boxes(), steps=52, batch_size=2, checkpoint_every=100, lr=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    run = job(tmp_path, Boxes())
    with torch.no_grad():
        run.student.get_parameter("classifier.weight").fill_(float("nan"))
    with pytest.raises(GateError, match=r"^step 1: loss, task, kd\.logits is not finite; lower lr"):
        fit(run)
    assert not list(tmp_path.glob("*.ckpt"))


class HalfLabelled(Boxes):
    """Images of which every second has no labelled pixel."""

    def load(self, index: int) -> Sample:
        sample = super().load(index)
        return dataclasses.replace(sample, mask=np.full_like(sample.mask, 255)) if index % 2 else sample


def test_steps_without_a_label_are_told_once_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = dataclasses.replace(
        job(tmp_path, HalfLabelled(count=4), steps=4, batch_size=1, checkpoint_every=10), distiller=None
    )
    facts = fit(run)
    assert facts["zero_loss_steps"] == 2  # every image once
    assert sum("the task loss is exactly 0" in one for one in caplog.messages) == 1


def test_terms_that_dwarf_the_labels_stop_the_run_and_the_largest_is_named(tmp_path: Path) -> None:
    run = weighted(long_run(tmp_path), ratio=10.0, kd=0.1, bckd=500.0)
    with pytest.raises(GateError) as caught:
        fit(run)
    text = str(caught.value)
    assert text.startswith("step 50: the weighted distillation terms are ")
    assert "(limit distill.watchdog_ratio = 10)" in text
    assert "most of it bckd.context; lower distill.methods.bckd.weight" in text
    assert caught.value.exit_code == 1


def test_the_watchdog_weighs_terms_as_the_step_did(tmp_path: Path) -> None:
    """Of a warm-up over 4 steps the first weighs a quarter, the second a half; Lightning counts a step before it calls back."""
    run = job(tmp_path, Boxes(), steps=8)
    assert run.distiller is not None
    module = run.distiller.methods["kd"][1]
    warming = Distiller(run.distiller.teacher, {"kd": (Method(weight=1.0, warmup=0.5), module)})
    task, watchdog = DenseTask(run.student, run.budget, warming, channels_last=False), Watchdog(10.0)
    for step in (1, 2):
        losses = {"loss": torch.tensor(3.0), "task": torch.tensor(1.0), "kd.logits": torch.tensor(2.0)}
        watchdog.on_train_batch_end(SimpleNamespace(global_step=step), task, losses, None, 0)  # type: ignore[arg-type]
    assert list(watchdog.recent) == [(1.0, {"kd.logits": 0.5}), (1.0, {"kd.logits": 1.0})]


def test_the_watchdog_remembers_what_it_saw_before_a_stop(tmp_path: Path) -> None:
    before, after = Watchdog(10.0, window=3), Watchdog(10.0, window=3)
    before.recent.extend([(1.0, {"kd.logits": 2.0}), (0.5, {"kd.logits": 1.0})])
    torch.save(before.state_dict(), tmp_path / "state")
    after.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert list(after.recent) == list(before.recent)


def test_the_average_is_kept_where_the_network_trains(tmp_path: Path) -> None:
    """Lightning sets callbacks up before it moves the network to its device."""
    run = job(tmp_path, Boxes())
    task = DenseTask(run.student, run.budget, None, channels_last=False)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))
    averaged = AveragedWeights(decay=0.9)
    averaged.setup(trainer, task, "fit")  # type: ignore[arg-type]
    assert {p.device.type for p in averaged.student.parameters()} == {"meta"}


def test_a_run_within_the_ratio_is_left_alone(tmp_path: Path) -> None:
    assert fit(weighted(long_run(tmp_path), ratio=10.0, kd=1.0, bckd=0.5))["steps"] == 52


def test_a_run_without_distillation_is_watched_for_nan_only(tmp_path: Path) -> None:
    plain = dataclasses.replace(long_run(tmp_path), distiller=None, watchdog_ratio=float("inf"))
    assert set(fit(plain)["record"][0]) == {"step", "loss", "task"}


class Recording(nn.Conv2d):
    """Keeps the types that each call computed with: of its input, and whether autocast would have changed it."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        self.seen = (input.dtype, torch.is_autocast_enabled("cpu"))
        return super()._conv_forward(input, weight, bias)


@pytest.mark.parametrize(
    ("precision", "depthwise", "after"),
    [
        ("bf16-mixed", (torch.float32, False), (torch.bfloat16, True)),
        ("32-true", (torch.float32, False), (torch.float32, False)),
    ],
)
def test_depthwise_convolutions_train_in_float32_and_hand_bf16_on(
    tmp_path: Path, precision: str, depthwise: tuple[torch.dtype, bool], after: tuple[torch.dtype, bool]
) -> None:
    run = dataclasses.replace(job(tmp_path, Boxes(), steps=1, precision=precision), distiller=None)
    deep, dense = Recording(6, 6, 3, padding=1, groups=6), Recording(6, 6, 3, padding=1)
    fine = run.student.get_submodule("fine")
    assert isinstance(fine, nn.Sequential)
    fine.extend([deep, dense])
    before = deep.weight.clone()
    fit(run)
    assert (deep.seen, dense.seen) == (depthwise, after)
    assert not torch.equal(deep.weight, before)
    assert not {**deep._forward_hooks, **deep._forward_pre_hooks}, "an exported network must not carry them"
