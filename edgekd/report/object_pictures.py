"""Pictures of detections: found objects, missed objects and false alarms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edgekd.board.boxes import areas, box_iou, intersections
from edgekd.board.masks import Masks
from edgekd.board.run_masks import tight_masks, unpacked
from edgekd.data.colors import palette
from edgekd.data.drawing import Color, draw_boxes, draw_masks
from edgekd.report.model import Row
from edgekd.report.pictures import Picture, error_color, tile

MATCH_IOU = 0.5  # a detection finds an object of its class from this IoU of the boxes on
MISSED: Color = (255, 255, 255)


def read_object_pictures(
    archive: Mapping[str, np.ndarray], rows: Sequence[Row], classes: Sequence[str]
) -> Iterator[Picture]:
    """Yield the pictures of `pictures.npz`, with a tile for each row that has detections on the image."""
    colors: list[Color] = [(int(r), int(g), int(b)) for r, g, b in palette(len(classes))]
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


def _picture(archive: Mapping[str, np.ndarray], index: int, rows: Sequence[Row], colors: list[Color]) -> Picture:
    name, image = str(archive[f"{index}/name"]), archive[f"{index}/image"]
    boxes, labels = (_part(archive, f"{index}/truth", part) for part in ("boxes", "labels"))
    assert boxes is not None
    assert labels is not None
    crowd = [_part(archive, f"{index}/truth", part) for part in ("crowd_boxes", "crowd_labels")]  # None in old reports
    of_truth = [colors[label] for label in labels]
    size = (image.shape[0], image.shape[1])
    drawn = _drawn(image, boxes, _masks(archive, f"{index}/truth", size), of_truth)
    tiles = [
        tile("Image", "input", f"Image {name}", image),
        tile("Truth", f"{len(boxes)} objects", f"True objects of {name}", drawn),
    ]
    for row in rows:
        place = f"{index}/{row.id}"
        found = [_part(archive, place, part) for part in ("boxes", "labels")]
        if found[0] is None or found[1] is None:
            continue
        seen, right = matched((boxes, labels), (found[0], found[1]))
        if crowd[0] is not None and crowd[1] is not None:
            right |= excused((crowd[0], crowd[1]), (found[0], found[1]))
        of_found = [
            colors[label] if ok else error_color(len(colors)) for label, ok in zip(found[1], right, strict=True)
        ]
        drawn = _drawn(image, found[0], _masks(archive, place, size), of_found)
        missed = boxes[~seen]
        drawn = draw_boxes(drawn, missed, [MISSED] * len(missed), width=2)
        caption = f"{int(seen.sum())} of {len(boxes)} found, {len(missed)} missed, {int((~right).sum())} false alarms"
        tiles.append(tile(row.label, caption, f"Objects of {name} by {row.label}: {caption}", drawn))
    return Picture(name, tuple(tiles))


def _drawn(image: np.ndarray, boxes: np.ndarray, masks: Masks | None, colors: list[Color]) -> np.ndarray:
    """Return the image with boxes and masks."""
    if masks is None:
        return draw_boxes(image, boxes, colors, width=2)
    return draw_boxes(draw_masks(image, masks, colors), boxes, colors, width=1)


def _masks(archive: Mapping[str, np.ndarray], place: str, size: tuple[int, int]) -> Masks | None:
    """Return the masks of an image: run lengths, or in reports of earlier versions bits along the rows (N, H, ceil(W / 8))."""
    runs, counts, bits = (_part(archive, place, part) for part in ("mask_runs", "mask_run_counts", "mask_bits"))
    if runs is not None and counts is not None:
        return unpacked(runs, counts, size)
    return None if bits is None else tight_masks(np.unpackbits(bits, axis=2, count=size[1]).astype(bool))


def _part(archive: Mapping[str, np.ndarray], place: str, part: str) -> np.ndarray | None:
    return archive.get(f"{place}/{part}")
