"""Decode, suppression and masks in numpy: by hand, by torchvision, by the torch heads."""

from __future__ import annotations

from dataclasses import replace
from math import log

import numpy as np
import pytest

from edgekd.board.detection import Selection, detections
from edgekd.board.frame import Frame, frame
from edgekd.board.masks import Masks, assemble, paste
from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.board.suppression import suppress

HEIGHT, WIDTH, BINS = 32, 64, 17


def spec(strides: tuple[int, ...] = (8, 16), classes: int = 2, prototypes: int = 0) -> ModelSpec:
    channels = {"scores": classes, "boxes": 4 * BINS, **({"coefficients": prototypes} if prototypes else {})}
    outputs = [
        TensorSpec(f"{role}_{stride}", "float32", (1, count, HEIGHT // stride, WIDTH // stride), role)
        for stride in strides
        for role, count in channels.items()
    ]
    if prototypes:
        outputs.append(TensorSpec("prototypes", "float32", (1, prototypes, HEIGHT // 4, WIDTH // 4), "prototypes"))
    image = TensorSpec("image", "float32", (1, 3, HEIGHT, WIDTH), "image")
    names = tuple(f"class {i}" for i in range(classes))
    task = "instance" if prototypes else "detection"
    return ModelSpec(task, names, 255, (image,), tuple(outputs), Preprocess((HEIGHT, WIDTH)))


def silent(contract: ModelSpec) -> dict[str, np.ndarray]:
    """Return heads that see nothing."""
    outputs = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in contract.outputs}
    for tensor in contract.all_outputs("scores"):
        outputs[tensor.name] -= 20
    return outputs


def test_a_cell_says_a_box_by_hand() -> None:
    contract = spec()
    outputs = silent(contract)
    outputs["scores_8"][0, 1, 2, 3] = log(3.0)  # 0.75, at the point (28, 20)
    for side, distance in enumerate((2, 1, 0, 1)):  # left, top, right, bottom, in strides of 8
        outputs["boxes_8"][0, side * BINS + distance, 2, 3] = 50
    found = detections(outputs, contract, (64, 64))  # the image is twice as high as the input
    np.testing.assert_allclose(found.boxes, [[12, 24, 28, 56]], atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.75], rtol=1e-6)
    assert found.labels.tolist() == [1]
    assert found.masks is None


def test_a_side_between_two_bins_lies_between_them() -> None:
    contract = spec()
    outputs = silent(contract)
    outputs["scores_16"][0, 0, 0, 1] = 5  # the point (24, 8)
    outputs["boxes_16"][0, :, 0, 1] = -50
    for side in range(4):
        outputs["boxes_16"][0, side * BINS, 0, 1] = outputs["boxes_16"][0, side * BINS + 1, 0, 1] = 50  # half a stride
    np.testing.assert_allclose(detections(outputs, contract, (HEIGHT, WIDTH)).boxes, [[16, 0, 32, 16]], atol=1e-3)


def test_boxes_are_the_nearest_float32_of_exact_arithmetic() -> None:
    """So another exponential, or another order of sums, gives the same bytes: a board's numpy, or C++."""
    rng = np.random.default_rng(7)
    contract = spec(strides=(8,), classes=1)
    outputs = {t.name: (3 * rng.standard_normal(t.shape)).astype(np.float32) for t in contract.outputs}
    found = detections(outputs, contract, (HEIGHT, WIDTH), Selection(min_score=0, iou=1))
    logits = outputs["boxes_8"][0].reshape(4, BINS, -1).astype(np.longdouble)
    weights = np.exp(logits)
    sides = 8 * (weights * np.arange(BINS)[:, None]).sum(axis=1) / weights.sum(axis=1)
    rows, columns = np.divmod(np.arange(sides.shape[1]), WIDTH // 8)
    x, y = columns * 8 + 4, rows * 8 + 4
    exact = np.stack([x - sides[0], y - sides[1], x + sides[2], y + sides[3]], axis=1).astype(np.float32)
    inside = np.clip(exact, 0, np.float32([WIDTH, HEIGHT, WIDTH, HEIGHT]))
    assert sorted(found.boxes.tolist()) == sorted(inside.tolist())


def test_nothing_above_the_least_score_is_no_detection() -> None:
    contract = spec(prototypes=3)
    found = detections(silent(contract), contract, (20, 30))
    assert found.boxes.shape == (0, 4)
    assert found.masks is not None
    assert found.masks.whole().shape == (0, 20, 30)


def test_a_least_score_of_0_takes_every_candidate_and_1_takes_none() -> None:
    contract = spec(strides=(8,))
    heads = silent(contract)
    heads["scores_8"][0, 0, 0, 0] = 40  # its sigmoid is 1 in float32
    points = (HEIGHT // 8) * (WIDTH // 8)
    boxes = np.tile(np.array([[0], [0], [4], [4]], np.float32), points)
    decoded = {"decoded_boxes": boxes[None], "decoded_scores": np.zeros((1, 2, points), np.float32)}
    decoded["decoded_scores"][0, 0, 0] = 1
    tensors = tuple(TensorSpec(name, "float32", array.shape, name) for name, array in decoded.items())
    for outputs, said in ((heads, contract), (decoded, replace(contract, outputs=tensors))):
        counts = [
            len(detections(outputs, said, (HEIGHT, WIDTH), Selection(least, iou=1.0, most=10**6)).boxes)
            for least in (0.0, 0.5, 1.0)
        ]
        assert counts == [2 * points, 1, 0]


@pytest.mark.parametrize("seed", range(3))
def test_boxes_are_those_of_the_torch_heads(seed: int) -> None:
    torch = pytest.importorskip("torch")
    from edgekd.models.heads import decode
    from edgekd.train.losses.detection import flattened

    contract, rng = spec(), np.random.default_rng(seed)
    outputs = {t.name: rng.normal(0, 2, t.shape).astype(np.float32) for t in contract.outputs}
    everything = Selection(min_score=1e-6, iou=1.0, candidates=10**6, most=10**6)
    found = detections(outputs, contract, (HEIGHT, WIDTH), everything)
    flat = flattened({name: torch.from_numpy(value) for name, value in outputs.items()})
    boxes = decode(flat.boxes, flat.centres, flat.strides)[0]
    limit = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    boxes, scores = boxes.clamp(min=0).minimum(limit), flat.scores[0].sigmoid()
    expected = sorted((float(s), *box.tolist()) for box, row in zip(boxes, scores, strict=True) for s in row)
    got = sorted((float(s), *box.tolist()) for s, box in zip(found.scores, found.boxes, strict=True))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("iou", [0.23, 0.51, 0.61, 0.9])
@pytest.mark.parametrize("count", [0, 1, 40, 200, 900])  # above 256 block by block
@pytest.mark.parametrize("spread", [20, 200])  # a crowd, and boxes that seldom meet
def test_suppression_is_torchvisions_per_class(count: int, spread: int, iou: float) -> None:
    torch = pytest.importorskip("torch")
    from torchvision.ops import batched_nms

    rng = np.random.default_rng(count + spread)
    corners = rng.integers(0, spread, (count, 2))
    boxes = np.concatenate([corners, corners + rng.integers(1, 40, (count, 2))], axis=1).astype(np.float32)
    scores = (rng.permutation(count) / max(1, count)).astype(np.float32)
    labels = rng.integers(0, 3, count)
    kept = suppress(boxes, scores, labels, iou, 10**6)
    expected = batched_nms(*(torch.from_numpy(a) for a in (boxes, scores, labels)), iou_threshold=iou)
    assert kept.tolist() == expected.tolist()
    assert suppress(boxes, scores, labels, iou, 5).tolist() == expected.tolist()[:5]


@pytest.mark.parametrize("iou", [0.0, 1.0])
def test_suppression_at_its_ends(iou: float) -> None:
    """Above an intersection over union of 0 every overlap goes; above 1 none does. A box without area overlaps nothing."""
    boxes = np.array([[0, 0, 10, 10], [9, 9, 100, 90], [10, 0, 20, 10], [0, 0, 10, 10], [5, 5, 5, 5]], np.float32)
    kept = suppress(boxes, np.linspace(0.9, 0.1, 5), np.zeros(5, np.int64), iou, 9)
    assert kept.tolist() == ([0, 2, 4] if iou == 0 else [0, 1, 2, 3, 4])


def test_of_equal_scores_the_first_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10]], np.float32)
    assert suppress(boxes, np.array([0.5, 0.5, 0.5]), np.array([0, 0, 1]), 0.5, 9).tolist() == [0, 2]


def test_masks_are_the_mixed_prototypes_inside_the_box() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    prototypes, mixes = rng.normal(size=(3, 8, 16)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    boxes = np.array([[3.2, 1, 40.7, 50], [0, 0, 100, 60], [10, 10, 10.2, 30], [98.6, 20, 100, 59.4]], np.float32)
    masks = assemble(prototypes, mixes, boxes, Frame((60, 100), (HEIGHT, WIDTH), (HEIGHT, WIDTH))).whole()
    logits = torch.from_numpy(np.einsum("np,phw->nhw", mixes, prototypes))[None]
    large = torch.nn.functional.interpolate(logits, (60, 100), mode="bilinear", align_corners=False)[0].numpy()
    x, y = np.arange(100) + 0.5, np.arange(60) + 0.5
    for mask, map_, (x1, y1, x2, y2) in zip(masks, large, boxes, strict=True):
        inside = ((y >= y1) & (y < y2))[:, None] & ((x >= x1) & (x < x2))
        sure = np.abs(map_) > 1e-4  # rounding decides the others
        np.testing.assert_array_equal(mask[sure], (inside & (map_ > 0))[sure])


def test_one_mask_is_whole_and_false_outside_its_part() -> None:
    masks = Masks(
        (4, 6), np.array([[1, 0, 3, 2], [5, 3, 5, 3]]), [np.array([[1, 0], [1, 1]], bool), np.zeros((0, 0), bool)]
    )
    assert len(masks) == 2
    assert masks[0].astype(int).tolist() == [[0, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0] * 6, [0] * 6]
    assert not masks[1].any()
    assert np.array_equal(masks.whole()[0], masks[0])


@pytest.mark.parametrize(("seed", "objects", "size"), [(0, 4, (32, 64)), (1, 4, (32, 64)), (2, 300, (192, 320))])
def test_masks_are_the_upsampled_prototypes_of_torch_inside_the_box(
    seed: int, objects: int, size: tuple[int, int]
) -> None:
    import torch
    from torch.nn.functional import interpolate

    rng = np.random.default_rng(seed)
    prototypes, mixes = rng.standard_normal((5, size[0] // 4, size[1] // 4)), rng.standard_normal((objects, 5))
    boxes = np.sort(rng.uniform(-4, size[1] + 6, (objects, 2, 2)), axis=1).reshape(objects, 4).astype(np.float32)
    boxes[objects // 2 :, 2:] = boxes[objects // 2 :, :2] + rng.uniform(
        0, 80, (objects - objects // 2, 2)
    )  # of all sizes
    boxes[3] = [9.6, 4.0, 10.4, 30.0]  # between two columns of pixel centres
    found = assemble(prototypes.astype(np.float32), mixes.astype(np.float32), boxes, Frame(size, size, size))
    logits = torch.einsum("np,phw->nhw", torch.tensor(mixes), torch.tensor(prototypes))[None]
    wanted = interpolate(logits, size=size, mode="bilinear", align_corners=False)[0].numpy()
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        inside = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
        clear = np.abs(wanted[number]) > 1e-5
        assert np.array_equal(found[number][clear], (inside & (wanted[number] > 0))[clear])


def test_small_masks_made_together_are_those_made_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    prototypes = rng.standard_normal((6, 40, 48)).astype(np.float32)
    place = frame((180, 260), Preprocess((160, 192), resize="letterbox"))
    corners = rng.uniform(-10, 190, (200, 2))
    boxes = place.boxes_on_image(
        np.concatenate([corners, corners + rng.uniform(0, 70, (200, 2))], axis=1).astype(np.float32)
    )
    mixes = rng.standard_normal((200, 6)).astype(np.float32)
    together = assemble(prototypes, mixes, boxes, place)
    monkeypatch.setattr("edgekd.board.masks.FEWEST", 10**6)
    alone = assemble(prototypes, mixes, boxes, place)
    assert any(part.base is not None for part in together.parts)
    assert all(part.base is None for part in alone.parts)
    for number in range(200):
        assert together.parts[number].shape == alone.parts[number].shape
        assert (together[number] != alone[number]).mean() < 1e-4  # rounding of a logit near zero


def test_masks_of_any_size_are_made_without_the_threads_of_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    """They stay awake after a large product, on the cores of the engine's next run."""
    sizes, dot = [], np.dot

    def spy(left: np.ndarray, right: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        sizes.append((len(left), left.size * right.shape[1]))
        return dot(left, right, out=out)

    rng = np.random.default_rng(0)
    prototypes = rng.standard_normal((16, 160, 160)).astype(np.float32)
    boxes = np.array([[0, 0, 640, 640], [5, 5, 25, 25], [100, 0, 130, 600]] * 8, np.float32)
    monkeypatch.setattr(np, "dot", spy)
    assemble(
        prototypes, rng.standard_normal((24, 16)).astype(np.float32), boxes, Frame((640, 640), (640, 640), (640, 640))
    )
    paste(rng.random((1, 28, 28)), boxes[:1], (640, 640))
    assert len(sizes) > 2 * len(boxes)
    assert not paste(rng.random((1, 28, 28)), np.array([[5.1, 3, 5.2, 9]], np.float32), (640, 640)).whole().any()
    # A product of one row is another function of BLAS, which takes no threads for these.
    assert max(work for rows, work in sizes if rows > 1) <= 1 << 18


def test_of_what_a_network_found_by_itself_the_best_above_the_least_score_are_kept() -> None:
    boxes = TensorSpec("found_boxes", "float32", (1, 3, 4), "found_boxes")
    scores, labels = (TensorSpec(f"found_{part}", "float32", (1, 3), f"found_{part}") for part in ("scores", "labels"))
    contract = replace(spec(), outputs=(boxes, scores, labels))
    outputs = {
        "found_boxes": np.array([[[0, 0, 8, 8], [8, 8, 16, 16], [4, 4, 9, 9]]], np.float32),
        "found_scores": np.array([[0.4, 0.9, 0.0]], np.float32),
        "found_labels": np.array([[0, 1, 0]], np.float32),
    }

    def kept(**selection: float) -> list[int]:
        return detections(outputs, contract, (HEIGHT, WIDTH), Selection(**selection)).labels.tolist()  # type: ignore[arg-type]

    assert kept() == kept(min_score=0) == [1, 0]
    assert kept(min_score=0.5) == kept(most=1) == [1]


@pytest.mark.parametrize("most", [1, 3, 10, 25])
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_few_candidates_are_decoded_first_and_the_detections_are_those_of_all(most: int, spread: float) -> None:
    # In the crowd of the smaller spread many candidates overlap, so that the few best do not give enough detections.
    contract = spec(strides=(4, 8, 16), prototypes=4)
    rng = np.random.default_rng(most)
    outputs = {tensor.name: (rng.normal(size=tensor.shape) * spread).astype(np.float32) for tensor in contract.outputs}
    asked = Selection(most=most, candidates=300)
    found = detections(outputs, contract, (50, 90), asked)
    # As many detections as there are candidates: all of these are decoded at once.
    everything = detections(outputs, contract, (50, 90), replace(asked, most=300))
    np.testing.assert_array_equal(found.boxes, everything.boxes[:most])
    np.testing.assert_array_equal(found.scores, everything.scores[:most])
    np.testing.assert_array_equal(found.labels, everything.labels[:most])
    assert found.masks is not None
    assert everything.masks is not None
    for number in range(len(found.masks)):
        np.testing.assert_array_equal(found.masks[number], everything.masks[number])
