"""Draws image, teacher, plain student and int8 engine of a run side by side: python docs/picture.py runs/camvid docs/networks.png

The image is the median one of the report by the score of the distilled student.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgekd.data.drawing import draw_boxes
from edgekd.report.collect import DATA
from edgekd.report.decision import decide
from edgekd.report.layers import Mark, Tile, median_picture
from edgekd.report.model import Report
from edgekd.report.object_pictures import read_object_pictures
from edgekd.report.pictures import read_pictures
from edgekd.report.stored import read_report

WIDTH, BAR, GAP = 340, 24, 6  # pixels: one tile, the text above it, the space between two
COLORS = 200  # of the PNG's palette
ALPHA = 0.7  # weight of a mask over the photo


def main() -> None:
    """Draw the picture of a run folder."""
    run, out = map(Path, sys.argv[1:])
    report = read_report(run)
    engine = next((one.row.id for one in decide(report, {}) if one.row and one.row.is_quantized), "")
    titles = {
        "photo": "Image",
        "teacher": "Teacher",
        "student": "Student without teacher",
        engine: f"Distilled, {engine}",
    }
    with np.load(run / DATA / "pictures.npz") as archive:
        tiles, photo = _median(report, dict(archive), list(titles))
    drawn = [_titled(_drawn(photo, tile), titles[tile.key]) for tile in tiles]
    strip = np.concatenate(
        [part for tile in drawn for part in (tile, np.full((len(tile), GAP, 3), 255, np.uint8))][:-1], 1
    )
    Image.fromarray(strip).quantize(COLORS, dither=Image.Dither.NONE).save(out, optimize=True)
    print(out)


def _median(report: Report, archive: dict[str, np.ndarray], keys: Sequence[str]) -> tuple[list[Tile], np.ndarray]:
    """Return the tiles of the median picture in the order of `keys`, and its image (H, W, 3) uint8."""
    read = read_pictures if report.task == "semantic" else read_object_pictures
    pictures = list(read(archive, report.rows, report.classes))
    picture = median_picture(pictures, "distilled")
    if picture is None:
        raise SystemExit("the run has no picture of row distilled; run the recipe again")
    by_key = {tile.key: tile for tile in picture.tiles}
    return [by_key[key] for key in keys if key in by_key], archive[f"{pictures.index(picture)}/image"]


def _drawn(photo: np.ndarray, tile: Tile) -> np.ndarray:
    """Return the photo (H, W, 3) uint8 with a tile's mask and boxes; false alarms are red."""
    picture = Image.fromarray(photo)
    if tile.mask:
        mask = Image.open(io.BytesIO(base64.b64decode(tile.mask.partition(",")[2]))).convert("RGBA")
        mask = mask.resize(picture.size, Image.Resampling.NEAREST)
        picture.paste(mask.convert("RGB"), mask=mask.getchannel("A").point(lambda alpha: round(ALPHA * alpha)))
    found = [mark for mark in tile.marks if mark.kind != "truth"]
    return draw_boxes(np.asarray(picture), _corners(found), [_color(mark) for mark in found])


def _corners(marks: Sequence[Mark]) -> np.ndarray:
    x, y, width, height = np.array([mark.box for mark in marks], np.float64).reshape(-1, 4).T
    return np.stack([x, y, x + width, y + height], axis=1)


def _color(mark: Mark) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex("d62728" if mark.kind == "wrong" else mark.color[1:])
    return red, green, blue


def _titled(image: np.ndarray, title: str) -> np.ndarray:
    """Return the image at `WIDTH` pixels with its title above it."""
    height = round(WIDTH * len(image) / image.shape[1])
    tile = Image.new("RGB", (WIDTH, height + BAR), "white")
    tile.paste(Image.fromarray(image).resize((WIDTH, height), Image.Resampling.LANCZOS), (0, BAR))
    ImageDraw.Draw(tile).text((2, 3), title, fill="black", font=ImageFont.load_default(15))
    return np.asarray(tile)


if __name__ == "__main__":
    main()
