"""COCO's masks, run lengths and polygons, read without trusting the file.

Runs count pixels of a column-major (H, W) mask, beginning with zeros. The compressed form writes each run in base 32, six
bits per character from `0` on, the third and later runs as the difference to the run two before.
Source: pycocotools 2.0, common/maskApi.c (`rleFrString`), whose C code does not check what the runs add up to.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

import numpy as np

from edgekd.board.installation import install
from edgekd.board.runs import encode_part, filled_columns
from edgekd.data.annotation import CLIP_PX, CLIP_SHARE, OutsideError
from edgekd.errors import UserError

MAX_COORDINATE = 1e9  # pixels: beyond any real point
_FIRST, _MORE, _SIGN = 48, 0x20, 0x10  # of a character


@dataclass(frozen=True)
class Segmentation:
    """One `segmentation` of COCO's JSON, polygons or run lengths, not yet drawn; see `annotation.Mask`.

    is_cut: polygons are cut at the image's edge, however far they pass it.
    """

    shape: Any
    is_cut: bool = False

    def runs(self, height: int, width: int) -> np.ndarray:
        """Return the mask's run lengths, (N,) int64.

        Raises:
            ValueError: not a mask, or not one of that size.
            UserError: faster-coco-eval, which draws polygons, is not installed.
        """
        if isinstance(self.shape, dict):
            self.check(height, width)
            return checked_runs(self.shape["counts"], (height, width))
        return polygon_runs(self.shape, height, width, self.is_cut)

    def check(self, height: int, width: int) -> None:
        """Check that polygons lie in an image of this size, and that run lengths are for it; ValueError."""
        if not isinstance(self.shape, dict):
            return check_polygons(self.shape, height, width, self.is_cut)
        size, counts = self.shape.get("size"), self.shape.get("counts")
        if size != [height, width]:
            raise ValueError(f"expected size [{height}, {width}], got {short(size)}")
        if not isinstance(counts, str | list):
            raise ValueError(f"expected counts, got {type(counts).__name__}")

    def is_blank(self, height: int, width: int) -> bool:
        """Whether this is nothing, or run lengths without a pixel as they are written: one run over all of the image."""
        match self.shape:
            case {"size": [*size], "counts": [int(run)]}:
                return size == [height, width] and run == height * width
            case {"size": [*size], "counts": str(text)} if len(text) < 10:  # the one run is shorter
                try:
                    return size == [height, width] and _decompressed(text) == [height * width]
                except ValueError:
                    return False
        return not self.shape

    def content(self) -> str:
        """Return the polygons or run lengths as text; ValueError when they are nested too deeply."""
        try:
            return json.dumps(self.shape, sort_keys=True)
        except RecursionError as exc:
            raise ValueError("expected polygons or run lengths, got lists in lists without end") from exc


def decode_runs(counts: str | bytes | Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) bool of `size` (height, width); ValueError as `checked_runs`."""
    return filled_columns(checked_runs(counts, size), size[0], (0, size[1]))


def checked_runs(counts: str | bytes | Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Return run lengths, compressed or not, as (N,) int64, of a mask of `size` (height, width).

    Raises:
        ValueError: not runs, or runs that do not add up to the size.
    """
    runs = _decompressed(counts) if isinstance(counts, str | bytes) else list(counts)
    if any(isinstance(run, bool) or not isinstance(run, int) or run < 0 for run in runs):
        raise ValueError("expected runs that are whole numbers, 0 or more")
    height, width = size
    if sum(runs) != height * width:
        raise ValueError(
            f"expected runs that add up to {height} x {width} = {height * width} pixels, got {short(sum(runs))}"
        )
    return np.array(runs, np.int64)


def check_polygons(shape: Any, height: int, width: int, is_cut: bool = False) -> None:
    """Check that these are polygons, each a list x1, y1, x2, y2, ... in pixels.

    Raises:
        OutsideError: a point more than 1 % and a pixel outside the image, unless polygons are cut there.
        ValueError: anything else.
    """
    if not isinstance(shape, list):
        raise ValueError(f"expected polygons or run lengths, got {type(shape).__name__}")
    for polygon in shape:
        if not isinstance(polygon, list) or len(polygon) % 2:
            raise ValueError("expected polygons, each a list of x and y in turn")
        for i, value in enumerate(polygon):
            side = (width, height)[i % 2]
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not abs(value) < MAX_COORDINATE:  # NaN is not below
                raise ValueError(f"expected points of finite numbers, got {short(value)}")
            limit = CLIP_SHARE * side + CLIP_PX
            if not is_cut and not -limit <= value <= side + limit:
                raise OutsideError(
                    f"a polygon's point lies outside of the {height}x{width} image (height x width): {'xy'[i % 2]} = "
                    f"{value:.1f}, expected 0 to {side}, up to {limit:.1f} px beyond are cut"
                )


def draw_polygons(shape: Any, height: int, width: int, is_cut: bool = False) -> np.ndarray:
    """Return the union (H, W) bool of polygons; arguments and errors as `polygon_runs`."""
    return filled_columns(polygon_runs(shape, height, width, is_cut), height, (0, width))


def polygon_runs(shape: Any, height: int, width: int, is_cut: bool = False) -> np.ndarray:
    """Return the run lengths, (N,) int64, of the union of polygons, each a list x1, y1, x2, y2, ... in pixels.

    Labelling tools leave polygons of one or two points behind: they cover nothing.

    Raises:
        ValueError: as `check_polygons`.
        UserError: faster-coco-eval, which draws them as COCO does, is not installed.
    """
    check_polygons(shape, height, width, is_cut)
    try:
        from faster_coco_eval.core import mask
    except ImportError as exc:
        raise UserError(
            f"polygons are drawn by faster-coco-eval, which is not installed; {install('evaluate')}"
        ) from exc
    solid = [list(map(float, polygon)) for polygon in shape if len(polygon) >= 6]
    border = int(is_cut and any(_is_beyond(polygon, height, width) for polygon in solid))
    if border:  # drawn on a larger image: COCO's drawing rounds negative coordinates otherwise than others
        solid = [[value + border for value in _cut(polygon, height, width)] for polygon in solid]
        solid = [polygon for polygon in solid if len(polygon) >= 6]
    if not solid:
        return np.array([height * width], np.int64)
    size = (height + 2 * border, width + 2 * border)
    runs = checked_runs(mask.merge(mask.frPyObjects(solid, *size))["counts"], size)
    if not border:
        return runs
    drawn = filled_columns(runs, size[0], (0, size[1]))[1 : height + 1, 1 : width + 1]
    return np.array(encode_part(drawn, (0, 0), (height, width)), np.int64)


def _is_beyond(polygon: list[float], height: int, width: int) -> bool:
    return min(polygon) < 0 or max(polygon[::2]) > width or max(polygon[1::2]) > height


def _cut(polygon: list[float], height: int, width: int) -> list[float]:
    """Return the part of a polygon within a pixel of the image: COCO's drawing takes memory by the length of an outline.

    Source: Sutherland and Hodgman, "Reentrant polygon clipping", 1974. Parts are joined along the edge, which covers no area.
    """
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    for axis, edge, sign in ((0, -1.0, 1), (0, width + 1.0, -1), (1, -1.0, 1), (1, height + 1.0, -1)):
        kept: list[tuple[float, float]] = []
        for before, point in zip(points[-1:] + points[:-1], points, strict=True):
            is_inside, was_inside = (sign * (one[axis] - edge) >= 0 for one in (point, before))
            if is_inside != was_inside:
                share = (edge - before[axis]) / (point[axis] - before[axis])
                other = before[1 - axis] + share * (point[1 - axis] - before[1 - axis])
                kept.append((edge, other) if axis == 0 else (other, edge))
            if is_inside:
                kept.append(point)
        points = kept
    return [value for point in points for value in point]


def _decompressed(text: str | bytes) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for code in text.encode("ascii", "replace") if isinstance(text, str) else text:
        digit = code - _FIRST
        if not 0 <= digit < 64 or shift > 60:
            raise ValueError(f"not a run-length string: character {chr(code)!r}")
        value |= (digit & 0x1F) << shift
        shift += 5
        if digit & _MORE:
            continue
        if digit & _SIGN:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("a run-length string that ends in the middle of a run")
    return runs
