"""`edgekd check`: four real exports for an RK3588, of which two break the vendor's toolchain, and the command itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgekd.core import plugins
from edgekd.core.recipe import Export
from edgekd.export.onnx_graph import deployed_spec, export_onnx
from edgekd.models.build import build_model
from edgekd.models.families.smp import Options
from edgekd.models.session import torch_spec
from edgekd.preflight.check import Subject, Toward, check
from edgekd.preflight.findings import Report
from edgekd.targets.onnxruntime.target import import_onnxruntime
from edgekd.targets.rknn import target as rknn
from tests.command import edgekd

SIZE = (128, 128)


def report_of(folder: Path, variant: str, encoder: str) -> Report:
    torch.manual_seed(0)
    model = build_model("smp", variant, "semantic", 5, Options(encoder=encoder)).eval()
    settings = Export()
    spec = deployed_spec(torch_spec(model, "semantic", tuple("abcde"), SIZE), model, settings)
    spec, _ = export_onnx(model, spec, settings, folder / "model.onnx")
    return check(Subject(folder / "model.onnx", variant, spec), Toward("rknn", "rk3588"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "encoder", "rule", "module"),
    [
        ("pspnet", "mobilenetv2_050", "adaptive_pooling", "decoder.psp.blocks"),
        ("fpn", "mobilenetv2_050", "stacked_sum", "decoder.merge"),
        ("deeplabv3plus", "mobilenetv2_050", None, ""),
        ("segformer", "mit_b0", None, ""),
    ],
)
def test_what_breaks_rknn_is_named_with_its_module_and_rewritten(
    tmp_path: Path, variant: str, encoder: str, rule: str | None, module: str
) -> None:
    report = report_of(tmp_path, variant, encoder)
    assert report.is_ok, [one for one in report.findings if one.is_fatal]
    rewritten = [one for one in report.findings if one.consequence == "rewritten"]
    assert {one.rule for one in rewritten} == ({rule} if rule else set())
    for one in rewritten:
        assert module in one.module
        assert one.nodes
    assert difference(tmp_path / "model.onnx", rknn.INFO.rewrites) <= 1e-5


def difference(path: Path, rewrites: tuple[str, ...]) -> float:
    """Return the largest difference that rewrites make to a model's output, relative to its largest value."""
    model = onnx.load(path)
    for name in rewrites:
        plugins.load("rewrites", name).rewrite(model)
    onnx.checker.check_model(model, full_check=True)
    open_session = import_onnxruntime().InferenceSession
    before, after = (open_session(one, providers=["CPUExecutionProvider"]) for one in (path, model.SerializeToString()))
    image = np.random.default_rng(0).normal(size=(1, 3, *SIZE)).astype(np.float32)
    (expected,), (got,) = (session.run(None, {"image": image}) for session in (before, after))
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def test_the_command_checks_a_recipes_student_for_its_targets(tiny_recipe: Path) -> None:
    done = edgekd("check", str(tiny_recipe), "--json")
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout)
    assert [one["target"] for one in reports] == ["onnxruntime", "openvino"]
    for one in reports:
        assert one["schema"] == "edgekd.check/1"
        assert one["ok"]
        assert one["parsed"]["answer"] == "yes"
    done = edgekd("check", str(tiny_recipe), "--target", "rknn", "--chip", "rk3576")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "for rknn on rk3576: ok" in done.stdout


def test_the_command_checks_what_a_run_exported_and_refuses_unsigned_graphs_for_tensorrt(tiny_run: Path) -> None:
    done = edgekd("check", str(tiny_run / "export"), "--target", "openvino", "--build")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "matched: yes" in done.stdout
    done = edgekd("check", str(tiny_run / "quantize/qdq-ptq"), "--target", "tensorrt_rtx")
    assert done.returncode == 1
    assert "silent error" in done.stdout
    assert "quantize with qdq_signed" in done.stdout
    done = edgekd("check", str(tiny_run / "export"))
    assert done.returncode == 2
    assert "add --target NAME" in done.stderr


POOLED = """
from torch import nn


def net(num_classes: int) -> nn.Module:
    pooled = nn.Sequential(nn.Conv2d(8, 8, 3, stride=4, padding=1), nn.MaxPool2d(9, stride=1, padding=4))
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), pooled, nn.Conv2d(8, num_classes, 1))
"""
FOR_RKNN = "engines=[{target: rknn, precision: fp16}]"


def test_a_run_stops_before_training_when_its_target_is_known_to_break_the_student(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    (tmp_path / "pooled.py").write_text(POOLED)
    settings = ["--set", FOR_RKNN, "--set", "student.family=python", "--set", "student.variant=pooled:net"]
    settings += ["--set", "distill.methods={kd: {}}"]  # this student shows no feature maps
    command = ["run", str(tiny_recipe), "--out", str(tmp_path / "run"), *settings]
    done = edgekd(*command, path=[tmp_path])
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("edgekd: check")]
    assert line.startswith("edgekd: check: rknn-fp16: refused: MaxPool ")
    assert line.endswith("--set check=warn")
    assert not (tmp_path / "run" / "teacher").exists()
    done = edgekd(*command, "--until", "check", "--set", "check=warn", path=[tmp_path])
    assert done.returncode == 0, done.stderr
    assert "refused: MaxPool" in done.stderr


def test_a_run_checks_once_and_other_engines_do_not_train_again(tiny_recipe: Path, tiny_run: Path) -> None:
    from edgekd import planning
    from edgekd.core.artifact import open_artifact
    from edgekd.core.recipe_loading import load_recipe

    (report, _) = open_artifact(tiny_run / "check", "check").details["reports"]
    assert report["ok"]
    one, other = (load_recipe(str(tiny_recipe), more) for more in ([], [FOR_RKNN]))
    keys = []
    for recipe in (one, other):
        data = open_artifact(tiny_run / "data")
        stages = {stage.name: stage for stage in planning.plan(recipe)}
        keys.append({name: stages[name].key(recipe, {"data": data}) for name in ("check", "teacher", "student")})
    assert keys[0]["check"] != keys[1]["check"]
    assert keys[0]["teacher"] == keys[1]["teacher"]
    assert keys[0]["student"] == keys[1]["student"]


def test_a_rewrite_of_the_recipe_is_done_before_parity_is_measured_and_recorded(
    tiny_recipe: Path, tiny_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    done = edgekd("export", str(tiny_recipe), "--out", str(tmp_path / "run"), "--set", "export.rewrite=[resize_scales]")
    assert done.returncode == 0, done.stderr
    details = json.loads((tmp_path / "run/export/manifest.json").read_text())["details"]
    assert details["rewritten"]["resize_scales"]  # torch exports `nearest` with asymmetric coordinates
    assert details["parity"]["different"] <= 1e-3
    assert json.loads((tiny_run / "export/manifest.json").read_text())["details"]["rewritten"] == {}
