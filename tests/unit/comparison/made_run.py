"""Small runs whose figures are known: a report, and the arrays beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.board.timing import summarize

IMAGES, PIXELS = 40, 16
MACHINE = {
    "hardware": {"cpu_model": "A CPU", "kernel": "6.1", "logical_cores": 2},
    "use": {"affinity": [0, 1], "power_mode": {"governors": ["performance"]}, "machine_id": "one"},
}


def row(name: str, stage: str, sha256: str, **more: Any) -> dict[str, Any]:
    """Return a scored row: two classes of 8 pixels in each of 40 images, all right."""
    target = name.partition("-")[0] if stage == "engine" else "torch"
    scores = {"miou": 1.0, "boundary_iou": 1.0, "pixel_accuracy": 1.0}
    return {
        "id": name, "stage": stage, "target": target, "precision": "int8" if name.endswith("int8") else "fp32",
        "board": "local", "status": "measured", "metrics": scores, "num_images": IMAGES, "images_sha256": "images",
        "sha256": sha256, "size_bytes": 1000, "params": 10, "macs": 100, **more,
    }  # fmt: skip


def report(**more: Any) -> dict[str, Any]:
    """Return the content of a report.json: a student, and two engines of it that took 10 ms each."""
    latency = summarize(samples_ns([10.0] * 10))
    timed = {"latency_ms": latency, "wall_ms": latency, "runtime": {"version": "1.0", "threads": 2}}
    return {
        "schema": "edgekd.report/1",
        "title": "made",
        "task": "semantic",
        "recipe": {"data": {"format": "scenes", "val": "val"}, "student": {"train": {"steps": 60}}},
        "classes": ["road", "pole"],
        "environment": {"cpu_model": "A CPU", "packages": {"numpy": "2.0"}},
        "boards": {"local": MACHINE},
        "rows": [
            row("student", "student", "weights"),
            row("openvino-fp32", "engine", "fp32 file", **timed),
            row("openvino-int8", "engine", "int8 file", **timed),
        ],
        **more,
    }


def counts(hits: int = 8) -> np.ndarray:
    """Return image counts, (40, 5, 2): `hits` of the 8 pixels of the first class are right, all of the second; bands as masks."""
    one = [[hits, 8], [8, 8], [hits, 16 - hits], [hits, 8], [8, 16 - hits]]
    return np.tile(np.array(one, np.uint32), (IMAGES, 1, 1))


def scores_of(hits: int) -> dict[str, float]:
    """Return the metrics of `counts(hits)`, worked out by hand: IoU hits / 8 and 8 / (16 - hits)."""
    miou = (hits / 8 + 8 / (16 - hits)) / 2
    return {"miou": miou, "boundary_iou": miou, "pixel_accuracy": (hits + 8) / 16}


def samples_ns(rounds_ms: list[float], runs: int = 5) -> np.ndarray:
    """Return `runs` samples for each round, all as long as the round's median."""
    return np.repeat(np.array(rounds_ms) * 1e6, runs).astype(np.int64)


def write(folder: Path, content: dict[str, Any], **hits: int) -> Path:
    """Write a run and return its folder.

    Args:
        folder: is made.
        content: of its report.json; `rounds_ms` of a row becomes its latency and its samples.
        hits: rows with `-` written as `_` -> hits of their image counts and metrics; 8 for the others.
    """
    data = folder / "report_data"
    data.mkdir(parents=True)
    arrays: dict[str, np.ndarray] = {}
    images = {}
    for one in content["rows"]:
        rounds = one.pop("rounds_ms", [10.0] * 10)
        right = hits.get(one["id"].replace("-", "_"), 8)
        images[one["id"]] = counts(right)
        one["metrics"] = {**one["metrics"], **scores_of(right)}
        if "latency_ms" in one:
            taken = samples_ns(rounds)
            one["latency_ms"] = one["wall_ms"] = summarize(taken)
            for series in ("engine", "wall"):
                arrays |= {f"{one['id']}/{series}_ns": taken, f"{one['id']}/{series}_bursts": np.full(len(rounds), 5)}
    np.savez(data / "samples.npz", **arrays)
    np.savez(data / "image_counts.npz", **images)
    (folder / "report.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def changed(content: dict[str, Any], name: str, **more: Any) -> dict[str, Any]:
    """Return a report with other keys in one row."""
    rows = [{**one, **more} if one["id"] == name else one for one in content["rows"]]
    return {**content, "rows": rows}
