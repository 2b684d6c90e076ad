"""The setting that leaves a layer in float is one that the recipe takes, and keeps what it left in float before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.core.recipe import Engine, Recipe
from edgekd.layers.advice import float_option, float_override, override_against, round_override
from edgekd.layers.model import INPUTS, QUANTIZATION, RANGE, WEIGHTS, Blame
from tests.unit.core.small_recipe import small_recipe

ENGINES = [
    {"target": "openvino", "precision": "int8"},
    {"target": "openvino", "precision": "int8", "variant": "lean", "id": "lean"},
    {"target": "openvino", "precision": "mixed"},
]


def kept(recipe: Recipe, engine: Engine) -> Any:
    return recipe.quantize.variant(engine.variant).typed_options("nncf").keep_float


def test_the_override_is_of_the_engines_variant_and_adds_to_what_is_there(tmp_path: Path) -> None:
    given = ("quantize.variants={lean: {options: {nncf: {keep_float: [stem]}}}}", "quantize.budget={}")
    recipe = small_recipe(tmp_path, *given, engines=ENGINES)
    wanted = {"openvino-int8": ("head",), "lean": ("stem", "head"), "openvino-mixed": ("head",)}
    for engine in recipe.engines:
        override = float_override(recipe, engine, ["head"])
        assert kept(small_recipe(tmp_path, *given, override, engines=ENGINES), engine) == wanted[engine.id]


def test_a_name_of_any_characters_is_read_back(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, engines=ENGINES[:1])
    override = float_override(recipe, recipe.engines[0], ["a: b, [c]"])
    assert kept(small_recipe(tmp_path, override, engines=ENGINES[:1]), recipe.engines[0]) == ("a: b, [[]c]",)


def test_a_toolchain_that_quantizes_by_itself_has_an_option_of_its_own(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, engines=[{"target": "rknn", "precision": "int8"}])
    assert float_override(recipe, recipe.engines[0], ["head.out"]) == ""
    assert float_option(recipe.engines[0], "head.out") == "keep_float16: [head.out]"


def loss(cause: str) -> Blame:
    return Blame(QUANTIZATION, "stem", "", cause, ("head",))


def test_the_override_is_against_the_cause(tmp_path: Path) -> None:
    def against(cause: str, *given: str) -> str:
        recipe = small_recipe(tmp_path, *given, engines=ENGINES[:1])
        override = override_against(recipe, recipe.engines[0], loss(cause))
        small_recipe(tmp_path, *given, override, engines=ENGINES[:1])  # the recipe takes it
        return override

    assert against(INPUTS) == "quantize.options.nncf.keep_float=[stem, head]"
    assert against(WEIGHTS) == "quantize.adjust=[round]"
    assert against(WEIGHTS, "quantize.adjust=[equalize]") == "quantize.adjust=[equalize, round]"
    assert against(WEIGHTS, "quantize.adjust=[round]") == "quantize.options.nncf.keep_float=[stem, head]"
    per_tensor = "quantize.options.nncf.weights=per_tensor"
    assert against(WEIGHTS, per_tensor) == "quantize.options.nncf.weights=per_channel"
    assert against(RANGE, "quantize.images=32") == "quantize.images=64"


def test_other_ranges_come_before_more_images(tmp_path: Path) -> None:
    engines = [{"target": "onnxruntime", "precision": "int8", "variant": "lean"}]
    given = ("quantize.variants={lean: {images: 16, adjust: [], options: {qdq: {calibration: percentile}}}}",)
    recipe = small_recipe(tmp_path, *given, engines=engines)
    assert override_against(recipe, recipe.engines[0], loss(RANGE)) == (
        "quantize.variants.lean.options.qdq.calibration=minmax"
    )
    assert round_override(recipe, recipe.engines[0]) == "quantize.variants.lean.adjust=[round]"
    default = small_recipe(tmp_path, engines=[{"target": "onnxruntime", "precision": "int8"}])
    assert round_override(default, default.engines[0]) == ""  # `qdq` rounds so where the recipe names no adjustments


def test_ranges_and_weights_of_qat_are_not_calibrated_again(tmp_path: Path) -> None:
    qat = "qat={train: {steps: 5}}"
    recipe = small_recipe(tmp_path, qat, engines=ENGINES[:1])
    engine = next(one for one in recipe.engines if one.student == "qat")
    for cause in (RANGE, WEIGHTS, INPUTS):
        assert override_against(recipe, engine, loss(cause)) == "quantize.options.nncf.keep_float=[stem, head]"
