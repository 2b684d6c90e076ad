"""Measure the memory and time of one image with many objects: loading, check, training view, evaluation, pictures.

    python benchmarks/many_objects.py [--objects 500] [--height 3000] [--width 4000] [--radius 40]

Each step runs in a process of its own on a COCO set of polygons that it makes. It prints the peak of resident memory and the
time of the step; `import` is what the packages alone take.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

STEPS = ("import", "load", "check", "view", "evaluate", "boundary", "sheet", "pictures")


def main() -> None:
    """Print one line per step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("objects", 500), ("height", 3000), ("width", 4000), ("radius", 40)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        seconds = run(arguments.step, arguments.root)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
        print(f"{arguments.step:<10} {peak:>8.0f} MiB {seconds:>8.2f} s", flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), arguments)
        for step in STEPS:
            subprocess.run([sys.executable, __file__, "--step", step, "--root", folder], check=True)


def write(root: Path, arguments: argparse.Namespace) -> None:
    """Write a COCO set of one image with discs of random place and size."""
    rng = np.random.default_rng(0)
    (root / "train").mkdir()
    (root / "annotations").mkdir()
    height, width = arguments.height, arguments.width
    Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(root / "train/a.jpg")
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    objects = []
    for number in range(arguments.objects):
        radius = arguments.radius * rng.uniform(0.5, 1.5)
        center = rng.uniform(radius, np.array([width, height]) - radius)
        points = center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        low, high = points.min(axis=0), points.max(axis=0)
        objects.append({
            "id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [*low, *(high - low)],
            "segmentation": [points.flatten().tolist()], "area": float(np.pi * radius**2),
        })  # fmt: skip
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": height, "width": width}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": objects,
    }
    (root / "annotations/instances_train.json").write_text(json.dumps(content, default=float))


def run(step: str, root: Path) -> float:
    """Run one step and return its seconds, without imports and, but for `load`, without loading."""
    from edgekd.board.detection import Detections
    from edgekd.core.recipe import Augment
    from edgekd.data.augment import augmented, training_transform
    from edgekd.data.check import check_dataset
    from edgekd.data.colors import palette
    from edgekd.data.contact_sheet import write_contact_sheet
    from edgekd.data.formats import coco
    from edgekd.evaluate.detection import DetectionEvaluator
    from edgekd.report.object_pictures import mask_layer, stored_masks
    from edgekd.report.page_data import truth_arrays

    if step == "import":
        return 0.0
    dataset = coco.open_objects(coco.Options(str(root)), "train", True)
    sample = dataset.load(0) if step not in ("load", "check", "sheet") else None
    start = time.perf_counter()
    if sample is None:
        {"load": lambda: dataset.load(0), "check": lambda: check_dataset(dataset, "train"),
         "sheet": lambda: write_contact_sheet(dataset, root / "sheet.png")}[step]()  # fmt: skip
        return time.perf_counter() - start
    truth, size = sample.instances, (sample.image.shape[0], sample.image.shape[1])
    assert truth is not None
    if step == "view":
        augmented(sample, training_transform(Augment(), (640, 640)), 0, "instance")
    elif step in ("evaluate", "boundary"):
        assert truth.masks is not None
        evaluator = DetectionEvaluator(dataset.classes, True)
        best = np.arange(len(truth.labels)) < 100
        found = Detections(truth.boxes_xyxy[best], np.ones(100, np.float32), truth.labels[best], truth.masks.only(best))
        evaluator.update(truth, found, size)
        if step == "boundary":
            evaluator.compute()
    else:
        arrays = {f"t{key}": value for key, value in truth_arrays("instance", sample).items()}
        mask_layer(stored_masks(arrays, "t", size), truth.labels, palette(len(dataset.classes)))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
