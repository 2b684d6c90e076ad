"""The teacher's outputs on disk: those of the training step, computed once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgekd.core.artifact import Artifact
from edgekd.core.recipe import Augment, Data
from edgekd.data.loader import FixedViews
from edgekd.distill.teacher import FrozenTeacher
from edgekd.distill.teacher_cache import cache_key, fill_cache
from edgekd.errors import WorkspaceError
from edgekd.models.base import Outputs
from edgekd.train.loop import fit
from tests.tiny_task import SIZE, Boxes, TinyNet, job

DATA = Data(format="none", size=SIZE, augment=Augment(views=2))
CPU = torch.device("cpu")
ROUNDED = {"rtol": 2**-11, "atol": 1e-6}  # half a unit in the last place of float16


class CountingTeacher(FrozenTeacher):
    """A teacher that counts the images that it is asked about."""

    asked = 0

    def __call__(self, images: torch.Tensor) -> Outputs:
        self.asked += len(images)
        return super().__call__(images)


@pytest.fixture
def teacher() -> CountingTeacher:
    return CountingTeacher(TinyNet(8, seed=1))


def test_cached_outputs_are_the_teachers(teacher: CountingTeacher, tmp_path: Path) -> None:
    views = FixedViews(Boxes(count=5), DATA)
    cache = fill_cache(tmp_path / "a", teacher, views, CPU)
    for number in range(10):
        expected = teacher(views[number][0][None].float() / 255)
        got = Outputs.of({name: value[None] for name, value in cache(number).items()})
        torch.testing.assert_close(got.logits, expected.logits, **ROUNDED)
        torch.testing.assert_close(got.decoder, expected.decoder, **ROUNDED)
        assert list(got.features) == list(expected.features) == [4, 8]
        for stride, value in expected.features.items():
            torch.testing.assert_close(got.features[stride], value, **ROUNDED)


def test_values_that_float16_cannot_hold_stay_as_they_are(teacher: CountingTeacher, tmp_path: Path) -> None:
    views = FixedViews(Boxes(count=1), DATA)
    with torch.no_grad():
        next(teacher.model.parameters()).mul_(1e6)
    expected = teacher(views[0][0][None].float() / 255).features[4]
    assert expected.abs().max() > 65504
    got = fill_cache(tmp_path / "a", teacher, views, CPU)(0)["features/4"]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected[0], rtol=1e-4, atol=0)  # alone and in a batch: float32's rounding


def test_only_missing_outputs_are_computed(teacher: CountingTeacher, tmp_path: Path) -> None:
    views = FixedViews(Boxes(count=5), DATA)
    cache = fill_cache(tmp_path / "a", teacher, views, CPU)
    once = teacher.asked
    assert once == 10 + 1  # all views, and one to tell the size
    for number in (3, 7):
        cache.file(number).unlink()
    fill_cache(tmp_path / "a", teacher, views, CPU)
    assert teacher.asked == once + 2 + 2  # the size, and whether one that is there is still the teacher's
    fill_cache(tmp_path / "a", teacher, views, CPU)
    assert teacher.asked == once + 2 + 2 + 1


def test_outputs_of_other_code_with_the_same_weights_are_refused(teacher: CountingTeacher, tmp_path: Path) -> None:
    class Moved(CountingTeacher):
        """The same network, whose tap was moved to before a ReLU."""

        def __call__(self, images: torch.Tensor) -> Outputs:
            outputs = super().__call__(images)
            outputs.features[8] = outputs.features[8] - 1
            return outputs

    views = FixedViews(Boxes(count=2), DATA)
    fill_cache(tmp_path / "a", teacher, views, CPU)
    with pytest.raises(WorkspaceError, match=r"the outputs in .*a are not this teacher's.*delete that folder"):
        fill_cache(tmp_path / "a", Moved(teacher.model), views, CPU)


def test_a_disk_without_room_is_told_before_anything_is_written(
    teacher: CountingTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(WorkspaceError, match=r"10 views of .* MiB need .* GiB in .*, 0\.00 GiB are free; choose"):
        fill_cache(tmp_path / "a", teacher, FixedViews(Boxes(count=5), DATA), CPU)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_training_on_cached_outputs_gives_the_losses_of_running_the_teacher_in_every_step(tmp_path: Path) -> None:
    asking, kept = (replace(job(tmp_path / name, Boxes(count=5)), data=DATA) for name in ("asking", "kept"))
    assert kept.distiller is not None
    cache = fill_cache(tmp_path / "a", kept.distiller.teacher, FixedViews(Boxes(count=5), DATA), CPU)
    teacher = CountingTeacher(kept.distiller.teacher.model)
    got = fit(replace(kept, distiller=replace(kept.distiller, teacher=teacher), teacher_cache=cache))["record"]
    assert teacher.asked == 0
    for one, other in zip(got, fit(asking)["record"], strict=True):
        assert one == pytest.approx(other, abs=2e-3)


def artifact(**details: object) -> Artifact:
    files = [{"name": "weights.safetensors", "sha256": "w", "bytes": 1}]
    network = {"network": {"family": "x"}, "splits": {"train": {"fingerprint": "f"}}}
    return Artifact(Path(), {"files": files, "details": {**network, **details}})


def test_the_key_follows_the_teacher_the_images_and_the_augmentation_only() -> None:
    base = cache_key(artifact(), artifact(), DATA)
    assert cache_key(artifact(seed=3), artifact(same_name_in_both_splits=1), DATA) == base
    others = [
        cache_key(artifact(network={"family": "y"}), artifact(), DATA),
        cache_key(artifact(), artifact(splits={"train": {"fingerprint": "g"}}), DATA),
        cache_key(artifact(), artifact(), DATA.model_copy(update={"augment": Augment(views=3)})),
        cache_key(artifact(), artifact(), DATA.model_copy(update={"size": (64, 64)})),
    ]
    assert cache_key(artifact(), artifact(), DATA.model_copy(update={"val": "test"})) == base
    assert len({base, *others}) == 5


def test_the_key_stays_where_the_images_are_moved(tmp_path: Path) -> None:
    def key(**options: object) -> str:
        return cache_key(artifact(), artifact(), Data(format="voc", options=options, size=SIZE))

    assert key(root=str(tmp_path / "a")) == key(root=str(tmp_path / "b"))
    assert key(root=str(tmp_path)) != key(root=str(tmp_path), year="2007")
