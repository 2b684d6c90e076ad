"""Recipes: what loads, what is refused, and in which words."""

from __future__ import annotations

import copy
import typing
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgekd.core.plugin_options import plugin_options
from edgekd.core.recipe import Recipe
from edgekd.core.recipe_file import MAX_DEPTH, MAX_NODES
from edgekd.core.recipe_loading import find_recipe, load_recipe, shipped_recipes
from edgekd.errors import RecipeError
from edgekd.pipeline.checks import check_options
from tests.unit.core.small_recipe import SMALL, small_recipe, write_recipe

# --- unknown keys -----------------------------------------------------------------------------------------------------

TYPOS = [
    ((), "teachr", "teacher"),
    (("data",), "sise", "size"),
    (("data", "augment"), "flipp", "flip"),
    (("teacher",), "flor", "floor"),
    (("teacher", "train"), "stpes", "steps"),
    (("student",), "varient", "variant"),
    (("student", "train"), "learning_weight_decay", "weight_decay"),
    (("distill",), "base_line", "baseline"),
    (("distill", "methods", "kd"), "warm_up", "warmup"),
    (("engines", 0), "precison", "precision"),
    (("engines", 1), "tarket", "target"),
]


@pytest.mark.parametrize(("where", "typo", "meant"), TYPOS)
def test_an_unknown_key_is_named_with_its_place_and_a_suggestion(
    tmp_path: Path, where: tuple[str | int, ...], typo: str, meant: str
) -> None:
    tree = copy.deepcopy(SMALL)
    node: Any = tree
    for part in where:
        node = node[part]
    node[typo] = 1
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(tree))
    place = ".".join(map(str, (*where, typo)))
    with pytest.raises(RecipeError) as refusal:
        load_recipe(str(path))
    assert str(refusal.value) == f"{path}: {place}: unknown key; did you mean {meant!r}?"


@pytest.mark.parametrize("section", ["trainer", "export", "quantize", "bench", "evaluate"])
def test_sections_that_the_recipe_leaves_out_refuse_unknown_keys_too(tmp_path: Path, section: str) -> None:
    with pytest.raises(RecipeError, match=f"{section}.zzz: unknown key; known: "):
        small_recipe(tmp_path, f"{section}.zzz=1")


def test_all_findings_are_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as refusal:
        small_recipe(tmp_path, "student.train.steps=0", "teacher.floor=1.5", "bench.min_sample=3")
    text = str(refusal.value)
    assert "\n" not in text
    assert "student.train.steps: Input should be greater than 0, got 0" in text
    assert "teacher.floor: Input should be less than or equal to 1, got 1.5" in text
    assert "bench.min_sample: unknown key; did you mean 'min_samples'?" in text


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"student\.variant: missing"):
        small_recipe(tmp_path, student={"family": "edgeseg", "train": {"steps": 1}})


def test_a_student_without_budget_is_deployed_as_it_is_and_never_distilled(tmp_path: Path) -> None:
    student = {"family": "edgeseg", "variant": "n", "checkpoint": "weights.safetensors"}
    assert small_recipe(tmp_path, student=student, distill={"methods": {}}).student.train is None
    with pytest.raises(RecipeError, match=r"student needs `train` \(a budget\)"):
        small_recipe(tmp_path, student=student)
    with pytest.raises(RecipeError, match=r"student needs `train` \(a budget\)"):
        small_recipe(tmp_path, student={"family": "edgeseg", "variant": "n"}, distill={"methods": {}})


def test_keys_about_a_checkpoint_need_one_and_what_it_leaves_out_needs_a_budget(tmp_path: Path) -> None:
    teacher = {"family": "edgeseg", "variant": "s"}
    for key in ({"checkpoint_key": "ema"}, {"checkpoint_skip": ["head"]}):
        with pytest.raises(RecipeError, match="`checkpoint_key` and `checkpoint_skip` need `checkpoint`"):
            small_recipe(tmp_path, teacher={**teacher, "train": {"steps": 1}, **key})
    with pytest.raises(RecipeError, match="`checkpoint_skip` needs `train`"):
        small_recipe(tmp_path, teacher={**teacher, "checkpoint": "w.pth", "checkpoint_skip": ["head"]})
    budget = {**teacher, "checkpoint": "w.pth", "checkpoint_skip": ["head"], "train": {"steps": 1}}
    assert small_recipe(tmp_path, teacher=budget).teacher.checkpoint_skip == ("head",)


def test_a_teacher_without_budget_or_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"teacher: needs `train` \(a budget\) or `checkpoint`"):
        small_recipe(tmp_path, teacher={"family": "edgeseg", "variant": "s"})


@pytest.mark.parametrize(
    ("task", "other", "used"),
    [
        ("semantic", "detections_tolerance", "class_map_tolerance"),
        ("instance", "class_map_tolerance", "detections_tolerance"),
    ],
)
def test_a_tolerance_of_another_task_is_refused(tmp_path: Path, task: str, other: str, used: str) -> None:
    assert getattr(small_recipe(tmp_path, f"task={task}", f"export.{used}=0.5").export, used) == 0.5
    with pytest.raises(RecipeError, match=f"export.{other} has no meaning for task '{task}'; set export.{used}"):
        small_recipe(tmp_path, f"task={task}", f"export.{other}=0.5")


@pytest.mark.parametrize(
    "override",
    [
        "data.size=[0, 96]",
        "data.size=[64, -96]",
        "data.augment.crop=[0, 0]",
        "data.augment.scale=[1.5, 0.5]",
        "data.augment.scale=[0, 1]",
        "student.train.lr=.inf",
        "student.train.lr='inf'",
        "distill.watchdog_ratio=.nan",
        "seed=-1",
        "seed=4294967296",
        "name=''",
        "name=a/b",
        "name=..",
        "task=depth",
        "engines=null",
    ],
)
def test_values_that_no_run_could_use_are_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(RecipeError, match=override.partition("=")[0].split(".")[-1]):
        small_recipe(tmp_path, override)


# --- overrides --------------------------------------------------------------------------------------------------------


def test_overrides_set_values_of_every_kind(tmp_path: Path) -> None:
    recipe = small_recipe(
        tmp_path,
        "seed=7",
        "data.size=[32, 48]",
        "student.train.ema=0.99",
        "student.train.ema=null",
        "distill.methods={}",
        "engines.1.precision=fp32",
        "data.options={root: x}",
        "data.format=folder",
        "data.options.root=/a=b",
    )
    assert recipe.seed == 7
    assert recipe.data.size == (32, 48)
    assert recipe.student.train.ema is None
    assert recipe.distill.methods == {}
    assert [engine.id for engine in recipe.engines] == ["onnxruntime-fp32", "openvino-fp32"]
    assert recipe.data.options["root"] == "/a=b"


def test_an_override_makes_the_sections_on_its_way(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "distill.methods.bckd.options.context=false", "bench.min_samples=5")
    assert recipe.distill.methods["bckd"].options == {"context": False}
    assert recipe.distill.methods["kd"].weight == 1.0
    assert recipe.bench.min_samples == 5


def test_an_override_replaces_a_whole_list_item(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "engines.0={target: openvino, precision: fp32}")
    assert recipe.engines[0].id == "openvino-fp32"


def test_later_overrides_win(tmp_path: Path) -> None:
    assert small_recipe(tmp_path, "seed=1", "seed=2").seed == 2


def test_an_override_of_an_aliased_section_changes_that_place_only(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    tree = copy.deepcopy(SMALL)
    tree["student"]["train"] = tree["teacher"]["train"]  # safe_dump writes &id001 and *id001
    path.write_text(yaml.safe_dump(tree))
    assert "*id001" in path.read_text()
    recipe = load_recipe(str(path), ["student.train.steps=5"])
    assert recipe.student.train.steps == 5
    assert recipe.teacher.train is not None
    assert recipe.teacher.train.steps == 20


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", "expected key.path=value"),
        ("=3", "expected key.path=value"),
        ("", "expected key.path=value"),
        ("seed.x=3", "'seed' holds a value, not a section"),
        ("engines.2.target=x", "'2' is not an index below 2"),
        ("engines.-1.target=x", "'-1' is not an index below 2"),
        ("engines.first.target=x", "'first' is not an index below 2"),
        ("engines.²=1", "'²' is not an index below 2"),
        ("engines.0.target.x=1", "'target' holds a value, not a section"),
        ("data.size.0.x=1", "'0' holds a value, not a section"),
        ("seed=[1", "not plain YAML"),
        ("seed=!!python/object/apply:os.getcwd []", "not allowed"),
        ("seed=2020-13-45", "not plain YAML"),
        ("name=2020-01-01", "put it in quotes if it is meant as text"),
        ("data.options={1.5: 2}", "put it in quotes"),
        ("data.options={true: 2}", "put it in quotes"),
        ("data.options={8: 2, 0x8: 3}", "key '8' is given twice"),
        ('data.options={8: 2, "8": 3}', "key '8' is given twice"),
        ("data..size=1", "data.: unknown key"),
    ],
)
def test_a_bad_override_is_quoted_with_the_reason(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        small_recipe(tmp_path, override)
    assert words in str(refusal.value)


KEYS = [
    *("seed", "name", "data.size", "data.options", "data.options.root", "teacher.checkpoint", "engines", "engines.0"),
    *("distill.methods", "student.options.deep.er", "x", "trainer.devices"),
]


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(KEYS) | st.text(max_size=12), value=st.text(max_size=30))
@example("data.options", "&a [*a]")
@example("data.options", "!!timestamp x")
@example("data.options.x", "!!int ''")
@example("data.options.x", "0x_")
@example("data.options.x", "0x" + "f" * 5000)
@example("data.options.x", "9" * 5000)
@example("data.options.x", '"\\ud800"')
@example("data.options.root", "~nobody-of-that-name/x")
@example("data.options.root", '"\\0"')
@example("data.options.root", "x" * 5000)
@example("teacher.checkpoint", '"a\\0b"')
@example("data.options.x", "!!binary /w==")
@example("data.options.x", "!!set {a, b}")
@example("data.options.x", "[" * 3000)
@example("data.options", "{? [1, 2] : 3}")
@example("data.options", "{? 2020-01-01 : 3}")
@example("seed", "1e999")
@example("seed", "1.0e+999")
@example("data.size", "0001-01-01 00:00:00+23:59")
def test_any_override_either_loads_or_is_a_recipe_error(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "recipe.yaml"
    if not path.exists():
        write_recipe(tmp_path)
    try:
        recipe = load_recipe(str(path), [f"{key}={value}"])
    except RecipeError:
        return
    assert len(recipe.sha256()) == 64  # also what was read can be written


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
def test_any_file_either_loads_or_is_a_recipe_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError):
        load_recipe(str(path))


# --- keys that are numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strides", ["{8: 0.5, 16: 2}", '{"8": 0.5, "16": 2}', "{0x8: 0.5, '16': 2}"])
def test_a_key_may_be_a_number_or_its_text(tmp_path: Path, strides: str) -> None:
    key = "distill.methods.bckd.options.strides"
    recipe = small_recipe(tmp_path, f"{key}={strides}")
    options = plugin_options("methods", "bckd", recipe.distill.methods["bckd"].options, "here")
    assert options.strides == {8: 0.5, 16: 2.0}
    assert recipe.sha256() == small_recipe(tmp_path, f"{key}.8=0.5", f"{key}.16=2").sha256()


def test_a_file_may_have_numbers_as_keys(tmp_path: Path) -> None:
    mine = {"family": "python", "variant": "nets:big", "options": {"taps": {8: "layer2", 16: "layer3"}}}
    masks = {"format": "folder", "size": [64, 96], "options": {"root": ".", "labels": {0: "wall", 255: "crack"}}}
    recipe = small_recipe(tmp_path, student={**mine, "train": {"steps": 10}}, data=masks)
    assert plugin_options("families", "python", recipe.student.options, "here").taps == {8: "layer2", 16: "layer3"}
    assert plugin_options("formats", "folder", recipe.data.options, "here").labels == {0: "wall", 255: "crack"}


def test_a_number_where_text_is_expected_names_its_place(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "distill.methods.bckd.options.strides={eight: 1.0}")
    with pytest.raises(RecipeError, match=r"here\.strides\.eight.*valid integer.*got 'eight'"):
        plugin_options("methods", "bckd", recipe.distill.methods["bckd"].options, "here")


# --- descriptions -----------------------------------------------------------------------------------------------------


def sections(section: type[pydantic.BaseModel]) -> dict[str, type[pydantic.BaseModel]]:
    """Return a recipe section and all sections in it, by name."""
    found = {section.__name__: section}
    annotations = [field.annotation for field in section.model_fields.values()]
    while annotations:
        annotation = annotations.pop()
        # Python 3.10 takes list[str] for a type.
        is_type = isinstance(annotation, type) and typing.get_origin(annotation) is None
        if is_type and issubclass(annotation, pydantic.BaseModel):
            found |= sections(annotation)
        annotations += typing.get_args(annotation)
    return found


@pytest.mark.parametrize("section", sections(Recipe).values())
def test_every_key_of_a_section_has_a_description(section: type[pydantic.BaseModel]) -> None:
    assert [name for name, field in section.model_fields.items() if not (field.description or "").endswith(".")] == []


# --- hostile files ----------------------------------------------------------------------------------------------------


TAGS = ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!!python/name:os.mkdir", "!mine", "!!set"]


@pytest.mark.parametrize("tag", TAGS)
def test_a_yaml_tag_is_refused_and_nothing_is_run(tmp_path: Path, tag: str) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / "r.yaml"
    path.write_text(f"name: x\ndata: {tag} [{marker}]\n")
    with pytest.raises(RecipeError, match=r"tag .* is not allowed"):
        load_recipe(str(path))
    assert not marker.exists()


def test_aliases_that_explode_are_refused_before_they_are_written_out(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]  # 10**12 values
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(RecipeError, match=str(MAX_NODES)):
        load_recipe(str(path))


def test_an_alias_to_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text("name: x\ndata: &a {options: *a}\n")
    with pytest.raises(RecipeError, match=f"nested deeper than {MAX_DEPTH}"):
        load_recipe(str(path))


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    path.write_text(path.read_text() + "seed: 5\n")
    with pytest.raises(RecipeError, match="key 'seed' is given twice"):
        load_recipe(str(path))


def test_merge_keys_still_work(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    tree = {key: value for key, value in SMALL.items() if key not in ("teacher", "student")}
    path.write_text(
        yaml.safe_dump(tree)
        + "teacher: &net {family: edgeseg, variant: s, train: {steps: 20}}\nstudent: {<<: *net, variant: n}\n"
    )
    recipe = load_recipe(str(path))
    assert (recipe.teacher.variant, recipe.student.variant, recipe.student.train.steps) == ("s", "n", 20)


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "just text", "42"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError, match="a recipe is a mapping of sections, got"):
        load_recipe(str(path))


# --- where things are -------------------------------------------------------------------------------------------------


def test_relative_paths_start_at_the_recipes_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, elsewhere = tmp_path / "inner", tmp_path / "elsewhere"
    inner.mkdir()
    elsewhere.mkdir()
    write_recipe(
        inner,
        data={"format": "folder", "size": [64, 64], "options": {"root": "../images"}},
        teacher={"family": "smp", "variant": "fpn", "checkpoint": "w/t.pt", "options": {"encoder_weights": "./e.pt"}},
    )
    monkeypatch.chdir(elsewhere)
    recipe = load_recipe("../inner/recipe.yaml", ["student.checkpoint=s.pt"])
    assert recipe.data.options["root"] == str(tmp_path / "images")
    assert recipe.teacher.checkpoint == inner / "w" / "t.pt"
    assert recipe.teacher.options["encoder_weights"] == str(inner / "e.pt")
    assert recipe.student.checkpoint == inner / "s.pt"


def test_a_relative_override_that_only_the_current_folder_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, elsewhere = tmp_path / "inner", tmp_path / "elsewhere"
    inner.mkdir()
    (elsewhere / "data").mkdir(parents=True)
    (elsewhere / "t.pt").touch()
    recipe = write_recipe(inner, data={"format": "folder", "size": [64, 96], "options": {"root": "images"}})
    monkeypatch.chdir(elsewhere)
    for override, meant in (("data.options.root=data", "data"), ("teacher.checkpoint=t.pt", "t.pt")):
        with pytest.raises(RecipeError) as caught:
            load_recipe(str(recipe), [override])
        key = override.partition("=")[0]
        assert str(caught.value).endswith(f"for the current folder write --set {key}={elsewhere / meant}")
        assert f"{inner / meant} does not exist" in str(caught.value)
    (inner / "data").mkdir()
    assert load_recipe(str(recipe), ["data.options.root=data"]).data.options["root"] == str(inner / "data")


def test_a_relative_override_of_a_shipped_recipe_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = next(name for name in shipped_recipes() if name.startswith("semantic/camvid"))
    with pytest.raises(RecipeError, match="for the current folder write --set data.options.root="):
        load_recipe(name, ["data.options.root=nowhere"])
    assert load_recipe(name, [f"data.options.root={tmp_path / 'nowhere'}"]).data.options["root"].endswith("nowhere")


@pytest.mark.parametrize("size", ["512x512", 512, [512], [512, 512, 3], None, {"height": 512}])
def test_a_size_that_is_no_height_and_width_is_told_what_it_is(tmp_path: Path, size: object) -> None:
    with pytest.raises(RecipeError) as caught:
        small_recipe(tmp_path, data={"format": "scenes", "size": size})
    assert "data.size: expected height and width as a list, e.g. [512, 1024]" in str(caught.value)


def test_absolute_and_home_paths_stay_where_they_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    recipe = small_recipe(tmp_path, "data.format=folder", "data.options.root=/abs/images", "teacher.checkpoint=~/t.pt")
    assert recipe.data.options["root"] == "/abs/images"
    assert recipe.teacher.checkpoint == tmp_path / "home" / "t.pt"


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_loads_by_name_and_its_plugins_know_its_options(name: str) -> None:
    recipe = load_recipe(name)
    check_options(recipe)
    assert recipe.engines or name.startswith("study/")  # a study builds none


def test_the_quickstart_is_shipped() -> None:
    assert "quickstart" in shipped_recipes()


def test_a_recipe_that_is_nowhere_gets_a_suggestion() -> None:
    with pytest.raises(
        RecipeError, match="quickstrat: no such file, and no shipped recipe has this name; did you mean 'quicks"
    ):
        find_recipe("quickstrat")
    with pytest.raises(RecipeError, match="no shipped recipe has this name; `edgekd recipes list` lists all$"):
        find_recipe("zzz")


def test_a_recipe_name_that_no_file_system_takes_is_a_recipe_error() -> None:
    with pytest.raises(RecipeError):
        find_recipe("x" * 5000)


# --- a loaded recipe --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", [None, "data", "teacher", "student", "distill", "bench"])
def test_sections_are_frozen(tmp_path: Path, section: str | None) -> None:
    recipe = small_recipe(tmp_path)
    node = recipe if section is None else getattr(recipe, section)
    field = next(iter(type(node).model_fields))
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        setattr(node, field, getattr(node, field))


def test_only_hides_every_section_that_was_not_asked_for(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    seen = recipe.only("data", "engines:openvino-int8")
    assert seen.data == recipe.data
    assert [engine.id for engine in seen.engines] == ["openvino-int8"]
    always = {"name", "task", "seed"}
    hidden = set(type(recipe).model_fields) - always - {"data", "engines"}
    shown = ("teacher", "student", "distill", "qat", "trainer", "export", "quantize", "parity", "check", "bench", "evaluate",
             "layers", "study")  # fmt: skip
    assert hidden == set(shown)
    assert all(getattr(seen, name) is None for name in hidden)
    assert recipe.teacher is not None  # the original is whole


def test_the_hash_is_the_content_with_defaults_written_out(tmp_path: Path) -> None:
    plain = small_recipe(tmp_path)
    assert plain.sha256() == small_recipe(tmp_path, "export.opset=18", "student.train.batch_size=8").sha256()
    assert plain.sha256() != small_recipe(tmp_path, "export.opset=17").sha256()


def test_plugin_options_name_their_place_and_suggest() -> None:
    with pytest.raises(RecipeError, match=r"there\.widht: unknown option of 'scenes'; did you mean 'width'"):
        plugin_options("formats", "scenes", {"widht": 3}, "there")
    with pytest.raises(RecipeError, match=r"there\.width: .*got 'wide'"):
        plugin_options("formats", "scenes", {"width": "wide"}, "there")
    assert plugin_options("formats", "scenes", {"width": 64}, "there").width == 64


def test_a_graph_that_suppresses_keeps_fewer_detections_than_are_asked_for(tmp_path: Path) -> None:
    nms = ("task=detection", "data.format=scenes", "export.detections=nms", "distill.methods={}")
    with pytest.raises(RecipeError, match="export.detections nms keeps 100 detections per image in the graph"):
        small_recipe(tmp_path, *nms, "evaluate.max_detections=101")
    assert (
        small_recipe(tmp_path, *nms, "data.resize=letterbox", "evaluate.max_detections=300").evaluate.max_detections
        == 300
    )
