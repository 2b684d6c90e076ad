"""Pictures of detections: found objects, missed objects and false alarms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgekd.board.boxes import areas, box_iou, intersections
from edgekd.board.masks import Masks
from edgekd.board.run_masks import tight_masks, unpacked
from edgekd.data.colors import palette
from edgekd.report.layers import Mark, Picture, Tile, mask_address, photo_address
from edgekd.report.model import Row

MATCH_IOU = 0.5  # a detection finds an object of its class from this IoU of the boxes on


def read_object_pictures(
    archive: Mapping[str, np.ndarray], rows: Sequence[Row], classes: Sequence[str]
) -> Iterator[Picture]:
    """Yield the pictures of `pictures.npz`, with a tile for each row that has detections on the image."""
    colors = palette(len(classes))
    index = 0
    while f"{index}/image" in archive:
        yield _picture(archive, index, rows, colors)
        index += 1


def matched(
    truth: tuple[np.ndarray, np.ndarray], found: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return which objects were found (M,) bool and which detections found one (N,) bool.

    Args:
        truth: boxes (M, 4) and labels (M,).
        found: boxes (N, 4) and labels (N,), best first; each takes the free object of its class that it overlaps most.
    """
    overlap = box_iou(found[0], truth[0]) * (found[1][:, None] == truth[1][None, :])
    seen, right = np.zeros(len(truth[0]), bool), np.zeros(len(found[0]), bool)
    for place, row in enumerate(overlap):
        free = np.where(seen, 0.0, row)
        if free.size and free.max() >= MATCH_IOU:
            seen[int(free.argmax())] = right[place] = True
    return seen, right


def excused(crowd: tuple[np.ndarray, np.ndarray], found: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the detections that lie in a crowd, and are no false alarms: (N,) bool.

    As in COCO's evaluation, the overlap with a crowd of its class is measured against the detection's area.

    Args:
        crowd: boxes (M, 4) and labels (M,) of crowds and of objects labelled as difficult.
        found: boxes (N, 4) and labels (N,).
    """
    inside = intersections(found[0], crowd[0]) >= MATCH_IOU * areas(found[0])[:, None]
    return np.asarray((inside & (found[1][:, None] == crowd[1][None, :])).any(axis=1))


def _picture(archive: Mapping[str, np.ndarray], index: int, rows: Sequence[Row], colors: np.ndarray) -> Picture:
    name, image = str(archive[f"{index}/name"]), archive[f"{index}/image"]
    boxes, labels = (_part(archive, f"{index}/truth", part) for part in ("boxes", "labels"))
    assert boxes is not None
    assert labels is not None
    crowd = [_part(archive, f"{index}/truth", part) for part in ("crowd_boxes", "crowd_labels")]  # None in old reports
    size = (image.shape[0], image.shape[1])
    truth_mask = mask_layer(stored_masks(archive, f"{index}/truth", size), labels, colors)
    truth_marks = tuple(
        _mark(box, _css(colors[label]), "found", i) for i, (box, label) in enumerate(zip(boxes, labels, strict=True))
    )
    tiles = [
        Tile("photo", "Image", "input", f"Image {name}"),
        Tile("truth", "Truth", f"{len(boxes)} objects", f"True objects of {name}", mask=truth_mask, marks=truth_marks),
    ]
    shown = []
    for row in rows:
        place = f"{index}/{row.id}"
        found = [_part(archive, place, part) for part in ("boxes", "labels")]
        if found[0] is None or found[1] is None:
            continue
        seen, right = matched((boxes, labels), (found[0], found[1]))
        if crowd[0] is not None and crowd[1] is not None:
            right |= excused((crowd[0], crowd[1]), (found[0], found[1]))
        mask = mask_layer(stored_masks(archive, place, size), found[1], colors)
        shown.append(_tile(row, name, mask, (boxes, seen), (found[0], found[1], right), colors))
    return Picture(name, photo_address(image), *size, (*tiles, *_compared(shown)))


def _tile(
    row: Row, name: str, mask: str, truth: tuple[np.ndarray, np.ndarray], found: tuple[np.ndarray, np.ndarray, np.ndarray],
    colors: np.ndarray,
) -> Tile:  # fmt: skip
    """Return the tile of a row.

    Args:
        row: the row.
        name: name of the image.
        mask: address of the masks.
        truth: boxes (M, 4), and which of them were found, (M,) bool.
        found: boxes (N, 4), labels (N,), and which are no false alarms, (N,) bool.
        colors: colors of the classes.
    """
    (boxes, seen), (found_boxes, labels, right) = truth, found
    marks = [
        _mark(box, _css(colors[label]), "found" if ok else "wrong")
        for box, label, ok in zip(found_boxes, labels, right, strict=True)
    ]
    marks += [_mark(box, "", "truth", number) for number, box in enumerate(boxes)]
    missed, wrong = int((~seen).sum()), int((~right).sum())
    caption = f"{int(seen.sum())} of {len(boxes)} found, {missed} missed, {wrong} false alarms"
    total = len(boxes) + wrong
    return Tile(
        row.id, row.label, caption, f"Objects of {name} by {row.label}: {caption}",
        score=float(seen.sum()) / total if total else 1.0,
        mask=mask, marks=tuple(marks), found=tuple(np.flatnonzero(seen).tolist()),
    )  # fmt: skip


def _compared(tiles: Sequence[Tile]) -> list[Tile]:
    """Return the tiles with the objects that each found and another did not, and the other way round, in words."""
    result = []
    for own in tiles:
        words = {}
        for base in tiles:
            if base is not own:
                won, lost = set(own.found) - set(base.found), set(base.found) - set(own.found)
                words[base.key] = f"won {len(won)}, lost {len(lost)} objects"
        result.append(replace(own, differences=words))
    return result


def _mark(box: np.ndarray, color: str, kind: str, number: int = -1) -> Mark:
    x1, y1, x2, y2 = (round(float(value), 1) for value in box)
    return Mark((x1, y1, round(x2 - x1, 1), round(y2 - y1, 1)), color, kind, number)


def _css(color: np.ndarray) -> str:
    return "#" + bytes(color).hex()


def mask_layer(masks: Masks | None, labels: np.ndarray, colors: np.ndarray) -> str:
    """Return the masks in the classes' colours, later ones on top; "" for boxes alone."""
    if masks is None:
        return ""
    indices = np.full(masks.size, len(colors), np.uint8)
    for (x1, y1, x2, y2), part, label in zip(masks.corners.tolist(), masks.parts, labels, strict=True):
        indices[y1:y2, x1:x2][part] = label
    return mask_address(indices, np.vstack([colors, np.zeros((1, 3), np.uint8)]), [255] * len(colors) + [0])


def stored_masks(archive: Mapping[str, np.ndarray], place: str, size: tuple[int, int]) -> Masks | None:
    """Return the masks of an image: run lengths, or in reports of earlier versions bits along the rows (N, H, ceil(W / 8))."""
    runs, counts, bits = (_part(archive, place, part) for part in ("mask_runs", "mask_run_counts", "mask_bits"))
    if runs is not None and counts is not None:
        return unpacked(runs, counts, size)
    return None if bits is None else tight_masks(np.unpackbits(bits, axis=2, count=size[1]).astype(bool))


def _part(archive: Mapping[str, np.ndarray], place: str, part: str) -> np.ndarray | None:
    return archive.get(f"{place}/{part}")
