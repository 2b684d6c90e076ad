"""Training by Lightning: a run that was interrupted ends exactly as one that was not."""

from __future__ import annotations

import dataclasses
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from edgekd.core.plugin_options import plugin_options
from edgekd.core.recipe import Train, Trainer
from edgekd.data.base import Sample
from edgekd.errors import DataError
from edgekd.evaluate import semantic
from edgekd.evaluate.predictions import predict_split
from edgekd.executors.predictions import predict_in
from edgekd.models.build import build_model
from edgekd.models.session import TorchSession, torch_spec
from edgekd.train.loop import SharedBatchNorm, fit
from edgekd.train.module import DenseTask
from edgekd.train.place import on_cpu, precision, training_device
from edgekd.train.resume import StepSeeds
from tests import tiny_task
from tests.command import forked
from tests.tiny_task import BATCH, SIZE, STEPS, Boxes, TinyNet, job

State = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class PowerCut(Exception):
    """Ends a run from inside its data."""


def cut_at(load: int) -> Boxes:
    def stop(number: int) -> None:
        if number == load:
            raise PowerCut

    return Boxes(on_load=stop)


def trained(scratch: Path, dataset: Boxes, ema: float | None, **budget: object) -> tuple[State, list[dict[str, float]]]:
    torch.manual_seed(hash(scratch) % 1000)  # whatever ran before must not matter
    run = job(scratch, dataset, ema, **budget)
    result = fit(run)
    return {k: v.clone() for k, v in run.student.state_dict().items()}, result["record"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[float | None, tuple[State, list[dict[str, float]]]]:
    torch.set_num_threads(1)
    return {ema: trained(tmp_path_factory.mktemp("whole"), Boxes(), ema) for ema in (None, 0.5)}


def assert_equal(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def without_time(record: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in record]


class Damaged(Boxes):
    """Data of which a sample cannot be read."""

    def load(self, index: int) -> Sample:
        raise DataError(f"image {index}: damaged\nreplace it")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_sample_is_said_in_its_own_words(workers: int, tmp_path: Path) -> None:
    run = job(tmp_path, Damaged(), None)
    with pytest.raises(DataError) as error:
        fit(dataclasses.replace(run, trainer=run.trainer.model_copy(update={"workers": workers})))
    assert re.fullmatch(r"image \d+: damaged\nreplace it", str(error.value))


@pytest.mark.parametrize("ema", [None, 0.5])
@pytest.mark.parametrize("lost_at_step", [4, 5, 6])
def test_a_run_cut_between_checkpoints_resumes_to_the_same_bits(
    lost_at_step: int, ema: float | None, tmp_path: Path, uninterrupted: dict[float | None, tuple[State, list]]
) -> None:
    with pytest.raises(PowerCut):
        fit(job(tmp_path, cut_at((lost_at_step - 1) * BATCH + 2), ema))
    assert (tmp_path / "resume.ckpt").is_file()
    state, record = trained(tmp_path, Boxes(), ema)
    expected_state, expected_record = uninterrupted[ema]
    assert [row["step"] for row in record] == list(range(1, STEPS + 1))
    assert without_time(record) == without_time(expected_record)
    assert_equal(state, expected_state)


@pytest.mark.parametrize("ema", [None, 0.5])
def test_a_run_killed_after_its_last_checkpoint_still_gives_the_same_weights(
    ema: float | None, tmp_path: Path, uninterrupted: dict[float | None, tuple[State, list]]
) -> None:
    trained(tmp_path, Boxes(), ema)  # all steps are in the checkpoint, the result was never written down
    unread = Boxes()
    state, record = trained(tmp_path, unread, ema)
    assert [row["step"] for row in record] == list(range(1, STEPS + 1))
    assert_equal(state, uninterrupted[ema][0])
    assert unread.loads == 0, "nothing is left to train"


@pytest.mark.parametrize(
    ("ema", "name", "code"), [("0", "SIGKILL", -signal.SIGKILL), ("0.5", "SIGTERM", 130), ("0", "SIGINT", 130)]
)
def test_a_signal_loses_and_repeats_no_step(
    ema: str, name: str, code: int, tmp_path: Path, uninterrupted: dict[float | None, tuple[State, list]]
) -> None:
    arguments = (str(tmp_path / "scratch"), str(tmp_path / "weights"), ema)
    ended = forked(tiny_task.train_until_killed, *arguments, str(4 * BATCH + 1), name)
    assert ended.returncode == code, ended.stderr
    resumed = forked(tiny_task.train_until_killed, *arguments, "0", name)
    assert resumed.returncode == 0, resumed.stderr
    saved = torch.load(tmp_path / "weights", weights_only=True)
    expected_state, expected_record = uninterrupted[float(ema) or None]
    assert without_time(saved["record"]) == without_time(expected_record)
    assert_equal(saved["state"], expected_state)


def test_weights_of_classes_change_what_is_learned_also_after_an_interruption(
    tmp_path: Path, uninterrupted: dict[float | None, tuple[State, list[dict[str, float]]]]
) -> None:
    weights = torch.tensor([0.5, 4.0, 1.0])

    def train(scratch: Path, dataset: Boxes) -> State:
        run = dataclasses.replace(job(scratch, dataset, None), class_weights=weights)
        assert fit(run)["class_weights"] == weights.tolist()
        return run.student.state_dict()

    with pytest.raises(PowerCut):
        train(tmp_path / "cut", cut_at(4 * BATCH + 2))
    whole = train(tmp_path / "whole", Boxes())
    assert_equal(train(tmp_path / "cut", Boxes()), whole)
    assert not torch.equal(whole["classifier.bias"], uninterrupted[None][0]["classifier.bias"])
    checkpoint = torch.load(tmp_path / "whole" / "resume.ckpt", weights_only=True)
    assert checkpoint["state_dict"]
    assert (
        "class_weights" not in checkpoint["state_dict"]
    )  # another balance is another run, and is not resumed from this one


def test_ema_keeps_other_weights_than_the_last_step(
    uninterrupted: dict[float | None, tuple[State, list[dict[str, float]]]],
) -> None:
    plain, averaged = uninterrupted[None][0], uninterrupted[0.5][0]
    assert not torch.equal(plain["classifier.weight"], averaged["classifier.weight"])


@pytest.mark.parametrize("ema", [None, 0.8])
def test_the_learning_curve_ends_with_the_score_of_the_kept_weights(tmp_path: Path, ema: float | None) -> None:
    run = job(tmp_path, Boxes(), ema, lr=0.05, validate_every=2)
    run = dataclasses.replace(run, validation=Boxes(6))
    with torch.no_grad():
        run.student.get_parameter("classifier.weight").mul_(30)  # it sees all classes from the start
    curve = fit(run)["validation"]
    assert [step for step, _ in curve] == [2, 4, 6]
    spec = torch_spec(run.student, "semantic", Boxes.classes, SIZE)
    with TorchSession(run.student, spec) as session:
        kept = semantic.score(Boxes.classes, predict_split(partial(predict_in, session), Boxes(6), range(6)))
    assert curve[-1][1] == pytest.approx(kept.metrics["miou"], abs=1e-6)
    assert len({score for _, score in curve}) == 3, "scores that do not change would agree with any weights"


def test_the_record_holds_the_task_loss_and_every_raw_term(
    uninterrupted: dict[float | None, tuple[State, list[dict[str, float]]]],
) -> None:
    for row in uninterrupted[None][1]:
        terms = {"kd.logits": 0.5, "bckd.boundary": 0.5 * min(1, row["step"] / 3), "bckd.context": 0.0}
        terms["bckd.context"] = terms["bckd.boundary"]  # warm-up is half of six steps
        terms["mgd.features"] = 0.5 * min(1, (7 - row["step"]) / 5.4)  # falls from the end of the warm-up at 0.6
        weighted = row["task"] + sum(weight * row[name] for name, weight in terms.items())
        assert row["loss"] == pytest.approx(weighted, abs=1e-5)


def test_a_checkpoint_is_never_seen_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file lies beside the checkpoint, so that putting it in place is one rename on one file system."""
    elsewhere = tmp_path / "tmpdir"
    elsewhere.mkdir()
    elsewhere.chmod(0o500)  # another file system could not be renamed from; here nothing can even be written
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    trained(tmp_path / "scratch", Boxes(), None, steps=2)
    assert sorted(p.name for p in (tmp_path / "scratch").glob("resume*")) == ["resume.ckpt"]


def test_bf16_training_is_finite_and_close_to_float32(
    tmp_path: Path, uninterrupted: dict[float | None, tuple[State, list[dict[str, float]]]]
) -> None:
    _, record = trained(tmp_path, Boxes(), None, precision="bf16-mixed")
    first, expected = record[0], uninterrupted[None][1][0]
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in record)
    for name in ("task", "kd.logits", "bckd.boundary", "bckd.context"):
        assert first[name] == pytest.approx(expected[name], rel=0.05, abs=0.01), name


def test_automatic_choices_on_a_cpu_follow_what_the_cpu_can_do() -> None:
    place = Trainer(accelerator="cpu")
    assert on_cpu(place)
    budget = job(Path("unused"), Boxes(), precision="auto").budget
    has_bf16 = torch.cpu._is_avx512_bf16_supported()
    assert precision(budget, place) == ("bf16-mixed" if has_bf16 else "32-true")
    assert precision(budget.model_copy(update={"precision": "16-mixed"}), place) == "16-mixed"


def test_auto_takes_bf16_only_of_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turing emulates it, and torch says that it is supported unless asked."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    place = Trainer(accelerator="cuda")
    for emulated, expected in ((True, "32-true"), (False, "bf16-mixed")):
        supported = lambda including_emulation=True, emulated=emulated: including_emulation or not emulated  # noqa: E731
        monkeypatch.setattr("torch.cuda.is_bf16_supported", supported)
        assert precision(Train(steps=1, batch_size=1), place) == expected


@pytest.mark.parametrize(
    ("devices", "rank", "expected"),
    [("auto", None, "cuda:0"), (2, "1", "cuda:1"), ("1,3", "1", "cuda:3"), ("3,", None, "cuda:3")],
)
def test_a_process_answers_on_the_device_that_it_trains_on(
    devices: int | str, rank: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert str(training_device(Trainer(devices=devices))) == expected
    assert str(training_device(Trainer(devices=devices, accelerator="cpu"))) == "cpu"


@pytest.mark.parametrize(
    ("family", "variant", "task", "options"),
    [
        ("smp", "fpn", "semantic", {"encoder": "tf_efficientnet_lite0", "decoder_channels": 32}),
        ("edgedet", "n", "detection", {"encoder": "mobilenetv3_small_050"}),
    ],
)
def test_norms_shared_by_several_devices_keep_their_activations(
    family: str, variant: str, task: str, options: dict[str, Any]
) -> None:
    net = build_model(family, variant, task, 3, plugin_options("families", family, options, "")).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before, names = net(images).tensors(), list(net.state_dict())
        shared = SharedBatchNorm().revert(SharedBatchNorm().apply(net))
        after = shared(images).tensors()
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in shared.modules())
    assert names == list(shared.state_dict())
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


@pytest.mark.parametrize("steps", range(1, 13))
def test_any_number_of_steps_has_a_schedule(steps: int) -> None:
    task = DenseTask(TinyNet(6, seed=5), Train(steps=steps, lr=1.0), None, channels_last=False)
    made: Any = task.configure_optimizers()
    rates = []
    for _ in range(steps):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert all(0 < rate <= 1 for rate in rates)


def test_every_step_and_every_process_draws_its_own() -> None:
    def drawn(step: int, rank: int, seed: int = 3) -> float:
        place: Any = SimpleNamespace(global_step=step, global_rank=rank)
        StepSeeds(seed).on_train_batch_start(place, place, None, 0)
        return float(torch.rand(()))

    assert drawn(4, 0) == drawn(4, 0)
    assert len({drawn(4, 0), drawn(5, 0), drawn(4, 1), drawn(4, 0, seed=2)}) == 4
