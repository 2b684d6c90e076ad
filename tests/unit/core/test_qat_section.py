"""Section `qat`: the engines that it adds, its stages, what it refuses, and that it changes nothing that is there already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekd.core.artifact import Artifact
from edgekd.core.recipe import Recipe
from edgekd.core.recipe_loading import stored_recipe
from edgekd.core.stage import Stage
from edgekd.errors import RecipeError
from edgekd.planning import plan
from tests.unit.core.small_recipe import SMALL, small_recipe

QAT = "qat={train: {steps: 5}}"
BOTH = [*SMALL["engines"], {"target": "onnxruntime", "precision": "int8"}]


def stages(recipe: Recipe) -> dict[str, Stage]:
    return {stage.name: stage for stage in plan(recipe)}


def test_every_int8_engine_is_there_once_more_for_each_student(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, QAT, engines=BOTH)
    assert [(engine.id, engine.student) for engine in recipe.engines] == [
        ("onnxruntime-fp32", "deployed"),
        ("openvino-int8", "deployed"),
        ("openvino-int8-control", "control"),
        ("openvino-int8-qat", "qat"),
        ("onnxruntime-int8", "deployed"),
        ("onnxruntime-int8-control", "control"),
        ("onnxruntime-int8-qat", "qat"),
    ]
    without = small_recipe(tmp_path, QAT, "qat.control=false")
    assert [engine.id for engine in without.engines] == ["onnxruntime-fp32", "openvino-int8", "openvino-int8-qat"]


def test_a_named_board_stays_at_the_end_of_the_id(tmp_path: Path) -> None:
    engines = [{"target": "openvino", "precision": "int8", "board": ["local", "pi"]}]
    recipe = small_recipe(tmp_path, QAT, "qat.control=false", engines=engines)
    assert [engine.id for engine in recipe.engines] == [
        "openvino-int8", "openvino-int8-qat", "openvino-int8@pi", "openvino-int8-qat@pi",
    ]  # fmt: skip


def test_a_stored_recipe_is_read_as_it_was(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, QAT)
    assert stored_recipe(recipe.model_dump(mode="json"), "report.json").sha256() == recipe.sha256()


def test_the_methods_are_those_of_the_distillation_unless_it_names_others(tmp_path: Path) -> None:
    same, none = small_recipe(tmp_path, QAT).qat, small_recipe(tmp_path, QAT, "qat.methods={}").qat
    assert same is not None
    assert none is not None
    assert same.methods == small_recipe(tmp_path).distill.methods
    assert none.methods == {}


def test_it_trains_in_float32(tmp_path: Path) -> None:
    qat = small_recipe(tmp_path, QAT).qat
    assert qat is not None
    assert qat.train.precision == "32-true"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("qat.train.precision=bf16-mixed",), "precision: expected 32-true, got bf16-mixed"),
        (("engines=[{target: openvino, precision: fp32}]",), "qat: no int8 engine"),
        (("qat.control=false", "engines.1.student=control"), "student: 'control' needs qat.control: true"),
        (("qat=null", "engines.1.student=qat"), "student: 'qat' needs section `qat`"),
        (("qat.methods={kdd: {}}",), "no method is called 'kdd'"),
        (("qat.wen=always",), "qat.wen: unknown key; did you mean 'when'?"),
        (("engines.1.id=qat",), "is the id of another row of the report"),
        (("quantize.variants={lean-qat: {}}",), "quantize.variants.lean-qat: .*must not end in -qat; rename it"),
        (("task=detection", "qat.train.class_balance=1", "distill={methods: {ld: {}}}"), "qat.train.class_balance weighs pixels"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_in_one_line(tmp_path: Path, overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        recipe = small_recipe(tmp_path, QAT, *overrides)
        for use in recipe.plugin_uses():
            use.typed()
    assert "\n" not in str(caught.value)


def test_the_stages_of_both_students(tmp_path: Path) -> None:
    made = stages(small_recipe(tmp_path, QAT))
    assert made["qat"].inputs == ("distilled", "teacher", "export", "data")
    assert made["control"].inputs == ("distilled", "teacher", "data")
    assert made["qat"].prerequisites == made["control"].prerequisites == ("evaluate/teacher",)
    assert made["quantize/nncf-ptq-qat"].inputs == ("export-qat", "qat", "data")
    assert made["quantize/nncf-ptq-control"].inputs == ("export-control", "data")
    assert made["engine/openvino-int8-qat"].inputs == ("quantize/nncf-ptq-qat", "export-qat", "data")
    assert {"evaluate/qat", "evaluate/control", "evaluate/openvino-int8-qat"} <= set(made)


def test_without_methods_no_teacher_is_asked(tmp_path: Path) -> None:
    made = stages(small_recipe(tmp_path, QAT, "qat.methods={}", "distill.methods={}"))
    assert made["qat"].inputs == ("student", "export", "data")
    assert made["qat"].prerequisites == ()


def test_the_quantizer_is_that_of_the_first_int8_engine_or_the_one_that_is_named(tmp_path: Path) -> None:
    def quantizer(*overrides: str) -> str:
        sections = stages(small_recipe(tmp_path, QAT, *overrides, engines=BOTH))["qat"].sections
        return next(section for section in sections if section.startswith("quantize:"))

    assert quantizer() == "quantize:ptq/nncf"
    assert quantizer("qat.quantizer=qdq") == "quantize:ptq/qdq"
    assert quantizer("engines.1.variant=lean", "quantize.variants={lean: {}}") == "quantize:lean/nncf"


def test_the_section_changes_no_stage_that_is_there_without_it(tmp_path: Path) -> None:
    """Nothing that was trained, exported or compiled is made again; `plan` and `check` look at all that is asked for."""
    before, after = small_recipe(tmp_path), small_recipe(tmp_path, QAT)
    old, new = stages(before), stages(after)
    kept = {name for name in old if name not in ("plan", "check", "bench")}
    assert {"teacher", "student", "distilled", "export", "quantize/nncf-ptq", "engine/openvino-int8"} <= kept
    for name in kept:
        assert old[name].inputs == new[name].inputs
        assert old[name]._config(before) == new[name]._config(after), name


@pytest.mark.parametrize(
    "override", ["qat.control=false", "qat.when=always", "qat.train.checkpoint_every=3", "teacher.floor=0.1", "data.val=test",
                 "distill.watchdog_ratio=99", "quantize.budget={}", "quantize.adjust=[bias]"]
)  # fmt: skip
def test_what_decides_nothing_that_is_learned_is_not_in_its_key(tmp_path: Path, override: str) -> None:
    plain, other = small_recipe(tmp_path, QAT), small_recipe(tmp_path, QAT, override)
    assert stages(plain)["qat"]._config(plain) == stages(other)["qat"]._config(other)


@pytest.mark.parametrize("override", ["qat.train.lr=0.1", "qat.methods.kd.weight=2", "quantize.images=3"])
def test_what_it_learns_from_is_in_its_key(tmp_path: Path, override: str) -> None:
    plain, other = small_recipe(tmp_path, QAT), small_recipe(tmp_path, QAT, override)
    assert stages(plain)["qat"]._config(plain) != stages(other)["qat"]._config(other)


def artifact(**manifest: Any) -> Artifact:
    return Artifact(Path("there"), {"created": "now", **manifest})  # type: ignore[typeddict-item]


def test_only_another_graph_and_another_answer_of_the_budget_train_again(tmp_path: Path) -> None:
    """The graph is exported again for other scored images, and the budget asked again for another engine."""
    recipe = small_recipe(tmp_path, QAT, "qat.when=over_budget", "quantize.budget={}", engines=BOTH)
    stage = stages(recipe)["qat"]
    assert {"export", "budget"} <= set(stage.inputs)

    def parts(sha: str, is_met: bool, text: str, **manifest: Any) -> list[object]:
        files = [{"name": "model.onnx", "sha256": sha, "bytes": 1}]
        export = artifact(files=files, model_spec=None, **manifest)
        budget = artifact(details={"is_met": is_met, "text": text}, **manifest)
        return [stage._used_part(recipe, name, one) for name, one in (("export", export), ("budget", budget))]

    plain = parts("a", False, "misses by 1")
    assert parts("a", False, "misses by 2", created="later", key="other") == plain
    assert parts("b", False, "misses by 1") != plain
    assert parts("a", True, "holds") != plain
    assert parts("a", True, "holds") != parts("a", True, "holds by more")
