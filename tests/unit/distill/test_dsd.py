"""Double similarity."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.methods import dsd
from edgekd.errors import RecipeError
from edgekd.models.base import Outputs
from tests.unit.distill.maps import batch, labelled, outputs, random_map, terms

UNWEIGHTED = dsd.Options(pixel=1.0, category=1.0, temperature=2.0, stride=2)


def network(seed: int, channels: int, images: int = 3) -> Outputs:
    """All maps on one grid of 4 x 5 cells; logits of 8 x 10 pixels."""
    logits = random_map(seed, images, 3, 4, 5).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return outputs(
        random_map(seed + 1, images, channels, 4, 5), {8: random_map(seed + 2, images, channels, 4, 5)}, logits
    )


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def residuals_by_hand(out: Outputs, image: int, valid: np.ndarray) -> list[np.ndarray]:
    maps = [out.features[8][image], out.decoder[image], out.logits[image, :, ::2, ::2]]
    at = [unit((m.double().numpy() ** 2).mean(axis=0).flatten()[valid]) for m in maps]
    return [unit(at[1] - at[0]), unit(at[2] - at[1])]


def classes_by_hand(out: Outputs, image: int, valid: np.ndarray) -> np.ndarray:
    z = np.exp(out.logits[image, :, ::2, ::2].flatten(1).double().numpy()[:, valid] / UNWEIGHTED.temperature)
    phi = [unit(row / row.sum()) for row in z]
    return np.array([[a @ b for b in phi] for a in phi])


def test_it_agrees_with_the_equations_in_numpy() -> None:
    teacher, student = network(10, 5), network(20, 4)
    masks = torch.zeros(3, 4, 5, dtype=torch.int64)
    masks[0, 1:3, 2:] = 255
    masks[1] = 255
    pixel, category = [], []
    for image in (0, 2):
        valid = (masks[image] != 255).flatten().numpy()
        r_t, r_s = (residuals_by_hand(out, image, valid) for out in (teacher, student))
        pixel.append(np.mean([np.sum((s - t) ** 2) for s, t in zip(r_s, r_t, strict=True)]))
        category.append(np.mean((classes_by_hand(student, image, valid) - classes_by_hand(teacher, image, valid)) ** 2))
    full = masks.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    assert terms(dsd, teacher, student, batch(full), UNWEIGHTED) == {
        "pixel": pytest.approx(np.mean(pixel), rel=1e-4),
        "category": pytest.approx(np.mean(category), rel=1e-4),
    }


def test_an_equal_student_has_nothing_to_learn() -> None:
    same = network(10, 5)
    assert terms(dsd, same, same, labelled(3, 8, 10)) == {
        "pixel": pytest.approx(0, abs=1e-8),
        "category": pytest.approx(0, abs=1e-8),
    }


def test_the_scale_and_the_order_of_channels_and_the_offset_of_a_class_do_not_matter() -> None:
    teacher, student = network(10, 5), network(20, 4)
    moved = outputs(
        0.1 * student.decoder.flip(1),
        {8: 30 * student.features[8].flip(1)},
        student.logits,
    )
    plain, other = (terms(dsd, teacher, x, labelled(3, 8, 10), UNWEIGHTED) for x in (student, moved))
    assert other == {name: pytest.approx(value, rel=1e-3) for name, value in plain.items()}
    shifted = outputs(
        student.decoder, student.features, student.logits + torch.tensor([1.0, -2.0, 3.0]).view(1, 3, 1, 1)
    )
    category = terms(dsd, teacher, shifted, labelled(3, 8, 10), UNWEIGHTED)["category"]
    assert category == pytest.approx(plain["category"], rel=1e-3)


def test_maps_of_other_sizes_meet_on_the_coarsest_grid() -> None:
    teacher, student = network(10, 5), network(20, 4)
    finer = outputs(
        teacher.decoder.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3),
        {4: teacher.features[8].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)},
        teacher.logits,
    )
    plain, other = (terms(dsd, x, student, labelled(3, 8, 10), UNWEIGHTED) for x in (teacher, finer))
    assert other == {name: pytest.approx(value, rel=1e-4) for name, value in plain.items()}


def test_a_network_without_feature_maps_is_refused() -> None:
    with pytest.raises(RecipeError, match="dsd: this network shows no feature maps"):
        terms(dsd, outputs(), network(20, 4), labelled(3, 8, 10))
