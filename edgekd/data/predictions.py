"""Writes what an engine sees in an image: an overlay for people and an index mask for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from edgekd.board.detection import Detections
from edgekd.data.colors import overlay, palette
from edgekd.data.images import read_image
from edgekd.data.objects import Color, draw_boxes, draw_masks
from edgekd.errors import UserError

MIN_SCORE = 0.3  # of the detections that are written


class Network(Protocol):
    """Anything that maps an image (H, W, 3) uint8 to a class map (H, W) or to detections and knows its class names."""

    classes: tuple[str, ...]

    def __call__(self, image: np.ndarray, /) -> np.ndarray | Detections:
        """Return the result."""


def write_prediction(engine: Network, image_path: Path, out: Path) -> dict[str, Any]:
    """Write what an engine sees in an image and return the paths and a summary.

    A class map gives `<stem>_overlay.png`, `<stem>_mask.png` (class indices) and the share of each class seen; detections
    give `<stem>_overlay.png`, `<stem>_objects.json`, with masks `<stem>_mask.png` (0 nothing, else the number of the
    object in the list, from 1 on, better ones on top), and the number of objects of each class.

    Raises:
        DataError: the image cannot be read.
        UserError: a result of that name was already written in this folder from another image.
    """
    image = read_image(image_path)
    paths = {what: out / f"{image_path.stem}_{what}" for what in ("overlay.png", "mask.png", "objects.json")}
    if image_path.resolve() in [path.resolve() for path in paths.values()]:
        raise UserError(f"{image_path} would be overwritten by its own result; give another --out")
    result = engine(image)
    if isinstance(result, Detections):
        seen = _write_objects(result, image, engine.classes, paths)
    else:
        seen = _write_class_map(result, image, engine.classes, paths)
    return {"image": str(image_path), "overlay": str(paths["overlay.png"]), **seen}


def _write_class_map(
    class_map: np.ndarray, image: np.ndarray, classes: tuple[str, ...], paths: dict[str, Path]
) -> dict[str, Any]:
    colors = palette(len(classes))
    mask = Image.fromarray(class_map.astype(np.uint8), mode="P")
    mask.putpalette(colors.astype(np.uint8).tobytes())
    mask.save(paths["mask.png"])
    Image.fromarray(overlay(image, class_map, colors)).save(paths["overlay.png"])
    counts = np.bincount(class_map.ravel(), minlength=len(classes))
    order = [int(c) for c in np.argsort(-counts) if counts[c]]
    shares = {classes[c]: round(float(counts[c] / class_map.size), 4) for c in order}
    return {"mask": str(paths["mask.png"]), "classes": shares}


def _write_objects(
    found: Detections, image: np.ndarray, classes: tuple[str, ...], paths: dict[str, Path]
) -> dict[str, Any]:
    shown = found.scores >= MIN_SCORE
    labels, boxes = found.labels[shown], found.boxes[shown]
    table = palette(len(classes))
    colors: list[Color] = [(int(r), int(g), int(b)) for r, g, b in table[labels]]
    entries = [
        {"class": classes[label], "score": round(float(score), 4), "box_xyxy": [round(float(v), 2) for v in box]}
        for label, score, box in zip(labels, found.scores[shown], boxes, strict=True)
    ]
    paths["objects.json"].write_text(json.dumps(entries, indent=1), encoding="utf-8")
    written = {"objects": str(paths["objects.json"])}
    drawn = image
    if found.masks is not None:
        masks = found.masks.whole()[shown]
        drawn = draw_masks(image, masks, colors)
        numbers = np.zeros(image.shape[:2], np.uint8)  # at most 100 detections
        for place in range(len(masks) - 1, -1, -1):
            numbers[masks[place]] = place + 1
        Image.fromarray(numbers).save(paths["mask.png"])
        written["mask"] = str(paths["mask.png"])
    Image.fromarray(draw_boxes(drawn, boxes, colors)).save(paths["overlay.png"])
    counts = np.bincount(labels, minlength=len(classes))
    return {**written, "classes": {classes[c]: int(counts[c]) for c in np.argsort(-counts) if counts[c]}}
