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
from edgekd.errors import UserError

_FIRST, _MORE, _SIGN = 48, 0x20, 0x10  # of a character


@dataclass(frozen=True)
class Segmentation:
    """One `segmentation` of COCO's JSON, polygons or run lengths, not yet drawn; see `annotated.Mask`."""

    shape: Any

    def draw(self, height: int, width: int) -> np.ndarray:
        """Return the mask (H, W) bool.

        Raises:
            ValueError: not a mask, or not one of that size.
            UserError: faster-coco-eval, which draws polygons, is not installed.
        """
        if isinstance(self.shape, dict):
            self.check(height, width)
            return decode_runs(self.shape["counts"], (height, width))
        return draw_polygons(self.shape, height, width)

    def check(self, height: int, width: int) -> None:
        """Check that polygons lie in an image of this size, and that run lengths are for it; ValueError."""
        if not isinstance(self.shape, dict):
            return check_polygons(self.shape, height, width)
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
    """Return the mask (H, W) bool of `size` (height, width).

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
    ends = np.cumsum([0, *runs])
    objects = np.flatnonzero(np.diff(ends)[1::2])  # runs of pixels, and not of zeros
    mask = np.zeros((height, width), bool)
    if objects.size:  # only the columns that they reach are filled: photos are large and objects small
        first, last = 2 * objects[0] + 1, 2 * objects[-1] + 1
        left, right = ends[first] // height, -(-ends[last + 1] // height)
        inner = np.diff(ends)[first : last + 1]
        lengths = [ends[first] - left * height, *inner, right * height - ends[last + 1]]
        values = np.arange(len(lengths)) % 2 == 1
        mask[:, left:right] = np.repeat(values, lengths).reshape(right - left, height).T
    return mask


def encode_runs(mask: np.ndarray) -> dict[str, list[int]]:
    """Return a mask (H, W) bool as COCO's uncompressed run lengths; `decode_runs` reads its `counts`."""
    flat = np.concatenate([[False], mask.T.reshape(-1)])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return {"size": list(mask.shape), "counts": np.diff(changes, prepend=0, append=mask.size).tolist()}


def check_polygons(shape: Any, height: int, width: int) -> None:
    """Check that these are polygons, each a list x1, y1, x2, y2, ... in pixels.

    Raises:
        ValueError: anything else, or a point more than 1 % and a pixel outside the image.
    """
    if not isinstance(shape, list):
        raise ValueError(f"expected polygons or run lengths, got {type(shape).__name__}")
    for polygon in shape:
        if not isinstance(polygon, list) or len(polygon) % 2:
            raise ValueError("expected polygons, each a list of x and y in turn")
        limits = (1.01 * width + 1, 1.01 * height + 1)
        for i, value in enumerate(polygon):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)  # NaN is not within limits
            if not is_number or not -0.01 * limits[i % 2] - 1 <= value <= limits[i % 2]:
                raise ValueError(f"a polygon's point lies outside of the image: {short(value)}")


def draw_polygons(shape: Any, height: int, width: int) -> np.ndarray:
    """Return the union (H, W) bool of polygons, each a list x1, y1, x2, y2, ... in pixels.

    Labelling tools leave polygons of one or two points behind: they cover nothing.

    Raises:
        ValueError: as `check_polygons`.
        UserError: faster-coco-eval, which draws them as COCO does, is not installed.
    """
    check_polygons(shape, height, width)
    try:
        from faster_coco_eval.core import mask
    except ImportError as exc:
        raise UserError(
            f"polygons are drawn by faster-coco-eval, which is not installed; {install('evaluate')}"
        ) from exc
    solid = [list(map(float, polygon)) for polygon in shape if len(polygon) >= 6]
    if not solid:
        return np.zeros((height, width), bool)
    return decode_runs(mask.merge(mask.frPyObjects(solid, height, width))["counts"], (height, width))


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
