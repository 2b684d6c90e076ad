"""A recipe's plugin options: dumped as given, typed once, paths where the plugin declares them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from edgekd.core import plugins
from edgekd.core.plugin_options import PluginOptions, path_options_of, plugin_options
from edgekd.core.recipe import Recipe
from edgekd.core.recipe_loading import load_recipe
from edgekd.core.stage import Stage
from edgekd.errors import RecipeError, UserError
from edgekd.study.plan import study_runs, teacher_recipe
from tests.unit.core.small_recipe import SMALL, small_recipe, write_recipe
from tests.unit.core.test_plugins import register

# --- as given, and typed ----------------------------------------------------------------------------------------------


class Holder(BaseModel):
    """A section with options."""

    options: PluginOptions = PluginOptions()


def test_options_are_a_mapping_of_what_was_given() -> None:
    held = Holder.model_validate({"options": {"width": 64}})
    assert held.options == {"width": 64}
    assert held.model_dump(mode="json") == {"options": {"width": 64}}
    assert held.model_dump_json() == '{"options":{"width":64}}'
    assert Holder().options == {}
    assert Holder.model_validate({"options": held.options}).options is held.options
    with pytest.raises(ValidationError, match="valid dictionary"):
        Holder.model_validate({"options": 3})


def test_options_are_typed_once_and_defaults_stay_out_of_the_dump() -> None:
    options = PluginOptions({"width": 64})
    typed = options.typed("formats", "scenes", "data.options")
    assert (typed.width, typed.height) == (64, 96)
    assert options.typed("formats", "scenes", "data.options") is typed
    assert dict(options) == {"width": 64}


def test_a_recipe_made_in_code_has_typed_options(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({**SMALL, "data": {**SMALL["data"], "options": {"width": 64}}})
    assert recipe.data.format_options.width == 64
    assert recipe.engines[0].target_options.providers == ("CPUExecutionProvider",)
    assert recipe.quantize.typed_options("qdq").calibration == "minmax"


def test_typed_options_follow_overrides_and_derived_recipes(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "data.options.width=64", "engines.1.options.num_threads=3")
    typed = recipe.data.format_options
    assert typed.width == 64
    assert recipe.engines[1].target_options.num_threads == 3
    for derived in (
        recipe.only("data"),
        teacher_recipe(recipe),
        study_runs(recipe, tmp_path, tmp_path / "w")[0].recipe,
    ):
        assert derived.data.format_options is typed
    other = recipe.data.model_copy(update={"options": PluginOptions({"width": 96})})
    assert recipe.model_copy(update={"data": other}).data.format_options.width == 96


def test_the_settings_of_one_quantized_model_keep_their_options(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "quantize.variants.fast.options.nncf.bias_correction=fast")
    seen = recipe.only("quantize:fast/nncf").quantize
    assert seen.typed_options("nncf") is recipe.quantize.variants["fast"].typed_options("nncf")
    assert seen.typed_options("nncf").bias_correction == "fast"
    assert recipe.only("quantize:ptq/nncf").quantize.typed_options("nncf").bias_correction == "accurate"


# --- loading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.options.widht=3", "data.options.widht: unknown option of 'scenes'; did you mean 'width'?"),
        ("engines.1.options.treads=3", "engines.openvino-int8.options.treads: unknown option of 'openvino'"),
        ("quantize.options.nncf.prest=1", "quantize.options.nncf.prest: unknown option of 'nncf'"),
        ("quantize.variants.a.options.qdq.prest=1", "quantize.variants.a.options.qdq.prest: unknown option of 'qdq'"),
        (
            "quantize.options.qdq.reduce_range=false",
            "qdq.reduce_range: unknown option of 'qdq'; use weight_bits: 7|8|auto instead (true was 7, false was 8)",
        ),
        ("quantize.options.qdq_signed.reduce_range=false", "unknown option of 'qdq_signed'; known: "),  # it has 8 bits
        ("engines.0.options.intra_op_threads=0", "engines.onnxruntime-fp32.options: intra_op_threads: expected 1 to"),
        ("data.format=scense", "no format is called 'scense'; did you mean 'scenes'?"),
    ],
)
def test_options_that_need_no_torch_are_refused_when_the_recipe_is_loaded(
    tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(UserError) as refusal:
        small_recipe(tmp_path, override)
    assert message in str(refusal.value)


def test_loading_a_recipe_imports_no_framework() -> None:
    program = (
        "import sys; from edgekd.core.recipe_loading import load_recipe\n"
        "recipe = load_recipe('semantic/camvid_edgeseg-m_fpn-lite2_bckd')\n"
        "assert recipe.teacher.options['encoder_weights'].startswith('/')\n"
        "print({'torch', 'timm', 'onnx', 'openvino', 'nncf'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


# --- paths ------------------------------------------------------------------------------------------------------------

FOREIGN = '''
from dataclasses import dataclass

from edgekd.board.options import option

TASKS, VARIANTS, build, Method = ("semantic",), {}, None, None


@dataclass(frozen=True)
class Options:
    """A path, a switch that may be a path, and text."""

    prior: str = option(..., "File.", is_path=True)
    start: "str | bool" = option(False, "File, or whether to download it.", is_path=True)
    mode: str = option("mean", "Mode.")


TASKS, VARIANTS, Method, build, open_dataset = ("semantic",), None, None, None, None
'''


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a method, a family and a format of another package; return its folder."""
    site = tmp_path / "site"
    for kind in ("methods", "families", "formats"):
        register(site, kind, f"mine_{kind}", f"mine_{kind}")
        (site / f"mine_{kind}.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(str(site))
    return site


@pytest.mark.parametrize(("kind", "key"), [("methods", "distill.methods.mine_methods"), ("families", "student")])
def test_paths_of_a_foreign_plugin_start_at_the_recipe_and_are_hashed(
    tmp_path: Path, foreign: Path, kind: str, key: str
) -> None:
    stage, keys = Stage("s", "x", "a:b", (), ("student", "distill")), set()
    for place in ("here", "there"):
        folder = tmp_path / place
        folder.mkdir()
        (folder / "prior.bin").write_text("same")
        options = f"{key}.options={{prior: prior.bin, mode: prior.bin, start: true}}"
        recipe = small_recipe(folder, *(["student.family=mine_families"] if kind == "families" else []), options)
        (use,) = (use for use in recipe.plugin_uses() if use.name == f"mine_{kind}")
        assert dict(use.options) == {"prior": str(folder / "prior.bin"), "mode": "prior.bin", "start": True}
        assert use.typed().prior == str(folder / "prior.bin")
        keys.add(stage.key(recipe, {}))
    assert len(keys) == 1
    (folder / "prior.bin").write_text("other")
    assert stage.key(recipe, {}) not in keys


def test_where_a_target_keeps_its_cache_is_not_in_its_key(tmp_path: Path) -> None:
    stage = Stage("engine/x", "engine", "a:b", (), ("engines:openvino-int8",), "openvino-int8")
    plain = stage.key(small_recipe(tmp_path), {})
    cached = small_recipe(tmp_path, "engines.1.options.cache_dir=kept")
    assert cached.engines[1].options == {"cache_dir": str(tmp_path / "kept")}
    assert stage.key(cached, {}) == plain


def test_a_path_that_the_source_does_not_show_is_refused(tmp_path: Path, foreign: Path) -> None:
    hidden = FOREIGN.replace('"File.", is_path=True', '"File.", **dict(is_path=True)')
    register(foreign, "methods", "hidden", "hidden_method")
    (foreign / "hidden_method.py").write_text(hidden)
    with pytest.raises(
        RecipeError, match="here: the paths among the options of 'hidden' cannot be read from its source"
    ):
        plugin_options("methods", "hidden", {"prior": "x"}, "here")


def test_a_plugin_that_is_not_installed_has_no_paths(tmp_path: Path) -> None:
    assert path_options_of("families", "nobody") == ()
    recipe = load_recipe(str(write_recipe(tmp_path)), ["teacher.family=nobody", "teacher.options.x=y"])
    assert recipe.teacher.options == {"x": "y"}
    with pytest.raises(UserError, match="no family is called 'nobody'"):
        next(use for use in recipe.plugin_uses() if use.name == "nobody").typed()


def test_the_source_of_a_plugin_is_found_without_an_import() -> None:
    assert "class Options" in plugins.source_of("families", "smp")
    assert plugins.source_of("families", "nobody") == ""


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("classes", [False, True], ["classes.0: Input should be a valid string, got False", "put the text in quotes"]),
        ("classes", ["a", None], ["classes.1: Input should be a valid string, got None", "put the text in quotes"]),
        (
            "classes",
            [0, 1.5],
            ["classes.0: Input should be a valid string, got 0", "classes.1", "put the text in quotes"],
        ),
        ("classes", True, ["classes: Input should be a valid", "got True"]),
        ("labels", {"0": True}, ["labels.0: Input should be a valid string, got True", "put the text in quotes"]),
        ("colors", {"#000000": False}, ["colors.#000000: Input should be a valid string, got False", "in quotes"]),
        ("colors", None, ["colors: Input should be a valid dictionary, got None", "put colours in quotes"]),
        ("ignore_index", [0, "x"], ["ignore_index.1: Input should be a valid integer", "got 'x'"]),
        ("ignore_index", "x", ["ignore_index: Input should be a valid integer"]),
    ],
)
def test_a_value_that_does_not_fit_is_told_once_and_for_what_it_was_meant_as(
    option: str, value: object, expected: list[str]
) -> None:
    with pytest.raises(RecipeError) as caught:
        plugin_options("formats", "folder", {"root": "x", option: value}, "data.options")
    for part in expected:
        assert part in str(caught.value)
    assert not any(word in str(caught.value) for word in ("tuple[", "dict[", ".str", ".int"))
