"""`edgekd check`: four real exports for an RK3588, of which two broke the vendor's toolchain, and the command itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from edgekd.core.recipe import Export
from edgekd.export.to_onnx import deployed_spec, export_onnx
from edgekd.models.build import build_model
from edgekd.models.families.smp import Options
from edgekd.models.session import torch_spec
from edgekd.preflight.findings import Report
from edgekd.preflight.run import Subject, Toward, check
from tests.command import edgekd

SIZE = (128, 128)


def report_of(folder: Path, variant: str, encoder: str) -> Report:
    torch.manual_seed(0)
    model = build_model("smp", variant, "semantic", 5, Options(encoder=encoder)).eval()
    settings = Export()
    spec = deployed_spec(torch_spec(model, "semantic", tuple("abcde"), SIZE), model, settings)
    export_onnx(model, spec, settings, folder / "model.onnx")
    return check(Subject(folder / "model.onnx", variant, spec), Toward("rknn", "rk3588"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "encoder", "rule", "module"),
    [
        ("pspnet", "mobilenetv2_050", "adaptive_pooling", "decoder.psp.blocks"),
        ("fpn", "mobilenetv2_050", "group_norm", "decoder.seg_blocks"),
        ("deeplabv3plus", "mobilenetv2_050", None, ""),
        ("segformer", "mit_b0", None, ""),
    ],
)
def test_exports_that_break_rknn_are_predicted_with_their_module(
    tmp_path: Path, variant: str, encoder: str, rule: str | None, module: str
) -> None:
    report = report_of(tmp_path, variant, encoder)
    fatal = [one for one in report.findings if one.is_fatal]
    assert report.is_ok == (rule is None), fatal
    assert {one.rule for one in fatal} == ({rule} if rule else set())
    for one in fatal:
        assert module in one.module
        assert one.nodes
        assert one.fix


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
    done = edgekd("check", str(tiny_run / "quantize" / "qdq"), "--target", "tensorrt_rtx")
    assert done.returncode == 1
    assert "silent error" in done.stdout
    assert "quantize with qdq_signed" in done.stdout
    done = edgekd("check", str(tiny_run / "export"))
    assert done.returncode == 2
    assert "expected --target" in done.stderr


GROUP_NORM = [
    "student.family=smp",
    "student.variant=fpn",
    "student.options={encoder: mobilenetv2_050, encoder_weights: null}",
]
FOR_RKNN = "engines=[{target: rknn, precision: fp16}]"


def test_a_run_stops_before_training_when_its_target_is_known_to_break_the_student(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    settings = [part for setting in [*GROUP_NORM, FOR_RKNN] for part in ("--set", setting)]
    done = edgekd("run", str(tiny_recipe), "--out", str(tmp_path / "run"), *settings)
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("edgekd: check")]
    assert line.startswith("edgekd: check: rknn-fp16: silent error: ")
    assert "decoder.seg_blocks" in line
    assert line.endswith("--set check=warn")
    assert not (tmp_path / "run" / "teacher").exists()
    done = edgekd(
        "run", str(tiny_recipe), "--out", str(tmp_path / "run"), "--until", "check", *settings, "--set", "check=warn"
    )
    assert done.returncode == 0, done.stderr
    assert "decoder.seg_blocks" in done.stderr


def test_a_run_checks_once_and_other_engines_do_not_train_again(tiny_recipe: Path, tiny_run: Path) -> None:
    from edgekd import pipeline
    from edgekd.core.artifact import open_artifact
    from edgekd.core.recipe import load_recipe

    (report, _) = open_artifact(tiny_run / "check", "check").details["reports"]
    assert report["ok"]
    one, other = (load_recipe(str(tiny_recipe), more) for more in ([], [FOR_RKNN]))
    keys = []
    for recipe in (one, other):
        data = open_artifact(tiny_run / "data")
        stages = {stage.name: stage for stage in pipeline.plan(recipe)}
        keys.append({name: stages[name].key(recipe, {"data": data}) for name in ("check", "teacher", "student")})
    assert keys[0]["check"] != keys[1]["check"]
    assert keys[0]["teacher"] == keys[1]["teacher"]
    assert keys[0]["student"] == keys[1]["student"]
