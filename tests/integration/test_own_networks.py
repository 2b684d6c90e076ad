"""A tapped student of one's own from `family: python`, from training through distillation with BCKD to its engines."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import onnx
import pytest
import yaml
from safetensors import safe_open

from edgekd.core.artifact import open_artifact
from tests.command import edgekd
from tests.integration.conftest import TINY

# Logits at stride 8 beside auxiliary ones that are there in training only, as networks with deep supervision have them.
NETWORKS = """
import torch
from torch import nn


class Student(nn.Module):
    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.stem = self.block(3, width, 4)
        self.middle = self.block(width, 2 * width, 2)
        self.deep = self.block(2 * width, 4 * width, 2)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.fuse = self.block(6 * width, 2 * width, 1)
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(2 * width, num_classes, 1))
        self.early = nn.Conv2d(2 * width, num_classes, 1)

    def block(self, inputs: int, outputs: int, stride: int) -> nn.Module:
        conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))

    def forward(self, x):
        middle = self.middle(self.stem(x))
        fused = self.fuse(torch.cat([middle, self.up(self.deep(middle))], dim=1))
        logits = self.head(fused)
        return {"out": logits, "aux": self.early(middle)} if self.training else {"out": logits}


def student(num_classes: int, width: int = 8) -> nn.Module:
    return nn.DataParallel(Student(num_classes, width))
"""
STUDENT = {
    "family": "python",
    "variant": "own_networks:student",
    "options": {"options": {"width": 6}, "taps": {4: "stem", 8: "middle", 16: "deep"}, "decoder_tap": "fuse"},
    "train": {"steps": 6, "batch_size": 4},
}
RECIPE = {
    **TINY,
    "name": "own",
    "teacher": {**TINY["teacher"], "train": {"steps": 4, "batch_size": 4}},
    "student": STUDENT,
    "distill": {"methods": {"bckd": {}}},
    "export": {"parity_images": 2},
    "bench": {"min_samples": 20, "min_seconds": 0.05, "warmup_max_seconds": 0.1, "images": 2},
}


def test_a_tapped_student_of_ones_own_goes_from_training_to_its_engines(tmp_path: Path) -> None:
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    done = edgekd("run", "recipe.yaml", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    assert "student: trains auxiliary logits aux with weight 0.4" in done.stderr
    plan = json.loads((run / "plan/manifest.json").read_text())["details"]
    assert [one["name"] for one in plan["student"]] == ["stride 4", "stride 8", "stride 16", "decoder", "logits"]
    (bckd,) = plan["methods"]
    assert {term["name"] for term in bckd["terms"]} == {"boundary", "context"}
    boundary = next(term for term in bckd["terms"] if term["name"] == "boundary")
    assert set(boundary["student"]) <= {"stride 4", "stride 8", "stride 16"}
    assert boundary["student"]

    (*_, last) = csv.DictReader((run / "distilled/steps.csv").open())
    assert float(last["task"]) == pytest.approx(float(last["pixels"]) + float(last["auxiliary"]), abs=1e-4)
    assert float(last["bckd.boundary"]) > 0
    with safe_open(run / "distilled/weights.safetensors", "pt") as weights:
        assert "early.weight" in weights.keys()  # noqa: SIM118 - it is no mapping
    graph = onnx.load(run / "export/model.onnx").graph
    assert [output.name for output in graph.output] == ["logits"]
    assert not any("early" in constant.name for constant in graph.initializer)
    assert open_artifact(run / "export").details["parity"]["different"] == 0

    report = json.loads((run / "report.json").read_text())
    rows = {row["id"]: row for row in report["rows"]}
    engines = [f"{target}-{precision}" for target in ("onnxruntime", "openvino") for precision in ("fp32", "int8")]
    assert {"teacher", "student", "distilled", "onnx-fp32", *engines} <= set(rows)
    for name in engines:
        assert rows[name]["status"] == "measured", name
        assert rows[name]["latency_ms"]["n"] >= 20, name
    assert rows["onnx-fp32"]["metrics"]["miou"] == pytest.approx(rows["distilled"]["metrics"]["miou"], abs=1e-3)
