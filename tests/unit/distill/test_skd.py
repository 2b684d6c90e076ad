"""Structured knowledge distillation."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch

from edgekd.distill.methods import skd
from edgekd.errors import RecipeError
from tests.unit.distill.maps import batch, labelled, outputs, random_map, terms

PAIRWISE = skd.Options(pixel=0.0, pairwise=1.0)


def pairwise_by_loops(teacher: np.ndarray, student: np.ndarray, valid: np.ndarray) -> float:
    """Maps (B, C, N), valid (B, N)."""
    images = []
    for t, s, v in zip(teacher, student, valid, strict=True):
        errors = []
        for i in np.flatnonzero(v):
            for j in np.flatnonzero(v):
                a_t, a_s = (x[:, i] @ x[:, j] / np.linalg.norm(x[:, i]) / np.linalg.norm(x[:, j]) for x in (t, s))
                errors.append((a_s - a_t) ** 2)
        if errors:
            images.append(np.mean(errors))
    return float(np.mean(images))


def test_pairwise_is_the_mean_squared_difference_of_cosines() -> None:
    teacher, student = random_map(1, 3, 5, 2, 4), random_map(2, 3, 3, 2, 4)
    masks = torch.zeros(3, 2, 4, dtype=torch.int64)
    masks[0, 0, 1:3] = 255
    masks[2] = 255
    value = terms(skd, outputs(teacher), outputs(student), batch(masks), PAIRWISE)
    oracle = pairwise_by_loops(
        teacher.flatten(2).numpy(), student.flatten(2).numpy(), (masks != 255).flatten(1).numpy()
    )
    assert value == {"pairwise": pytest.approx(oracle, rel=1e-5)}


def test_two_cells_at_right_angles_against_two_alike() -> None:
    alike, crossed = torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]]]), torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    # Two of the four pairs differ, by 1.
    assert terms(skd, outputs(alike), outputs(crossed), labelled(1, 1, 2), PAIRWISE)["pairwise"] == pytest.approx(0.5)


def test_cells_may_be_scaled_and_channels_turned() -> None:
    teacher, student = random_map(1, 2, 5, 3, 4), random_map(2, 2, 4, 3, 4)
    turn = torch.linalg.qr(random_map(3, 4, 4)).Q
    scaled = torch.einsum("dc,bchw->bdhw", turn, student) * random_map(4, 2, 1, 3, 4).abs().add(0.1)
    plain, turned = (
        terms(skd, outputs(teacher), outputs(x), labelled(2, 12, 16), PAIRWISE)["pairwise"] for x in (student, scaled)
    )
    assert turned == pytest.approx(plain, rel=1e-4)


def test_pixel_is_the_kl_of_the_class_distributions() -> None:
    # (1/4, 3/4) against (1/2, 1/2) in the first pixel; the second has no label.
    teacher, student = torch.tensor([[[[0.0, 9.0]], [[log(3), 0.0]]]]), torch.zeros(1, 2, 1, 2)
    value = terms(
        skd, outputs(logits=teacher), outputs(logits=student), batch([[[0, 255]]]), skd.Options(pixel=3.0, pairwise=0.0)
    )
    assert value == {"pixel": pytest.approx(3 * (0.25 * log(0.25 / 0.5) + 0.75 * log(0.75 / 0.5)), rel=1e-5)}


def test_cells_are_averaged_to_at_most_the_tokens() -> None:
    coarse_t, coarse_s = random_map(1, 1, 5, 2, 2), random_map(2, 1, 5, 2, 2)
    fine_t, fine_s = (x.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3) for x in (coarse_t, coarse_s))
    options = skd.Options(pixel=0.0, pairwise=1.0, tokens=4)
    coarse, fine = (
        terms(skd, outputs(t), outputs(s), labelled(1, 32, 32), options)["pairwise"]
        for t, s in ((coarse_t, coarse_s), (fine_t, fine_s))
    )
    assert fine == pytest.approx(coarse, rel=1e-5)


def test_a_matrix_above_64_mib_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"skd\.tokens: expected 2 to 4096 \(64 MiB per image\), got 5000"):
        skd.Options(tokens=5000)
