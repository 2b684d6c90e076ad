"""The table of `ptq_study.py`: for each quantizer and part of the images, the change of every arm against the default."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.evaluate.image_scores import read_image_scores

RESAMPLES, SEED = 2000, 0
BASE = "default"
METRICS = {"semantic": "miou", "detection": "map", "instance": "mask_map"}


def file_of(folder: Path, key: tuple[str, str, str, str], part: str) -> Path:
    """Return the file of a case's scores of each image of a part."""
    words = (key[0], key[1][:8], key[2], key[3].replace(" ", "_").replace(",", ""), part)
    return folder / f"{'-'.join(words)}.npz"


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a study."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(out: Path) -> None:
    """Print, for each quantizer and part, the change of every arm against the default."""
    lines = read(out.with_suffix(".jsonl"))
    students = list(dict.fromkeys(one["student"] for one in lines))
    floats = {one["student"]: one for one in lines if one["quantizer"] == "float"}
    for quantizer in ("qdq", "qdq_signed", "nncf"):
        cases = {(one["student"], one["arm"]): one for one in lines if one["quantizer"] == quantizer}
        for part in ("selection", "val"):
            print(
                f"\n{quantizer}, {part}: change against the default in points (mIoU or mAP * 100) [95 %], and of SQNR in dB\n"
            )
            print("| arm | " + " | ".join(students) + " | mean |")
            print("|---" * (len(students) + 2) + "|")
            for name in dict.fromkeys(arm for _, arm in cases):
                cells = [_cell(out, cases, floats, student, name, part) for student in students]
                print(f"| {name} | " + " | ".join(cells) + f" | {_mean(out, cases, students, name, part)} |")


def _cell(out: Path, cases: dict, floats: dict, student: str, name: str, part: str) -> str:
    case, base = cases.get((student, name)), cases.get((student, BASE))
    if case is None or base is None or "error" in base:
        return ""
    if "error" in case:
        return "refused"
    metric = _metric(case, part)
    if name == BASE:
        kept = 100 * case[part][metric] / floats[student][part][metric]
        return f"{100 * case[part][metric]:.2f} = {kept:.1f} % of float, {case[part]['sqnr_db']:.1f} dB"
    change = 100 * (case[part][metric] - base[part][metric])
    noise = case[part]["sqnr_db"] - base[part]["sqnr_db"]
    return f"{change:+.2f}{_interval(_resampled(out, base, case, part))}, {noise:+.1f} dB"


def _mean(out: Path, cases: dict, students: list[str], name: str, part: str) -> str:
    pairs = [(cases.get((one, BASE), {"error": ""}), cases.get((one, name), {"error": ""})) for one in students]
    pairs = [(base, case) for base, case in pairs if "error" not in base and "error" not in case]
    if name == BASE or not pairs:
        return ""
    change = np.mean(
        [100 * (case[part][_metric(case, part)] - base[part][_metric(case, part)]) for base, case in pairs]
    )
    drawn = np.mean([_resampled(out, base, case, part) for base, case in pairs], axis=0)
    return f"**{change:+.2f}**{_interval(drawn)} of {len(pairs)}"


def _metric(case: dict, part: str) -> str:
    return next(name for name in METRICS.values() if name in case[part])


def _interval(drawn: np.ndarray) -> str:
    return f" [{np.quantile(drawn, 0.025):+.2f}, {np.quantile(drawn, 0.975):+.2f}]"


def _resampled(out: Path, base: dict, case: dict, part: str) -> np.ndarray:
    """Return the change of the metric in points of each resample of the images."""
    names = ("student", "sha256", "quantizer", "arm")
    files = [file_of(out, tuple(one[name] for name in names), part) for one in (base, case)]
    before, after = (_scores(file, _metric(case, part)) for file in files)
    return 100 * (after - before)


@cache
def _scores(file: Path, metric: str) -> np.ndarray:
    """Return the score of each resample of the images, the same images for every file."""
    with np.load(file) as arrays:
        scored = read_image_scores(dict(arrays))
    assert scored is not None
    count = scored.num_images
    draws = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    return np.concatenate([scored.scores(part)[metric] for part in np.array_split(draws, RESAMPLES // 50)])
