"""The files of a bench: `bench.json` with every summary, `samples.npz` with the raw samples.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

import numpy as np

from edgekd.board.bench import BenchResult, Measured
from edgekd.board.footprint import Footprint
from edgekd.board.laps import PARTS
from edgekd.board.sysinfo import Facts
from edgekd.board.timing import Series, WarmUp
from edgekd.errors import ArtifactError

SCHEMA = "edgekd.bench/2"
SAMPLES, FACTS = "samples.npz", "bench.json"
_KINDS = ("engine", "wall", "decode")


def save(results: Mapping[str, BenchResult], folder: Path) -> None:
    """Write `samples.npz` and `bench.json`.

    `samples.npz` has int64 arrays `<row>/engine_ns` and `<row>/engine_start_ns`, one entry per run; `<row>/engine_bursts`, the
    number of runs in each round; the same for `wall` and `decode`; and `<row>/wall_prepare_ns`, `_engine_ns`, `_result_ns`, the
    stages of each run of the wall time.
    """
    arrays: Dict[str, np.ndarray] = {}
    rows: Dict[str, Facts] = {}
    for row, result in results.items():
        rows[row] = {**{name: getattr(result, name) for name in _PLAIN}, "warnings": list(result.warnings)}
        rows[row].update(stages_ms=result.stages_ms(), sums_ms=result.sums_ms())
        rows[row]["footprint"] = asdict(result.footprint) if result.footprint else None
        for kind in _KINDS:
            measured: Optional[Measured] = getattr(result, kind)
            if measured is None:
                continue
            _put(arrays, f"{row}/{kind}", measured.series)
            rows[row][kind] = {
                "summary_ms": measured.summary_ms,
                "cv": measured.cv,
                "drift": measured.drift,
                "warm_up": asdict(measured.warm_up),
            }
    np.savez_compressed(folder / SAMPLES, **arrays)  # type: ignore[arg-type]
    (folder / FACTS).write_text(json.dumps({"schema": SCHEMA, "rows": rows}, indent=1), encoding="utf-8")


def _put(arrays: Dict[str, np.ndarray], name: str, series: Series) -> None:
    arrays[f"{name}_ns"], arrays[f"{name}_start_ns"] = series.samples_ns, series.starts_ns
    arrays[f"{name}_bursts"] = series.bursts
    if series.parts_ns.shape[1]:
        arrays.update({f"{name}_{part}_ns": column for part, column in zip(PARTS, series.parts_ns.T)})  # noqa: B905 - Python 3.8


def _series(arrays: Mapping[str, np.ndarray], name: str) -> Series:
    samples = arrays[f"{name}_ns"]
    parts = [arrays[f"{name}_{part}_ns"] for part in PARTS if f"{name}_{part}_ns" in arrays]
    parts_ns = np.stack(parts, axis=1) if parts else np.zeros((len(samples), 0), np.int64)
    return Series(samples, arrays[f"{name}_start_ns"], arrays[f"{name}_bursts"], parts_ns)


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
        raise ArtifactError(
            f"{folder / FACTS}: expected schema {SCHEMA}, got {data.get('schema')!r}; run the bench again"
        )
    return {row: _loaded(row, facts, arrays) for row, facts in data["rows"].items()}


_PLAIN = ("throughput_fps", "stream_fps", "images", "runtime", "before", "after")


def _loaded(row: str, facts: Facts, arrays: Mapping[str, np.ndarray]) -> BenchResult:
    try:
        measured: Dict[str, Any] = {
            kind: Measured(
                facts[kind]["summary_ms"],
                facts[kind]["cv"],
                facts[kind]["drift"],
                WarmUp(**facts[kind]["warm_up"]),
                _series(arrays, f"{row}/{kind}"),
            )
            for kind in _KINDS
            if kind in facts
        }
        plain = {name: facts[name] for name in _PLAIN}
        measured.setdefault("decode", None)
        footprint = Footprint(**facts["footprint"]) if facts["footprint"] else None
        return BenchResult(**measured, **plain, warnings=tuple(facts["warnings"]), footprint=footprint)
    except (KeyError, TypeError) as exc:
        raise ArtifactError(
            f"row {row}: {FACTS} and {SAMPLES} do not fit each other ({exc}); run the bench again"
        ) from exc
