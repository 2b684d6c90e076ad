"""Networks, engines and images of `wall_vs_engine.py`: edgekd's own families, trained briefly, at any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekd import api
from edgekd.data.formats.scenes import Options as SceneOptions
from edgekd.data.formats.scenes import open_dataset, open_objects

Size = tuple[int, int]
BASES = {"semantic": "quickstart", "detection": "quickstart_detection", "instance": "quickstart_instance"}
VARIANTS = {"semantic": "m", "detection": "s", "instance": "s"}
OBJECTS, IMAGES = 20, 4


def made(cache: Path, task: str, size: Size, steps: int) -> Path:
    """Return the run with the engines of a task at a size, resumed or made: brief training, export, quantization, compilation."""
    shared = ["distill.methods={}", f"student.variant={VARIANTS[task]}"]
    weights = cache / f"{task}-{steps}"
    train = [*shared, f"name=trained_{task}", f"student.train.steps={steps}", f"teacher.variant={VARIANTS[task]}"]
    api.run(BASES[task], weights, [*train, "engines=[]"], until="student")
    run = cache / f"{task}-{steps}-{size[0]}x{size[1]}"
    sized = [
        *shared,
        f"name={task}_{size[0]}x{size[1]}",
        f"student.checkpoint={(weights / 'student' / 'weights.safetensors').absolute()}",
        "student.train=null",
        f"data.size=[{size[0]},{size[1]}]",
        f"data.options={{height: {size[0]}, width: {size[1]}, train: 8, val: 4}}",
        "quantize.images=8",
        "quantize.options.nncf.bias_correction=fast",
        "parity.int8_error=100",  # what a briefly trained network computes is of no interest here
        "parity.int8_different=1",
        "parity.images=1",
        "export.parity_images=1",
        "check=warn",
    ]
    api.run(BASES[task], run, sized, until="engine")
    return run


def images_of(task: str, size: Size) -> list[np.ndarray]:
    """Return images (H, W, 3) uint8: scenes, or for objects mosaics of two by two scenes with 20 labelled objects or more."""
    height, width = size
    if task == "semantic":
        dataset = open_dataset(SceneOptions(height=height, width=width), "val")
        return [dataset.load(index).image for index in range(IMAGES)]
    scenes = open_objects(SceneOptions(height=height // 2, width=width // 2, seed=1), "val", task == "instance")
    images: list[np.ndarray] = []
    rich: list[np.ndarray] = []
    objects = 0
    for index in range(len(scenes)):
        sample = scenes.load(index)
        assert sample.instances is not None
        count = len(sample.instances.labels)
        if count < OBJECTS / 4:
            continue
        rich.append(sample.image)
        objects += count
        if len(rich) == 4:
            images.append(np.concatenate([np.concatenate(rich[:2], axis=1), np.concatenate(rich[2:], axis=1)]))
            rich = []
        if len(images) == IMAGES:
            return images
    raise SystemExit(f"only {len(images)} mosaics of {OBJECTS} objects among {len(scenes)} scenes")
