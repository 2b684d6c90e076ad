"""Files of the task `predict`: images in, class maps or detections out.

An .npz holds many images or results in order, by number. Masks are run lengths. Nothing is pickled, and the reader of results of
another machine compares them with the images that it sent.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence, Tuple

import numpy as np

from edgekd.board.detection import Detections
from edgekd.board.files import replacing
from edgekd.board.run_masks import packed, unpacked
from edgekd.errors import ArtifactError

_PARTS = {"boxes": "float32", "scores": "float32", "labels": "int64"}
_ROOM = 1 << 16  # bytes of an array's header, and of small arrays
_ENTRY = 28  # bytes of one detection without its mask
Size = Tuple[int, int]  # height, width


def save_images(path: Path, images: Sequence[np.ndarray]) -> None:
    """Write images (H, W, 3) uint8 RGB of any sizes; equal images give equal bytes."""
    np.savez(str(path), **{_name(number): image for number, image in enumerate(images)})  # type: ignore[arg-type]


def load_images(path: Path) -> Iterator[np.ndarray]:
    """Yield the images of `save_images`, one at a time in memory."""
    with np.load(str(path), allow_pickle=False) as archive:
        for number in range(len(archive.files)):
            yield archive[_name(number)]


def save_results(path: Path, results: Sequence[Any]) -> None:
    """Write class maps (H, W) uint8 or `Detections`, deflated, so that a reader sees a whole file or none."""
    arrays: Dict[str, np.ndarray] = {}
    for number, result in enumerate(results):
        if isinstance(result, Detections):
            arrays.update({f"{_name(number)}/{part}": values for part, values in _parts(result).items()})
        else:
            arrays[_name(number)] = result
    with replacing(path) as temporary, open(str(temporary), "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # keys never shadow its flags


def load_results(path: Path, task: str, sizes: Sequence[Size], most: int) -> List[Any]:
    """Return the results of `save_results`.

    Args:
        path: the file.
        task: task of the network.
        sizes: (height, width) of the images, in order.
        most: detections per image.

    Raises:
        ArtifactError: not the results of these images: other names, types or shapes, or too large.
    """
    room = sum(_ROOM + height * width * (1 if task == "semantic" else 4 * most) for height, width in sizes)
    try:
        with zipfile.ZipFile(str(path)) as file:  # a small file can hold a large array
            if sum(entry.file_size for entry in file.infolist()) > room + len(sizes) * most * _ENTRY:
                raise ArtifactError(f"{path}: larger than the results of {len(sizes)} images")
        with np.load(str(path), allow_pickle=False) as archive:
            read: Callable[[Mapping[str, np.ndarray], str, Size, int], Any] = (
                _class_map if task == "semantic" else _detections
            )
            results = [read(archive, _name(number), size, most) for number, size in enumerate(sizes)]
            expected = len(results) if task == "semantic" else sum(3 if one.masks is None else 5 for one in results)
            if len(archive.files) != expected:
                raise ArtifactError(
                    f"{path}: expected the results of {len(sizes)} images, got {len(archive.files)} arrays"
                )
            return results
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as exc:
        raise ArtifactError(f"{path}: not the results of these images ({exc}); run it again") from exc


def _name(number: int) -> str:
    return f"{number:05}"


def _parts(found: Detections) -> Dict[str, np.ndarray]:
    parts = {"boxes": found.boxes, "scores": found.scores, "labels": found.labels}
    if found.masks is not None:
        parts.update(packed(found.masks, range(len(found.masks))))
    return parts


def _class_map(archive: Mapping[str, np.ndarray], name: str, size: Size, most: int) -> np.ndarray:
    return _checked(archive[name], "uint8", size)


def _detections(archive: Mapping[str, np.ndarray], name: str, size: Size, most: int) -> Detections:
    boxes, scores, labels = (archive[f"{name}/{part}"] for part in _PARTS)
    count = min(len(boxes), most)
    shapes = ((count, 4), (count,), (count,))
    for values, dtype, shape in zip((boxes, scores, labels), _PARTS.values(), shapes):  # noqa: B905 - Python 3.8
        _checked(values, dtype, shape)
    if f"{name}/mask_runs" not in archive:
        return Detections(boxes, scores, labels)
    runs, counts = archive[f"{name}/mask_runs"], archive[f"{name}/mask_run_counts"]
    _checked(counts, "uint32", (count,))
    _checked(runs, "uint32", (int(counts.sum()),))
    ends = np.concatenate([[0], np.cumsum(counts.astype(np.int64))])
    pixels = np.concatenate([[0], np.cumsum(runs.astype(np.int64))])[ends]
    if (np.diff(pixels) != size[0] * size[1]).any():
        raise ValueError(f"a mask of {name} is not of an image of {size[1]}x{size[0]}")
    return Detections(boxes, scores, labels, unpacked(runs, counts, size))


def _checked(values: np.ndarray, dtype: str, shape: Tuple[int, ...]) -> np.ndarray:
    if values.dtype != dtype or values.shape != shape:
        raise ValueError(f"expected {dtype} {list(shape)}, got {values.dtype} {list(values.shape)}")
    return values
