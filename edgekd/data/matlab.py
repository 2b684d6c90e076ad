"""Reading one integer matrix from a MATLAB v5-v7 file, with the standard library and numpy.

SciPy's `loadmat` is not used: on damaged files it can end the process (SciPy 1.17.1, SIGSEGV in `_mio5_utils`, found
by flipping bytes), and a bad file must give one clear line.

Source: MathWorks, "MAT-File Format", level 5: a 128-byte header, then elements of an 8-byte tag (type, size) and data.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgekd.errors import DataError

_HEADER_BYTES = 128
_STORAGE = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_NUMERIC_CLASSES = range(6, 16)  # mxDOUBLE .. mxUINT64; below are cells, structs, objects, text and sparse
_COMPLEX = 0x0800
MAX_BYTES = 1 << 30  # of one decompressed variable


def read_integer_matrix(path: Path, variable: str) -> np.ndarray:
    """Return the matrix `variable` of a MATLAB file as (rows, columns) int32; nothing in the file is executed.

    Raises:
        DataError: the file is missing, damaged, truncated, MATLAB v7.3 (HDF5) or older than v5, or `variable` is
            absent or not a matrix of whole numbers.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise DataError(f"{path}: cannot be read ({exc.strerror}); replace the file or remove it") from exc
    try:
        order = _byte_order(data)
        for kind, body in _elements(memoryview(data)[_HEADER_BYTES:], order):
            if kind == _COMPRESSED:
                kind, body = next(_elements(_decompressed(body), order), (0, body))
            parts = list(_elements(body, order)) if kind == _MATRIX else []
            if len(parts) >= 4 and bytes(parts[2][1]) == variable.encode():
                return _whole_numbers(parts, order)
    except (ValueError, struct.error, zlib.error) as exc:
        raise DataError(f"{path}: damaged, truncated or not a MATLAB v5-v7 file ({exc}); replace it") from exc
    raise DataError(f"{path}: holds no matrix {variable!r}; is it an annotation of another data set?")


def _byte_order(data: bytes) -> str:
    if len(data) < _HEADER_BYTES:
        raise ValueError(f"{len(data)} bytes, shorter than the header")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("no MATLAB v5 header")
    if struct.unpack(order + "H", data[124:126])[0] != 0x0100:
        raise ValueError("version 7.3 is HDF5: save it with -v7")
    return order


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield (type, data) of the elements that follow each other in `data`."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(order + "II", data, at)
        start = at + 8
        if kind >> 16:  # small element: size and type share the first word, data the second
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            at = start + 4
        else:
            at = start + size + (-size % 8 if kind != _COMPRESSED else 0)
        if start + size > min(at, len(data)):
            raise ValueError("the file ends inside a variable")
        yield kind, data[start : start + size]


def _decompressed(body: memoryview) -> memoryview:
    stream = zlib.decompressobj()
    data = stream.decompress(body, MAX_BYTES)
    if not stream.eof:
        raise ValueError("compressed data is cut off or too large")
    return memoryview(data)


def _whole_numbers(parts: list[tuple[int, memoryview]], order: str) -> np.ndarray:
    """Return a matrix element (flags, dimensions, name, values, ...) as (rows, columns) int32."""
    (_, flags_bytes), (_, shape_bytes), _, (storage, values_bytes) = parts[:4]
    flags = struct.unpack_from(order + "I", flags_bytes)[0]
    shape = tuple(int(side) for side in np.frombuffer(shape_bytes, order + "i4"))
    if flags & 0xFF not in _NUMERIC_CLASSES or flags & _COMPLEX or storage not in _STORAGE:
        raise ValueError("the variable is not a real matrix")
    values = np.frombuffer(values_bytes, order + _STORAGE[storage])
    if len(shape) != 2 or min(shape) < 1 or math.prod(shape) != len(values):
        raise ValueError(f"shape {shape} does not fit {len(values)} values")
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int32)
    if not np.array_equal(whole, values):
        raise ValueError("the values are not whole numbers of 32 bits")
    return whole.reshape(shape, order="F")  # MATLAB stores columns one after the other
