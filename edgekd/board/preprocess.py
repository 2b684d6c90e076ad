"""The one preprocessing: a uint8 RGB image becomes the input that a `Preprocess` describes.

Pixels are rounded to uint8 after the resize, also for float32 inputs, so that a network that normalises by itself and
one that does not see the same picture.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import numpy as np

from edgekd.board.frame import frame
from edgekd.board.resize import resize_image
from edgekd.board.specs import Preprocess
from edgekd.errors import ImageError


def prepare(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Return the network input of an image (H, W, 3) uint8 RGB: batch 1, C-contiguous, NCHW or NHWC, float32 or uint8.

    The result may share the image's memory when nothing has to change.

    Raises:
        ImageError: not an array (H, W, 3) uint8 with at least one pixel, or an unknown `preprocess.resize`.
    """
    check_image(image)
    pixels = _framed(image, preprocess)
    if preprocess.color_order == "BGR":
        pixels = pixels[:, :, ::-1]
    is_planar = preprocess.layout == "NCHW"
    if preprocess.dtype == "uint8":
        return np.ascontiguousarray(pixels.transpose(2, 0, 1) if is_planar else pixels)[None]
    return _normalise(pixels, preprocess, is_planar)[None]


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


def _framed(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Return the image resized into its frame (H, W, 3) uint8, black around it."""
    place = frame((image.shape[0], image.shape[1]), preprocess)
    pixels = resize_image(image, place.size)
    if place.is_whole:
        return pixels
    padded = np.zeros((*place.input_size, 3), np.uint8)
    padded[place.rows_columns()] = pixels
    return padded


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


def _normalise(pixels: np.ndarray, preprocess: Preprocess, is_planar: bool) -> np.ndarray:
    """Return `(pixel / 255 - mean) / std` as float32, in one multiplication and one addition per value.

    Mean and std follow the channels of `color_order`.
    """
    std = np.asarray(preprocess.std, np.float64)
    scale = (1 / (255 * std)).astype(np.float32)
    offset = (-np.asarray(preprocess.mean, np.float64) / std).astype(np.float32)
    height, width, channels = pixels.shape
    if not is_planar:
        values = np.multiply(pixels.reshape(height, -1), np.tile(scale, width), dtype=np.float32)
        values += np.tile(offset, width)
        return values.reshape(height, width, channels)
    planes = np.empty((channels, height, width), np.float32)
    for channel, plane in enumerate(planes):
        plane[...] = pixels[:, :, channel]
        plane *= scale[channel]
        plane += offset[channel]
    return planes
