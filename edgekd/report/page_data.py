"""Writes `report_data/`, the page's data beside `report.json`: latency samples, pictures, confusion matrices, timelines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgekd.board.files import write_atomic
from edgekd.board.run_masks import packed
from edgekd.core.artifact import Artifact
from edgekd.core.recipe import Recipe
from edgekd.data.base import Sample
from edgekd.data.splits import open_split
from edgekd.report.data_files import read_arrays, write_arrays, write_image_scores
from edgekd.report.long_runs import TIMELINES, timelines_of

DATA, CONFUSION = "report_data", "confusion.npz"


def write_data(recipe: Recipe, artifacts: Mapping[str, Artifact], root: Path) -> None:
    """Write the raw latency samples, and the pictures with the labels and the result of every row, for the page."""
    folder = root / DATA
    folder.mkdir(exist_ok=True)
    pictures = folder / "pictures.npz"
    benches = _benches(artifacts)
    _write_samples(benches, folder / "samples.npz")
    write_atomic(folder / TIMELINES, json.dumps(timelines_of([bench.path for bench in benches])))
    scored = {name: a for name, a in artifacts.items() if name.startswith("evaluate/")}
    _write_confusion(scored, folder / CONFUSION)
    write_image_scores({row_id(name.split("/")[1]): artifact for name, artifact in scored.items()}, folder)
    if not scored:
        pictures.unlink(missing_ok=True)
        return
    results = {
        row_id(name.split("/")[1]): np.load(a.file("pictures.npz"), allow_pickle=False) for name, a in scored.items()
    }
    # Keys: `<index>` of class maps, `<index>/<part>` of objects.
    pictured = [{key.partition("/")[0] for key in archive.files} for archive in results.values()]
    dataset = open_split(recipe, recipe.data.val)
    arrays: dict[str, np.ndarray] = {}
    for number, index in enumerate(sorted(set.intersection(*pictured), key=int)):
        sample = dataset.load(int(index))
        arrays |= {f"{number}/name": np.array(sample.name), f"{number}/image": sample.image}
        arrays |= {f"{number}/truth{key}": value for key, value in truth_arrays(recipe.task, sample).items()}
        for name, archive in results.items():
            own = [key for key in archive.files if key.partition("/")[0] == index]
            arrays |= {f"{number}/{name}{key.removeprefix(index)}": archive[key] for key in own}
    write_arrays(pictures, arrays)


def _benches(artifacts: Mapping[str, Artifact]) -> list[Artifact]:
    return [artifact for artifact in artifacts.values() if artifact.kind == "latency"]


def latency_samples(artifacts: Mapping[str, Artifact]) -> dict[str, np.ndarray]:
    """Return the runs and rounds of all benches, by `<row>/<series>_ns` and `_bursts`."""
    arrays: dict[str, np.ndarray] = {}
    for bench in _benches(artifacts):
        with np.load(bench.file("samples.npz"), allow_pickle=False) as archive:
            wanted = [name for name in archive.files if name.endswith(("/wall_ns", "/engine_ns", "_bursts"))]
            arrays |= {name: archive[name] for name in wanted}
    return arrays


def _write_confusion(scored: Mapping[str, Artifact], path: Path) -> None:
    """Write the confusion matrix (K, K) int64 of each scored row, rows truth; no file for objects."""
    found = {row_id(name.split("/")[1]): one.details.get("confusion") for name, one in scored.items()}
    write_arrays(path, {row: np.array(matrix, np.int64) for row, matrix in found.items() if matrix})


def _write_samples(benches: Sequence[Artifact], path: Path) -> None:
    """Write the samples of all boards into one file; the keys begin with the row."""
    if len(benches) == 1:
        write_atomic(path, benches[0].file("samples.npz").read_bytes())
        return
    arrays: dict[str, np.ndarray] = {}
    for bench in benches:
        arrays |= read_arrays(bench.file("samples.npz"))
    write_arrays(path, arrays)


def truth_arrays(task: str, sample: Sample) -> dict[str, np.ndarray]:
    """Return the labels of a picture, by the end of their key."""
    if task == "semantic":
        return {"": sample.mask}
    assert sample.instances is not None
    objects = sample.instances
    crowd = objects.is_ignored
    parts = {"/boxes": objects.boxes_xyxy[~crowd], "/labels": objects.labels[~crowd]}
    parts |= {"/crowd_boxes": objects.boxes_xyxy[crowd], "/crowd_labels": objects.labels[crowd]}
    if task == "instance" and objects.masks is not None:
        shown = np.flatnonzero(~crowd).tolist()
        parts |= {f"/{name}": part for name, part in packed(objects.masks, shown).items()}
    return parts


def row_id(stage: str) -> str:
    """Return the id of the row of a stage's artifact."""
    return "onnx-fp32" if stage == "export" else stage.split("/")[-1]
