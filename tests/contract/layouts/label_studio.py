from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image


def write(root: Path) -> tuple[dict[str, Any], str]:
    (root / "images").mkdir(parents=True)
    tasks = []
    for number, (name, label) in enumerate((("b.png", "dog"), ("a.png", "car")), 1):
        Image.new("RGB", (6, 4), (200, 90, 0)).save(root / "images" / name)
        value = {"x": 50, "y": 25, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": [label]}
        region = {"id": "r", "type": "rectanglelabels", "value": value, "original_width": 6, "original_height": 4}
        data = {"image": f"/data/upload/1/0123abcd-{name}"}
        tasks.append(
            {"id": number, "data": data, "annotations": [{"id": 1, "was_cancelled": False, "result": [region]}]}
        )
    (root / "train.json").write_text(json.dumps(tasks))
    return {"root": str(root), "annotations": "{split}.json"}, "train"
