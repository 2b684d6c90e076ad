"""Writes an engine's result for an image: an overlay to look at and an index mask for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np
from PIL import Image

from edgekd.board.detection import MIN_SCORE, Detections, Selection
from edgekd.board.runs import encode_runs
from edgekd.data.colors import overlay, palette
from edgekd.data.drawing import Color, draw_boxes, draw_masks
from edgekd.data.images import read_image
from edgekd.data.paired import SUFFIXES
from edgekd.errors import DataError, UserError


class _Summary(TypedDict, total=False):
    mask: str
    objects: str
    more: bool
    classes: dict[str, float]


class WrittenPrediction(_Summary):
    """Paths of the files that an image's result is written to, and a summary of it, see `write_prediction` (JSON)."""

    image: str
    overlay: str


# An entry of `<stem>_objects.json`; `mask` has run lengths.
_Object = TypedDict(
    "_Object", {"class": str, "score": float, "box_xyxy": list[float], "mask": dict[str, list[int]]}, total=False
)


class Network(Protocol):
    """A callable from an image (H, W, 3) uint8 to a class map (H, W) or detections, with class names."""

    classes: tuple[str, ...]

    def __call__(self, image: np.ndarray, /) -> np.ndarray | Detections:
        """Return the result."""


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Return the image files among paths and directly in folders among them; UserError for a folder without images."""
    files = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        if path.is_dir():
            inside = [f for f in inside if f.suffix.lower() in SUFFIXES and not f.name.startswith(".") and f.is_file()]
        if not inside:
            raise UserError(f"{path}: no image in this folder, expected files like *.jpg or *.png")
        files += inside
    return files


def check_names(image_paths: Sequence[Path], out: Path) -> None:
    """Check that no two images write the same result file, and none overwrites an image.

    Raises:
        UserError: two images would write the same file, or a result would overwrite an image.
    """
    written: dict[Path, Path] = {}
    for image_path in image_paths:
        for path in _paths(image_path, out).values():
            other = written.setdefault(path, image_path)
            if other.resolve() != image_path.resolve():
                raise UserError(
                    f"{other} and {image_path} would both be written as {path}; rename one, or run them one by one "
                    "with another --out each"
                )
    inputs = {image_path.resolve(): image_path for image_path in image_paths}
    for path, image_path in written.items():
        if path.resolve() in inputs:
            raise UserError(
                f"{inputs[path.resolve()]} would be overwritten by the result of {image_path}; give another --out"
            )


def write_prediction(
    engine: Network, image_path: Path, out: Path, selection: Selection | None = None
) -> WrittenPrediction:
    """Write an engine's result for an image and return the paths and a summary.

    A class map gives `<stem>_overlay.png`, `<stem>_mask.png` (class indices) and the share of each class. Detections give
    `<stem>_overlay.png`, `<stem>_objects.json`, with masks `<stem>_mask.png` (0 background, else the number of the object in
    the list, from 1, better ones on top), and the number of objects of each class. Detections below the minimum score of
    `selection`, by default 0.3, are dropped; `more` is true when the list is as long as `selection` allows.

    A mask in the JSON is COCO's: run lengths over the whole image, column by column, beginning with zeros.

    Raises:
        DataError: the image cannot be read.
        UserError: the image would be overwritten by its own result.
    """
    check_names([image_path], out)
    image = read_image(image_path)
    return write_result(engine(image), ReadImage(image_path, image), engine.classes, out, selection)


@dataclass(frozen=True)
class ReadImage:
    """An image file and its pixels (H, W, 3) uint8 RGB."""

    path: Path
    pixels: np.ndarray


def read_images(paths: Iterable[Path], on_unreadable: Callable[[DataError], None]) -> Iterator[ReadImage]:
    """Yield the images that can be read, one at a time in memory; `on_unreadable` gets the errors of the others."""
    for path in paths:
        try:
            image = ReadImage(path, read_image(path))
        except DataError as exc:
            on_unreadable(exc if str(path) in str(exc) else DataError(f"{path}: {exc}"))
        else:
            yield image


def write_result(
    result: np.ndarray | Detections,
    image: ReadImage,
    classes: tuple[str, ...],
    out: Path,
    selection: Selection | None = None,
) -> WrittenPrediction:
    """Write a class map or detections as `write_prediction` does, and return the paths and a summary."""
    image_path, paths = image.path, _paths(image.path, out)
    if isinstance(result, Detections):
        chosen = selection or Selection(min_score=MIN_SCORE)
        summary = _write_objects(result, image.pixels, classes, paths, chosen)
    else:
        summary = _write_class_map(result, image.pixels, classes, paths)
    return {"image": str(image_path), "overlay": str(paths["overlay.png"]), **summary}


def _paths(image_path: Path, out: Path) -> dict[str, Path]:
    return {what: out / f"{image_path.stem}_{what}" for what in ("overlay.png", "mask.png", "objects.json")}


def _write_class_map(
    class_map: np.ndarray, image: np.ndarray, classes: tuple[str, ...], paths: dict[str, Path]
) -> _Summary:
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
    found: Detections, image: np.ndarray, classes: tuple[str, ...], paths: dict[str, Path], selection: Selection
) -> _Summary:
    shown = found.scores >= selection.min_score
    labels, boxes = found.labels[shown], found.boxes[shown]
    table = palette(len(classes))
    colors: list[Color] = [(int(r), int(g), int(b)) for r, g, b in table[labels]]
    entries: list[_Object] = [
        {"class": classes[label], "score": round(float(score), 4), "box_xyxy": [round(float(v), 2) for v in box]}
        for label, score, box in zip(labels, found.scores[shown], boxes, strict=True)
    ]
    written: _Summary = {"objects": str(paths["objects.json"]), "more": len(entries) >= selection.most}
    drawn = image
    if found.masks is not None:
        masks = found.masks.only(shown)
        drawn = draw_masks(image, masks, colors)
        numbers = np.zeros(image.shape[:2], np.uint8 if len(masks) < 256 else np.uint16)
        for i in range(len(masks) - 1, -1, -1):
            mask = masks[i]
            numbers[mask] = i + 1
            entries[i]["mask"] = encode_runs(mask)
        Image.fromarray(numbers).save(paths["mask.png"])
        written["mask"] = str(paths["mask.png"])
    lines = ",\n".join(map(json.dumps, entries))  # a line per object: run lengths are long
    paths["objects.json"].write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    Image.fromarray(draw_boxes(drawn, boxes, colors)).save(paths["overlay.png"])
    counts = np.bincount(labels, minlength=len(classes))
    return {**written, "classes": {classes[c]: int(counts[c]) for c in np.argsort(-counts) if counts[c]}}
