"""Where an image lies on a network's input: everywhere (`stretch`), or between bars that keep its aspect (`letterbox`).

Points correspond by their position, not by their index: the image's corner (0, 0) is the content's corner, the image's
(width, height) its opposite one, and each axis has its own scale, so that rounding the content to whole pixels leaves
no error behind.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import numpy as np

from edgekd.board.specs import Preprocess
from edgekd.errors import ImageError

RESIZES = ("stretch", "letterbox")

Size = Tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """The part of the input that the image covers, in whole pixels of the input.

    image_size, input_size, size: (height, width) of the image, of the network's input, and of the part.
    top, left: the part's first row and column.
    """

    image_size: Size
    input_size: Size
    size: Size
    top: int = 0
    left: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether the image covers the whole input."""
        return self.size == self.input_size

    def rows_columns(self) -> Tuple[slice, slice]:
        """Return the part as an index into (height, width)."""
        return slice(self.top, self.top + self.size[0]), slice(self.left, self.left + self.size[1])

    def boxes_on_image(self, boxes: np.ndarray) -> np.ndarray:
        """Return boxes (N, 4) float32 x1, y1, x2, y2 on the input as boxes on the image, cut at the image's edges."""
        height, width = self.image_size
        cut: np.ndarray = np.clip(self.uncut_boxes_on_image(boxes), 0, np.array([width, height] * 2, np.float32))
        return cut

    def uncut_boxes_on_image(self, boxes: np.ndarray) -> np.ndarray:
        """Return boxes (N, 4) float32 x1, y1, x2, y2 on the input in the image's pixels; they may reach beyond the image."""
        height, width = self.image_size
        offset = np.array([self.left, self.top] * 2, np.float32)
        scale = np.array([width / self.size[1], height / self.size[0]] * 2, np.float32)
        return np.asarray((boxes - offset) * scale, np.float32)


def frame(image_size: Size, preprocess: Preprocess) -> Frame:
    """Return where an image of `image_size` (height, width) lies on the input.

    A letterboxed image is as large as fits, its shorter side rounded half up to whole pixels, at least one; it lies in
    the middle, and of an odd number of padding rows or columns the larger half comes last.

    Raises:
        ImageError: `preprocess.resize` is not one of `RESIZES`.
    """
    if preprocess.resize not in RESIZES:
        raise ImageError(
            f"preprocess.resize is {preprocess.resize!r}, expected one of {', '.join(RESIZES)}; "
            "was the file written by a newer edgekd?"
        )
    (height, width), (full_height, full_width) = image_size, preprocess.size
    input_size = (full_height, full_width)
    if preprocess.resize == "stretch":
        return Frame((height, width), input_size, input_size)
    if height * full_width <= width * full_height:  # integers: the same on every machine
        size = (max(1, (2 * height * full_width + width) // (2 * width)), full_width)
    else:
        size = (full_height, max(1, (2 * width * full_height + height) // (2 * height)))
    return Frame((height, width), input_size, size, (full_height - size[0]) // 2, (full_width - size[1]) // 2)
