"""Checks what the quickstart promises against the report of a finished run; exit 1 with the claim that does not hold.

edgekd run quickstart --out runs/quickstart
python benchmarks/quickstart_claims.py runs/quickstart

`--lenient` only prints the two claims that compare single training runs or times of a busy machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import edgekd


def main() -> int:
    """Print every claim with its numbers; return 1 when one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--lenient", action="store_true")
    arguments = parser.parse_args()
    report = edgekd.load_report(arguments.run)
    rows = {row["id"]: row for row in report["rows"]}
    miou = {name: row["metrics"]["miou"] for name, row in rows.items()}
    p50 = {name: row["latency_ms"]["p50"] for name, row in rows.items() if "latency_ms" in row}
    noisy = [
        (
            f"distilled student {miou['distilled']:.4f} is at least the plain one {miou['student']:.4f}",
            miou["distilled"] >= miou["student"],
        ),
        (
            f"openvino-int8 p50 {p50['openvino-int8']:.3f} ms is faster than fp32 {p50['openvino-fp32']:.3f} ms",
            p50["openvino-int8"] < p50["openvino-fp32"],
        ),
    ]
    claims = [
        (
            f"teacher {miou['teacher']:.4f} beats the plain student {miou['student']:.4f} by 0.03 mIoU or more",
            miou["teacher"] >= miou["student"] + 0.03,
        ),
        *(
            (
                f"{target}-int8 {miou[f'{target}-int8']:.4f} keeps 99 % of fp32 {miou[f'{target}-fp32']:.4f}",
                miou[f"{target}-int8"] >= 0.99 * miou[f"{target}-fp32"],
            )
            for target in ("onnxruntime", "openvino")
        ),
        ("every row is measured", all(row["status"] == "measured" for row in rows.values())),
    ]
    for text, holds in [*claims, *noisy]:
        print(f"{'holds' if holds else 'FAILS'}  {text}")
    judged = claims if arguments.lenient else [*claims, *noisy]
    return 0 if all(holds for _, holds in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
