from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write(root: Path) -> tuple[dict[str, Any], str]:
    for folder in ("images/training", "annotations/training"):
        (root / folder).mkdir(parents=True)
    for name in ("ADE_train_00000001", "ADE_train_00000002"):
        Image.new("RGB", (4, 4), (10, 200, 10)).save(root / f"images/training/{name}.jpg")
        Image.fromarray(np.array([[0, 1, 2, 150]] * 4, np.uint8)).save(root / f"annotations/training/{name}.png")
    rows = [f"{index}\t0.1\t9\t9\tname{index}, synonym{index}" for index in range(1, 151)]
    (root / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]) + "\n")
    return {"root": str(root)}, "train"
