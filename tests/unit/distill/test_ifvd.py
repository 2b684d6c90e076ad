"""Intra-class feature variation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.methods import ifvd
from tests.unit.distill.maps import batch, labelled, outputs, random_map, terms

PLAIN = ifvd.Options(variation=1.0)


def similarity_by_loops(features: np.ndarray, labels: np.ndarray) -> list[float]:
    """Features (B, C, N), labels (B, N)."""
    cosines = []
    for image, classes in zip(features, labels, strict=True):
        for cell, label in enumerate(classes):
            if label != 255:
                centre = image[:, classes == label].mean(axis=1)
                f = image[:, cell]
                cosines.append(f @ centre / np.linalg.norm(f) / np.linalg.norm(centre))
    return cosines


def test_two_cells_at_right_angles_are_45_degrees_from_their_centre() -> None:
    alike, crossed = torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]]]), torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    value = terms(ifvd, outputs(alike), outputs(crossed), labelled(1, 1, 2))["variation"]
    assert value == pytest.approx(20 * (1 - 0.5**0.5) ** 2, rel=1e-5)
    # Cells of two classes are their own centres.
    assert terms(ifvd, outputs(alike), outputs(crossed), batch([[[0, 1]]]))["variation"] == pytest.approx(0, abs=1e-10)


def test_it_agrees_with_loops_over_images_classes_and_cells() -> None:
    teacher, student = random_map(1, 3, 5, 4, 6), random_map(2, 3, 4, 4, 6)
    masks = torch.randint(0, 3, (3, 4, 6), generator=torch.Generator().manual_seed(3))
    masks[0, 1:3, 2:5] = 255
    masks[2] = 255
    value = terms(ifvd, outputs(teacher), outputs(student), batch(masks), PLAIN)["variation"]
    m_t, m_s = (similarity_by_loops(x.flatten(2).numpy(), masks.flatten(1).numpy()) for x in (teacher, student))
    assert value == pytest.approx(np.mean(np.square(np.subtract(m_s, m_t))), rel=1e-4)


def test_the_label_of_a_cell_is_that_of_its_nearest_pixel() -> None:
    teacher, student = random_map(1, 1, 5, 2, 2), random_map(2, 1, 4, 2, 2)
    masks = torch.tensor([[[0, 1], [2, 0]]])
    fine = torch.full((1, 6, 6), 255)
    fine[:, 1::3, 1::3] = masks
    coarse, sampled = (terms(ifvd, outputs(teacher), outputs(student), batch(m), PLAIN) for m in (masks, fine))
    assert coarse["variation"] > 0
    assert sampled["variation"] == pytest.approx(coarse["variation"], rel=1e-6)


def test_a_map_may_be_scaled_and_its_channels_turned() -> None:
    teacher, student = random_map(1, 2, 5, 3, 4), random_map(2, 2, 4, 3, 4)
    turn = torch.linalg.qr(random_map(3, 4, 4)).Q
    turned = 7 * torch.einsum("dc,bchw->bdhw", turn, student)
    masks = torch.randint(0, 3, (2, 3, 4), generator=torch.Generator().manual_seed(3))
    plain, other = (terms(ifvd, outputs(teacher), outputs(x), batch(masks))["variation"] for x in (student, turned))
    assert other == pytest.approx(plain, rel=1e-4)
