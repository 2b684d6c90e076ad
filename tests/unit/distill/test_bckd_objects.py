"""Boundary and context distillation of detectors and instance segmenters."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest
import torch

from edgekd.distill.base import Pyramid
from edgekd.distill.boundary_terms import boundary_loss, map_loss
from edgekd.distill.methods.bckd import Method, Options, context_loss, object_weight
from edgekd.errors import RecipeError
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch
from tests.unit.distill.test_bckd import ALL, EDGE, STUDENT, TEACHER

OBJECTS = Pyramid({4: 2}, 2, 1, level_strides=(4, 8), task="instance")


def test_cells_of_an_object_and_its_ring_weigh_one() -> None:
    masks = torch.zeros(1, 4, 20, dtype=torch.int64)
    masks[:, 0, 1] = 1  # one pixel in the first of five cells
    masks[:, :, 16:] = 255
    cells = torch.ones(1, 1, 1, 5, dtype=torch.bool)
    for ring, wanted in ((0, [1, 0.25, 0.25, 0.25, 0.25]), (2, [1, 1, 1, 0.25, 0.25])):
        weight = object_weight(masks, cells, Options(background=0.25, ring=ring))
        assert weight.flatten().tolist() == wanted


def test_pairs_away_from_objects_leave_every_mean() -> None:
    near = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])  # of the pairs in the 2x2 map: right, down and a diagonal
    side = 0.5 * log(0.5 / EDGE) + 0.5 * log(0.5 / (1 - EDGE))
    alike = (2 * 0.5 + EDGE) / 3
    expected = 2 * (0.5 / alike + 0.5 / (1 - alike)) * side / 3
    loss = boundary_loss(TEACHER, STUDENT, ALL, (1,), near=near)
    assert loss.item() == pytest.approx(expected, rel=1e-3)


def test_even_weights_change_nothing() -> None:
    plain = boundary_loss(TEACHER, STUDENT, ALL, (1,))
    assert torch.equal(boundary_loss(TEACHER, STUDENT, ALL, (1,), near=torch.ones(1, 1, 2, 2)), plain)
    half = boundary_loss(TEACHER, STUDENT, ALL, (1,), near=torch.full((1, 1, 2, 2), 0.5))
    assert half.item() == pytest.approx(plain.item(), rel=1e-5)
    maps = map_loss(TEACHER, STUDENT, ALL)
    assert map_loss(TEACHER, STUDENT, ALL, torch.full((1, 1, 2, 2), 0.5)).item() == pytest.approx(maps.item(), rel=1e-5)


def test_the_map_of_the_boundary_counts_where_objects_are() -> None:
    """Three cells alike, the last one opposite: b is 1/2, 1/2, 1/2, 1, where the other map has 1 everywhere."""
    corner = torch.tensor([[[[0.0, 0.0], [0.0, 1.0]]]])
    near = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    assert map_loss(STUDENT, corner, ALL).item() == pytest.approx(1.5 / 4, rel=1e-3)
    assert map_loss(STUDENT, corner, ALL, near).item() == pytest.approx(0.5 / 2, rel=1e-3)
    options = Options(boundary=1, context=0, form="map", background=0, ring=0, strides={4: 1.0})
    pyramid = replace(OBJECTS, channels={4: 1})
    for row, wanted in ((0, 0.5), (7, 0.0)):
        masks = torch.zeros(1, 8, 8, dtype=torch.int64)
        masks[0, row, row] = 1
        outputs = [Outputs({}, {4: maps}, maps) for maps in (STUDENT, corner)]
        found = Method(options, pyramid, pyramid)(*outputs, Batch(torch.zeros(1, 3, 8, 8), masks))["boundary"]
        assert found.item() == pytest.approx(wanted, abs=1e-3)


def test_without_objects_and_background_there_is_no_boundary_term() -> None:
    method = Method(Options(context=0, background=0, strides={4: 1.0}, dilations=(1,)), OBJECTS, OBJECTS)
    out = Outputs({}, {4: TEACHER}, TEACHER)
    other = Outputs({}, {4: TEACHER.flip(3).roll(1, 1)}, TEACHER)
    batch = Batch(torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int64))
    assert method(out, other, batch)["boundary"].item() == 0


def test_context_at_levels_is_the_mean_over_the_pyramid() -> None:
    random = torch.Generator().manual_seed(0)
    fine_t, fine_s, coarse_t, coarse_s = (torch.randn(1, 2, side, side, generator=random) for side in (4, 4, 2, 2))
    method = Method(Options(boundary=0, context=1, context_at="levels"), OBJECTS, OBJECTS)
    batch = Batch(torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.int64))
    both = method(
        Outputs({}, {}, fine_t, {4: fine_t, 8: coarse_t}), Outputs({}, {}, fine_s, {4: fine_s, 8: coarse_s}), batch
    )["context"]
    fine = context_loss(fine_t, fine_s, torch.ones(1, 1, 4, 4, dtype=torch.bool), 0.1)
    coarse = context_loss(coarse_t, coarse_s, ALL, 0.1)
    assert both.item() == pytest.approx((fine + coarse).item() / 2, rel=1e-5)


def test_boundaries_of_the_pyramid_join_those_of_the_backbone() -> None:
    random = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, 2, side, side, generator=random) for side in (4, 4, 2, 2, 4, 4)]
    stage_t, stage_s, coarse_t, coarse_s, fine_t, fine_s = maps
    teacher = Outputs({}, {4: stage_t}, stage_t, {4: fine_t, 8: coarse_t})
    student = Outputs({}, {4: stage_s}, stage_s, {4: fine_s, 8: coarse_s})
    batch = Batch(torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.int64))

    def boundary(at: str, strides: dict[int, float]) -> float:
        options = Options(boundary=1, context=0, boundary_at=at, strides=strides)  # type: ignore[arg-type]
        return Method(options, OBJECTS, OBJECTS)(teacher, student, batch)["boundary"].item()

    everywhere = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    stage, fine = (boundary_loss(t, s, everywhere, (1, 2)).item() for t, s in ((stage_t, stage_s), (fine_t, fine_s)))
    coarse = boundary_loss(coarse_t, coarse_s, ALL, (1, 2)).item()
    assert boundary("backbone", {4: 1.0}) == pytest.approx(stage, rel=1e-5)
    assert boundary("levels", {4: 1.0, 8: 3.0}) == pytest.approx((fine + 3 * coarse) / 4, rel=1e-5)
    assert boundary("levels", {4: 0.0, 8: 3.0}) == pytest.approx(coarse, rel=1e-5)
    assert boundary("both", {4: 2.0}) == pytest.approx((stage + fine) / 2, rel=1e-5)


def test_levels_without_a_weight_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"share levels at strides \[4, 8\], got \[16\]; name at least one"):
        Method(Options(boundary_at="levels", strides={16: 1.0}), OBJECTS, OBJECTS)


def test_context_at_prototypes_knows_no_order_and_no_scale() -> None:
    prototypes = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    method = Method(Options(boundary=0, context_at="prototypes"), OBJECTS, OBJECTS)
    batch = Batch(torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.int64))
    teacher, same, other = (
        Outputs({"prototypes": p}, {}, TEACHER) for p in (prototypes, 2 * prototypes.flip(1), prototypes.flip(3))
    )
    assert method(teacher, same, batch)["context"].item() == pytest.approx(0, abs=1e-5)
    assert method(teacher, other, batch)["context"].item() > 0.1


@pytest.mark.parametrize(
    ("options", "task", "has_heads", "expected"),
    [
        (Options(background=0.5), "semantic", True, "bckd.background: expected 1 for task 'semantic'"),
        (Options(focus=1.0), "detection", True, "bckd.focus: expected 0 for task 'detection'"),
        (Options(context_at="classes"), "detection", True, "'classes' is not for task 'detection'"),
        (Options(boundary_at="both"), "semantic", True, "bckd.boundary_at: 'both' is of detectors, expected backbone"),
        (Options(context_at="levels"), "semantic", True, "'levels' is not for task 'semantic'"),
        (Options(context_at="prototypes"), "detection", True, "'prototypes' is not for task 'detection'"),
        (Options(context_at="prototypes"), "instance", False, "this teacher has no prototypes.*use levels"),
    ],
)
def test_options_of_other_tasks_are_refused(options: Options, task: str, has_heads: bool, expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        Method(options, replace(OBJECTS, task=task, has_heads=has_heads), replace(OBJECTS, task=task))
