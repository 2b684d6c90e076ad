"""Stages: what their cache key covers, and what their function gets to see."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekd.core.artifact import Artifact, StageResult, publish
from edgekd.core.recipe import Recipe
from edgekd.core.stage import Stage
from edgekd.errors import UserError
from edgekd.planning import plan
from tests.unit.core.fake_stages import HERE
from tests.unit.core.small_recipe import small_recipe

READS_ALL = ("data", "teacher", "student", "distill", "export", "quantize", "bench", "evaluate", "trainer")
SMP = "student.family=smp"  # a family with a path among its options
STAGE = Stage("s", "onnx", f"{HERE}:write_size", ("a", "b"), READS_ALL)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Artifact]:
    """Return two input artifacts."""
    return {name: make(tmp_path, name, name) for name in "ab"}


def make(folder: Path, name: str, content: str) -> Artifact:
    work = folder / "work" / name
    work.mkdir(parents=True)
    (work / "file").write_text(content)
    facts = {"kind": "x", "stage": name, "key": "k"}
    return publish(work, folder / f"{name}-{content}", facts, StageResult())


@pytest.mark.parametrize(
    "override",
    [
        "seed=4",
        "data.size=[64, 64]",
        "data.augment.flip=0.25",
        "data.options.width=128",
        "teacher.train.lr=0.5",
        "teacher.floor=0.1",
        "student.variant=m",
        "distill.methods.kd.weight=2",
        "distill.methods.kd.options.temperature=2",
        "export.argmax=true",
        "quantize.images=3",
        "bench.images=3",
        "evaluate.pictures=3",
    ],
)
def test_the_key_changes_with_everything_that_the_stage_reads(
    tmp_path: Path, inputs: dict[str, Artifact], override: str
) -> None:
    assert STAGE.key(small_recipe(tmp_path), inputs) != STAGE.key(small_recipe(tmp_path, override), inputs)


@pytest.mark.parametrize(
    "override",
    ["trainer.accelerator=cpu", "trainer.workers=2", "engines.0.precision=int8", "name=other"],
)
def test_the_key_stays_with_what_does_not_change_the_artifact(
    tmp_path: Path, inputs: dict[str, Artifact], override: str
) -> None:
    assert STAGE.key(small_recipe(tmp_path), inputs) == STAGE.key(small_recipe(tmp_path, override), inputs)


@pytest.mark.parametrize("section", [name for name in READS_ALL if name != "trainer"])
def test_a_section_that_is_not_read_is_not_in_the_key(
    tmp_path: Path, inputs: dict[str, Artifact], section: str
) -> None:
    change = {
        "data": "data.train=other", "teacher": "teacher.variant=m", "student": "student.variant=m",
        "distill": "distill.baseline=false", "export": "export.argmax=true", "quantize": "quantize.images=3",
        "bench": "bench.images=3", "evaluate": "evaluate.pictures=3",
    }  # fmt: skip
    blind = dataclasses.replace(STAGE, sections=tuple(name for name in READS_ALL if name != section))
    plain, changed = small_recipe(tmp_path), small_recipe(tmp_path, change[section])
    assert blind.key(plain, inputs) == blind.key(changed, inputs)
    assert STAGE.key(plain, inputs) != STAGE.key(changed, inputs)


def test_the_key_changes_with_an_input_and_not_with_the_order_of_inputs(
    tmp_path: Path, inputs: dict[str, Artifact]
) -> None:
    recipe = small_recipe(tmp_path)
    key = STAGE.key(recipe, inputs)
    assert STAGE.key(recipe, dict(reversed(inputs.items()))) == key
    assert STAGE.key(recipe, {**inputs, "b": make(tmp_path, "b", "changed")}) != key
    assert STAGE.key(recipe, {"a": inputs["b"], "b": inputs["a"]}) != key


def test_an_input_that_can_only_stop_the_stage_is_not_in_the_key(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    recipe = small_recipe(tmp_path)
    gated = dataclasses.replace(STAGE, inputs=("a",), prerequisites=("b",))
    changed = {**inputs, "b": make(tmp_path, "b", "changed")}
    assert gated.key(recipe, inputs) == gated.key(recipe, changed)
    assert gated.key(recipe, inputs) != gated.key(recipe, {**inputs, "a": changed["b"]})


def data_of(**fingerprints: str) -> dict[str, Artifact]:
    """Return an artifact `data` with these splits."""
    splits = {split: {"fingerprint": value} for split, value in fingerprints.items()}
    return {"data": Artifact(Path("data"), {"details": {"classes": ["sky"], "splits": splits}})}


def test_other_pictures_do_not_distil_again(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    recipe = small_recipe(tmp_path)
    stage = stage_of(recipe, "distilled")
    artifacts = {"teacher": inputs["a"], "evaluate/teacher": inputs["a"], **data_of(train="1", val="2")}
    rescored = {**artifacts, "evaluate/teacher": inputs["b"]}
    retaught = {**artifacts, "teacher": inputs["b"]}
    assert stage.key(recipe, artifacts) == stage.key(recipe, rescored)
    assert stage.key(recipe, artifacts) != stage.key(recipe, retaught)


@pytest.mark.parametrize("name", ["teacher", "student", "distilled"])
def test_what_is_scored_on_does_not_train_again(tmp_path: Path, inputs: dict[str, Artifact], name: str) -> None:
    recipe = small_recipe(tmp_path)
    stage = stage_of(recipe, name)
    artifacts = dict.fromkeys(stage.inputs, inputs["b"]) | data_of(train="1", val="2")
    key = stage.key(recipe, artifacts)
    assert stage.key(recipe, artifacts | data_of(train="1", val="3")) == key
    on_test = small_recipe(tmp_path, "data.val=test")
    assert stage.key(on_test, artifacts | data_of(train="1", test="4")) == key
    assert stage.key(recipe, artifacts | data_of(train="5", val="2")) != key
    elsewhere = small_recipe(tmp_path, "data.train=val")
    assert stage.key(elsewhere, artifacts) != key


def renamed_data(name: str) -> dict[str, Artifact]:
    """Return an artifact `data` whose second class has this name."""
    (data,) = data_of(train="1", val="2").values()
    details = {**data.details, "classes": ["sky", name, "road"]}
    return {"data": Artifact(Path("data"), {**data.manifest, "details": details})}


@pytest.mark.parametrize(
    "options",
    [
        "{root: x}",
        "{root: x, classes: [sky, NAME, road]}",
        "{root: x, labels: {0: sky, 3: NAME, 7: NAME, 9: road}}",
        '{root: x, colors: {"#000000": sky, "#010101": NAME, "#020202": null, "#030303": road}}',
    ],
)
def test_a_renamed_class_is_exported_again_and_not_trained_again(
    tmp_path: Path, inputs: dict[str, Artifact], options: str
) -> None:
    def key(stage_name: str, name: str, options: str = options) -> str:
        pairs = f"data.augment.flip_pairs=[[sky, {name}]]"
        recipe = small_recipe(tmp_path, "data.format=folder", f"data.options={options.replace('NAME', name)}", pairs)
        stage = stage_of(recipe, stage_name)
        return stage.key(recipe, dict.fromkeys(stage.inputs, inputs["a"]) | renamed_data(name))

    for trained in ("teacher", "student", "distilled"):
        assert key(trained, "kreb") == key(trained, "kerb")
    for named in ("export", "evaluate/student"):
        assert key(named, "kreb") != key(named, "kerb")
    other = (
        options.replace("3: NAME", "3: road").replace("020202", "040404").replace("[sky, NAME, road]", "[sky, NAME]")
    )
    assert (key("student", "kerb", other) == key("student", "kerb")) == (other == options)


def test_other_pairs_or_another_number_of_classes_train_again(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    def key(*changes: str, **data: object) -> str:
        recipe = small_recipe(tmp_path, *changes)
        artifact = renamed_data("kerb")["data"]
        artifact.manifest["details"].update(data)
        return stage_of(recipe, "student").key(recipe, {"data": artifact})

    pairs = "data.augment.flip_pairs=[[sky, kerb]]"
    assert len({key(), key(pairs), key("data.augment.flip_pairs=[[sky, road]]"), key(classes=["sky", "kerb"])}) == 4


def test_what_looks_wrong_with_the_data_makes_nothing_again(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    recipe = small_recipe(tmp_path)
    (before,), (after,) = data_of(train="1", val="2").values(), data_of(train="1", val="2").values()
    after.manifest["details"]["findings"] = [{"code": "small_objects"}]
    for stage in plan(recipe):
        if "data" in stage.inputs:
            others = dict.fromkeys(stage.inputs, inputs["a"])
            assert stage.key(recipe, {**others, "data": before}) == stage.key(recipe, {**others, "data": after})


def test_an_engine_is_keyed_by_itself_and_not_by_its_neighbours(tmp_path: Path) -> None:
    stage = Stage("engine/openvino-int8", "engine", f"{HERE}:join", (), ("engines:openvino-int8",), "openvino-int8")
    key = stage.key(small_recipe(tmp_path), {})
    assert stage.key(small_recipe(tmp_path, "engines.0.precision=int8"), {}) == key
    assert stage.key(small_recipe(tmp_path, "engines.0.options.intra_op_threads=3"), {}) == key
    assert stage.key(small_recipe(tmp_path, "engines.1.options.num_threads=3"), {}) != key


def test_stages_of_one_function_have_keys_of_their_own(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    recipe = small_recipe(tmp_path)
    others = [
        dataclasses.replace(STAGE, **change)
        for change in ({"name": "t"}, {"subject": "p"}, {"kind": "engine"}, {"version": 2})
    ]
    assert len({stage.key(recipe, inputs) for stage in (STAGE, *others)}) == 5


def test_weights_that_changed_on_disk_change_the_key(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"one")
    for overrides in (["teacher.checkpoint=w.safetensors"], [SMP, "student.options.encoder_weights=w.safetensors"]):
        recipe = small_recipe(tmp_path, *overrides)
        weights.write_bytes(b"one")
        key = STAGE.key(recipe, inputs)
        assert STAGE.key(recipe, inputs) == key
        weights.write_bytes(b"two")
        assert STAGE.key(recipe, inputs) != key


def test_where_files_lie_does_not_change_the_key(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    keys = set()
    for place in ("here", "there"):
        weights = tmp_path / place / "w.safetensors"
        weights.parent.mkdir()
        weights.write_bytes(b"same")
        paths = [f"{key}={weights}" for key in ("teacher.checkpoint", "student.options.encoder_weights")]
        data = ("data.format=folder", f"data.options.root={weights.parent}")
        keys.add(STAGE.key(small_recipe(tmp_path, SMP, *paths, *data), inputs))
    assert len(keys) == 1


def test_an_option_that_may_be_a_path_or_a_switch_is_in_the_key_as_a_switch(
    tmp_path: Path, inputs: dict[str, Artifact]
) -> None:
    """`encoder_weights: true` has timm fetch them, `null` starts from scratch."""
    settings = ([SMP], *([SMP, f"student.options.encoder_weights={value}"] for value in ("true", "null")))
    assert len({STAGE.key(small_recipe(tmp_path, *one), inputs) for one in settings}) == 3


def folder_data(root: Path) -> dict[str, Any]:
    """Write a data set of one image per split and return the recipe section for it."""
    for split, value in (("train", 0), ("val", 50)):
        for kind, shape in (("images", (64, 96, 3)), ("masks", (64, 96))):
            (root / kind / split).mkdir(parents=True)
            Image.fromarray(np.full(shape, value % 2, np.uint8)).save(root / kind / split / f"{split}.png")
    (root / "classes.txt").write_text("sky\nroad\n")
    return {"format": "folder", "size": [64, 96], "options": {"root": str(root)}}


def stage_of(recipe: Recipe, name: str) -> Stage:
    return next(stage for stage in plan(recipe) if stage.name == name)


def test_a_mask_that_changed_on_disk_changes_the_key_of_the_data(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, data=folder_data(tmp_path / "set"))
    stage = stage_of(recipe, "data")
    key = stage.key(recipe, {})
    assert stage.key(recipe, {}) == key
    Image.fromarray(np.ones((64, 96), np.uint8)).save(tmp_path / "set/masks/val/val.png")
    assert stage.key(recipe, {}) != key


def test_a_lower_floor_or_another_saving_pace_does_not_train_the_teacher_again(tmp_path: Path) -> None:
    def key(name: str, *overrides: str) -> str:
        recipe = small_recipe(tmp_path, *overrides)
        stage = stage_of(recipe, name)
        return dataclasses.replace(stage, inputs=()).key(recipe, {})

    assert key("teacher") == key("teacher", "teacher.floor=0", "teacher.train.checkpoint_every=7")
    assert key("teacher") != key("teacher", "teacher.train.steps=21")
    assert key("student") == key("student", "student.train.checkpoint_every=7")
    assert key("distilled") == key("distilled", "student.train.checkpoint_every=7")
    assert key("distilled") != key("distilled", "teacher.floor=0")  # it is what checks the floor


def test_ignored_keys_may_be_absent(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "teacher.checkpoint=w.pt", "teacher.train=null")
    assert dataclasses.replace(stage_of(recipe, "teacher"), inputs=()).key(recipe, {})


def test_a_stage_cannot_read_a_section_that_it_did_not_declare(tmp_path: Path) -> None:
    blind = Stage("s", "x", f"{HERE}:hidden_section", (), ("data",))
    with pytest.raises(AttributeError):
        blind.run(small_recipe(tmp_path), {}, tmp_path)
    seeing = Stage("s", "x", f"{HERE}:hidden_section", (), ("export",))
    assert seeing.run(small_recipe(tmp_path), {}, tmp_path).details == {"opset": 18}


def test_a_stage_whose_package_is_not_installed_says_so(tmp_path: Path) -> None:
    stage = Stage("s", "x", "a_package_that_is_not_here.module:run", (), ())
    with pytest.raises(UserError, match="stage s needs the package 'a_package_that_is_not_here', which is not inst"):
        stage.run(small_recipe(tmp_path), {}, tmp_path)
