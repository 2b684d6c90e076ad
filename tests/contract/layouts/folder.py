from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write(root: Path) -> tuple[dict[str, Any], str]:
    for name, suffix in (("b", ".png"), ("a", ".jpg")):
        for folder in ("images/train", "masks/train"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (200, 10, 10)).save(root / f"images/train/{name}{suffix}")
        Image.fromarray(np.array([[0, 1, 255, 0, 1, 255]] * 4, np.uint8)).save(root / f"masks/train/{name}.png")
    (root / "classes.txt").write_text("background\nthing\n")
    return {"root": str(root)}, "train"
