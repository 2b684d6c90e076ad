"""Standardised features, neighbour affinities, token grids and self-relations."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekd.distill import logits, relations, token_relations

ALL_2X2 = torch.ones(1, 1, 2, 2, dtype=torch.bool)
EDGE = 1e-4  # affinities are kept this far from 0 and 1
# Rows differ in the first channel, columns in the second: after standardising, the cells are
# (-1, -1) (-1, 1) / (1, -1) (1, 1), all divided by sqrt 2.
CORNERS = torch.tensor([[[[0.0, 0.0], [4.0, 4.0]], [[10.0, 12.0], [10.0, 12.0]]]])


def test_standardised_features_by_hand() -> None:
    unit = relations.standardised(CORNERS, ALL_2X2)
    expected = torch.tensor([[[[-1.0, -1.0], [1.0, 1.0]], [[-1.0, 1.0], [-1.0, 1.0]]]]) / 2**0.5
    torch.testing.assert_close(unit, expected, atol=1e-5, rtol=0)


def test_statistics_leave_invalid_cells_out() -> None:
    valid = torch.tensor([[[[True, True, True]]]])
    three = torch.tensor([[[[0.0, 1.0, 2.0]], [[5.0, 3.0, 4.0]]]])
    four = torch.cat([three, torch.full((1, 2, 1, 1), 900.0)], dim=3)
    partly = torch.cat([valid, torch.zeros(1, 1, 1, 1, dtype=torch.bool)], dim=3)
    torch.testing.assert_close(relations.standardised(four, partly)[..., :3], relations.standardised(three, valid))


def test_without_validity_all_cells_count() -> None:
    torch.testing.assert_close(relations.standardised(CORNERS), relations.standardised(CORNERS, ALL_2X2))


def test_scale_shift_and_order_of_channels_do_not_change_a_relation() -> None:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(2, 6, 5, 7, generator=random)
    changed = features * torch.tensor([0.5, 2, 9, 1, 30, 4]).view(1, 6, 1, 1) + torch.arange(6.0).view(1, 6, 1, 1)
    offsets = relations.pair_offsets((1, 2), 5, 7)
    expected = relations.pair_affinities(relations.standardised(features), offsets)
    got = relations.pair_affinities(relations.standardised(changed[:, torch.randperm(6, generator=random)]), offsets)
    for a, b in zip(expected, got, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_a_dead_channel_is_dropped_and_its_gradient_is_finite() -> None:
    random = torch.Generator().manual_seed(0)
    alive = torch.randn(1, 3, 4, 4, generator=random)
    for constant in (0.0, 7.0):
        with_dead = torch.cat([alive, torch.full((1, 1, 4, 4), constant)], dim=1).requires_grad_()
        unit = relations.standardised(with_dead)
        torch.testing.assert_close(unit[:, :3], relations.standardised(alive))
        assert not unit[:, 3].any()
        (grad,) = torch.autograd.grad(unit.square().mul(torch.rand(unit.shape)).sum(), with_dead)
        assert torch.isfinite(grad).all()


def test_features_that_are_constant_everywhere_have_finite_gradients() -> None:
    dead = torch.zeros(1, 3, 4, 4, requires_grad=True)
    unit = relations.standardised(dead)
    unit.sum().backward()
    assert not unit.any()
    assert dead.grad is not None
    assert torch.isfinite(dead.grad).all()


def test_affinities_of_a_2x2_map_by_hand() -> None:
    unit = relations.standardised(CORNERS, ALL_2X2)
    right, down, diagonal, anti = relations.pair_affinities(unit, relations.pair_offsets((1,), 2, 2))
    torch.testing.assert_close(right, torch.full((1, 2, 1), 0.5))  # cosine 0
    torch.testing.assert_close(down, torch.full((1, 1, 2), 0.5))
    assert diagonal.item() == anti.item() == pytest.approx(EDGE)  # cosine -1


def test_the_two_cells_of_a_1x2_map_are_alike_or_opposite() -> None:
    offsets = [(0, 1)]
    (different,) = relations.pair_affinities(relations.standardised(torch.tensor([[[[1.0, 2.0]]]])), offsets)
    assert different.item() == pytest.approx(EDGE)
    (equal,) = relations.pair_affinities(torch.ones(1, 1, 1, 2), offsets)
    assert equal.item() == pytest.approx(1 - EDGE)


def test_the_written_out_gradient_of_the_pairs_is_autograds() -> None:
    random = torch.Generator().manual_seed(0)
    unit = torch.randn(2, 3, 5, 6, generator=random, dtype=torch.float64, requires_grad=True)
    offsets = relations.pair_offsets((1, 2), 5, 6)
    assert torch.autograd.gradcheck(lambda x: relations._PairCosines.apply(x, offsets), (unit,))


def test_the_written_out_gradient_of_standardised_features_is_autograds() -> None:
    random = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(2, 4, 3, 5, generator=random, dtype=torch.float64) + 1
    x[:, 1] = 0.5  # a dead channel
    valid = torch.rand(2, 1, 3, 5, generator=random) > 0.3
    x.requires_grad_()
    # Counts are float32: their square root is exact to 1e-7.
    assert torch.autograd.gradcheck(lambda x: relations._Standardised.apply(x, valid), (x,), atol=1e-6)


@pytest.mark.parametrize("rows", [None, torch.tensor([4, 0, 2])])
def test_the_relation_loss_is_the_mean_kl_of_the_rows_and_has_autograds_gradient(rows: torch.Tensor | None) -> None:
    random = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(2, c, 2, 3, generator=random, dtype=torch.float64) for c in (4, 3))
    valid = torch.tensor([True, True, True, True, True, False, True, True, True, True, True, True]).view(2, 1, 2, 3)
    student.requires_grad_()
    loss = token_relations.relation_loss(teacher, student, valid, 0.5, rows)
    total, count = 0.0, 0
    for image in range(2):
        cells = [i for i in range(6) if valid[image].flatten()[i]]
        for row in (i for i in cells if rows is None or i in rows):
            others = [i for i in cells if i != row]
            log_t, log_s = (
                ((x[image].flatten(1).T[row] * x[image].flatten(1).T[others]).sum(1) / 0.5).log_softmax(0)
                for x in (teacher, student)
            )
            total, count = total + float((log_t.exp() * (log_t - log_s)).sum().detach()), count + 1
    assert loss.item() == pytest.approx(total / count)
    assert torch.autograd.gradcheck(lambda x: token_relations.relation_loss(teacher, x, valid, 0.5, rows), (student,))


def test_the_relation_loss_without_a_valid_cell_is_0() -> None:
    student = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = token_relations.relation_loss(torch.randn(1, 3, 2, 2), student, ~ALL_2X2, 0.1)
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_the_balanced_kl_of_two_pairs_is_computed_by_hand() -> None:
    teacher, student = torch.tensor([0.25, 0.75, 0.9]), torch.tensor([0.5, 0.5, 0.1])
    # The third pair has weight 0. Both means are 0.5, so q = 2, and both KL are log 2 - H(0.25).
    expected = 2 * (0.25 * log(0.5) + 0.75 * log(1.5))
    got = relations.balanced_kl(teacher, student, torch.tensor([1.0, 1.0, 0.0]))
    assert got.item() == pytest.approx(expected, rel=1e-5)
    assert relations.balanced_kl(teacher, student, torch.zeros(3)).item() == 0
    weight = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    s = student.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: relations.balanced_kl(teacher.double(), s, weight), (s,))


def test_pairs_reach_the_named_neighbour() -> None:
    cells = torch.arange(12.0).view(1, 1, 3, 4)
    for (dy, dx), product in zip(
        relations.pair_offsets((1, 2), 3, 4),
        relations._PairCosines.apply(cells, relations.pair_offsets((1, 2), 3, 4)),
        strict=True,
    ):
        for y in range(3 - dy):
            for x in range(max(0, -dx), min(4, 4 - dx)):
                expected = cells[0, 0, y, x] * cells[0, 0, y + dy, x + dx]
                assert product[0, y, x - max(0, -dx)] == expected


def test_a_path_is_as_alike_as_its_strongest_boundary_lets_it() -> None:
    boundary = torch.tensor([[[0.1, 0.5, 0.2, 0.9], [0.3, 0.4, 0.6, 0.7], [0.8, 0.25, 0.15, 0.35]]])
    offsets = [(0, 2), (2, 0), (2, 2), (2, -2), (1, -1)]
    found = [affinity[0].tolist() for affinity in relations.path_affinities(boundary, offsets)]
    expected = [
        [[0.5, 0.1], [0.4, 0.3], [0.2, 0.65]],
        [[0.2, 0.5, 0.4, 0.1]],
        [[0.6, 0.4]],  # 0.1 0.4 0.15 and 0.5 0.6 0.35
        [[0.2, 0.1]],  # 0.2 0.4 0.8 and 0.9 0.6 0.25
        [[0.5, 0.6, 0.1], [0.2, 0.4, 0.3]],
    ]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.tensor(one), torch.tensor(other))


def test_dilations_wider_than_the_map_are_left_out() -> None:
    assert relations.pair_offsets((1, 2), 2, 9) == [(0, 1), (1, 0), (1, 1), (1, -1)]
    assert relations.pair_offsets((1, 2), 1, 9) == []


def test_a_pair_is_valid_when_both_cells_are() -> None:
    valid = torch.tensor([[[[True, True], [True, False]]]])
    keep = [relations.pair_valid(valid, offset).flatten().tolist() for offset in relations.pair_offsets((1,), 2, 2)]
    assert keep == [[True, False], [True, False], [False], [True]]


def test_boundary_map_marks_the_border_of_two_regions_and_nothing_else() -> None:
    features = torch.zeros(1, 2, 6, 8)
    features[:, 0, :, 4:] = 3.0
    features[:, 1, :, 4:] = -1.0
    boundary = relations.boundary_map(features)
    assert boundary.shape == (1, 6, 8)
    assert (boundary[..., 3:5] > 0.999).all()
    assert (boundary[..., :3] < 0.001).all()
    assert (boundary[..., 5:] < 0.001).all()


def test_the_finer_map_is_average_pooled_to_the_others_grid() -> None:
    fine = torch.arange(16.0).view(1, 1, 4, 4)
    coarse = torch.zeros(1, 3, 2, 2)
    means = torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]])
    labelled = torch.ones(1, 1, 8, 8)
    torch.testing.assert_close(relations.on_common_grid(fine, coarse, labelled)[0], means)
    torch.testing.assert_close(relations.on_common_grid(coarse, fine, labelled)[1], means)
    assert relations.on_common_grid(coarse, fine, labelled)[0].shape == coarse.shape
    assert relations.on_common_grid(fine, coarse, labelled)[2].all()


def test_a_pooled_cell_is_the_mean_over_its_labelled_part() -> None:
    fine = torch.tensor([[[[2.0, 100.0], [8.0, 5.0]]]])
    labelled = torch.ones(1, 1, 4, 4)
    labelled[..., :2, 2:] = 0  # the cell of 100
    labelled[..., 3, :2] = 0  # half of the cell of 8
    # Weights 1, 0, 1/2 and 1: (2 + 4 + 5) / 2.5
    assert relations.pooled_to(fine, (1, 1), labelled).item() == pytest.approx(4.4)
    nowhere = relations.pooled_to(fine, (1, 1), torch.zeros(1, 1, 4, 4))
    assert nowhere.item() == 0


def test_boundaries_against_cells_without_labels_are_none() -> None:
    features = torch.zeros(1, 2, 4, 6)
    features[:, 0, :, 3:] = 3.0
    features[:, 1, :, 3:] = -1.0
    valid = torch.ones(1, 1, 4, 6, dtype=torch.bool)
    valid[..., 3:] = False
    assert (relations.boundary_map(features)[..., 2:4] > 0.999).all()
    assert relations.boundary_map(features + torch.rand(1, 2, 4, 6), valid)[..., 3:].max() == 0
    assert relations.boundary_map(features, valid)[..., 2].max() < 0.6  # constant cells have no direction: cosine 0


@given(height=st.integers(1, 300), width=st.integers(1, 300), tokens=st.integers(1, 2000))
def test_a_token_grid_is_within_the_map_and_the_number_of_tokens(height: int, width: int, tokens: int) -> None:
    rows, columns = token_relations.token_grid(height, width, tokens)
    assert 1 <= rows <= height
    assert 1 <= columns <= width
    assert rows * columns <= tokens
    if height * width <= tokens:
        assert (rows, columns) == (height, width)


def test_a_token_grid_keeps_the_aspect() -> None:
    assert token_relations.token_grid(64, 80, 320) == (16, 20)
    assert token_relations.token_grid(256, 512, 320) == (12, 26)


def test_relation_rows_leave_the_diagonal_out() -> None:
    unit = relations.standardised(CORNERS, ALL_2X2)
    rows = token_relations.relation_log_rows(unit.flatten(2).transpose(1, 2), ALL_2X2.flatten(1), temperature=0.5).exp()
    # Cell (-1, -1) has cosine 0 with both of its sides and -1 with the opposite corner: logits 0, 0, -2.
    share = 1 / (2 + exp(-2))
    torch.testing.assert_close(rows[0, 0], torch.tensor([0.0, share, share, share * exp(-2)]), atol=1e-5, rtol=0)
    assert not torch.diagonal(rows[0]).any()
    torch.testing.assert_close(rows.sum(dim=2), torch.ones(1, 4))


def test_relation_rows_leave_invalid_cells_out() -> None:
    valid = torch.tensor([[[[True, True], [True, False]]]])
    tokens = relations.standardised(CORNERS, ALL_2X2).flatten(2).transpose(1, 2)
    rows = token_relations.relation_log_rows(tokens, valid.flatten(1), temperature=1.0)
    assert rows[0, 0, 3] < -1000
    assert rows[0, 0, 1].item() == pytest.approx(log(0.5), abs=1e-5)


def test_a_cell_counts_when_more_than_half_of_its_pixels_carry_a_label() -> None:
    """Of four cells 1, 2, 3 and 4 pixels of four are labelled."""
    labelled = torch.tensor([[1, 0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 0, 1, 1]]).float().view(1, 1, 2, 8)
    assert relations.cells(labelled, (1, 4)).flatten().tolist() == [False, False, True, True]
    assert logits.pooled(torch.zeros(1, 2, 2, 8), labelled[:, 0] > 0, 2)[1].flatten().tolist() == [
        False,
        False,
        True,
        True,
    ]
