"""Assignment and losses of detection and instances: by hand, and learned by a head alone."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.ops import box_iou

from edgekd.core.recipe import Train
from edgekd.data.augment import Objects
from edgekd.data.loader import TrainingBatch
from edgekd.models.base import Outputs
from edgekd.models.heads import BINS, decode, points
from edgekd.train.batch import Batch
from edgekd.train.losses.assign import TOP, assign
from edgekd.train.losses.detection import box_masks, detection_loss, distribution_loss, flattened
from edgekd.train.module import DenseTask

CENTRES = points((4, 4), 8)  # 32x32 pixels
STRIDES = torch.full((16,), 8.0)


def test_an_object_takes_points_inside_it_and_its_best_has_its_best_overlap() -> None:
    true = torch.tensor([[0.0, 0.0, 16.0, 16.0]])  # holds the points (4, 4), (12, 4), (4, 12), (12, 12)
    boxes = true.repeat(16, 1)
    boxes[0] = torch.tensor([0.0, 0.0, 16.0, 8.0])  # IoU 1/2
    scores = torch.full((16, 2), 0.5)
    found = assign(scores, boxes, CENTRES, STRIDES, true, torch.tensor([1]))
    assert [i for i in range(16) if found.object_of[i] == 0] == [0, 1, 4, 5]
    # t = 0.5 u^6: 0.5 for three of them, 0.5 / 64 for the first; scaled so that the largest is 1
    assert found.quality[[0, 1, 4, 5]].tolist() == pytest.approx([1 / 64, 1, 1, 1])
    assert found.quality.sum().item() == pytest.approx(3 + 1 / 64)


def test_no_object_leaves_all_points_to_the_background() -> None:
    found = assign(
        torch.rand(16, 2), torch.rand(16, 4), CENTRES, STRIDES, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    )
    assert (found.object_of == -1).all()
    assert (found.quality == 0).all()


def test_a_point_that_two_objects_want_goes_to_the_one_it_overlaps_more() -> None:
    true = torch.tensor([[0.0, 0.0, 32.0, 32.0], [0.0, 0.0, 10.0, 10.0]])
    boxes = true[:1].repeat(16, 1)
    boxes[0] = torch.tensor([0.0, 0.0, 10.0, 10.0])
    found = assign(torch.full((16, 1), 0.9), boxes, CENTRES, STRIDES, true, torch.tensor([0, 0]))
    assert found.object_of[0] == 1
    assert (found.object_of[1:] == 0).sum() <= TOP


def test_an_object_between_the_points_takes_the_nearest() -> None:
    true = torch.tensor([[6.0, 6.0, 11.0, 10.0]])  # no centre inside; the nearest to (8.5, 8) are at 12, 4 and 12, 12
    boxes = true.repeat(16, 1)
    found = assign(torch.full((16, 1), 0.9), boxes, CENTRES, STRIDES, true, torch.tensor([0]))
    assert (found.object_of == 0).sum() == 1
    assert found.object_of[1] == 0 or found.object_of[5] == 0


def test_an_object_between_the_points_belongs_to_the_finest_level() -> None:
    true = torch.tensor([[7.0, 7.0, 7.9, 7.9]])  # nearest of all is the point at 8, 8 of stride 16
    centres = torch.cat([CENTRES, points((2, 2), 16)])
    found = assign(
        torch.full((20, 1), 0.9), true.repeat(20, 1), centres, torch.cat([STRIDES, torch.full((4,), 16.0)]), true,
        torch.tensor([0]),
    )  # fmt: skip
    assert found.object_of.nonzero(as_tuple=True)[0].numel() == 19
    assert (found.object_of[16:] == -1).all()


def test_a_distance_is_learned_by_the_two_bins_around_it() -> None:
    logits = torch.zeros(1, 4, BINS)
    logits[0, 0, 2], logits[0, 0, 3] = log(3.0), log(2.0)
    total = 15 + 3 + 2
    expected = -(0.75 * log(3 / total) + 0.25 * log(2 / total))  # 2.25 lies a quarter of the way from 2 to 3
    got = distribution_loss(logits, torch.tensor([[2.25, 5.0, 0.0, 99.0]]))
    assert got[0].tolist() == pytest.approx([expected, log(BINS), log(BINS), log(BINS)], abs=1e-4)


def test_a_box_covers_whole_cells() -> None:
    inside = box_masks(torch.tensor([[1.2, 0.0, 2.1, 1.0], [3.4, 1.5, 3.6, 1.6]]), (2, 4))
    assert inside[0].int().tolist() == [[0, 1, 1, 0], [0, 0, 0, 0]]
    assert inside[1].int().tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]


def scene() -> list[Objects]:
    boxes = torch.tensor([[4.0, 6.0, 30.0, 28.0], [40.0, 10.0, 60.0, 44.0]])
    masks = 4 * box_masks(boxes / 2, (24, 32)).to(torch.uint8)
    masks[0, :8] = 0  # the first object's mask is the lower part of its box
    return [Objects(boxes, torch.tensor([0, 2]), masks), Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64),
            torch.zeros(0, 24, 32, dtype=torch.uint8))]  # fmt: skip


def losses(heads: dict[str, Tensor], objects: list[Objects]) -> dict[str, Tensor]:
    images, masks = torch.zeros(len(objects), 3, 48, 64), torch.zeros(len(objects), 48, 64, dtype=torch.int64)
    return detection_loss(Outputs(heads, {}, images), Batch(images, masks, objects))


def free_heads() -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes = {"scores": 3, "boxes": 4 * BINS, "coefficients": 4}
    heads = {
        f"{kind}_{stride}": torch.randn(2, channels, 48 // stride, 64 // stride) * 0.01
        for stride in (8, 16)
        for kind, channels in shapes.items()
    }
    heads["prototypes"] = torch.rand(2, 4, 12, 16)
    return {name: value.requires_grad_() for name, value in heads.items()}


def test_free_outputs_learn_boxes_classes_and_masks() -> None:
    heads, objects = free_heads(), scene()
    optimizer = torch.optim.Adam(heads.values(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        terms = losses(heads, objects)
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    flat = flattened({name: value.detach() for name, value in heads.items()})
    scores, boxes = flat.scores.sigmoid(), decode(flat.boxes, flat.centres, flat.strides)
    assert scores[1].max() < 0.15  # nothing in the second image
    for box, label, mask in zip(objects[0].boxes, objects[0].labels, objects[0].masks, strict=True):
        best = int(scores[0, :, label].argmax())
        assert scores[0, best, label] > 0.8
        assert box_iou(boxes[0, best : best + 1], box[None]).item() > 0.95
        assert flat.coefficients is not None
        logits = torch.einsum("c,chw->hw", flat.coefficients[0, best], heads["prototypes"][0].detach())
        drawn = interpolate(logits[None, None], (24, 32), mode="bilinear")[0, 0] > 0
        region = box_masks(box[None] / 2, (24, 32))[0]
        assert ((drawn & region) == (mask == 4)).float().mean() > 0.97


def test_the_mask_term_is_worked_out_by_hand() -> None:
    """Coefficient 3 times prototype 0.5 is the logit everywhere, and one pixel of every cell's four is the object's."""
    heads, quarter = free_heads(), torch.ones(1, 24, 32, dtype=torch.uint8)
    with torch.no_grad():
        for stride in (8, 16):
            heads[f"coefficients_{stride}"].zero_()[:, 0] = 3.0
        heads["prototypes"].fill_(0.5)
    one = Objects(torch.tensor([[8.0, 8.0, 24.0, 16.0]]), torch.tensor([1]), quarter)
    flat = flattened({name: value.detach() for name, value in heads.items()})
    boxes = decode(flat.boxes, flat.centres, flat.strides)[0]
    quality = (
        assign(flat.scores[0].sigmoid(), boxes, flat.centres, flat.strides, one.boxes, one.labels).quality.sum().item()
    )
    p = 1 / (1 + exp(-1.5))
    expected = -(0.25 * log(p) + 0.75 * log(1 - p)) * quality / max(quality, 1.0)
    assert quality > 0
    assert losses(heads, [one, scene()[1]])["masks"].item() == pytest.approx(expected, rel=1e-5)


def test_masks_of_all_objects_are_learned_also_where_there_are_more_than_fit() -> None:
    """40 objects of one cell each; the best 32 points would leave out 8 in every step."""
    size, places = 8, [(8 * (i % 8), 8 * (i // 8)) for i in range(40)]
    boxes = torch.tensor([[x, y, x + 8, y + 8] for x, y in places], dtype=torch.float32)
    objects = Objects(boxes, torch.zeros(40, dtype=torch.int64), torch.ones(40, 32, 32, dtype=torch.uint8))
    heads = {
        "scores_8": torch.zeros(1, 1, size, size),
        "boxes_8": torch.zeros(1, 4 * BINS, size, size),
        "coefficients_8": torch.zeros(1, 2, size, size, requires_grad=True),
        "prototypes": torch.rand(1, 2, 16, 16),
    }
    images = torch.zeros(1, 3, 64, 64)
    for _ in range(12):  # an object is left out of all with probability 0.2^12
        batch = Batch(images, torch.zeros(1, 64, 64, dtype=torch.int64), [objects])
        detection_loss(Outputs(heads, {}, images), batch)["masks"].backward()
    grad = heads["coefficients_8"].grad
    assert grad is not None
    assert (grad[0].abs().sum(dim=0).flatten()[:40] > 0).all()


def test_points_in_ignored_boxes_are_not_background() -> None:
    heads, (one, nothing) = free_heads(), scene()
    crowd = torch.tensor([[32.0, 0.0, 64.0, 48.0]])  # holds the second object, which is learned all the same
    losses(heads, [one._replace(ignored=crowd), nothing._replace(ignored=crowd)])["scores"].backward()
    flat = flattened({name: value.grad for name, value in heads.items() if value.grad is not None and "scores" in name}
                     | {name: value for name, value in heads.items() if "boxes" in name})  # fmt: skip
    touched = (flat.scores.abs().sum(dim=2) > 0)[1]
    assert touched.tolist() == (flat.centres[:, 0] < 32).tolist()
    assert (flat.scores.abs().sum(dim=2) > 0)[0, flat.centres[:, 0] > 32].any()


def test_a_batch_without_objects_has_a_finite_loss_and_gradient() -> None:
    heads = free_heads()
    nothing = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 24, 32))
    terms = losses(heads, [nothing, nothing])
    torch.stack(list(terms.values())).sum().backward()
    assert terms["boxes"].item() == terms["masks"].item() == 0.0
    for name, value in heads.items():  # of all of them: several devices wait for the gradient of every parameter
        assert value.grad is not None, name
        assert torch.isfinite(value.grad).all(), name


def test_an_image_without_objects_has_a_finite_mask_term_in_float16() -> None:
    """Prototypes are not negative, and those of a large image add up to more than float16 holds."""
    heads = {name: value.detach().half() for name, value in free_heads().items()}
    heads["prototypes"] = torch.full((2, 4, 12, 16), 600.0, dtype=torch.float16)
    assert heads["prototypes"][1].sum().isinf()
    assert losses(heads, scene())["masks"].isfinite()


def test_masks_that_are_drawn_stand_for_all() -> None:
    """50 objects alike, of which 32 points are drawn: the term is what it is without the limit."""
    boxes = torch.tensor([[8.0 * (i % 8), 8.0 * (i // 8), 8.0 * (i % 8) + 8, 8.0 * (i // 8) + 8] for i in range(50)])
    objects = Objects(boxes, torch.zeros(50, dtype=torch.int64), torch.ones(50, 32, 32, dtype=torch.uint8))
    heads = {
        "scores_8": torch.zeros(1, 1, 8, 8), "boxes_8": torch.zeros(1, 4 * BINS, 8, 8),
        "coefficients_8": torch.ones(1, 1, 8, 8), "prototypes": torch.full((1, 1, 16, 16), 0.5),
    }  # fmt: skip
    images, masks = torch.zeros(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.int64)
    terms = detection_loss(Outputs(heads, {}, images), Batch(images, masks, [objects]))
    p = 1 / (1 + exp(-0.5))
    flat = flattened(heads)
    found = decode(flat.boxes, flat.centres, flat.strides)[0]
    quality = (
        assign(flat.scores[0].sigmoid(), found, flat.centres, flat.strides, boxes, objects.labels).quality.sum().item()
    )
    assert terms["masks"].item() == pytest.approx(
        -(0.25 * log(p) + 0.75 * log(1 - p)) * quality / max(quality, 1), rel=1e-4
    )


class Says(torch.nn.Module):
    """A network that gives the same heads for every image."""

    def __init__(self, heads: dict[str, Tensor]) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, images: Tensor) -> Outputs:
        return Outputs(self.heads, {}, images)


def test_in_mixed_precision_the_losses_are_those_of_float32() -> None:
    """bf16 has three digits: a box 100 pixels wide would be decoded to half a pixel, its mask mixed as coarsely."""
    heads, images = free_heads(), torch.zeros(2, 3, 48, 64, dtype=torch.uint8)
    with torch.no_grad():
        for head in heads.values():
            head.mul_(30)
    task = DenseTask(Says(heads), Train(steps=2), None, channels_last=False, task="instance")  # type: ignore[arg-type]
    batch = TrainingBatch(images, images[:, 0], scene())
    exact = task.training_step(batch, 0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = task.training_step(batch, 0)
    assert set(exact) >= {"loss", "boxes", "masks"}
    assert {name: value.item() for name, value in mixed.items()} == {
        name: pytest.approx(value.item(), rel=1e-6) for name, value in exact.items()
    }  # sums in another order differ in the last digit
