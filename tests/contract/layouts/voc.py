from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write(root: Path) -> tuple[dict[str, Any], str]:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name in ("2007_000032", "2007_000039"):
        Image.new("RGB", (5, 3), (0, 90, 200)).save(root / f"JPEGImages/{name}.jpg")
        mask = Image.fromarray(np.array([[0, 1, 15, 20, 255]] * 3, np.uint8), mode="P")
        mask.putpalette(bytes(range(256)) * 3)
        mask.save(root / f"SegmentationClass/{name}.png")
    (root / "ImageSets/Segmentation/train.txt").write_text("2007_000032\n2007_000039\n")
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for name in ("2007_000032", "2007_000039"):
        box = "<bndbox><xmin>2</xmin><ymin>1</ymin><xmax>4</xmax><ymax>3</ymax></bndbox>"
        (root / f"Annotations/{name}.xml").write_text(
            "<annotation><size><width>5</width><height>3</height><depth>3</depth></size>"
            f"<object><name>cat</name><difficult>0</difficult>{box}</object></annotation>"
        )
    (root / "ImageSets/Main/train.txt").write_text("2007_000032\n2007_000039\n")
    return {"root": str(root)}, "train"
