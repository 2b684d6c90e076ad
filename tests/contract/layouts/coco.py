from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image


def write(root: Path) -> tuple[dict[str, Any], str]:
    for folder in ("annotations", "train"):
        (root / folder).mkdir(parents=True)
    images = []
    for number, name in enumerate(("b.png", "a.png"), 7):
        Image.new("RGB", (6, 4), (200, 90, 0)).save(root / "train" / name)
        images.append({"id": number, "file_name": name, "width": 6, "height": 4})
    categories = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}]
    annotations = [
        {
            "id": 1, "image_id": 7, "category_id": 18, "bbox": [1, 1, 3, 2], "area": 6, "iscrowd": 0,
            "segmentation": {"size": [4, 6], "counts": [5, 2, 2, 2, 2, 2, 9]},
        },
        {
            "id": 2, "image_id": 8, "category_id": 3, "bbox": [0, 0, 4, 2], "area": 8, "iscrowd": 0,
            "segmentation": [[0, 0, 4, 0, 4, 2, 0, 2]],
        },
    ]  # fmt: skip
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations/instances_train.json").write_text(json.dumps(content))
    return {"root": str(root)}, "train"
