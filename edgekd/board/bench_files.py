"""The files of a bench: `bench.json` with every summary, `samples.npz` with the raw samples.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Dict, Mapping

import numpy as np

from edgekd.board.bench import BenchResult, Measured
from edgekd.board.sysinfo import Facts
from edgekd.board.timing import Series, WarmUp
from edgekd.errors import ArtifactError

SCHEMA = "edgekd.bench/1"
SAMPLES, FACTS = "samples.npz", "bench.json"


def save(results: Mapping[str, BenchResult], folder: Path) -> None:
    """Write `samples.npz` (int64 `<row>/engine_ns`, `<row>/engine_start_ns`, the same for wall) and `bench.json`."""
    arrays: Dict[str, np.ndarray] = {}
    rows: Dict[str, Facts] = {}
    for row, result in results.items():
        rows[row] = {**{name: getattr(result, name) for name in _PLAIN}, "warnings": list(result.warnings)}
        for kind in ("engine", "wall"):
            measured: Measured = getattr(result, kind)
            arrays[f"{row}/{kind}_ns"] = measured.series.samples_ns
            arrays[f"{row}/{kind}_start_ns"] = measured.series.starts_ns
            rows[row][kind] = {
                "summary_ms": measured.summary_ms,
                "cv": measured.cv,
                "drift": measured.drift,
                "warm_up": asdict(measured.warm_up),
            }
    np.savez_compressed(folder / SAMPLES, **arrays)  # type: ignore[arg-type]
    (folder / FACTS).write_text(json.dumps({"schema": SCHEMA, "rows": rows}, indent=1), encoding="utf-8")


def load(folder: Path) -> Dict[str, BenchResult]:
    """Return the results in a folder that `save` wrote.

    Raises:
        ArtifactError: a file is missing, damaged, or of another schema.
    """
    try:
        data = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        with np.load(folder / SAMPLES, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as exc:
        raise ArtifactError(f"{folder}: no readable {FACTS} and {SAMPLES} ({exc}); run the bench again") from exc
    if data.get("schema") != SCHEMA:
        raise ArtifactError(f"{folder / FACTS}: expected schema {SCHEMA}, got {data.get('schema')!r}")
    return {row: _loaded(row, facts, arrays) for row, facts in data["rows"].items()}


_PLAIN = ("throughput_fps", "images", "runtime", "before", "after")


def _loaded(row: str, facts: Facts, arrays: Mapping[str, np.ndarray]) -> BenchResult:
    try:
        both = [
            Measured(
                facts[kind]["summary_ms"],
                facts[kind]["cv"],
                facts[kind]["drift"],
                WarmUp(**facts[kind]["warm_up"]),
                Series(arrays[f"{row}/{kind}_ns"], arrays[f"{row}/{kind}_start_ns"]),
            )
            for kind in ("engine", "wall")
        ]
        fps, images, runtime, before, after = (facts[name] for name in _PLAIN)
        return BenchResult(both[0], both[1], fps, images, runtime, before, after, tuple(facts["warnings"]))
    except (KeyError, TypeError) as exc:
        raise ArtifactError(
            f"row {row}: {FACTS} and {SAMPLES} do not fit each other ({exc}); run the bench again"
        ) from exc
