"""The pipeline: order, selection, skipping, running anew, and going on after a kill."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edgekd.core import plugins
from edgekd.core.artifact import SCRATCH, open_artifact
from edgekd.core.machine_facts import environment
from edgekd.core.stage import Stage
from edgekd.core.workspace import Workspace
from edgekd.errors import GateError, UserError, WorkspaceError
from edgekd.executors.boards import why_not_here
from edgekd.pipeline import assist, run_stages
from edgekd.pipeline.checks import check_options
from edgekd.planning import deployed_student, plan, select
from edgekd.targets.rknn.chip import why_not_on
from tests.conftest import REPOSITORY
from tests.unit.core.fake_stages import FAKE_PIPELINE, HERE, STEPS, as_data, calls, run_fake_pipeline
from tests.unit.core.small_recipe import small_recipe, write_recipe

# --- the plan ---------------------------------------------------------------------------------------------------------

FP32 = [{"target": "onnxruntime", "precision": "fp32"}]
SHAPES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "no engines": (
        {"engines": []},
        {"data", "check", "plan", "teacher", "student", "distilled", "export", "evaluate/teacher", "evaluate/student",
         "evaluate/distilled", "evaluate/export"},
    ),
    "no methods": (
        {"distill": {"methods": {}}, "engines": FP32},
        {"data", "plan", "check", "teacher", "student", "export", "engine/onnxruntime-fp32", "bench", "evaluate/teacher",
         "evaluate/student", "evaluate/export", "evaluate/onnxruntime-fp32"},
    ),
    "no methods, no baseline": (
        {"distill": {"methods": {}, "baseline": False}, "engines": []},
        {"data", "plan", "check", "teacher", "student", "export", "evaluate/teacher", "evaluate/student", "evaluate/export"},
    ),
    "no baseline": (
        {"distill": {"methods": {"kd": {}}, "baseline": False}, "engines": []},
        {"data", "check", "plan", "teacher", "distilled", "export", "evaluate/teacher", "evaluate/distilled", "evaluate/export"},
    ),
    "method none": (
        {"distill": {"methods": {"none": {}}}, "engines": []},
        {"data", "check", "plan", "teacher", "student", "distilled", "export", "evaluate/teacher", "evaluate/student",
         "evaluate/distilled", "evaluate/export"},
    ),
    "int8 only": (
        {"distill": {"baseline": False}, "engines": [{"target": "openvino", "precision": "int8"}]},
        {"data", "plan", "check", "teacher", "distilled", "export", "quantize/nncf-ptq", "engine/openvino-int8", "bench",
         "evaluate/teacher", "evaluate/distilled", "evaluate/export", "evaluate/openvino-int8"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_the_plan_has_the_stages_of_the_recipe(tmp_path: Path, shape: str) -> None:
    sections, expected = SHAPES[shape]
    names = [stage.name for stage in plan(small_recipe(tmp_path, **sections))]
    assert set(names) == expected
    assert len(names) == len(expected)


def test_on_a_board_engines_of_other_chips_are_built_and_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/compatible").write_text("radxa,rock-5b\0rockchip,rk3588\0")
    monkeypatch.setattr("edgekd.targets.rknn.target.why_not_on", partial(why_not_on, root=str(tmp_path)))
    asked = {"int8": "rk3588", "fp16": "rk3576"}
    engines = [{"target": "rknn", "precision": p, "options": {"chip": chip}} for p, chip in asked.items()]
    recipe = small_recipe(tmp_path, engines=engines)
    names = {stage.name for stage in plan(recipe)}
    assert {"engine/rknn-int8", "engine/rknn-fp16", "evaluate/rknn-int8"} <= names
    assert "evaluate/rknn-fp16" not in names
    assert why_not_here(recipe.engines[1]) == "no rk3576 in this machine, which is rk3588"


@pytest.mark.parametrize("shape", SHAPES)
def test_every_stage_comes_after_what_it_reads(tmp_path: Path, shape: str) -> None:
    before: set[str] = set()
    for stage in plan(small_recipe(tmp_path, **SHAPES[shape][0])):
        assert set(stage.inputs) <= before
        before.add(stage.name)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_plan_is_the_same_every_time(tmp_path: Path, shape: str) -> None:
    recipe = small_recipe(tmp_path, **SHAPES[shape][0])
    assert plan(recipe) == plan(recipe)


def test_the_teacher_is_scored_before_it_teaches(tmp_path: Path) -> None:
    names = [stage.name for stage in plan(small_recipe(tmp_path))]
    assert names.index("teacher") < names.index("evaluate/teacher") < names.index("distilled")


def test_int8_engines_are_made_from_the_quantized_model_and_fp32_from_the_export(tmp_path: Path) -> None:
    stages = {stage.name: stage for stage in plan(small_recipe(tmp_path))}
    assert stages["engine/onnxruntime-fp32"].inputs == ("export", "data")
    assert stages["engine/openvino-int8"].inputs == ("quantize/nncf-ptq", "export", "data")


def test_what_is_deployed_is_the_distilled_student_when_there_is_one(tmp_path: Path) -> None:
    assert deployed_student(small_recipe(tmp_path)) == "distilled"
    assert deployed_student(small_recipe(tmp_path, "distill.methods={}")) == "student"


# --- selection --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        ("data", {"data"}),
        ("student", {"data", "student"}),
        ("teacher,student", {"data", "teacher", "student"}),
        ("distilled", {"data", "teacher", "distilled"}),
        ("engine/onnxruntime-fp32", {"data", "teacher", "distilled", "export", "engine/onnxruntime-fp32"}),
        ("check", {"data", "check"}),
    ],
)
def test_until_takes_a_stage_and_what_it_is_built_on_without_gates(
    tmp_path: Path, until: str, expected: set[str]
) -> None:
    assert {stage.name for stage in select(plan(small_recipe(tmp_path)), until)} == expected


def test_until_takes_whole_groups_and_none_takes_all(tmp_path: Path) -> None:
    stages = plan(small_recipe(tmp_path))
    names = {stage.name for stage in select(stages, "engine")}
    assert {"engine/onnxruntime-fp32", "engine/openvino-int8", "quantize/nncf-ptq"} <= names
    assert "bench" not in names
    assert select(stages, None) == stages


@pytest.mark.parametrize(
    ("until", "words"),
    [
        ("distiled", "no stage of this recipe is called 'distiled'; did you mean 'distilled'?"),
        ("engine/openvino-int4", "did you mean 'engine/openvino-int8'?"),
        ("data,xyzzy", "'xyzzy'; known: bench, check, data, distilled,"),
        ("", "no stage of this recipe is called ''"),
    ],
)
def test_a_typo_in_until_gets_a_suggestion(tmp_path: Path, until: str, words: str) -> None:
    with pytest.raises(UserError) as refusal:
        select(plan(small_recipe(tmp_path)), until)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.options.widht=3", "data.options.widht: unknown option of 'scenes'; did you mean 'width'?"),
        ("data.format=scense", "no format is called 'scense'; did you mean 'scenes'?"),
        pytest.param(
            *("teacher.family=edgsseg", "no family is called 'edgsseg'; did you mean 'edgeseg'?"),
            marks=pytest.mark.skipif(find_spec("torch") is None, reason="only a machine with torch checks families"),
        ),
        ("export.rewrite=[resize_scale]", "no rewrite is called 'resize_scale'; did you mean 'resize_scales'?"),
        ("engines.0.precision=fp16", "target onnxruntime has no precision 'fp16'; expected one of fp32, int8"),
        ("engines.1.options.treads=3", "engines.openvino-int8.options.treads: unknown option of 'openvino'"),
        ("qat={train: {steps: 1}, quantizer: qdg}", "no quantizer is called 'qdg'; did you mean 'qdq'?"),
        ("quantize.options.nncf.prest=1", "quantize.options.nncf.prest: unknown option of 'nncf'"),
    ],
)
def test_what_belongs_to_plugins_is_checked_before_any_work(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(UserError) as refusal:
        check_options(small_recipe(tmp_path, override))
    assert words in str(refusal.value)


def test_decoding_is_not_given_to_a_toolchain_that_would_quantize_it(tmp_path: Path) -> None:
    engines = [{"target": "rknn", "precision": "int8"}]
    with pytest.raises(UserError, match=r"rknn-int8 would decode in int8.*; set export.detections: heads"):
        check_options(small_recipe(tmp_path, "export.detections=boxes", engines=engines))
    check_options(small_recipe(tmp_path, engines=engines))
    check_options(small_recipe(tmp_path, "export.detections=nms"))


# --- running ----------------------------------------------------------------------------------------------------------


def test_a_first_run_runs_all_and_hands_artifacts_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_fake_pipeline(small_recipe(tmp_path), out)
    assert calls(out) == ["first", "slow", "last"]
    assert not any(run.skipped for run in done.values())
    assert open_artifact(out / "group" / "last").details["text"] == "last (64, 96) 10"
    assert done["group/last"].artifact.manifest["inputs"] == {
        name: open_artifact(out / name).sha256() for name in ("first", "slow")
    }


def test_a_second_run_skips_all(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run_fake_pipeline(small_recipe(tmp_path), out)
    second = run_fake_pipeline(small_recipe(tmp_path), out)
    assert calls(out) == ["first", "slow", "last"]
    assert all(run.skipped for run in second.values())
    assert {n: run.artifact for n, run in second.items()} == {n: run.artifact for n, run in first.items()}


@pytest.mark.parametrize(
    ("override", "again"),
    [
        ("evaluate.pictures=1", ["last"]),
        ("student.train.steps=3", ["slow", "last"]),
        ("data.size=[32, 32]", ["first", "slow", "last"]),
        ("seed=9", ["first", "slow", "last"]),
        ("trainer.workers=1", []),
        ("bench.images=3", []),
    ],
)
def test_a_changed_recipe_runs_what_depends_on_the_change(tmp_path: Path, override: str, again: list[str]) -> None:
    out = tmp_path / "out"
    run_fake_pipeline(small_recipe(tmp_path), out)
    run_fake_pipeline(small_recipe(tmp_path, override), out)
    assert calls(out)[3:] == again


def test_going_back_to_earlier_settings_costs_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run_fake_pipeline(small_recipe(tmp_path), out)
    run_fake_pipeline(small_recipe(tmp_path, "student.train.steps=3"), out)
    worked = len(calls(out))
    back = run_fake_pipeline(small_recipe(tmp_path), out)
    assert len(calls(out)) == worked
    assert {n: run.artifact for n, run in back.items()} == {n: run.artifact for n, run in first.items()}
    assert open_artifact(out / "group" / "last").details["text"] == "last (64, 96) 10"


def test_a_damaged_artifact_is_made_again_and_so_is_what_builds_on_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_fake_pipeline(small_recipe(tmp_path), out)
    (out / "slow" / "weights").write_text("short")
    time.sleep(1.1)  # a manifest tells its second; remade within the same one it is equal, and nothing is out of date
    done = run_fake_pipeline(small_recipe(tmp_path), out)
    assert calls(out)[3:] == ["slow", "last"]
    assert done["first"].skipped
    assert [path.read_text() for path in (out / ".previous").rglob("weights")] != []


def test_a_gate_stands_before_work_alone(tmp_path: Path) -> None:
    """What was finished elsewhere is gone on with where its gates cannot be run, and a gate that is run comes first."""
    first, slow, last = FAKE_PIPELINE
    gate = Stage("gate", "check", f"{HERE}:refuse", ("first",), ("data",))
    gated = replace(slow, prerequisites=("gate",))
    recipe, out = small_recipe(tmp_path), tmp_path / "out"

    def run() -> list[str]:
        with Workspace(out).locked() as workspace:
            return list(run_stages(recipe, workspace, [first, gated, last], prerequisites=[gate]))

    with pytest.raises(GateError, match="refused"):
        run()
    assert calls(out) == ["first", "gate"]
    (out / "pass").touch()
    assert run() == ["first", "gate", "slow", "group/last"]
    (out / "pass").unlink()
    shutil.rmtree(out / "gate")
    shutil.rmtree(out / "group")
    assert run() == ["first", "slow", "group/last"]
    assert calls(out) == ["first", "gate", "gate", "slow", "last", "last"]


def test_other_processes_wait_for_what_trains_alone(tmp_path: Path) -> None:
    first, slow, last = FAKE_PIPELINE
    gate = Stage("gate", "check", f"{HERE}:refuse", ("first",), ("data",))
    gated = replace(slow, prerequisites=("gate",))
    timed = replace(last, external_state=f"{HERE}:never_the_same")
    recipe, out = small_recipe(tmp_path), tmp_path / "out"
    out.mkdir()
    (out / "pass").touch()
    with Workspace(out).locked() as workspace:
        run_stages(recipe, workspace, [first, gated, timed], prerequisites=[gate])
    ran = calls(out)
    shutil.rmtree(out / "gate")
    assist(recipe, Workspace(out), [first, gated, timed], prerequisites=[gate])
    assert calls(out) == ran == ["first", "gate", "slow", "last"]
    with pytest.raises(WorkspaceError, match="first"):
        assist(recipe, Workspace(tmp_path / "empty"), [first, gated, timed], prerequisites=[gate])


@pytest.mark.parametrize("kill_at", [1, STEPS // 2, STEPS])
def test_a_stage_killed_in_the_middle_goes_on_from_its_scratch(tmp_path: Path, kill_at: int) -> None:
    recipe, out = write_recipe(tmp_path), tmp_path / "out"
    out.mkdir()
    (out / "kill-at").write_text(str(kill_at))
    command = [sys.executable, "-m", "tests.unit.core.fake_stages", str(recipe), str(out)]
    killed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert open_artifact(out / "first").kind == "dataset"
    assert not (out / "slow").exists()

    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert calls(out) == ["first", "slow", "slow", "last"]
    slow = open_artifact(out / "slow")
    assert slow.details == {"started_at": kill_at, "ended_at": STEPS}
    assert [entry["name"] for entry in slow.manifest["files"]] == ["weights"]  # nothing half-written of the killed run
    assert not (out / "slow" / SCRATCH).exists()


@pytest.mark.parametrize(
    ("engine", "is_new_on_a_board", "is_new_in_a_version"),
    [
        ({"target": "openvino", "precision": "fp32"}, False, False),
        ({"target": "openvino", "precision": "fp32", "options": {"format": "blob"}}, True, True),
        ({"target": "tensorrt", "precision": "fp16"}, True, True),
        ({"target": "tensorrt_rtx", "precision": "fp16"}, False, True),
        ({"target": "rknn", "precision": "fp16"}, False, False),
    ],
)
def test_an_engine_is_built_anew_where_and_when_it_would_not_load(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: dict[str, Any],
    is_new_on_a_board: bool,
    is_new_in_a_version: bool,
) -> None:
    recipe, artifacts = small_recipe(tmp_path, engines=[engine]), run_fake_pipeline(small_recipe(tmp_path), tmp_path)
    stages = {stage.name.split("/")[0]: stage for stage in plan(recipe)}
    built = as_data(artifacts["slow"].artifact)

    def key(name: str) -> str:
        return stages[name].key(recipe, dict.fromkeys(stages[name].inputs, built))

    before = key("engine")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("edgekd.board.machine.environment", lambda _: {"cpu_model": "Cortex-A76", "memory_bytes": 1})
        assert (key("engine") != before) == is_new_on_a_board
    with monkeypatch.context() as later:
        other = replace(plugins.target(engine["target"]), runtime_version=lambda: "9.9.9")
        later.setattr(plugins.load("targets", engine["target"]), "TARGET", other)
        assert (key("engine") != before) == is_new_in_a_version
    with monkeypatch.context() as pinned:
        facts = environment() | {"affinity": [0], "usable_cores": 1}
        pinned.setattr("edgekd.board.machine.environment", lambda _: facts)
        assert key("engine") == before


def test_a_latency_belongs_to_the_machine_and_to_the_versions_of_the_runtimes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, artifacts = small_recipe(tmp_path), run_fake_pipeline(small_recipe(tmp_path), tmp_path)
    bench = next(stage for stage in plan(recipe) if stage.name == "bench")
    data = as_data(artifacts["slow"].artifact)

    def key() -> str:
        return bench.key(recipe, dict.fromkeys(bench.inputs, data))

    keys = {key(), key()}
    assert len(keys) == 1
    real = environment()
    for facts in ({"cpu_model": "Cortex-A76"}, {"usable_cores": 99}, {"memory_bytes": 1}):
        monkeypatch.setattr("edgekd.board.machine.environment", lambda _, facts=facts: real | facts)
        keys.add(key())
    assert len(keys) == 3  # memory is not its identity
    for place, value in (
        ("edgekd.board.machine.power_mode", {"nvpmodel": "pmode:0002"}),
        ("edgekd.board.machine.machine_id", "another machine"),
        ("edgekd.board.machine.package_version", "9.9.9"),
    ):
        monkeypatch.setattr(place, lambda *_, value=value: value)
        assert key() not in keys
        keys.add(key())


def test_a_cache_of_an_engine_lies_beside_the_recipe_and_makes_no_other_engine(tmp_path: Path) -> None:
    def engine(cache: str) -> dict[str, Any]:
        return {"target": "openvino", "precision": "fp32", "options": {"cache_dir": cache}}

    built = as_data(run_fake_pipeline(small_recipe(tmp_path), tmp_path)["slow"].artifact)
    recipes = [small_recipe(tmp_path, engines=[engine(cache)]) for cache in ("kept", "elsewhere")]
    assert recipes[0].engines[0].options == {"cache_dir": str(tmp_path / "kept")}
    stages = [next(stage for stage in plan(recipe) if stage.name.startswith("engine/")) for recipe in recipes]
    keys = {
        stage.key(recipe, dict.fromkeys(stage.inputs, built)) for stage, recipe in zip(stages, recipes, strict=True)
    }
    assert len(keys) == 1
