"""Boundary and context distillation."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from edgekd.core.plugin_options import plugin_options
from edgekd.distill.base import Pyramid
from edgekd.distill.boundary_terms import boundary_loss, fused_boundary, map_loss
from edgekd.distill.methods.bckd import Method, Options, context_loss, focus_loss
from edgekd.errors import RecipeError
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch

EDGE = 1e-4
ALL = torch.ones(1, 1, 2, 2, dtype=torch.bool)
# Unit vectors (-1, -1) (-1, 1) / (1, -1) (1, 1) over sqrt 2: sides have affinity 1/2, diagonals 0.
TEACHER = torch.tensor([[[[0.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]])
# Rows alike, columns opposite: sides have affinity 1 (right) and 0 (down), diagonals 0.
STUDENT = torch.tensor([[[[0.0, 0.0], [1.0, 1.0]]]])


def test_boundary_loss_of_a_2x2_map_by_hand() -> None:
    side = 0.5 * log(0.5 / EDGE) + 0.5 * log(0.5 / (1 - EDGE))  # KL(1/2 || 1) = KL(1/2 || 0), clamped
    alike = (4 * 0.5 + 2 * EDGE) / 6  # teacher: four sides, two diagonals
    balance = 0.5 / alike + 0.5 / (1 - alike)
    expected = 4 * balance * side / 6
    assert boundary_loss(TEACHER, STUDENT, ALL, (1,)).item() == pytest.approx(expected, rel=1e-3)


def test_boundary_loss_counts_valid_pairs_only() -> None:
    valid = torch.tensor([[[[True, True], [False, False]]]])  # one pair left: right, in the first row
    # Standardised over the first row alone, the teacher's first channel is dead and its second opposite: 0;
    # the student's only channel is dead: affinity 1/2.
    kl = EDGE * log(EDGE / 0.5) + (1 - EDGE) * log((1 - EDGE) / 0.5)
    balance = EDGE / EDGE + (1 - EDGE) / (1 - EDGE)
    assert boundary_loss(TEACHER, STUDENT, valid, (1,)).item() == pytest.approx(balance * kl, rel=1e-3)


def test_boundary_loss_has_its_minimum_where_student_and_teacher_agree() -> None:
    random = torch.Generator().manual_seed(1)
    teacher = torch.randn(1, 5, 6, 6, generator=random)
    valid = torch.ones(1, 1, 6, 6, dtype=torch.bool)
    for _ in range(20):
        student = (teacher + 0.05 * torch.randn(teacher.shape, generator=random)).requires_grad_()
        assert boundary_loss(teacher, student, valid, (1, 2)) > 0
    same = teacher.clone().requires_grad_()
    loss = boundary_loss(teacher, same, valid, (1, 2))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert same.grad is not None
    assert same.grad.abs().max() < 1e-5


def test_a_map_of_one_row_has_no_pairs_and_no_loss() -> None:
    student = torch.randn(1, 3, 1, 5, requires_grad=True)
    loss = boundary_loss(torch.randn(1, 3, 1, 5), student, torch.ones(1, 1, 1, 5, dtype=torch.bool), (1,))
    loss.backward()
    assert loss.item() == 0.0


def test_context_loss_of_a_2x2_map_by_hand() -> None:
    # Every row: teacher cosines (side, side, opposite) = (0, 0, -1), student (right, down, opposite) = (1, -1, -1).
    tau = 0.5
    teacher = [exp(c / tau) for c in (0, 0, -1)]
    student = [exp(c / tau) for c in (1, -1, -1)]
    p, q = ([value / sum(row) for value in row] for row in (teacher, student))
    expected = sum(a * log(a / b) for a, b in zip(p, q, strict=True))
    assert context_loss(TEACHER, STUDENT, ALL, tau).item() == pytest.approx(expected, rel=1e-3)


def test_anchors_are_rows_of_the_whole_relation() -> None:
    torch.manual_seed(0)
    teacher, student, valid = torch.randn(2, 5, 3, 4), torch.randn(2, 6, 3, 4), torch.ones(2, 1, 3, 4) > 0
    whole = context_loss(teacher, student, valid, 0.2)
    alone = [context_loss(teacher, student, valid, 0.2, torch.tensor([row])) for row in range(12)]
    torch.testing.assert_close(torch.stack(alone).mean(), whole)
    anchored = method(Options(boundary=0.0, anchors=7))
    first, second = (anchored(outputs({4: 6, 8: 8}, 6, 1), outputs({4: 4, 8: 5}, 4, 2), batch_of()) for _ in range(2))
    assert first["context"] > 0
    assert first["context"] != second["context"]  # other rows


def test_context_loss_has_no_row_for_an_invalid_cell() -> None:
    valid = torch.tensor([[[[True, True], [True, False]]]])
    student = torch.cat([STUDENT, 0.5 + STUDENT.square()], dim=1)  # two channels: a cell has a direction
    first = context_loss(TEACHER, student, valid, 0.5)
    changed = student.clone()
    changed[0, :, 1, 1] = torch.tensor([50.0, -7.0])
    assert context_loss(TEACHER, changed, valid, 0.5).item() == pytest.approx(first.item(), rel=1e-5)
    everywhere = torch.ones_like(valid)
    assert context_loss(TEACHER, changed, everywhere, 0.5).item() != pytest.approx(first.item(), rel=1e-2)


def method(options: Options, teacher: dict[int, int] | None = None) -> Method:
    return Method(options, Pyramid(teacher or {4: 6, 8: 8}, 6, 3), Pyramid({4: 4, 8: 5}, 4, 3))


def outputs(channels: dict[int, int], decoder: int, seed: int, size: tuple[int, int] = (32, 64)) -> Outputs:
    random = torch.Generator().manual_seed(seed)
    height, width = size
    features = {
        s: torch.randn(1, c, height // s, width // s, generator=random).requires_grad_() for s, c in channels.items()
    }
    decoded = torch.randn(1, decoder, height // 4, width // 4, generator=random).requires_grad_()
    return Outputs({"logits": torch.zeros(1, 3, height, width)}, features, decoded)


def batch_of(size: tuple[int, int] = (32, 64)) -> Batch:
    return Batch(torch.zeros(1, 3, *size), torch.zeros(1, *size, dtype=torch.int64))


def test_each_term_can_be_switched_off() -> None:
    teacher, student = outputs({4: 6, 8: 8}, 6, 1), outputs({4: 4, 8: 5}, 4, 2)
    both = method(Options())(teacher, student, batch_of())
    assert set(both) == {"boundary", "context"}
    for name, options in (("boundary", Options(context=0)), ("context", Options(boundary=0))):
        alone = method(options)(teacher, student, batch_of())
        assert set(alone) == {name}
        torch.testing.assert_close(alone[name], both[name])
    assert method(Options(boundary=0, context=0))(teacher, student, batch_of()) == {}


def test_the_boundary_term_is_the_weighted_mean_over_strides() -> None:
    teacher, student = outputs({4: 6, 8: 8}, 6, 1), outputs({4: 4, 8: 5}, 4, 2)

    def boundary(strides: dict[int, float]) -> float:
        return method(Options(context=0, strides=strides))(teacher, student, batch_of())["boundary"].item()

    fine, coarse = boundary({4: 1.0}), boundary({8: 1.0})
    assert boundary({4: 1.0, 8: 3.0}) == pytest.approx((fine + 3 * coarse) / 4, rel=1e-5)
    assert boundary({4: 0.0, 8: 3.0, 64: 1.0}) == pytest.approx(coarse, rel=1e-5)  # no stride 64 in the student


def test_a_stage_without_pairs_takes_no_part_in_the_mean() -> None:
    def boundary(strides: dict[int, float], size: tuple[int, int]) -> float:
        maps = (outputs({4: 6, 8: 6}, 6, seed, size) for seed in (1, 2))
        chosen = Method(Options(context=0, strides=strides), *[Pyramid({4: 6, 8: 6}, 6, 3)] * 2)
        return chosen(*maps, batch_of(size))["boundary"].item()

    assert boundary({4: 1.0, 8: 3.0}, (8, 8)) == pytest.approx(boundary({4: 1.0}, (8, 8)), rel=1e-6)  # 2x2 and 1x1
    assert boundary({8: 1.0}, (8, 8)) == 0.0


def test_dilations_are_not_the_maps_forms() -> None:
    maps = (outputs({4: 6}, 6, seed, (16, 16)) for seed in (1, 2))
    chosen = Method(Options(context=0, form="map", dilations=(4,)), *[Pyramid({4: 6}, 6, 3)] * 2)
    assert chosen(*maps, batch_of((16, 16)))["boundary"].item() > 0


@pytest.mark.parametrize("options", [{"form": "map"}, {"form": "path"}, {"boundary": 0.0, "focus": 1.0}])
def test_a_map_of_one_row_is_no_failure(options: dict[str, Any]) -> None:
    size = (4, 64)
    sides = [replace(outputs({4: 6, 8: 6}, 6, s, size), heads={"logits": torch.randn(1, 3, *size)}) for s in (1, 2)]
    sides[1].decoder.requires_grad_()
    features = {4: sides[0].features[4]}
    for side in sides:
        side.features.pop(8)
    chosen = Method(Options(**options), Pyramid({4: 6}, 6, 3), Pyramid({4: 6}, 6, 3))
    assert features[4].shape[-2] == 1
    assert all(value.isfinite() for value in chosen(*sides, batch_of(size)).values())


def test_focus_looks_at_the_teachers_boundary() -> None:
    sides = [
        replace(outputs({4: 6, 8: 6}, 6, seed), heads={"logits": torch.randn(1, 3, 32, 64, generator=seeded(seed))})
        for seed in (1, 2)
    ]
    chosen = Method(Options(boundary=0.0, context=0.0, focus=1.0), *[Pyramid({4: 6, 8: 6}, 6, 3)] * 2)
    first = chosen(*sides, batch_of())["focus"].item()
    other = outputs({4: 6, 8: 6}, 6, 3).features
    assert chosen(sides[0], replace(sides[1], features=other), batch_of())["focus"].item() == first
    assert chosen(replace(sides[0], features=other), sides[1], batch_of())["focus"].item() != first


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_context_compares_the_same_part_of_the_image_where_grids_do_not_divide() -> None:
    """A teacher of twice the student's grid that says the same: no difference, though 320 tokens divide neither."""
    student = replace(outputs({4: 6}, 6, 1, (128, 128)), decoder=torch.randn(1, 6, 32, 32, generator=seeded(1)))
    doubled = student.decoder.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    chosen = Method(Options(boundary=0.0), *[Pyramid({4: 6}, 6, 3)] * 2)
    term = chosen(replace(student, decoder=doubled), student, batch_of((128, 128)))["context"].item()
    assert term == pytest.approx(0.0, abs=1e-5)


def test_a_teacher_of_finer_stride_is_pooled_to_the_students_grid() -> None:
    """A student whose map is the 2 x 2 average of the teacher's agrees with it."""
    teacher = outputs({4: 6}, 6, 1)
    pooled = torch.nn.functional.avg_pool2d(teacher.features[4], 2).detach()
    student = Outputs(teacher.heads, {8: pooled.requires_grad_()}, teacher.decoder)
    loss = Method(Options(context=0), Pyramid({4: 6}, 6, 3), Pyramid({8: 6}, 6, 3))(teacher, student, batch_of())
    assert loss["boundary"].item() == pytest.approx(0.0, abs=1e-5)


def test_context_can_look_at_the_coarsest_backbone_map() -> None:
    teacher, student = outputs({4: 6, 8: 8}, 6, 1), outputs({4: 4, 8: 5}, 4, 2)
    method(Options(boundary=0, context_at="backbone"))(teacher, student, batch_of())["context"].backward()
    assert student.features[8].grad is not None
    assert student.features[4].grad is None
    assert student.decoder.grad is None


def test_options_that_cannot_work_are_refused() -> None:
    with pytest.raises(RecipeError, match="context_at.*'decoder', 'backbone', 'classes', 'levels' or"):
        plugin_options("methods", "bckd", {"context_at": "neck"}, "distill.methods.bckd.options")
    with pytest.raises(RecipeError, match=r"the student has features at strides \[4, 8\], got \[16\]"):
        method(Options(strides={16: 1.0}))
    with pytest.raises(RecipeError, match="this teacher shows no feature maps"):
        Method(Options(), Pyramid({}, 6, 3), Pyramid({4: 4}, 4, 3))
    Method(Options(boundary=0), Pyramid({}, 6, 3), Pyramid({4: 4}, 4, 3))  # context needs the decoder only


class LargestResult(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation makes, and of the largest product."""

    def __init__(self) -> None:
        super().__init__()
        self.any = self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.any = max(self.any, tensor.numel())
                if func is torch.ops.aten.bmm.default:
                    self.products = max(self.products, tensor.numel())
        return result


def test_memory_at_1024x2048_is_bounded_by_tokens_and_by_the_largest_map() -> None:
    size, tokens = (1024, 2048), 320
    teacher, student = outputs({4: 6, 8: 8}, 6, 1, size), outputs({4: 4, 8: 5}, 4, 2, size)
    run = method(Options(tokens=tokens))
    batch = batch_of(size)
    with LargestResult() as largest:
        terms = run(teacher, student, batch)
        (terms["boundary"] + terms["context"]).backward()
    assert 0 < largest.products <= tokens**2
    eight_pairs = 8 * teacher.features[4][0, 0].numel()
    assert largest.any <= max(teacher.features[4].numel(), batch.masks.numel(), eight_pairs)


# --- variants ---------------------------------------------------------------------------------------------------------


def test_map_loss_of_a_2x2_map_by_hand() -> None:
    # Teacher: every cell has a diagonal (0) and two sides (1/2), outside counts as alike: mean of the two least 1/4.
    # Student: a diagonal (0), a side across (0), a side along (1): mean of the two least 0.
    assert map_loss(TEACHER, STUDENT, ALL).item() == pytest.approx(0.25, abs=1e-3)
    assert map_loss(TEACHER, TEACHER, ALL).item() == 0.0
    assert map_loss(TEACHER, STUDENT, ~ALL).item() == 0.0


def test_the_fused_boundary_is_the_weighted_mean_of_the_stages() -> None:
    flat = torch.zeros(1, 1, 2, 2)  # a dead channel: cosine 0, so affinity 1/2 and boundary 1/2 everywhere
    fused = fused_boundary({4: TEACHER, 8: flat}, {4: 1.0, 8: 3.0}, (2, 2), torch.ones(1, 1, 16, 16))
    assert fused.flatten().tolist() == pytest.approx([0.25 * 0.75 + 0.75 * 0.5] * 4, abs=1e-3)


def test_focus_weighs_each_pixels_kl_by_its_boundary() -> None:
    teacher = torch.tensor([[[[log(3.0), 0.0]], [[0.0, 0.0]]]])  # (3/4, 1/4) at the left, (1/2, 1/2) at the right
    student = torch.zeros(1, 2, 1, 2)
    kl = 0.75 * log(1.5) + 0.25 * log(0.5)  # at the left; 0 at the right
    boundary = torch.tensor([[[0.2, 0.6]]])
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    assert focus_loss(teacher, student, boundary, valid).item() == pytest.approx(0.2 * kl / 0.8, rel=1e-5)
    assert focus_loss(teacher, student, boundary, torch.tensor([[[True, False]]])).item() == pytest.approx(kl, rel=1e-5)
    assert focus_loss(teacher, student, boundary, ~valid).item() == 0.0


@pytest.mark.parametrize(
    "options", [{"form": "map"}, {"form": "path"}, {"context_at": "classes"}, {"boundary": 0.0, "focus": 1.0}]
)
def test_variants_teach_the_student_only_and_are_zero_when_it_agrees(options: dict[str, Any]) -> None:
    teacher, student = (
        replace(outputs({4: 6, 8: 8}, 6, seed), heads={"logits": torch.randn(1, 3, 32, 64).requires_grad_()})
        for seed in (1, 2)
    )
    chosen = method(Options(**options))
    terms = chosen(teacher, student, batch_of())
    torch.stack(list(terms.values())).sum().backward()
    assert all(value > 0 for value in terms.values())
    assert all(leaf.grad is None for leaf in (teacher.logits, teacher.decoder, *teacher.features.values()))
    leaves = (student.logits, student.decoder, *student.features.values())
    assert any(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in leaves)
    for value in chosen(teacher, teacher, batch_of()).values():
        assert value.item() == pytest.approx(0.0, abs=1e-5)
