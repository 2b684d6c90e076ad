"""The page's pictures: all of them, and the median picture of the first screen with the two networks it compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.report.layers import Picture, Tile, median_picture
from edgekd.report.model import Report, Row
from edgekd.report.object_pictures import read_object_pictures
from edgekd.report.pictures import read_pictures


@dataclass(frozen=True)
class PicturesPart:
    """Pictures of the report page.

    rows: the networks that the pictures show.
    shown: all pictures.
    median: index in `shown` of the picture on the first screen; None without pictures.
    ranked_by: label of the row whose median score selects that picture.
    strip: its views in order: image, truth, plain, distilled, engine.
    left, right: the two networks on the slider.
    base: key of the reference network.
    """

    rows: list[Row]
    shown: list[Picture]
    median: int | None = None
    ranked_by: str = ""
    strip: tuple[Tile, ...] = ()
    left: str = ""
    right: str = ""
    base: str = ""


def pictures_part(report: Report, archive: Mapping[str, np.ndarray], rows: Sequence[Row]) -> PicturesPart:
    """Return the pictures of a report with the networks `rows` in them.

    Args:
        report: the report.
        archive: arrays of `pictures.npz`.
        rows: those to show; the engine to deploy is the first engine among them.
    """
    read = read_pictures if report.task == "semantic" else read_object_pictures
    shown = list(read(archive, rows, report.classes)) if report.classes else []
    pictured = [row for row in rows if shown and shown[0].score(row.id) is not None]
    if not pictured:
        return PicturesPart([], shown)
    by_stage = {row.stage: row.id for row in reversed(pictured)}
    student, best = by_stage.get("student"), by_stage.get("engine") or by_stage.get("distilled")
    right = best or pictured[-1].id
    left = student or pictured[0].id
    picture = median_picture(shown, right)
    if picture is None:
        return PicturesPart(pictured, shown)
    order = ["photo", "truth", *(by_stage[name] for name in ("student", "distilled", "engine") if name in by_stage)]
    tiles = {tile.key: tile for tile in picture.tiles}
    ranked_by = next(row.label for row in pictured if row.id == right)
    return PicturesPart(
        rows=pictured,
        shown=shown,
        median=shown.index(picture),
        ranked_by=ranked_by,
        strip=tuple(tiles[key] for key in order if key in tiles),
        left=left,
        right=right,
        base=left,
    )
