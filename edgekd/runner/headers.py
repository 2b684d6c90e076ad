"""Headers of JPEG, PNG, PPM and .npy images: size, depth and orientation, before a pixel is decoded.

A file of a kilobyte can claim a gigapixel. Who decodes files of strangers reads its header first.
Sources: ITU-T T.81 (JPEG), annex B; PNG specification (third edition), section 11; CIPA DC-008 (Exif 2.3), section 4.6.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Optional

from edgekd.board.image_files import ORIENTATION
from edgekd.errors import FrameError

_SPACE = rb"(?:\s|#[^\n]*\n)+"
_PPM = re.compile(rb"P([56])%b(\d{1,9})%b(\d{1,9})%b(\d{1,9})\s" % (_SPACE, _SPACE, _SPACE))
_NPY = re.compile(rb"\{'descr': '\|u1', 'fortran_order': False, 'shape': \((\d{1,9}), (\d{1,9}), 3\),? \} *\n?")
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


@dataclass(frozen=True)
class Header:
    """Facts of an image file.

    kind: `jpeg`, `png`, `ppm` (also PGM) or `npy`.
    height, width: as stored.
    channels: 1 to 4; of a PNG, 2 and 4 have an alpha channel.
    bits: per channel.
    orientation: EXIF's, 1 (upright) to 8.
    offset: offset of the first pixel of PPM and .npy; of a JPEG, where its thumbnail is over.
    """

    kind: str
    height: int
    width: int
    channels: int
    bits: int = 8
    orientation: int = 1
    offset: int = 0


def read_header(data: bytes, name: str) -> Optional[Header]:
    """Return the header of a JPEG, PNG, PPM or .npy image; None for another format.

    Args:
        data: the file.
        name: name of the file, for messages.

    Raises:
        FrameError: the header is damaged, or it is an array that is no image.
    """
    readers = (
        (b"\xff\xd8\xff", _jpeg),
        (b"\x89PNG\r\n\x1a\n", _png),
        (b"\x93NUMPY", _npy),
        (b"P6", _ppm),
        (b"P5", _ppm),
    )
    for magic, reader in readers:
        if data.startswith(magic):
            try:
                return reader(data)
            except (struct.error, IndexError, ValueError) as exc:
                raise FrameError(f"{name}: damaged or truncated header ({exc or type(exc).__name__})") from exc
    return None


def _png(data: bytes) -> Header:
    size, kind, width, height, bits, color = struct.unpack_from(">I4sIIBB", data, 8)
    if kind != b"IHDR" or size != 13 or color not in _PNG_CHANNELS or not (width and height):
        raise ValueError("no IHDR chunk")
    return Header("png", height, width, _PNG_CHANNELS[color], bits, _png_orientation(data))


def _png_orientation(data: bytes) -> int:
    at = 8
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"eXIf":
            return _orientation(data[at + 8 : at + 8 + size])
        at += size + 12
    return 1


def _jpeg(data: bytes) -> Header:
    at, orientation = 2, 1
    while True:
        if data[at] != 0xFF:
            raise ValueError("a marker is missing")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        (size,) = struct.unpack_from(">H", data, at + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
            if not (height and width):
                raise ValueError("no size")
            return Header("jpeg", height, width, channels, bits, orientation, at)
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _orientation(data[at + 10 : at + 2 + size])
        at += 2 + size


def _orientation(exif: bytes) -> int:
    """Return the orientation in the first directory of a TIFF header; 1 where there is none, or it is damaged."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        for number in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, at + 2 + 12 * number)
            if tag == ORIENTATION and kind == 3 and 1 <= value <= 8:
                return int(value)
    except struct.error:
        pass  # a damaged tag does not make the picture unreadable, as in Pillow
    return 1


def _ppm(data: bytes) -> Header:
    found = _PPM.match(data[:4096])
    if found is None:
        raise ValueError("no size")
    kind, width, height, most = (int(group) for group in found.groups())
    if most != 255 or not (width and height):
        raise ValueError(f"expected maximum 255, got {most}")
    return Header("ppm", height, width, 3 if kind == 6 else 1, offset=found.end())


def _npy(data: bytes) -> Header:
    """Source: numpy.lib.format, versions 1.0 and 2.0; numpy's own reader makes room for the array that the header claims."""
    length, start = struct.unpack_from("<H" if data[6] == 1 else "<I", data, 8)[0], 10 if data[6] == 1 else 12
    text = data[start : start + min(length, 4096)]
    found = _NPY.fullmatch(text)
    height, width = (int(side) for side in found.groups()) if found else (0, 0)
    if not (height and width):
        raise ValueError(f"expected uint8 (height, width, 3) in C order, got {text!r:.120}")
    return Header("npy", height, width, 3, offset=start + length)
