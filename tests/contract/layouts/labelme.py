from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image


def write(root: Path) -> tuple[dict[str, Any], str]:
    (root / "train").mkdir(parents=True)
    for name, label in (("b", "dog"), ("a", "car")):
        Image.new("RGB", (6, 4), (200, 90, 0)).save(root / f"train/{name}.png")
        shape = {"label": label, "points": [[1, 1], [4, 3]], "shape_type": "rectangle", "group_id": None, "flags": {}}
        content = {"version": "5.5.0", "flags": {}, "shapes": [shape], "imagePath": f"{name}.png", "imageData": None}
        (root / f"train/{name}.json").write_text(json.dumps(content | {"imageHeight": 4, "imageWidth": 6}))
    return {"root": str(root)}, "train"
