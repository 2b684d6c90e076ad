"""What every model family promises, over all families and variants."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from edgekd.core import plugins
from edgekd.models.base import DenseModel, ReadyDetector
from edgekd.models.build import build_model, count
from edgekd.models.heads import BINS
from edgekd.models.session import outputs_of

CLASSES = 5
HEIGHT, WIDTH = 64, 96  # not square, and divisible by every stride


class OneConvolution(nn.Module):
    """A user's network for the family `python`: logits at a quarter of the size."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, kernel_size=3, stride=4, padding=1)
        self.head = nn.Conv2d(8, num_classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def tasks_of(module: ModuleType, variant: str) -> tuple[str, ...]:
    facts = module.VARIANTS[variant] if isinstance(module.VARIANTS, dict) else None
    return getattr(facts, "tasks", module.TASKS)


def cases() -> list[tuple[str, str, str]]:
    """Return (task, family, variant) for all that there are."""
    found = []
    for family in plugins.names("families"):
        module = plugins.load("families", family)
        variants = module.VARIANTS if module.VARIANTS is not None else [f"{__name__}:OneConvolution"]
        for task in module.TASKS:
            # A variant may be for some of the family's tasks only, which it then lists.
            fitting = [v for v in variants if task in tasks_of(module, v)]
            found += [(task, family, variant) for variant in fitting]
    return found


@pytest.fixture(scope="module", autouse=True)
def few_detections() -> Iterator[None]:
    """Let ready-made detectors find 30 objects per image: their mask head runs once per object, most of the time here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekd.models.families.torchvision_det.MAX_DETECTIONS", 30)
        yield


@pytest.fixture(scope="module", params=cases(), ids=lambda case: "-".join(case).rpartition(":")[2])
def case(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    return request.param


@pytest.fixture(scope="module")
def model(case: tuple[str, str, str]) -> DenseModel:
    task, family, variant = case
    torch.manual_seed(0)
    return build_model(family, variant, task, CLASSES, plugins.load("families", family).Options())


def assert_heads(task: str, heads: dict[str, Tensor], batch: int, size: tuple[int, int]) -> None:
    """Hold the heads to what `board/postprocess.py` and `board/detection.py` read."""
    if task == "semantic":
        assert {name: tuple(head.shape) for name, head in heads.items()} == {"logits": (batch, CLASSES, *size)}
        return
    strides = sorted(int(name.partition("_")[2]) for name in heads if name.startswith("scores_"))
    channels = {"scores": CLASSES, "boxes": 4 * BINS}
    if task == "instance":
        count = heads["prototypes"].shape[1]
        channels["coefficients"] = count
        assert heads["prototypes"].shape == (batch, count, size[0] // 4, size[1] // 4)
    expected = {f"{kind}_{stride}" for kind in channels for stride in strides}
    assert set(heads) - {"prototypes"} == expected
    for kind, width in channels.items():
        for stride in strides:
            assert heads[f"{kind}_{stride}"].shape == (batch, width, size[0] // stride, size[1] // stride)


def assert_finds(task: str, found: dict[str, Tensor], batch: int, size: tuple[int, int]) -> None:
    """Hold what a detector finds by itself to what `board/detection.py` reads."""
    assert set(found) - {"found_masks"} == {"found_boxes", "found_scores", "found_labels"}
    assert ("found_masks" in found) == (task == "instance")
    boxes, scores, labels = (found[f"found_{part}"] for part in ("boxes", "scores", "labels"))
    count = boxes.shape[1]
    assert boxes.shape == (batch, count, 4)
    assert scores.shape == labels.shape == (batch, count)
    assert labels.dtype == torch.int64
    assert boxes.min() >= 0
    assert (boxes <= torch.tensor([size[1], size[0]] * 2)).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert ((labels >= 0) & (labels < CLASSES)).all()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def two_passes(model: DenseModel, images: Tensor) -> list[dict[str, Tensor]]:
    """Answers of two eval passes over the same normalised images, one right after the other."""
    model.eval()
    with torch.no_grad():
        return [outputs_of(model, (images - model.mean) / model.std) for _ in range(2)]


def test_declared_channels_and_strides_are_the_real_ones(
    case: tuple[str, str, str], model: DenseModel, images: Tensor, two_passes: list[dict[str, Tensor]]
) -> None:
    with torch.no_grad():
        outputs = model.eval()(images)
    (assert_finds if isinstance(model, ReadyDetector) else assert_heads)(case[0], two_passes[0], 2, (HEIGHT, WIDTH))
    assert list(outputs.features) == list(model.channels) == sorted(model.channels)
    for stride, feature in outputs.features.items():
        assert feature.shape == (2, model.channels[stride], HEIGHT // stride, WIDTH // stride)
    assert outputs.decoder.shape[:2] == (2, model.decoder_channels)
    assert tuple(outputs.levels) == model.level_strides
    for stride, level in outputs.levels.items():
        assert level.shape == (2, model.decoder_channels, HEIGHT // stride, WIDTH // stride)


def test_the_smallest_declared_input_size_works(case: tuple[str, str, str], model: DenseModel) -> None:
    size = model.size_divisor
    with torch.no_grad():
        said = outputs_of(model.eval(), torch.rand(1, 3, size, 2 * size))
    (assert_finds if isinstance(model, ReadyDetector) else assert_heads)(case[0], said, 1, (size, 2 * size))


def test_gradient_of_the_heads_reaches_every_parameter(model: DenseModel, images: Tensor) -> None:
    if isinstance(model, ReadyDetector):
        pytest.skip("is not trained here")
    model.train().zero_grad()
    normalised = (images - model.mean) / model.std
    torch.cat([value.flatten() for value in outputs_of(model, normalised).values()]).square().mean().backward()
    unreached = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert unreached == []


def test_eval_forward_is_deterministic(two_passes: list[dict[str, Tensor]]) -> None:
    first, second = two_passes
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_images_are_normalised_with_the_declared_mean_and_std(model: DenseModel, images: Tensor) -> None:
    model.eval()
    mean, std = model.mean.flatten().tolist(), model.std.flatten().tolist()
    by_hand = torch.stack([(images[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    with torch.no_grad():
        other = model.forward_normalized(by_hand).tensors()
        for name, value in model(images).tensors().items():
            torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-4)


def test_counting_leaves_the_mode_alone(model: DenseModel) -> None:
    model.train()
    params, macs = count(model, (HEIGHT, WIDTH))
    assert model.training
    assert params == sum(p.numel() for p in model.parameters())
    assert macs > 0
