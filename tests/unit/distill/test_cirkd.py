"""Cross-image relations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.methods import cirkd
from edgekd.errors import RecipeError
from tests.unit.distill.maps import batch, labelled, method, outputs, random_map, terms


def by_loops(teacher: np.ndarray, student: np.ndarray, valid: np.ndarray, tau: float) -> float:
    """Maps (B, C, N), valid (B, N)."""

    def row(features: np.ndarray, i: int, cell: int, j: int) -> np.ndarray:
        f, others = features[i][:, cell], features[j][:, valid[j]]
        scores = f @ others / np.linalg.norm(f) / np.linalg.norm(others, axis=0) / tau
        scores = np.exp(scores - scores.max())
        return scores / scores.sum()

    kls = []
    for i in range(len(valid)):
        for j in range(len(valid)):
            for cell in np.flatnonzero(valid[i]):
                if valid[j].any():
                    p, q = row(teacher, i, cell, j), row(student, i, cell, j)
                    kls.append(np.sum(p * np.log(p / q)))
    return float(np.mean(kls))


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_it_agrees_with_loops_over_pairs_of_images_and_cells(tau: float) -> None:
    teacher, student = random_map(1, 3, 5, 2, 3), random_map(2, 3, 4, 2, 3)
    masks = torch.zeros(3, 2, 3, dtype=torch.int64)
    masks[0, 0, :2] = 255
    masks[1] = 255
    value = terms(cirkd, outputs(teacher), outputs(student), batch(masks), cirkd.Options(temperature=tau))
    valid = (masks != 255).flatten(1).numpy()
    oracle = by_loops(teacher.flatten(2).double().numpy(), student.flatten(2).double().numpy(), valid, tau)
    assert value == {"minibatch": pytest.approx(oracle, rel=1e-4)}


def test_relations_to_the_other_images_count() -> None:
    """Two images alone agree with the teacher; swapped signs of one change only what lies between them."""
    teacher = random_map(1, 2, 5, 2, 3)
    student = teacher * torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    both = terms(cirkd, outputs(teacher), outputs(student), labelled(2, 2, 3))["minibatch"]
    alone = [
        terms(cirkd, outputs(teacher[i : i + 1]), outputs(student[i : i + 1]), labelled(1, 2, 3))["minibatch"]
        for i in range(2)
    ]
    assert alone == [pytest.approx(0, abs=1e-6)] * 2
    assert both > 0.5


def test_cells_may_be_scaled_and_channels_turned() -> None:
    teacher, student = random_map(1, 2, 5, 3, 4), random_map(2, 2, 4, 3, 4)
    turn = torch.linalg.qr(random_map(3, 4, 4)).Q
    scaled = torch.einsum("dc,bchw->bdhw", turn, student) * random_map(4, 2, 1, 3, 4).abs().add(0.1)
    plain, turned = (
        terms(cirkd, outputs(teacher), outputs(x), labelled(2, 12, 16))["minibatch"] for x in (student, scaled)
    )
    assert turned == pytest.approx(plain, rel=1e-3)


def test_what_is_kept_for_the_gradient_grows_with_the_batch_alone() -> None:
    """The rows of all images against all would be B^2 N^2 floats: four times as much for twice the images."""

    def kept(images: int) -> int:
        teacher, student = random_map(1, images, 4, 8, 8), random_map(2, images, 4, 8, 8).requires_grad_()
        sizes: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: sizes.update({x.data_ptr(): x.nbytes}) or x, lambda x: x
        ):
            cirkd.cross_image_loss(
                teacher.flatten(2).transpose(1, 2), student.flatten(2).transpose(1, 2),
                torch.ones(images, 64, dtype=torch.bool), 0.1,
            ).backward()  # fmt: skip
        return sum(sizes.values())

    assert kept(8) < 3 * kept(4)


def test_the_rows_of_one_image_stay_within_64_mib_in_a_large_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    # 64 images: 4096 / 8 = 512 cells, although 4096 are allowed and there are 1024; 64 * 512^2 * 4 bytes = 64 MiB.
    seen = []
    monkeypatch.setattr(cirkd, "cross_image_loss", lambda t, s, valid, tau: seen.append(s.shape) or s.sum() * 0)
    wide = outputs(torch.zeros(64, 1, 32, 32))
    method(cirkd, wide, wide, cirkd.Options(tokens=4096))(wide, wide, labelled(64, 32, 32))
    assert seen[0][0] == 64
    assert 480 <= seen[0][1] <= 512
    with pytest.raises(RecipeError, match=r"cirkd\.tokens: expected 2 to 4096"):
        cirkd.Options(tokens=1)
