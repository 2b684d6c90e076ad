"""Scores a run's ONNX file without edgekd: Pillow, ONNX Runtime, torch and torchmetrics only; compares with the report.

    python benchmarks/score_by_hand.py runs/camvid... ../shared/data/camvid

Takes a data set in the `folder` layout. Exits with 1 when mIoU differs by more than 1e-4 from the report's row
`onnx-fp32`. The resize is Pillow's bilinear to the size in the contract; logits are resized by torch's bilinear.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

LIMIT = 1e-4


def main() -> int:
    """Print both numbers; return 1 when they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path, help="folder with images/val and masks/val")
    arguments = parser.parse_args()
    report = json.loads((arguments.run / "report.json").read_text())
    contract = json.loads((arguments.run / "export/manifest.json").read_text())["model_spec"]["preprocess"]
    mean, std = (np.array(contract[name], np.float32) for name in ("mean", "std"))
    height, width = contract["size"]
    session = onnxruntime.InferenceSession(arguments.run / "export/model.onnx", providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    miou = MulticlassJaccardIndex(len(report["classes"]), ignore_index=255)
    files = sorted((arguments.data / "images/val").iterdir())
    for file in files:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR), np.float32)
        truth = torch.from_numpy(np.asarray(Image.open(arguments.data / "masks/val" / f"{file.stem}.png")).astype(int))
        (logits,) = session.run(None, {entry.name: ((pixels / 255 - mean) / std).transpose(2, 0, 1)[None]})
        full = torch.nn.functional.interpolate(torch.from_numpy(logits), tuple(truth.shape), mode="bilinear")
        miou.update(full.argmax(1).flatten(), truth.flatten())
    by_hand = float(miou.compute())
    reported = next(row for row in report["rows"] if row["id"] == "onnx-fp32")["metrics"]["miou"]
    difference = abs(by_hand - reported)
    print(f"{len(files)} images: by hand {by_hand:.6f}, report {reported:.6f}, difference {difference:.1e}")
    return 0 if difference <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
