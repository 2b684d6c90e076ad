"""Training augmentation: image and mask move together, and a seed decides everything."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch.nn.functional import avg_pool2d
from torchvision import tv_tensors
from torchvision.transforms import v2

from edgekd.board.preprocess import prepare
from edgekd.board.run_masks import tight_masks
from edgekd.board.specs import Preprocess
from edgekd.core.recipe import Augment
from edgekd.data.augment import Objects, ResizeJitter, augmented, training_transform
from edgekd.data.base import Instances, Sample
from edgekd.errors import RecipeError

SIZE = (40, 60)


def coordinates(axis: int) -> Sample:
    """Return a sample whose mask is each pixel's row (axis 0) or column (axis 1), and whose image is that plus 100."""
    mask = np.indices(SIZE)[axis].astype(np.uint8)
    return Sample("coordinates", np.repeat(mask[:, :, None] + 100, 3, axis=2).astype(np.uint8), mask)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("crop", [None, (24, 80)])
def test_image_and_mask_stay_aligned_and_padding_is_ignored(axis: int, crop: tuple[int, int] | None) -> None:
    transform = training_transform(Augment(crop=crop, scale=(0.6, 1.7), flip=0.5, color=0.0), SIZE)
    padded = flipped = 0
    for seed in range(40):
        image, mask, _ = augmented(coordinates(axis), transform, seed)
        assert image.dtype == mask.dtype == torch.uint8
        assert tuple(image.shape) == (3, *(crop or SIZE))
        assert tuple(mask.shape) == (crop or SIZE)
        inside = mask != 255
        assert inside.any()
        assert torch.equal(inside, image[0] != 0)  # black is padding only: the image itself is 100 and more
        shown = image[0].int() - 100
        assert (shown - mask.int())[inside].abs().max() <= 1  # bilinear against nearest
        padded += int(not inside.all())
        rows = mask[inside.any(1)][:, inside.any(0)].int()
        flipped += int(axis == 1 and bool(rows[0, 0] > rows[0, -1]))
    assert 0 < padded < 40 or crop is not None
    assert axis == 0 or 8 < flipped < 32


def test_the_same_seed_gives_the_same_crop_and_another_seed_another() -> None:
    transform = training_transform(Augment(), SIZE)
    first, again, other = (augmented(coordinates(1), transform, seed)[0] for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_augmenting_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    augmented(coordinates(0), training_transform(Augment(), SIZE), 1)
    assert torch.equal(torch.rand(3), expected)


def test_factor_one_without_flip_and_color_is_the_resize_of_deployment() -> None:
    """Pillow's bilinear resize is what `Preprocess` promises."""
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    mask = np.random.default_rng(1).integers(0, 5, SIZE, dtype=np.uint8)
    size = (20, 30)
    transform = training_transform(Augment(scale=(1.0, 1.0), flip=0.0, color=0.0), size)
    image, resized_mask, _ = augmented(Sample("noise", pixels, mask), transform, 0)
    oracle = np.asarray(Image.fromarray(pixels).resize((30, 20), Image.Resampling.BILINEAR))
    assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - oracle).max() <= 1
    np.testing.assert_array_equal(resized_mask.numpy(), mask[1::2, 1::2])  # nearest to the centre of 2 x 2, down right


def test_letterboxed_views_keep_the_aspect_and_are_what_deployment_shows_between_its_bars() -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (30, 60, 3), dtype=np.uint8)
    transform = training_transform(Augment(scale=(1.0, 1.0), flip=0.0, color=0.0), (32, 48), "letterbox")
    image, mask, _ = augmented(Sample("noise", pixels, np.zeros((30, 60), np.uint8)), transform, 0)
    rows, columns = (mask == 0).any(dim=1), (mask == 0).any(dim=0)
    assert (int(rows.sum()), int(columns.sum())) == (24, 48)
    deployed = prepare(pixels, Preprocess((32, 48), layout="NHWC", dtype="uint8", resize="letterbox"))[0]
    assert (deployed[:4] == 0).all()
    assert (deployed[-4:] == 0).all()
    shown = image[:, rows][:, :, columns].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(shown - deployed[4:28].astype(int)).max() <= 1


def test_a_box_keeps_its_aspect_in_a_letterboxed_view() -> None:
    augment = Augment(scale=(1.0, 1.0), flip=0.0, color=0.0)
    sample = with_objects([[8, 8, 24, 16]])  # 40x60
    transform = training_transform(augment, (80, 80), "letterbox")
    view = augmented(sample, transform, 0, "instance")
    assert view.objects is not None
    (x1, y1, x2, y2) = view.objects.boxes[0].tolist()
    assert (x2 - x1) / (y2 - y1) == pytest.approx(2, rel=0.05)
    assert x2 - x1 == pytest.approx(16 * 80 / 60, abs=0.6)


def test_color_jitter_changes_the_image_and_never_the_mask() -> None:
    transform = training_transform(Augment(scale=(1.0, 1.0), flip=0.0, color=0.5), SIZE)
    sample = coordinates(0)
    image, mask, _ = augmented(sample, transform, 3)
    assert not np.array_equal(image.permute(1, 2, 0).numpy(), sample.image)
    np.testing.assert_array_equal(mask.numpy(), sample.mask)


def test_factors_are_log_uniform_within_their_bounds() -> None:
    jitter = ResizeJitter((1000, 2000), (0.5, 2.0))
    torch.manual_seed(0)
    sizes = [jitter.make_params([Image.new("L", (4, 3))])["size"] for _ in range(2000)]
    factors = np.array([height / 1000 for height, _ in sizes])
    assert all(abs(width - 2 * height) <= 2 for height, width in sizes)
    assert factors.min() >= 0.5
    assert factors.max() <= 2.0
    logs = np.log2(factors)  # uniform on [-1, 1]: mean 0, standard deviation 1 / sqrt 3
    assert abs(logs.mean()) < 0.05
    assert logs.std() == pytest.approx(1 / math.sqrt(3), rel=0.05)


def with_objects(boxes: list[list[float]], size: tuple[int, int] = (40, 60), **more: object) -> Sample:
    """Return a sample whose objects are boxes; each one's mask is its whole box."""
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    masks = np.zeros((len(boxes), *size), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, corners.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    instances = Instances(masks, corners, np.arange(len(boxes)), **more)  # type: ignore[arg-type]
    return Sample("objects", np.zeros((*size, 3), np.uint8), np.full(size, 255, np.uint8), instances)


def objects_of(sample: Sample, augment: Augment, size: tuple[int, int], seed: int = 0) -> tuple[Objects, torch.Tensor]:
    view = augmented(sample, training_transform(augment, size), seed, "instance")
    assert view.objects is not None
    return view.objects, view.mask


STILL = Augment(scale=(1.0, 1.0), flip=0.0, color=0.0)


def test_a_stretched_view_stretches_boxes_and_masks() -> None:
    objects, region = objects_of(with_objects([[8, 8, 24, 16], [40, 0, 60, 40]]), STILL, (80, 60))
    assert objects.boxes.tolist() == [[8, 16, 24, 32], [40, 0, 60, 80]]
    assert objects.labels.tolist() == [0, 1]
    assert objects.masks is not None
    assert objects.masks.shape == (2, 40, 30)
    expected = torch.zeros(40, 30, dtype=torch.uint8)
    expected[8:16, 4:12] = 4
    assert torch.equal(objects.masks[0], expected)
    assert region.sum() == 16 * 16 + 20 * 80


def test_a_mask_says_how_many_pixels_of_a_cell_are_the_objects() -> None:
    """A box from (3, 5) to (8, 8): its first column has one pixel of two, its first row, too."""
    objects, _ = objects_of(with_objects([[3, 5, 8, 8]]), STILL, (40, 60))
    assert objects.masks is not None
    assert objects.masks[0, 2:4, 1:4].tolist() == [[1, 2, 2], [2, 4, 4]]
    assert objects.masks[0].sum() == 5 * 3


def test_a_flip_mirrors_boxes_and_masks() -> None:
    objects, _ = objects_of(with_objects([[8, 8, 24, 16]]), Augment(scale=(1.0, 1.0), flip=1.0, color=0.0), (40, 60))
    assert objects.boxes.tolist() == [[36, 8, 52, 16]]
    assert objects.masks is not None
    assert objects.masks[0].nonzero().min(dim=0).values.tolist() == [4, 18]


def test_boxes_always_are_the_frame_of_their_masks_and_lie_inside() -> None:
    augment = Augment(scale=(0.6, 1.8), flip=0.5, color=0.0)
    seen = 0
    for seed in range(40):
        objects, _ = objects_of(with_objects([[4, 4, 36, 28], [20, 10, 56, 38]]), augment, (40, 60), seed)
        assert objects.masks is not None
        for box, mask in zip(objects.boxes, objects.masks, strict=True):
            assert (box[:2] >= 0).all()
            assert box[2] <= 60
            assert box[3] <= 40
            rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
            frame = [columns.min() * 2, rows.min() * 2, columns.max() * 2 + 2, rows.max() * 2 + 2]
            np.testing.assert_allclose(box, frame, atol=2.5)  # masks are half as fine
            seen += 1
    assert seen > 40


def test_an_object_that_is_nearly_cut_off_leaves_and_so_does_a_crowd() -> None:
    half = Augment(scale=(2.0, 2.0), flip=0.0, color=0.0)
    kept = {len(objects_of(with_objects([[0, 0, 20, 20]]), half, (40, 60), seed)[0].boxes) for seed in range(12)}
    assert kept == {0, 1}
    crowd = with_objects([[0, 0, 8, 8], [20, 8, 40, 30]], is_crowd=np.array([False, True]))
    found = objects_of(crowd, STILL, (40, 60))[0]
    assert found.labels.tolist() == [0]
    assert found.ignored.tolist() == [[20, 8, 40, 30]]


def test_an_object_whose_mask_the_crop_empties_leaves_though_its_box_stays() -> None:
    """Object 0's only pixel is its box's last one, in the right half, where object 1 is whole; the crop has one half."""
    whole = with_objects([[0, 0, 60, 40], [32, 8, 60, 24]])
    assert whole.instances is not None
    assert whole.instances.masks is not None
    masks = whole.instances.masks.whole()
    masks[0] = False
    masks[0, 39, 59] = True
    whole = replace(whole, instances=replace(whole.instances, masks=masks))  # type: ignore[arg-type]
    half = Augment(scale=(1.0, 1.0), flip=0.0, color=0.0, crop=(40, 30))
    seen = [objects_of(whole, half, (40, 60), seed)[0] for seed in range(40)]
    assert {tuple(objects.labels.tolist()) for objects in seen} == {(), (1,), (0, 1)}
    for objects in seen:
        assert objects.masks is not None
        assert len(objects.masks) == len(objects.boxes) == len(objects.labels)
        assert objects.masks.flatten(1).any(dim=1).all()


def test_padding_is_marked_and_an_image_without_objects_has_none() -> None:
    objects, region = objects_of(with_objects([]), Augment(scale=(0.5, 0.5), flip=0.0, color=0.0), (40, 60))
    assert objects.boxes.shape == (0, 4)
    assert objects.masks is not None
    assert objects.masks.shape == (0, 20, 30)
    assert (region == 255).sum() == 40 * 60 - 20 * 30


SIDES = ("road", "left lane", "right lane")
FLIPPED = STILL.model_copy(update={"flip": 1.0, "flip_pairs": (("right lane", "left lane"),)})


def test_a_flip_swaps_the_pixels_of_paired_classes() -> None:
    mask = np.tile(np.array([1, 1, 0, 2, 255, 0], np.uint8), (4, 1))
    sample = Sample("lanes", np.zeros((4, 6, 3), np.uint8), mask)
    flipped = augmented(sample, training_transform(FLIPPED, (4, 6), "stretch", SIDES), 0).mask
    assert flipped.dtype == torch.uint8
    assert flipped[0].tolist() == [0, 255, 1, 0, 2, 2]
    still = FLIPPED.model_copy(update={"flip": 0.0})
    assert (
        augmented(sample, training_transform(still, (4, 6), "stretch", SIDES), 0).mask[0].tolist() == mask[0].tolist()
    )


@pytest.mark.parametrize("task", ["detection", "instance"])
def test_a_flip_swaps_the_labels_of_paired_objects_and_not_their_masks(task: str) -> None:
    sample = with_objects([[0, 0, 20, 10], [40, 0, 60, 10], [20, 20, 40, 40]])  # classes 0, 1, 2
    view = augmented(sample, training_transform(FLIPPED, (40, 60), "stretch", SIDES), 0, task)
    assert view.objects is not None
    assert view.objects.labels.tolist() == [0, 2, 1]
    assert view.objects.labels.dtype == torch.int64
    assert view.objects.boxes[:, 0].tolist() == [40, 0, 20]
    assert view.mask.unique().tolist() == [0, 1]
    if task == "instance":
        assert view.objects.masks is not None
        assert view.objects.masks.flatten(1).sum(dim=1).tolist() == [200, 200, 400]


def test_pairs_change_no_view_but_its_labels() -> None:
    """The flip is drawn at the same place of the random sequence."""
    sample = with_objects([[0, 0, 20, 10], [40, 0, 60, 10]])
    plain = Augment(flip=0.5)
    paired = plain.model_copy(update={"flip_pairs": FLIPPED.flip_pairs})
    labels = set()
    for seed in range(8):
        one, other = (
            augmented(sample, training_transform(augment, (40, 60), "stretch", SIDES), seed, "detection")
            for augment in (plain, paired)
        )
        assert torch.equal(one.image, other.image)
        assert one.objects is not None
        assert other.objects is not None
        assert torch.equal(one.objects.boxes, other.objects.boxes)
        labels.add(tuple(other.objects.labels.tolist()))
    assert any(2 in found for found in labels)


def test_a_pair_of_unknown_classes_is_refused() -> None:
    augment = Augment(flip_pairs=(("left lane", "right line"),))
    with pytest.raises(RecipeError, match="no class is called 'right line'; did you mean 'right lane'"):
        training_transform(augment, (4, 6), "stretch", SIDES)
    with pytest.raises(ValidationError, match="'a' is listed twice"):
        Augment(flip_pairs=(("a", "b"), ("c", "a")))


def dense_view(sample: Sample, transform: v2.Transform, seed: int) -> tuple[torch.Tensor, ...]:
    """Return image, region, boxes, labels, masks and ignored boxes of a view whose masks are transformed as whole images."""
    assert sample.instances is not None
    assert sample.instances.masks is not None
    instances, size = sample.instances, sample.image.shape[:2]
    whole = sample.instances.masks.whole()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        image, region, boxes, masks = transform(
            Image.fromarray(sample.image),
            tv_tensors.Mask(torch.from_numpy(whole.any(axis=0).astype(np.uint8))),
            tv_tensors.BoundingBoxes(
                torch.from_numpy(instances.boxes_xyxy), format="XYXY", canvas_size=size, clamping_mode=None
            ),
            tv_tensors.Mask(torch.from_numpy(whole.view(np.uint8))),
        )
    plain = boxes.as_subclass(torch.Tensor)
    height, width = region.shape[-2:]
    clipped = plain.clamp(min=0).minimum(torch.tensor([width, height] * 2))
    sides, before = clipped[:, 2:] - clipped[:, :2], plain[:, 2:] - plain[:, :2]
    shown = (sides.prod(1) >= 0.25 * before.prod(1)) & (sides >= 2).all(1) & ~torch.from_numpy(instances.is_ignored)
    cells = avg_pool2d((masks.as_subclass(torch.Tensor) == 1).float(), 2, divisor_override=1).to(torch.uint8)
    shown &= (cells > 0).flatten(1).any(dim=1)
    ignored = clipped[(sides > 0).all(dim=1) & ~shown]
    return (
        image,
        region.as_subclass(torch.Tensor),
        clipped[shown],
        torch.from_numpy(instances.labels)[shown],
        cells[shown],
        ignored,
    )


@pytest.mark.parametrize("crop", [None, (33, 47), (40, 60), (90, 31)])
def test_views_are_those_of_whole_masks(crop: tuple[int, int] | None) -> None:
    """Random blobs, some of them crowds, under every augmentation: all of a view is the same to the byte."""
    rng = np.random.default_rng(3)
    augment = Augment(scale=(0.4, 2.2), flip=0.5, flip_vertical=0.5, color=0.3, crop=crop)
    seen = 0
    for seed in range(30):
        height, width = (int(side) for side in rng.integers(20, 90, 2))
        centers = rng.uniform(0, 1, (8, 2)) * [height, width]
        y, x = np.mgrid[:height, :width]
        masks = np.stack(
            [np.hypot(y - a, 0.7 * (x - b)) + rng.normal(0, 2, y.shape) < rng.uniform(3, 20) for a, b in centers]
        )
        masks = masks[masks.any(axis=(1, 2))]
        corners = tight_masks(masks).corners.astype(np.float32)
        is_crowd = rng.random(len(masks)) < 0.2
        instances = Instances(masks, corners, np.arange(len(masks)), is_crowd=is_crowd)  # type: ignore[arg-type]
        pixels = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
        sample = Sample("x", pixels, np.full((height, width), 255, np.uint8), instances)
        transform = training_transform(augment, (48, 64), "letterbox" if seed % 2 else "stretch")
        view = augmented(sample, transform, seed, "instance")
        image, region, boxes, labels, cells, ignored = dense_view(sample, transform, seed)
        assert view.objects is not None
        assert torch.equal(view.image, v2.functional.pil_to_tensor(image))
        assert torch.equal(view.mask, region)
        assert torch.equal(view.objects.boxes, boxes)
        assert torch.equal(view.objects.labels, labels)
        assert view.objects.masks is not None
        assert torch.equal(view.objects.masks, cells)
        assert view.objects.ignored is not None
        assert torch.equal(view.objects.ignored, ignored)
        seen += len(labels)
    assert seen > 40
