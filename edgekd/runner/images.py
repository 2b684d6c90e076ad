"""Decodes images with Pillow, OpenCV or ffmpeg, whichever the board has. PPM and .npy need none of them.

All follow the rules of `board/image_files.py`: upright, 8 bits, opaque, gray or RGB. The pixels of a JPEG may differ by a
level between decoders.

Portable: standard library + numpy at import, Python 3.8.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import Callable, Dict, Optional

import numpy as np

from edgekd.board.image_files import rgb_of
from edgekd.errors import DataError, FrameError, one_line, shortened
from edgekd.runner.headers import Header, read_header

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif", ".npy"}
)  # of images in folders
MOST_PIXELS = 50_000_000
_INSTALL = "install Pillow (`apt install python3-pil` or `pip install pillow`), OpenCV or ffmpeg"
_SECONDS = 60.0  # for one image


def read_image(path: Path, most_pixels: int = MOST_PIXELS) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB, upright; errors as `decode_image`."""
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise FrameError(f"{path}: {exc.strerror or exc}") from exc
    return decode_image(data, str(path), most_pixels)


def decode_image(data: bytes, name: str, most_pixels: int = MOST_PIXELS) -> np.ndarray:
    """Decode the content of an image file as (H, W, 3) uint8 RGB, upright.

    Args:
        data: a JPEG, PNG, PPM, PGM or .npy file; with Pillow also other formats.
        name: name of the file, for messages.
        most_pixels: that the header may claim.

    Raises:
        FrameError: not an image, damaged, too large, of a kind that the rules refuse, or nothing here reads it.
    """
    header = read_header(data, name)
    if header is None:
        if not _has_pillow():
            raise FrameError(f"{name}: not a JPEG, PNG, PPM or .npy image; for other formats, install Pillow")
        return _by_pillow(data, name, None, most_pixels)
    if header.height * header.width > most_pixels:
        raise FrameError(
            f"{name}: claims {header.width}x{header.height} pixels, expected at most {most_pixels}; see --max-pixels"
        )
    if header.kind in ("ppm", "npy"):
        return _plain(data, name, header)
    reader = next((READERS[one] for one, is_here in AVAILABLE.items() if is_here()), None)
    if reader is None:
        raise FrameError(f"{name}: nothing on this machine decodes {header.kind.upper()}; {_INSTALL}")
    try:
        return reader(data, name, header, most_pixels)
    except MemoryError as exc:
        raise FrameError(f"{name}: no memory for {header.width}x{header.height} pixels; see --max-pixels") from exc


def _plain(data: bytes, name: str, header: Header) -> np.ndarray:
    shape = (header.height, header.width, header.channels)
    count, found = int(np.prod(shape, dtype=np.int64)), len(data) - header.offset
    if found < count or (header.kind == "npy" and found > count):
        raise FrameError(f"{name}: expected {count} bytes of pixels, got {found}; the file is damaged or truncated")
    pixels = np.frombuffer(data, np.uint8, count, header.offset).reshape(shape)
    return np.repeat(pixels, 3, axis=2) if header.channels == 1 else pixels.copy()


def _by_pillow(data: bytes, name: str, header: Optional[Header], most_pixels: int) -> np.ndarray:
    try:
        return rgb_of(data, name, most_pixels)
    except DataError as exc:
        raise FrameError(str(exc)) from exc


def _by_opencv(data: bytes, name: str, header: Header, most_pixels: int) -> np.ndarray:
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(most_pixels))
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    import cv2

    _check(data, name, header)
    flags = cv2.IMREAD_UNCHANGED if header.kind == "png" else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as exc:
        raise FrameError(f"{name}: damaged or truncated ({one_line(exc)})") from exc
    if pixels is None:
        raise FrameError(f"{name}: damaged or truncated; replace the file or remove it")
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    _check_opaque(pixels, name)
    return upright(pixels[..., 2::-1], header.orientation)


def _by_ffmpeg(data: bytes, name: str, header: Header, most_pixels: int) -> np.ndarray:
    _check(data, name, header)
    command = ["ffmpeg", "-nostdin", "-v", "error", "-xerror", "-err_detect", "explode", "-protocol_whitelist", "pipe"]
    kind = {"jpeg": "jpeg_pipe", "png": "png_pipe"}[header.kind]
    command += [
        "-noautorotate",
        "-f",
        kind,
        "-i",
        "pipe:0",
        "-frames:v",
        "1",
        "-pix_fmt",
        "rgba",
        "-f",
        "rawvideo",
        "-",
    ]
    try:
        done = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise FrameError(f"{name}: ffmpeg: {one_line(exc)}") from exc
    if done.returncode or len(done.stdout) != header.height * header.width * 4:
        why = shortened(done.stderr.decode("utf-8", "replace"), 300)
        raise FrameError(f"{name}: damaged or truncated (ffmpeg: {why})")
    pixels = np.frombuffer(done.stdout, np.uint8).reshape(header.height, header.width, 4)
    _check_opaque(pixels, name)
    return upright(pixels[..., :3], header.orientation)


def _check(data: bytes, name: str, header: Header) -> None:
    """Refuse files that the Pillow rules refuse, which OpenCV and ffmpeg would decode silently."""
    if header.bits > 8:
        raise FrameError(f"{name}: {header.bits} bits per channel, expected 8; choose the range to keep and convert it")
    if header.kind == "jpeg" and header.channels not in (1, 3):
        raise FrameError(f"{name}: a JPEG of {header.channels} channels, expected gray or RGB; convert it to RGB")
    if header.kind == "jpeg" and data.rfind(b"\xff\xd9") < header.offset:
        raise FrameError(f"{name}: damaged or truncated: its end is missing")


def _check_opaque(pixels: np.ndarray, name: str) -> None:
    """Refuse pixels (H, W, C) whose alpha channel, where there is one, is not opaque everywhere."""
    if pixels.shape[2] == 4 and pixels[..., 3].min() < 255:
        raise FrameError(f"{name}: has transparent pixels, expected an opaque image; flatten it onto a background")


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return stored pixels (H, W, C) turned upright by their EXIF orientation, C-contiguous."""
    if orientation >= 5:  # rows and columns change places
        pixels = pixels.transpose(1, 0, 2)
    flips_rows = orientation in (3, 4, 7, 8)
    flips_columns = orientation in (2, 3, 6, 7)
    turned = pixels[:: -1 if flips_rows else 1, :: -1 if flips_columns else 1]
    return np.ascontiguousarray(turned)


def _has_pillow() -> bool:
    return importlib.util.find_spec("PIL") is not None


AVAILABLE: Dict[str, Callable[[], bool]] = {  # in the order of preference
    "Pillow": _has_pillow,
    "OpenCV": lambda: importlib.util.find_spec("cv2") is not None,
    "ffmpeg": lambda: shutil.which("ffmpeg") is not None,
}
READERS: Dict[str, Callable[[bytes, str, Header, int], np.ndarray]] = {
    "Pillow": _by_pillow,
    "OpenCV": _by_opencv,
    "ffmpeg": _by_ffmpeg,
}
