"""Engines and quantized models of a recipe: ids, boards, variants, and the stages that follow from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekd.core.recipe import Engine
from edgekd.core.recipe_loading import load_recipe
from edgekd.errors import RecipeError
from edgekd.planning import plan
from tests.unit.core.fake_stages import as_data, run_fake_pipeline
from tests.unit.core.small_recipe import small_recipe


def engines_of(folder: Path, *engines: dict) -> list[Engine]:
    variants = {"variants": {"wide": {"images": 4}}}
    return list(small_recipe(folder, engines=list(engines), quantize=variants).engines)


def test_engines_of_one_target_and_precision_stand_side_by_side_under_their_ids(tmp_path: Path) -> None:
    plain = {"target": "openvino", "precision": "int8"}
    built = engines_of(tmp_path, plain, {**plain, "id": "one-thread", "options": {"num_threads": 1}})
    assert [engine.id for engine in built] == ["openvino-int8", "one-thread"]


def test_a_list_of_boards_makes_an_engine_for_each_of_them(tmp_path: Path) -> None:
    plain = {"target": "openvino", "precision": "int8"}
    boards = ["pi", "local", "orin"]
    built = engines_of(tmp_path, {**plain, "board": boards}, {**plain, "id": "lean", "board": boards})
    assert [(engine.id, engine.board) for engine in built] == [
        ("openvino-int8@pi", "pi"),
        ("openvino-int8", "local"),
        ("openvino-int8@orin", "orin"),
        ("lean@pi", "pi"),
        ("lean", "local"),
        ("lean@orin", "orin"),
    ]


def test_an_id_of_its_own_stays_for_an_engine_of_one_board(tmp_path: Path) -> None:
    engine = {"target": "openvino", "precision": "int8", "board": "pi"}
    assert [one.id for one in engines_of(tmp_path, engine, {**engine, "id": "lean"})] == ["openvino-int8@pi", "lean"]


def test_the_command_line_puts_every_engine_on_its_boards_instead(tmp_path: Path) -> None:
    fp32, int8 = ({"target": "openvino", "precision": precision} for precision in ("fp32", "int8"))
    engines = [{**fp32, "board": ["nano", "local"]}, int8, {**int8, "board": "nano"}]
    small_recipe(tmp_path, engines=engines)
    (path,) = tmp_path.glob("*.yaml")
    moved = load_recipe(str(path), boards=["pi", "local", "pi"]).engines
    assert [one.id for one in moved] == [
        "openvino-fp32@pi",
        "openvino-fp32",
        "openvino-int8@pi",
        "openvino-int8",
    ]


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"id": "teacher"}, "is the id of another row of the report"),
        ({"id": "Teacher"}, "is the id of another row of the report"),
        ({"id": "qat"}, "is the id of another row of the report"),
        ({"id": "name"}, "is a name that the report's pictures use"),
        ({"id": "image"}, "is a name that the report's pictures use"),
        ({"id": "truth"}, "is a name that the report's pictures use"),
        ({"id": "a/b"}, "expected a name that can be a folder's"),
        ({"id": "a\nb"}, "expected a name that can be a folder's"),
        ({"id": "a,b"}, "expected a name without ',' and of at most 100 bytes"),
        ({"id": "ö" * 51}, "expected a name without ',' and of at most 100 bytes"),
        ({"board": []}, "board: expected a name, or a list of different names, got []"),
        ({"board": ["pi", "pi"]}, "board: expected a name, or a list of different names, got ['pi', 'pi']"),
        ({"board": [1]}, "board: expected a name, or a list of different names, got [1]"),
        ({"board": ["pi", "local"], "precision": "int4"}, "engines.0.precision: "),
        ({"precision": "int4"}, "'fp32', 'fp16', 'int8' or 'mixed'"),
        ({"variant": "wde", "precision": "int8"}, "quantize.variants has no 'wde'; did you mean 'wide'?"),
        ({"variant": "wide", "precision": "fp32"}, "variant 'wide' is of a quantized model; precision fp32 has none"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(tmp_path: Path, engine: dict, words: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        engines_of(tmp_path, {"target": "openvino", "precision": "fp32", **engine})
    assert words in str(refusal.value)


def test_a_variant_cannot_take_the_name_of_the_section_itself(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'ptq' is the variant of the section itself"):
        small_recipe(tmp_path, quantize={"variants": {"ptq": {}}})


def test_names_that_some_file_systems_take_for_one_are_refused(tmp_path: Path) -> None:
    built = {"target": "openvino", "precision": "fp32"}
    with pytest.raises(RecipeError, match="the ids lean, Lean differ only in case"):
        engines_of(tmp_path, {**built, "id": "lean"}, {**built, "id": "Lean"})
    with pytest.raises(RecipeError, match="V, v differ only in case"):
        small_recipe(tmp_path, quantize={"variants": {"v": {}, "V": {}}})


def test_an_engine_listed_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match="engines: two engines have the id onnxruntime-fp32; give each an `id` of its own"
    ):
        small_recipe(tmp_path, "engines.1.target=onnxruntime", "engines.1.precision=fp32")


def test_quantized_models_of_other_settings_stand_side_by_side(tmp_path: Path) -> None:
    int8 = {"target": "openvino", "precision": "int8"}
    recipe = small_recipe(
        tmp_path,
        engines=[int8, {**int8, "id": "wide", "variant": "wide"}, {**int8, "id": "again", "variant": "wide"}],
        quantize={"images": 8, "variants": {"wide": {"images": 4, "options": {"nncf": {"float_head": True}}}}},
    )
    stages = {stage.name: stage for stage in plan(recipe)}
    assert [name for name in stages if name.startswith("quantize/")] == ["quantize/nncf-ptq", "quantize/nncf-wide"]
    assert stages["engine/openvino-int8"].inputs == ("quantize/nncf-ptq", "export", "data")
    assert stages["engine/wide"].inputs == stages["engine/again"].inputs == ("quantize/nncf-wide", "export", "data")
    settings = {name: recipe.only(*stages[f"quantize/nncf-{name}"].sections).quantize for name in ("ptq", "wide")}
    assert (settings["ptq"].images, settings["ptq"].options) == (8, {"nncf": {}})
    assert (settings["wide"].images, settings["wide"].options) == (4, {"nncf": {"float_head": True}})


def test_another_variant_or_quantizer_does_not_quantize_again(tmp_path: Path) -> None:
    artifact = as_data(run_fake_pipeline(small_recipe(tmp_path), tmp_path / "out")["slow"].artifact)

    def key(**quantize: Any) -> str:
        recipe = small_recipe(tmp_path, quantize=quantize)
        stage = next(stage for stage in plan(recipe) if stage.name == "quantize/nncf-ptq")
        return stage.key(recipe, dict.fromkeys(stage.inputs, artifact))

    before = key(images=8)
    assert key(images=8, variants={"wide": {"images": 4}}) == before
    assert key(images=8, options={"qdq": {"float_head": True}}) == before
    assert key(images=8, options={"nncf": {"float_head": True}}) != before
    assert key(images=9) != before
