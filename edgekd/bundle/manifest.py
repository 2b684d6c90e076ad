"""The manifest of a bundle, from the artifacts of a run: facts of the engine, versions and hashes of its inputs."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from edgekd.bundle.golden import Golden
from edgekd.bundle.run import EngineRun
from edgekd.core import chips, plugins
from edgekd.core.inventory import load_inventory
from edgekd.core.machine_facts import package_version
from edgekd.core.plugin_options import path_options_of, plugin_options
from edgekd.core.recipe import LOCAL
from edgekd.report.latency import Latency
from edgekd.runner.manifest import Json, Manifest


def manifest_of(run: EngineRun, name: str, golden: Golden) -> Manifest:
    """Return the manifest of a bundle; the same run gives the same manifest."""
    details, row = run.engine.details, run.row
    options = plugin_options("targets", details["target"], details["options"], "options")
    paths = path_options_of("targets", details["target"])  # they lead nowhere on a board
    bound = (run.engine.manifest.get("key_content") or {}).get("external_state")
    bound = bound if isinstance(bound, dict) else {}
    return Manifest(
        name=name,
        version=int(datetime.fromisoformat(run.engine.manifest["created"]).timestamp()),
        task=run.engine.spec.task,
        target=details["target"],
        precision=str(details["precision"]),
        engine=f"engine/{details['engine']}",
        tolerance=golden.tolerance,
        golden=len(golden.images),
        options={name: value for name, value in details["options"].items() if name not in paths},
        chip=_chip(run, options, bool(bound.get("machine"))),
        machine=dict(bound.get("machine") or {}),
        runtime=_runtime(run),
        accuracy={metric: value for metric, value in row.metrics.items() if value is not None} if row else {},
        latency=_latency(run),
        made_by=_made_by(run, golden),
        module=plugins.foreign_module("targets", details["target"]),
    )


def _chip(run: EngineRun, options: Any, is_bound: bool) -> str | None:
    """Return the chip that the engine was compiled for: the option's, or that of the board which it is bound to."""
    board = run.engine.details["board"]
    if (named := chips.named_in(options)) is not None or not is_bound or board == LOCAL:
        return named
    entry = load_inventory(Path.cwd()).get(board)
    return entry.chip if entry else None


def _runtime(run: EngineRun) -> dict[str, str]:
    """Return the versions of the target's runtime where the engine was built, or on the board that measured it."""
    known: dict[str, Any] = dict(run.engine.manifest["environment"].get("packages") or {})
    board = run.engine.details["board"]
    if board != LOCAL and board in run.report.boards:
        known = run.report.boards[board].runtimes
    names = plugins.target(run.engine.details["target"]).info.distributions
    return {name: known[name] for name in names if known.get(name)}


def _latency(run: EngineRun) -> Json:
    if run.row is None or run.row.latency_ms is None:
        return {}
    board = run.report.boards.get(run.row.board)
    processor = (board.environment if board else run.report.environment).get("cpu_model")
    found: Json = {"board": run.row.board, "processor": processor, "engine_ms": _percentiles(run.row.latency_ms)}
    if run.row.wall_ms is not None:
        found["wall_ms"] = _percentiles(run.row.wall_ms)
    return found


def _percentiles(latency: Latency) -> Json:
    return {name: getattr(latency, name) for name in ("p50", "p90", "p99", "n") if getattr(latency, name) is not None}


def _made_by(run: EngineRun, golden: Golden) -> Json:
    """Return versions and hashes of the inputs of engine and bundle; no path, no host and no image name."""
    manifest, quantized = run.engine.manifest, run.input("quantized")
    quantizer = quantized.details.get("quantizer") if quantized else None
    return {
        "edgekd": manifest["edgekd_version"],
        "git_commit": manifest["git_commit"],
        "created": manifest["created"],
        "recipe": run.report.recipe_name,
        "recipe_sha256": manifest.get("recipe_sha256"),
        "engine_key": manifest["key"],
        "engine_manifest_sha256": run.engine.sha256(),
        "inputs": dict(manifest.get("inputs") or {}),
        "code": dict(manifest.get("code") or {}),
        "data": _data(run),
        "calibration": _calibration(run),
        "network": _network(run),
        "quantizer": {name: quantizer.get(name) for name in ("quantizer", "versions", "options")}
        if quantizer
        else None,
        "runtime_version": run.engine.details["runtime_version"],
        "tools": dict(manifest["environment"].get("packages") or {}),
        "golden": golden.source,
        "bundled_by": package_version("edgekd"),
    }


def _data(run: EngineRun) -> Json:
    """Return format, classes and, for each split, number of images and fingerprint of the data set."""
    data = run.input("dataset")
    if data is None:
        inputs = (run.engine.manifest.get("key_content") or {}).get("inputs")
        content = inputs.get("data") if isinstance(inputs, dict) else None
        return {"splits": {"train": content}} if isinstance(content, dict) else {}
    splits = {
        name: {"images": split["images"], "fingerprint": split["fingerprint"]}
        for name, split in data.details["splits"].items()
    }
    return {"format": data.details["format"], "splits": splits}


def _calibration(run: EngineRun) -> Json | None:
    quantized = run.input("quantized")
    given = quantized.details.get("calibration") if quantized else None
    if not given:
        return None
    names = json.dumps(given["images"], separators=(",", ":")).encode()
    return {
        "split": given["split"],
        "count": len(given["images"]),
        "seed": given["seed"],
        "images_sha256": hashlib.sha256(names).hexdigest(),
    }


def _network(run: EngineRun) -> Json:
    details, export = run.engine.details, run.input("onnx")
    found: Json = {"params": details.get("params"), "macs": details.get("macs")}
    if export is not None:
        found |= {name: export.details.get(name) for name in ("network", "source", "opsets")}
    return found
