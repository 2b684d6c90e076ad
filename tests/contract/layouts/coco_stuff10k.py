from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write(root: Path) -> tuple[dict[str, Any], str]:
    for folder in ("images", "annotations", "imageLists"):
        (root / folder).mkdir(parents=True)
    names = ("COCO_train2014_000000000077", "COCO_train2014_000000000081")
    for name in names:
        Image.new("RGB", (5, 2), (250, 250, 0)).save(root / f"images/{name}.jpg")
        (root / f"annotations/{name}.mat").write_bytes(matlab(np.array([[0, 1, 13, 92, 182]] * 2, np.uint16)))
    (root / "imageLists/train.txt").write_text("\n".join(names) + "\n")
    return {"root": str(root)}, "train"


def matlab(labels: np.ndarray) -> bytes:
    """Return a level 5 MAT-file with the uint16 matrix `S`, written from MathWorks' "MAT-File Format"."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    flags = element(6, struct.pack("<II", 11, 0))  # mxUINT16
    shape = element(5, struct.pack("<ii", *labels.shape))
    values = element(4, labels.astype("<u2").tobytes(order="F"))
    matrix = element(14, flags + shape + element(1, b"S") + values)
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H2s", 0x0100, b"IM") + matrix
