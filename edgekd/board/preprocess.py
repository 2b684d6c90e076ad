"""The one preprocessing: a uint8 RGB image becomes the input that a `Preprocess` describes.

Pixels are rounded to uint8 after the resize, also for float32 inputs, so that a network that normalises by itself and
one that does not see the same picture. The bytes are the same on every machine, see `ImageResize`.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from typing import Callable, Tuple

import numpy as np

from edgekd.board.frame import Frame, frame
from edgekd.board.image_resize import ImageResize
from edgekd.board.specs import Preprocess
from edgekd.board.team import run_together, shares
from edgekd.errors import ImageError

Store = Callable[[np.ndarray, np.ndarray], None]
# Pixels of image or input from which a further thread is worth waking.
_PIXELS_PER_THREAD = 40_000


def prepare(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Return the network input of an image (H, W, 3) uint8 RGB: batch 1, C-contiguous, NCHW or NHWC, float32 or uint8.

    Raises:
        ImageError: not an array (H, W, 3) uint8 with at least one pixel, or an unknown `preprocess.resize`.
    """
    check_image(image)
    return Preparation((image.shape[0], image.shape[1]), preprocess)(image)


class Preparation:
    """`prepare` for images of one size (height, width), without allocating memory per image.

    The result is valid until the next call.

    Raises:
        ImageError: an unknown `preprocess.resize`.
    """

    def __init__(self, image_size: Tuple[int, int], preprocess: Preprocess, threads: int = 1) -> None:
        place = frame(image_size, preprocess)
        height, width = place.input_size
        is_planar, is_bgr = preprocess.layout == "NCHW", preprocess.color_order == "BGR"
        pixels = max(image_size[0] * image_size[1], place.size[0] * place.size[1])
        count = max(1, min(threads, place.size[0], pixels // _PIXELS_PER_THREAD))
        self._input = np.empty((1, 3, height, width) if is_planar else (1, height, width, 3), preprocess.dtype)
        planes = self._input[0] if is_planar else self._input[0].transpose(2, 0, 1)  # (3, H, W)
        store = _store(preprocess)
        store(np.zeros(planes.shape, np.uint8), planes)  # the bars are black
        rows, columns = place.rows_columns()
        planes = planes[:, rows, columns]
        self._parts = [
            _Part(place, (start, stop), planes[:, start:stop], store, is_bgr)
            for start, stop in shares(place.size[0], count)
        ]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the network input of an image (H, W, 3) uint8 RGB of this size, which is not checked."""
        image = np.ascontiguousarray(image)
        for part in self._parts:
            part.image = image
        run_together(self._parts)
        return self._input


class _Part:
    """Some rows of the input: reads `image`, writes `planes` (3, rows, W)."""

    image: np.ndarray

    def __init__(self, place: Frame, rows: Tuple[int, int], planes: np.ndarray, store: Store, is_bgr: bool) -> None:
        self._rows, self._planes, self._store = slice(*rows), planes, store
        self._order = -1 if is_bgr else 1
        is_same = place.size == place.image_size
        self._resize = None if is_same else ImageResize(place.image_size, place.size, rows)

    def __call__(self) -> None:
        pixels = self._resize(self.image) if self._resize else self.image[self._rows].transpose(2, 0, 1)
        self._store(pixels[:: self._order], self._planes)


def _store(preprocess: Preprocess) -> Store:
    """Return the function that writes pixels (3, H, W), whole numbers, into an input's planes.

    For float32 that is `(pixel / 255 - mean) / std`, in one multiplication and one addition per value.
    """
    if preprocess.dtype == "uint8":
        return lambda pixels, planes: np.copyto(planes, pixels, casting="unsafe")
    std = np.asarray(preprocess.std, np.float64)
    scale = (1 / (255 * std)).astype(np.float32)[:, None, None]
    offset = (-np.asarray(preprocess.mean, np.float64) / std).astype(np.float32)[:, None, None]

    def normalised(pixels: np.ndarray, planes: np.ndarray) -> None:
        np.copyto(planes, pixels)
        np.multiply(planes, scale, out=planes)
        np.add(planes, offset, out=planes)

    return normalised


def pixels_of(array: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Return the uint8 pixels (B, H, W, 3) of network inputs that `prepare` made; its inverse after the resize.

    The channels stay in the order of `color_order`.

    Raises:
        ImageError: not made by `prepare` under this contract: a value is not a pixel.
    """
    images = array.transpose(0, 2, 3, 1) if preprocess.layout == "NCHW" else array
    if preprocess.dtype == "uint8":
        return np.ascontiguousarray(images)
    values = (images * np.asarray(preprocess.std) + np.asarray(preprocess.mean)) * 255
    pixels = np.rint(values)
    worst = float(np.abs(values - pixels).max())
    if worst > 0.05 or pixels.min() < 0 or pixels.max() > 255:  # float32 is off by 1e-4 at most
        raise ImageError(
            f"calibration: expected images prepared as the contract says, got values that are {worst:.2g} from a pixel "
            f"and range from {values.min():.4g} to {values.max():.4g} instead of 0 to 255"
        )
    return np.ascontiguousarray(pixels.astype(np.uint8))


def check_image(image: np.ndarray) -> None:
    """Refuse everything but an image (H, W, 3) uint8.

    Raises:
        ImageError: another type, shape or dtype.
    """
    expected = "expected an array (height, width, 3) uint8 in RGB order"
    if not isinstance(image, np.ndarray):
        raise ImageError(f"image: {expected}, got {type(image).__name__}; convert it with numpy.asarray")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ImageError(f"image: {expected}, got shape {image.shape}; {_shape_advice(image)}")
    if image.dtype != np.uint8:
        raise ImageError(f"image: {expected}, got dtype {image.dtype}; scale it to 0..255 and convert it to uint8")


def _shape_advice(image: np.ndarray) -> str:
    if image.size == 0:
        return "the image has no pixels"
    if image.ndim == 2:
        return "repeat the grey channel three times"
    if image.ndim == 4:
        return "give one image at a time, without a batch axis"
    if image.ndim == 3 and image.shape[2] == 4:
        return "drop the alpha channel"
    if image.ndim == 3 and image.shape[0] == 3:
        return "put the channel axis last"
    return "convert it to three channels"
