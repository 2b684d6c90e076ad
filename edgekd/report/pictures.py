"""Pictures of class maps: predictions, wrong pixels, and pixels won and lost against another network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edgekd.data.base import IGNORE_INDEX
from edgekd.data.colors import palette
from edgekd.evaluate.boundary import trimap_band
from edgekd.evaluate.definitions import TRIMAP_RADIUS_PX
from edgekd.report.layers import Picture, Tile, errors_address, mask_address, photo_address
from edgekd.report.model import Row
from edgekd.report.units import percent

BAND_PX = TRIMAP_RADIUS_PX  # the band of trimap mIoU


def read_pictures(archive: Mapping[str, np.ndarray], rows: Sequence[Row], classes: Sequence[str]) -> Iterator[Picture]:
    """Yield the pictures of `pictures.npz`, with a tile for each row that has a class map of the image."""
    colors = palette(len(classes))
    index = 0
    while f"{index}/image" in archive:
        yield _picture(archive, index, rows, colors)
        index += 1


def boundary_errors(truth: np.ndarray, class_map: np.ndarray, radius: int = BAND_PX) -> tuple[np.ndarray, float | None]:
    """Return the wrong pixels of the band (H, W) bool and their share of the band; None when the band is empty."""
    band = trimap_band(truth, radius, IGNORE_INDEX)
    wrong = band & (class_map != truth)
    return wrong, float(wrong.sum() / band.sum()) if band.any() else None


def legend(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Return (class name, CSS colour) for every class."""
    return [(name, "#" + bytes(color).hex()) for name, color in zip(classes, palette(len(classes)), strict=True)]


def won_and_lost(wrong: np.ndarray, base_wrong: np.ndarray, labelled: np.ndarray) -> tuple[float, float]:
    """Return the fractions of labelled pixels that only this network gets right, and that only the base gets right.

    Args:
        wrong: wrong pixels of the network, (H, W) bool.
        base_wrong: those of the base.
        labelled: pixels with a label, (H, W) bool, at least one.
    """
    count = float(labelled.sum())
    return float((base_wrong & ~wrong).sum()) / count, float((wrong & ~base_wrong).sum()) / count


def _picture(archive: Mapping[str, np.ndarray], index: int, rows: Sequence[Row], colors: np.ndarray) -> Picture:
    image, truth = archive[f"{index}/image"], archive[f"{index}/truth"]
    name = str(archive[f"{index}/name"])
    labelled = truth != IGNORE_INDEX
    shown = [row for row in rows if f"{index}/{row.id}" in archive]
    wrong = {row.id: labelled & (archive[f"{index}/{row.id}"] != truth) for row in shown}
    tiles = [
        Tile("photo", "Image", "input", f"Image {name}"),
        Tile("truth", "Truth", "labels", f"True classes of {name}", mask=_class_mask(truth, colors)),
    ]
    for row in shown:
        class_map = archive[f"{index}/{row.id}"]
        share = float(wrong[row.id].sum() / labelled.sum()) if labelled.any() else None
        _, edge = boundary_errors(truth, class_map)
        along = f"{percent(edge)} % of the boundary band" if edge is not None else "no class change in the truth"
        caption = f"wrong: {percent(share)} % of the pixels, {along}"
        differences = {
            base.id: _difference(wrong[row.id], wrong[base.id], labelled)
            for base in shown
            if base is not row and labelled.any()
        }
        score = None if share is None else 1 - share
        alt = f"Classes of {name} by {row.label}: {caption}"
        mask, errors = _class_mask(class_map, colors), errors_address(wrong[row.id])
        tiles.append(Tile(row.id, row.label, caption, alt, score, mask, errors, differences=differences))
    return Picture(name, photo_address(image), image.shape[0], image.shape[1], tuple(tiles))


def _class_mask(class_map: np.ndarray, colors: np.ndarray) -> str:
    """Return the map in the classes' colours, ignored pixels transparent."""
    table = np.zeros((IGNORE_INDEX + 1, 3), np.uint8)
    table[: len(colors)] = colors
    return mask_address(class_map.astype(np.uint8), table, [255] * IGNORE_INDEX + [0])


def _difference(wrong: np.ndarray, base_wrong: np.ndarray, labelled: np.ndarray) -> str:
    won, lost = won_and_lost(wrong, base_wrong, labelled)
    return f"won {percent(won)} %, lost {percent(lost)} % of the pixels"
