"""A made-up report for tests and for looking at the page: deterministic, clearly marked as test data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekd.board.timing import summarize
from edgekd.report.model import Report

CLASSES = ["background", "road", "building", "pole", "sign & <light>", "ring", "fence", "never seen"]
_HEIGHT, _WIDTH = 192, 256
# id, stage, target, precision, mIoU, boundary IoU, engine p50 ms, wall p50 ms, bytes, share of wrong boundary pixels
_ROWS = (
    ("teacher", "teacher", "torch", "fp32", 0.724, 0.561, None, None, 24_600_000, 0.05),
    ("student", "student", "torch", "fp32", 0.601, 0.412, None, None, 3_900_000, 0.30),
    ("distilled", "distilled", "torch", "fp32", 0.628, 0.447, None, None, 3_900_000, 0.20),
    ("onnx-fp32", "onnx", "onnxruntime", "fp32", 0.628, 0.447, None, None, 3_950_000, 0.20),
    ("openvino-fp32", "engine", "openvino", "fp32", 0.6281, 0.447, 9.42, 11.9, 4_010_000, 0.20),
    ("openvino-int8", "engine", "openvino", "int8", 0.6262, 0.444, 4.07, 6.3, 1_130_000, 0.22),
    ("onnxruntime-fp32", "engine", "onnxruntime", "fp32", 0.628, 0.447, 12.8, 15.1, 3_950_000, 0.20),
    ("onnxruntime-int8", "engine", "onnxruntime", "int8", 0.6195, 0.431, 7.9, 10.4, 1_090_000, 0.25),
)


def sample_report() -> Report:
    """Return a complete report of a run that never happened."""
    return Report.model_validate(sample_file())


def sample_file() -> dict[str, Any]:
    """Return the content of its `report.json`."""
    return {
        "schema": "edgekd.report/1",
        "title": "Test data: lite-s student on made-up scenes",
        "recipe_name": "test_data",
        "task": "semantic",
        "seed": 0,
        "recipe_sha256": "ab" * 32,
        "recipe": {"name": "test_data", "seed": 0, "teacher": {"family": "fpn"}},
        "created": "2026-01-01T12:00:00+00:00",
        "classes": list(CLASSES),
        "environment": {
            "cpu": "Test CPU, 2 cores",
            "governor": None,
            "packages": {"numpy": "2.0", "openvino": "2026.4.1"},
        },
        "rows": [_row(i, *entry[:-1]) for i, entry in enumerate(_ROWS)],
        "definitions": {
            "miou": _definition(
                "mIoU", "Mean over classes of intersection over union, one confusion matrix per data set."
            ),
            "boundary_iou": _definition("boundary IoU", "IoU of bands along the contours of truth and prediction."),
            "trimap_miou_3px": _definition("trimap mIoU 3 px", "mIoU within 3 px of a class change in the truth."),
            "pixel_accuracy": _definition("pixel accuracy", "Share of labelled pixels with the right class."),
            "spurious_components": _definition(
                "spurious components", "Predicted parts that match no true part.", False
            ),
            "missing_components": _definition(
                "missing components", "True parts that no predicted part matches.", False
            ),
        },
        "stages": [
            {"name": "data", "seconds": 2.1, "skipped": True},
            {"name": "teacher", "seconds": 95.0, "skipped": False},
        ],
        "training": {
            "teacher": _training(400, 1.9, 0.35, 0.210, 0, {}),
            "student": _training(600, 1.9, 0.55, 0.080, 1, {}),
            "distilled": _training(600, 1.8, 0.48, 0.121, 2, {"bckd": {"weight": 1.0}}),
        },
        "gates": [
            {"name": "teacher floor", "passed": True, "text": "teacher mIoU 72.4 %, floor 50.0 %"},
            {"name": "export parity", "passed": True, "text": "0.001 % of 98304 pixels differ from torch on 8 images"},
        ],
        "calibration": {"split": "train", "count": 64},
        "failure": "",
    }


def write_sample_data(folder: Path, pictures: int = 3) -> Path:
    """Write `samples.npz`, `pictures.npz` and `confusion.npz` of the sample report and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    samples = {}
    for name, _, _, _, _, _, p50, wall, _, _ in _ROWS:
        for kind, median in (("engine_ns", p50), ("wall_ns", wall)):
            if median is not None:
                samples[f"{name}/{kind}"] = _latency_ns(median, _runs(name))
                samples[f"{name}/{kind.removesuffix('_ns')}_bursts"] = np.full(10, _runs(name) // 10)
    np.savez_compressed(folder / "samples.npz", **samples)
    arrays: dict[str, np.ndarray] = {}
    for i in range(pictures):
        image, truth = _scene(rng)
        arrays |= {f"{i}/name": np.array(f"test_scene_{i:03d}"), f"{i}/image": image, f"{i}/truth": truth}
        arrays |= {f"{i}/{row[0]}": _predicted(rng, truth, row[-1]) for row in _ROWS}
    np.savez_compressed(folder / "pictures.npz", **arrays)
    np.savez_compressed(folder / "confusion.npz", **{row[0]: _confusion() for row in _ROWS})
    return folder


def _confusion() -> np.ndarray:
    """Return a matrix (K, K) int64: nine of ten pixels of each class are right, one is of the class before; the last never occurs."""
    matrix = 9 * np.eye(len(CLASSES), dtype=np.int64) + np.roll(np.eye(len(CLASSES), dtype=np.int64), -1, axis=1)
    matrix[-1] = 0
    return matrix


def _definition(title: str, text: str, higher: bool = True) -> dict[str, Any]:
    return {"title": title, "text": text, "higher_is_better": higher}


def _row(
    index: int, name: str, stage: str, target: str, precision: str, miou: float, edge: float, p50: float | None,
    wall: float | None, size_bytes: int,
) -> dict[str, Any]:  # fmt: skip
    rng = np.random.default_rng(3)
    per_class = np.clip(miou + rng.normal(0, 0.14, len(CLASSES) - 1), 0.05, 0.98)
    is_teacher = stage == "teacher"
    return {
        "id": name, "stage": stage, "method": "bckd" if index >= 2 else "none", "target": target, "board": "local",
        "precision": precision,
        "metrics": {
            "miou": miou, "pixel_accuracy": 0.6 + miou / 2, "boundary_iou": edge, "trimap_miou_3px": miou - 0.12,
            "spurious_components": round(0.9 - 0.8 * miou, 3), "missing_components": round(0.5 - 0.4 * miou, 3),
        },
        "iou_per_class": {**dict(zip(CLASSES, map(float, per_class), strict=False)), "never seen": None},
        "num_images": 96,
        "latency_ms": _summary(p50, _runs(name)), "wall_ms": _summary(wall, _runs(name)),
        **(_split(p50, wall) if p50 and wall else {}),
        "warnings": ["wall time drifted by +12.0% (test data)"] if name == "onnxruntime-int8" else [],
        "throughput_fps": 1000 / p50 if p50 else None,
        **({"runtime": {"runtime": target, "version": "1.2.3 <test>", "threads": 2}} if p50 else {}),
        "size_bytes": size_bytes, "params": 6_100_000 if is_teacher else 960_000,
        "macs": 4_800_000_000 if is_teacher else 610_000_000,
        "sha256": f"{index:064x}", "status": "measured", "reason": "",
    }  # fmt: skip


def _split(p50: float, wall: float) -> dict[str, Any]:
    """Return a wall time of which the stages around the engine take two thirds and one third, behind 2 ms of decoding."""
    around = wall - p50
    stages = {"decode": 2.0, "prepare": around * 2 / 3, "engine": p50, "result": around / 3}
    return {
        "stages_ms": {name: {"p50": value, "n": 600} for name, value in stages.items()},
        "sums_ms": {"array_in": wall, "file_in": wall + 2.0},
        "footprint": {"load_ms": 120.0, "first_ms": 2 * p50, "base_bytes": 90_000_000, "peak_bytes": 150_000_000},
    }


def _runs(name: str) -> int:
    return 300 if name == "onnxruntime-fp32" else 600  # 300 runs cannot carry a p99


def _summary(median: float | None, runs: int) -> dict[str, Any] | None:
    return None if median is None else summarize(_latency_ns(median, runs))


def _latency_ns(median: float, runs: int) -> np.ndarray:
    """Return runs (N,) int64 that spread to the right, a few of them far."""
    rng = np.random.default_rng(int(1000 * median))
    times = median * (0.95 + rng.gamma(2.0, 0.03, runs))
    times[rng.integers(0, runs, 3)] *= 1.8
    return (times * 1e6).astype(np.int64)


def _training(steps: int, first: float, last: float, pace: float, seed: int, methods: dict[str, Any]) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    at = np.linspace(steps / 100, steps, 100).astype(int)
    loss = last + (first - last) * np.exp(-4 * at / steps) + rng.normal(0, 0.02, 100)
    curve = [[int(step), round(float(value), 4)] for step, value in zip(at, loss, strict=True)]
    validation = [[steps // 2, 0.41], [steps, 0.5]]
    return {
        "steps": steps, "batch_size": 8, "seconds_per_step": pace, "curve": curve, "validation": validation,
        "methods": methods,
    }  # fmt: skip


def _scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (H, W, 3) uint8 and its mask (H, W) uint8 with a disc, a ring, poles and an ignored strip."""
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    mask = np.zeros((_HEIGHT, _WIDTH), np.uint8)
    mask[y > 130 + 6 * np.sin(x / 25)] = 1
    left = int(rng.integers(10, 60))
    mask[40:134, left : left + 70] = 2
    for column in rng.integers(100, 240, 4):
        mask[50:150, column : column + 3] = 3
    distance = np.hypot(y - 60, x - int(rng.integers(150, 210)))
    mask[(distance < 30) & (distance > 18)] = 5
    mask[distance < 8] = 4
    mask[:4] = 255
    colors = np.array(
        [[150, 180, 210], [90, 90, 95], [170, 120, 90], [60, 60, 60], [220, 200, 60], [200, 90, 60], [1, 1, 1]]
    )
    shade = colors[np.where(mask == 255, 0, mask)] + rng.normal(0, 9, (_HEIGHT, _WIDTH, 1))
    return np.clip(shade, 0, 255).astype(np.uint8), mask


def _predicted(rng: np.random.Generator, truth: np.ndarray, wrong: float) -> np.ndarray:
    """Return the truth with ragged contours: pixels take the class of a neighbour with probability `wrong`."""
    result = np.where(truth == 255, 0, truth)
    for _ in range(3):
        dy, dx = rng.integers(-2, 3, 2)
        moved = np.roll(result, (dy, dx), (0, 1))
        blocks = rng.random((_HEIGHT // 4, _WIDTH // 4)) < wrong
        result = np.where(np.kron(blocks, np.ones((4, 4), bool)), moved, result)
    return result.astype(np.uint8)
