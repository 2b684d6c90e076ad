"""Collects what a run's artifacts say into `report.json` and `report_data/`; nothing is computed anew or made up."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.board.files import write_atomic
from edgekd.board.sysinfo import environment
from edgekd.core.artifact import SCHEMA as _ARTIFACT_SCHEMA
from edgekd.core.artifact import Artifact, package_versions
from edgekd.core.recipe import Recipe
from edgekd.core.session import why_not_here
from edgekd.core.task_metrics import TASKS
from edgekd.data.base import Sample
from edgekd.data.splits import open_split
from edgekd.evaluate.definitions import DEFINITIONS

SCHEMA = "edgekd.report/1"
REPORT = "report.json"
DATA = "report_data"
_TRAINED = ("teacher", "student", "distilled")


def collect(
    recipe: Recipe,
    artifacts: Mapping[str, Artifact],
    timings: list[dict[str, Any]],
    planned: Collection[str],
    failures: Mapping[str, str],
    failure: str,
) -> dict[str, Any]:
    """Return the report of a run.

    Args:
        recipe: what was run.
        artifacts: finished artifacts by stage name.
        timings: name, seconds and skipped of each stage of this run.
        planned: names of all stages of the recipe, also those that did not run.
        failures: reasons by stage name of the stages that failed while the run went on; `bench/<id>` for an engine that
            the bench left out.
        failure: the line with which the run ended early, or "".
    """
    engines = [f"engine/{engine.id}" for engine in recipe.engines]
    rows = [
        _row(recipe, name, artifacts, failures, failure) for name in (*_TRAINED, "export", *engines) if name in planned
    ]
    definitions = {
        name: {"title": title, "text": text, "higher_is_better": better}
        for name, (title, text, better) in DEFINITIONS.items()
        if any(name in row.get("metrics", {}) for row in rows)
    }
    return {
        "schema": SCHEMA,
        "artifact_schema": _ARTIFACT_SCHEMA,
        "title": f"{recipe.name}: {recipe.student.family} {recipe.student.variant} for {len(recipe.engines)} engines",
        "recipe_name": recipe.name,
        "task": recipe.task,
        "seed": recipe.seed,
        "recipe_sha256": recipe.sha256(),
        "recipe": recipe.model_dump(mode="json"),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "classes": artifacts["data"].details["classes"] if "data" in artifacts else [],
        "environment": {**environment(), "packages": package_versions()},
        "rows": rows,
        "definitions": definitions,
        "stages": timings,
        "training": {n: _training(artifacts[n]) for n in _TRAINED if n in artifacts},
        "gates": _gates(recipe, artifacts),
        "calibration": _calibration(artifacts),
        "repairs": _repairs(artifacts),
        "failure": failure,
    }


def write_report(report: dict[str, Any], root: Path) -> Path:
    """Write `report.json` atomically and return its path."""
    path = root / REPORT
    write_atomic(path, json.dumps(report, indent=1, allow_nan=False))
    return path


def write_page(report: dict[str, Any], root: Path) -> Path:
    """Write `report.html` from a report and its `report_data/`, atomically, and return its path."""
    from edgekd.report.html import render

    path = root / "report.html"
    write_atomic(path, render(report, root / DATA))
    return path


def write_data(recipe: Recipe, artifacts: Mapping[str, Artifact], root: Path) -> None:
    """Write raw latency samples and the pictures with what every row says of them, for the page."""
    folder = root / DATA
    folder.mkdir(exist_ok=True)
    samples, pictures = folder / "samples.npz", folder / "pictures.npz"
    if "bench" in artifacts:
        write_atomic(samples, artifacts["bench"].file("samples.npz").read_bytes())
    else:  # those of an earlier state of this run are not the present engines'
        samples.unlink(missing_ok=True)
    scored = {name: a for name, a in artifacts.items() if name.startswith("evaluate/")}
    if not scored:
        pictures.unlink(missing_ok=True)
        return
    kept = {name.split("/")[1]: np.load(a.file("pictures.npz"), allow_pickle=False) for name, a in scored.items()}
    # Keys are `<index>` of class maps, `<index>/<part>` of objects.
    indices = sorted(set.intersection(*({key.partition("/")[0] for key in k.files} for k in kept.values())), key=int)
    dataset = open_split(recipe, recipe.data.val)
    arrays: dict[str, np.ndarray] = {}
    for place, index in enumerate(indices):
        sample = dataset.load(int(index))
        arrays |= {f"{place}/name": np.array(sample.name), f"{place}/image": sample.image}
        arrays |= {f"{place}/truth{key}": value for key, value in _truth(recipe.task, sample).items()}
        for row, archive in kept.items():
            own = [key for key in archive.files if key.partition("/")[0] == index]
            arrays |= {f"{place}/{_row_id(row)}{key.removeprefix(index)}": archive[key] for key in own}
    in_memory = io.BytesIO()
    np.savez_compressed(in_memory, **arrays)  # type: ignore[arg-type]  # keys never shadow its flags
    write_atomic(pictures, in_memory.getvalue())


def _truth(task: str, sample: Sample) -> dict[str, np.ndarray]:
    """Return what the labels say, by the end of its key."""
    if task == "semantic":
        return {"": sample.mask}
    assert sample.instances is not None
    objects = sample.instances
    crowd = objects.is_ignored
    parts = {"/boxes": objects.boxes_xyxy[~crowd], "/labels": objects.labels[~crowd]}
    parts |= {"/crowd_boxes": objects.boxes_xyxy[crowd], "/crowd_labels": objects.labels[crowd]}
    return parts | (
        {"/mask_bits": np.packbits(objects.masks[~crowd], axis=2)}
        if task == "instance" and objects.masks is not None
        else {}
    )


def _row_id(stage: str) -> str:
    return "onnx-fp32" if stage == "export" else stage.split("/")[-1]


def _row(
    recipe: Recipe, stage: str, artifacts: Mapping[str, Artifact], failures: Mapping[str, str], failure: str
) -> dict[str, Any]:
    name = stage.split("/")[-1]
    engine = next((e for e in recipe.engines if stage.startswith("engine/") and e.id == name), None)
    methods = "+".join(recipe.distill.methods) or "none"
    trained = stage in ("teacher", "student")
    row: dict[str, Any] = {
        "id": _row_id(stage),
        "stage": "engine" if engine else "onnx" if stage == "export" else stage,
        "method": "none" if trained else methods,
        "target": engine.target if engine else "onnxruntime" if stage == "export" else "torch",
        "precision": engine.precision if engine else "fp32",
        "board": engine.board if engine else "local",
    }
    if stage in artifacts:
        row |= _facts(artifacts[stage])
    timed = artifacts["bench"].details["rows"].get(name) if engine and "bench" in artifacts else None
    row |= timed or {}
    score = artifacts.get(f"evaluate/{name}")
    own = next((failures[one] for one in (stage, f"evaluate/{name}", f"bench/{name}") if one in failures), "")
    if own or (engine and "bench" in failures):
        row["status"], row["reason"] = "failed", own or failures["bench"]
    elif score is None:
        absent = why_not_here(engine) if engine and stage in artifacts else ""
        row["reason"] = absent or failure or ("not scored" if timed else "the run was stopped before")
        row["status"] = "measured" if timed else "failed" if failure and not absent else "not measured"
    else:
        row["status"], row["reason"] = "measured", ""
    if score is None:
        return row
    scored = ("metrics", "iou_per_class", "ap_per_class", "best_f1", "num_images", "absent_classes")
    row |= {k: score.details[k] for k in scored if k in score.details}
    if "precision" in score.details:
        row["precision_at_recall"] = score.details["precision"]
    return row


def _facts(artifact: Artifact) -> dict[str, Any]:
    """Return size, hash, parameters and MACs of the deployed file of an artifact."""
    main = artifact.details.get("engine") or artifact.details.get("model") or {"onnx": "model.onnx"}.get(artifact.kind)
    stem = Path(main).stem if main else "weights"
    files = [f for f in artifact.manifest["files"] if Path(f["name"]).stem == stem]
    return {
        "size_bytes": sum(f["bytes"] for f in files),
        "sha256": files[0]["sha256"] if len(files) == 1 else artifact.sha256(),
        "params": artifact.details["params"],
        "macs": artifact.details["macs"],
    }


def _training(artifact: Artifact) -> dict[str, Any]:
    return {**artifact.details["training"], "methods": artifact.details["methods"]}


def _calibration(artifacts: Mapping[str, Artifact]) -> dict[str, Any] | None:
    for name, artifact in artifacts.items():
        if name.startswith("quantize/"):
            calibration = artifact.details["calibration"]
            return {"split": calibration["split"], "count": len(calibration["images"]), "seed": calibration["seed"]}
    return None


def _repairs(artifacts: Mapping[str, Artifact]) -> dict[str, dict[str, int]]:
    """Return what the data stage repaired in labels, for each split that needed it."""
    splits = artifacts["data"].details["splits"] if "data" in artifacts else {}
    return {name: split["repairs"] for name, split in splits.items() if split.get("repairs")}


def _gates(recipe: Recipe, artifacts: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    gates = []
    if "evaluate/teacher" in artifacts:
        task = TASKS[recipe.task]
        score = artifacts["evaluate/teacher"].details["metrics"][task.metric]
        text = f"teacher {task.title} {score:.3f}, floor {recipe.teacher.floor:.3f}"
        gates.append({"name": "teacher floor", "passed": score >= recipe.teacher.floor, "text": text})
    if "export" in artifacts:
        parity = artifacts["export"].details["parity"]
        what = "pixels" if recipe.task == "semantic" else "detections"
        text = (
            f"{parity['different']:.2e} of {parity['compared']} {what} differ from torch on {parity['images']} images"
        )
        gates.append({"name": "export parity", "passed": True, "text": text})
    return gates
