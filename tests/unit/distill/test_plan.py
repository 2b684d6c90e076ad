"""The plan of a distillation."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest
from torch import Tensor

from edgekd.core import plugins
from edgekd.data.splits import open_split
from edgekd.distill.plan import AdapterPlan, DistillPlan, MapPlan, MethodPlan, TermPlan, plan
from edgekd.errors import RecipeError
from edgekd.models.families.edgeseg import EdgeSeg
from tests.unit.core.small_recipe import small_recipe

DECODER, LOGITS = ["decoder"], ["logits"]
# Student stages at strides 4 to 32; the same names in both networks.
READS = {
    "at.attention": ["stride 8", "stride 16", "stride 32"],
    "bckd.boundary": ["stride 4", "stride 8", "stride 16", "stride 32"],
    "bckd.context": DECODER,
    "bpkd.body": LOGITS,
    "bpkd.edge": LOGITS,
    "cirkd.minibatch": DECODER,
    "cwd.channels": LOGITS,
    "dist.inter": LOGITS,
    "dist.intra": LOGITS,
    "dsd.category": LOGITS,
    "dsd.pixel": ["stride 32", "decoder", "logits"],
    "fitnets.features": DECODER,
    "ifvd.variation": DECODER,
    "kd.logits": LOGITS,
    "mgd.features": DECODER,
    "pkd.features": DECODER,
    "skd.pairwise": DECODER,
    "skd.pixel": LOGITS,
}


def planned(folder: Path, **methods: object) -> DistillPlan:
    return plan(small_recipe(folder, distill={"methods": methods}))


def test_it_says_which_maps_every_term_of_every_method_reads(tmp_path: Path) -> None:
    semantic = [name for name in plugins.names("methods") if "semantic" in plugins.load("methods", name).TASKS]
    made = planned(tmp_path, **{name: {} for name in semantic})
    terms = {f"{method.name}.{term.name}": term for method in made.methods for term in method.terms}
    assert {name: term.student for name, term in terms.items() if name in READS} == READS
    assert {name: term.teacher for name, term in terms.items() if name in READS} == READS
    assert all(term.student and term.teacher for term in terms.values())


def test_maps_have_the_shapes_of_the_networks_at_the_crop(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "data.augment.crop=[32, 64]")
    made = plan(recipe)
    assert made.crop == (32, 64)
    assert made.student[-1] == MapPlan("logits", 1.0, made.classes, (32, 64))
    strides = [(m.name, m.stride, m.size) for m in made.teacher[:4]]
    assert strides == [(f"stride {s}", s, (32 // s, 64 // s)) for s in (4, 8, 16, 32)]


def test_weights_and_adapters_are_those_of_the_recipe(tmp_path: Path) -> None:
    made = planned(tmp_path, pkd={"weight": 0.5, "warmup": 0.2, "schedule": "decay"}, kd={})
    into, out = (next(m.channels for m in maps if m.name == "decoder") for maps in (made.student, made.teacher))
    assert into != out
    kd, pkd = made.methods  # the small recipe is written in the order of the alphabet
    assert pkd == MethodPlan(
        "pkd", 0.5, 0.2, "decay", {"features": 1.0, "at": None}, [TermPlan("features", DECODER, DECODER)],
        [AdapterPlan("adapters.decoder.weight", (out, into, 1, 1), into * out), AdapterPlan("adapters.decoder.bias", (out,), out)],
    )  # fmt: skip
    assert (kd.adapters, kd.options) == ([], {"temperature": 1.0})


def test_a_method_that_does_not_fit_the_networks_is_refused_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"at\.strides: the student has features at strides \[4, 8, 16, 32\], got"):
        planned(tmp_path, at={"options": {"strides": [64]}})


@pytest.mark.parametrize(("methods", "said"), [
    ({"skd": {"options": {"pixel": 0, "pairwise": 0}}}, "skd: its options switch off every term"),
    ({"bckd": {"options": {"dilations": [100]}}}, "bckd: its term 'boundary' does not depend on the teacher|student"),
    ({"cwd": {"options": {"stride": 64}}}, "stride: expected at most 32"),
    ({"kd": {"weight": 0}}, "weight: .*greater than 0"),
])  # fmt: skip
def test_a_method_that_would_teach_nothing_is_refused(methods: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=said):
        plan(small_recipe(tmp_path, "data.augment.crop=[32, 64]", distill={"methods": methods}))


def test_a_small_crop_has_borders_too(tmp_path: Path) -> None:
    plan(small_recipe(tmp_path, "data.augment.crop=[32, 32]", distill={"methods": {"bpkd": {}}}))


def test_no_weight_file_is_read(tmp_path: Path) -> None:
    teacher = {"family": "edgeseg", "variant": "s", "checkpoint": "nowhere.safetensors"}
    assert plan(small_recipe(tmp_path, teacher=teacher)).teacher


def test_it_says_what_keeping_the_teachers_answers_needs(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path, "data.augment.views=3", "trainer.teacher_cache=answers")
    made = plan(recipe)
    numbers = sum(one.channels * one.size[0] * one.size[1] for one in made.teacher)
    images = len(open_split(recipe, "train"))
    assert made.answers_bytes == 2 * numbers * images * 3  # float16
    assert plan(small_recipe(tmp_path)).answers_bytes is None


def test_a_network_for_images_of_another_size_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe(tmp_path, distill={"methods": {"kd": {}}})

    def fails(self: EdgeSeg, images: Tensor) -> NoReturn:
        raise AssertionError("expected 224")  # as timm does

    monkeypatch.setattr(EdgeSeg, "forward_normalized", fails)
    with pytest.raises(RecipeError, match="the teacher fails on images of .*: expected 224; use another data.size"):
        plan(recipe)
