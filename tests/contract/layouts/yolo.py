from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image


def write(root: Path) -> tuple[dict[str, Any], str]:
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    (root / "data.yaml").write_text("names: {0: cat, 1: dog}\ntrain: images/train\nval: images/val\n")
    for name in ("one", "two", "three"):
        Image.new("RGB", (8, 4), (20, 90, 0)).save(root / f"images/train/{name}.png")
    (root / "labels/train/one.txt").write_text("1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n")
    (root / "labels/train/two.txt").write_text("0 0.25 0.25 0.75 0.25 0.75 1.0 0.25 1.0\n")
    return {"root": str(root)}, "train"
