"""Writes what an engine sees in an image: an overlay for people and an index mask for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from edgekd.data.colors import overlay, palette
from edgekd.data.images import read_image
from edgekd.errors import UserError


class Segmenter(Protocol):
    """Anything that maps an image (H, W, 3) uint8 to a class map (H, W) and knows its class names."""

    classes: tuple[str, ...]

    def __call__(self, image: np.ndarray, /) -> np.ndarray:
        """Return the class map."""


def write_prediction(engine: Segmenter, image_path: Path, out: Path) -> dict[str, Any]:
    """Write `<stem>_overlay.png` and `<stem>_mask.png` and return their paths and the share of each class seen.

    Raises:
        DataError: the image cannot be read.
        UserError: a result of that name was already written in this folder from another image.
    """
    image = read_image(image_path)
    class_map = engine(image)
    colors = palette(len(engine.classes))
    mask_path, overlay_path = out / f"{image_path.stem}_mask.png", out / f"{image_path.stem}_overlay.png"
    if image_path.resolve() in (mask_path.resolve(), overlay_path.resolve()):
        raise UserError(f"{image_path} would be overwritten by its own result; give another --out")
    mask = Image.fromarray(class_map.astype(np.uint8), mode="P")
    mask.putpalette(colors.astype(np.uint8).tobytes())
    mask.save(mask_path)
    Image.fromarray(overlay(image, class_map, colors)).save(overlay_path)
    counts = np.bincount(class_map.ravel(), minlength=len(engine.classes))
    order = [int(c) for c in np.argsort(-counts) if counts[c]]
    return {
        "image": str(image_path),
        "overlay": str(overlay_path),
        "mask": str(mask_path),
        "classes": {engine.classes[c]: round(float(counts[c] / class_map.size), 4) for c in order},
    }
