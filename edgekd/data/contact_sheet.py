"""One picture of a split: images beside their masks, with the class legend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgekd.core.workspace import disk_errors
from edgekd.data.base import DenseDataset, Sample
from edgekd.data.colors import overlay, palette
from edgekd.data.drawing import Color, draw_boxes, draw_masks
from edgekd.data.facts import labels_objects
from edgekd.errors import DataError, WorkspaceError

TILE_WIDTH = 300  # pixels of one image; a sample has two
MAX_HEIGHT = 4 * TILE_WIDTH  # of one image, for tall strips
COLUMNS = 3
GAP = 12
TEXT = 15
_PAPER, _INK, _FAINT = (250, 250, 250), (30, 30, 30), (120, 120, 120)


def write_contact_sheets(
    datasets: Mapping[str, DenseDataset], folder: Path
) -> tuple[list[Path], WorkspaceError | None]:
    """Write `contact_sheet_<split>.png` of some splits and return the files, and the error of a folder that cannot be written."""
    written: list[Path] = []
    for split, dataset in datasets.items():
        path = folder / f"contact_sheet_{split.replace('/', '_')}.png"
        try:
            write_contact_sheet(dataset, path)
        except WorkspaceError as exc:
            what = str(exc).partition("; ")[0]
            return written, WorkspaceError(f"contact sheet not written: {what}; name another folder by --sheet")
        written.append(path)
    return written, None


def write_contact_sheet(dataset: DenseDataset, path: Path | str, count: int = 12, seed: int = 0) -> tuple[str, ...]:
    """Write a PNG with up to `count` samples (image, mask over image) and return the names of those shown.

    Samples are drawn with `seed`. Files that cannot be read are skipped; `check_data` lists them.

    Raises:
        DataError: no sample of the split can be read.
        WorkspaceError: the disk is full or not writable. Missing folders are created.
    """
    samples = _draw_samples(dataset, count, seed)
    colors = palette(len(dataset.classes))
    tiles = [_tile(sample, colors) for sample in samples]
    columns = min(COLUMNS, len(tiles))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    width = GAP + columns * (tiles[0].width + GAP)
    legend = _legend(dataset.classes, colors, width - 2 * GAP)
    row_heights = [max(tile.height for tile in row) for row in rows]
    sheet = Image.new("RGB", (width, GAP + sum(h + GAP for h in row_heights) + legend.height + GAP), _PAPER)
    top = GAP
    for row, height in zip(rows, row_heights, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (GAP + column * (tile.width + GAP), top))
        top += height + GAP
    sheet.paste(legend, (GAP, top))
    path = Path(path)
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, format="PNG")
    return tuple(sample.name for sample in samples)


def _draw_samples(dataset: DenseDataset, count: int, seed: int) -> list[Sample]:
    samples: list[Sample] = []
    for index in np.random.default_rng(seed).permutation(len(dataset)):
        if len(samples) == count:
            break
        try:
            samples.append(dataset.load(int(index)))
        except DataError:
            continue  # skipped as documented
    if not samples:
        raise DataError("no image of the split can be read, so there is no contact sheet; run `edgekd data check`")
    return samples


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return matplotlib's font, which has European letters; without the extra `report`, Pillow's, which has ASCII."""
    try:
        from matplotlib import get_data_path
    except ImportError:
        return ImageFont.load_default(size)
    return ImageFont.truetype(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _tile(sample: Sample, colors: np.ndarray) -> Image.Image:
    height, width = sample.mask.shape
    size = (TILE_WIDTH, min(MAX_HEIGHT, max(1, round(TILE_WIDTH * height / width))))
    image = np.array(Image.fromarray(sample.image).resize(size, Image.Resampling.BILINEAR))
    tile = Image.new("RGB", (2 * TILE_WIDTH, size[1] + TEXT + 6), _PAPER)
    tile.paste(Image.fromarray(image), (0, 0))
    tile.paste(Image.fromarray(_labelled(sample, image, colors)), (TILE_WIDTH, 0))
    caption = f"{sample.name}  ({height} x {width})"
    ImageDraw.Draw(tile).text((0, size[1] + 3), caption, fill=_FAINT, font=_font(TEXT - 2))
    return tile


def _labelled(sample: Sample, image: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Return the labels over `image`, the sample's image at another size."""
    size = (image.shape[1], image.shape[0])
    if not labels_objects(sample):
        mask = np.array(Image.fromarray(sample.mask).resize(size, Image.Resampling.NEAREST))
        return overlay(image, mask, colors, 0.6)
    assert sample.instances is not None
    objects = sample.instances
    shown: list[Color] = [(int(r), int(g), int(b)) for r, g, b in colors[objects.labels]]
    drawn = sample.image if objects.masks is None else draw_masks(sample.image, objects.masks, shown)
    drawn = np.array(Image.fromarray(drawn).resize(size, Image.Resampling.BILINEAR))
    scale = np.array([size[0] / sample.image.shape[1], size[1] / sample.image.shape[0]] * 2, np.float32)
    return draw_boxes(drawn, objects.boxes_xyxy * scale, shown, width=1)


def _legend(classes: tuple[str, ...], colors: np.ndarray, width: int) -> Image.Image:
    """Draw swatches with class names in as many columns as fit; ignored pixels have no colour."""
    font = _font(TEXT)
    entries = [f"{index} {name}" for index, name in enumerate(classes)]
    cell = int(max(font.getlength(entry) for entry in [*entries, "no colour: ignored"])) + TEXT + 24
    columns = max(1, width // cell)
    rows = -(-(len(entries) + 1) // columns)
    legend = Image.new("RGB", (width, rows * (TEXT + 8)), _PAPER)
    draw = ImageDraw.Draw(legend)
    for i, entry in enumerate([*entries, "no colour: ignored"]):
        left, top = (i % columns) * cell, (i // columns) * (TEXT + 8)
        box = (left, top + 2, left + TEXT, top + 2 + TEXT)
        if i < len(colors):
            draw.rectangle(box, fill=tuple(int(channel) for channel in colors[i]))
        else:
            draw.rectangle(box, outline=_FAINT)
        draw.text((left + TEXT + 6, top), entry, fill=_INK, font=font)
    return legend
