"""What every data format must do. A new format enrols itself: it needs `layouts/<format>.py` with

write(root: Path) -> (options, split)      write a tiny valid data set into the empty folder `root`; return the
                                           recipe's `data.options` for it and the name of its split
"""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.core import plugins
from edgekd.core.plugin_options import plugin_options
from edgekd.data.base import DenseDataset
from edgekd.data.check import check_dataset
from edgekd.data.facts import _packed, _stored, read_facts
from edgekd.data.fingerprint import fingerprint
from edgekd.errors import DataError

FORMATS = plugins.names("formats")
# A format is tested as what it opens: `<name>` with masks of classes, `<name>:objects` with boxes.
TASKS = {"": "semantic", "objects": "detection"}
OPENED = [
    f"{name}:{kind}".strip(":")
    for name in FORMATS
    for kind, task in TASKS.items()
    if task in plugins.load("formats", name).TASKS
]
LAYOUTS = Path(__file__).parent / "layouts"


def written(name: str, root: Path) -> tuple[dict[str, Any], str]:
    name = name.partition(":")[0]
    path = LAYOUTS / f"{name}.py"
    if not path.is_file():
        pytest.fail(f"format {name!r} has no tests/contract/layouts/{name}.py: add one that writes a tiny data set")
    spec = importlib.util.spec_from_file_location(f"layout_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root.mkdir(parents=True)
    return module.write(root)


def opened(name: str, options: dict[str, Any], split: str) -> DenseDataset:
    name, _, kind = name.partition(":")
    module, made = plugins.load("formats", name), plugin_options("formats", name, options, "data.options")
    return module.open_objects(made, split, False) if kind else module.open_dataset(made, split)


def first_few(dataset: DenseDataset) -> range:
    return range(min(len(dataset), 3))


@pytest.fixture(params=OPENED)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def layout(name: str, tmp_path: Path) -> tuple[dict[str, Any], str]:
    return written(name, tmp_path / "set")


@pytest.fixture
def dataset(name: str, layout: tuple[dict[str, Any], str]) -> DenseDataset:
    return opened(name, *layout)


def test_every_format_opens_something() -> None:
    assert {name.partition(":")[0] for name in OPENED} == set(FORMATS)


def test_every_layout_belongs_to_a_format():
    assert {path.stem for path in LAYOUTS.glob("*.py")} <= set(FORMATS)


def test_options_are_a_frozen_documented_dataclass(name: str):
    options = plugins.load("formats", name.partition(":")[0]).Options
    assert dataclasses.is_dataclass(options)
    assert options.__dataclass_params__.frozen
    assert not options.__doc__.startswith("Options(")  # what dataclass writes when nobody did


def test_images_are_rgb_bytes_and_masks_are_class_indices_of_the_same_size(name: str, dataset: DenseDataset):
    for index in first_few(dataset):
        sample = dataset.load(index)
        assert sample.image.dtype == np.uint8
        assert sample.image.ndim == 3
        assert sample.image.shape[2] == 3
        assert sample.mask.dtype == np.uint8
        assert sample.mask.shape == sample.image.shape[:2]
        assert set(np.unique(sample.mask)) <= {*range(len(dataset.classes)), 255}
        assert (sample.mask != 255).any() == (":" not in name)


def test_objects_lie_in_their_image_and_have_a_class(name: str, dataset: DenseDataset):
    if ":" not in name:
        pytest.skip("masks of classes")
    seen = 0
    for index in first_few(dataset):
        sample = dataset.load(index)
        objects, (height, width) = sample.instances, sample.image.shape[:2]
        assert objects is not None
        assert objects.boxes_xyxy.dtype == np.float32
        assert objects.boxes_xyxy.shape == (len(objects.labels), 4)
        assert objects.labels.dtype == np.int64
        assert set(objects.labels) <= set(range(len(dataset.classes)))
        assert (objects.boxes_xyxy[:, :2] >= 0).all()
        assert (objects.boxes_xyxy[:, 2:] > objects.boxes_xyxy[:, :2]).all()
        assert (objects.boxes_xyxy[:, 2:] <= [width, height]).all()
        seen += len(objects.labels)
    assert seen


def test_classes_are_unique_names(dataset: DenseDataset):
    assert isinstance(dataset.classes, tuple)
    assert 1 <= len(dataset.classes) <= 255
    assert len(set(dataset.classes)) == len(dataset.classes)
    assert all(isinstance(name, str) and name.strip() == name != "" for name in dataset.classes)


def test_names_are_unique_and_the_same_when_opened_again(name: str, layout: tuple[dict[str, Any], str]):
    first, again = opened(name, *layout), opened(name, *layout)
    names = [first.name(index) for index in range(len(first))]
    assert names == [again.name(index) for index in range(len(again))]
    assert len(set(names)) == len(names) > 0
    assert first.load(0).name == names[0]


def test_loading_twice_gives_the_same_pixels(name: str, layout: tuple[dict[str, Any], str]):
    first, again = opened(name, *layout).load(0), opened(name, *layout).load(0)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)


def test_a_copied_data_set_has_the_same_fingerprint(name: str, layout: tuple[dict[str, Any], str], tmp_path: Path):
    options, split = layout
    copy = dict(options)
    if "root" in options:
        copy["root"] = str(tmp_path / "copy")
        shutil.copytree(options["root"], copy["root"])
    assert fingerprint(opened(name, copy, split), split) == fingerprint(opened(name, options, split), split)


def test_opening_reads_no_pixels_and_a_damaged_file_is_named_when_loaded(
    name: str, layout: tuple[dict[str, Any], str], dataset: DenseDataset
):
    if not dataset.files(0):
        pytest.skip(f"{name} has no files")
    damaged = opened(name, *layout)
    for index in range(len(dataset)):
        for path in dataset.files(index):
            path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError) as caught:
        damaged.load(0)
    assert any(str(path) in str(caught.value) for path in damaged.files(0))
    assert "\n" not in str(caught.value)
    if ":" not in name:
        assert check_dataset(damaged, layout[1]).num_bad == len(damaged)


def test_the_check_counts_what_samples_hold_and_survives_the_cache(name: str, dataset: DenseDataset, tmp_path: Path):
    if not dataset.files(0):
        pytest.skip(f"{name} is generated, and has many samples")
    samples, report = [dataset.load(index) for index in range(len(dataset))], check_dataset(dataset, "train")
    assert report.num_bad == 0
    for index in range(len(dataset.classes)):
        if ":" in name:
            counted = [(one.instances.labels == index) & ~one.instances.is_ignored for one in samples]
            assert report.object_counts[index] == sum(int(part.sum()) for part in counted)
        else:
            assert report.pixel_counts[index] == sum(int((one.mask == index).sum()) for one in samples)
    facts = read_facts(dataset)
    (tmp_path / "facts.npz").write_bytes(_packed(facts))
    again = _stored(tmp_path / "facts.npz")
    assert again is not None
    for field in dataclasses.fields(facts):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(facts, field.name))


def test_unknown_split_and_wrong_root_are_refused_by_name(
    name: str, layout: tuple[dict[str, Any], str], tmp_path: Path
):
    options, split = layout
    if "root" not in options:
        pytest.skip(f"{name} has no files")
    with pytest.raises(DataError, match="nosuchsplit"):
        opened(name, options, "nosuchsplit")
    with pytest.raises(DataError, match="elsewhere"):
        opened(name, {**options, "root": str(tmp_path / "elsewhere")}, split)
