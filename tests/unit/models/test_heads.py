"""Detection heads: shapes, points and box decoding by hand."""

from __future__ import annotations

import pytest
import torch

from edgekd.models.heads import BINS, DetectionHead, Prototypes, decode, points


def test_points_are_the_cells_centres_row_by_row() -> None:
    assert points((2, 3), 8).tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]


def test_decoding_takes_the_expected_distance_in_strides() -> None:
    logits = torch.full((1, 4, BINS), -50.0)
    logits[0, 0, 2] = 0.0  # left: 2 strides
    logits[0, 1, 0] = logits[0, 1, 1] = 0.0  # top: half a stride
    logits[0, 2, 16] = 0.0  # right: 16 strides
    logits[0, 3, 3] = 0.0  # bottom: 3 strides
    box = decode(logits.flatten(1), torch.tensor([[100.0, 60.0]]), torch.tensor([8.0]))
    torch.testing.assert_close(box, torch.tensor([[100 - 16.0, 60 - 4.0, 100 + 128.0, 60 + 24.0]]))


@pytest.mark.parametrize("coefficients", [0, 6])
def test_every_level_has_scores_and_boxes_of_its_own(coefficients: int) -> None:
    head = DetectionHead(12, 3, (8, 16), depth=2, coefficients=coefficients)
    out = head({8: torch.rand(2, 12, 6, 8), 16: torch.rand(2, 12, 3, 4)})
    kinds = {"scores": 3, "boxes": 4 * BINS, **({"coefficients": coefficients} if coefficients else {})}
    assert {name: tuple(value.shape) for name, value in out.items()} == {
        f"{kind}_{stride}": (2, channels, 48 // stride, 64 // stride)
        for stride in (8, 16)
        for kind, channels in kinds.items()
    }


def test_an_untrained_head_takes_everything_for_background() -> None:
    head = DetectionHead(12, 3, (8,), depth=1, coefficients=0).eval()
    scores = head({8: torch.rand(1, 12, 6, 8)})["scores_8"].sigmoid()
    assert scores.mean().item() == pytest.approx(0.01, rel=0.3)


def test_levels_share_convolutions_and_have_norms_of_their_own() -> None:
    one, two = (DetectionHead(12, 3, strides, depth=2, coefficients=0) for strides in ((8,), (8, 16)))
    more = sum(p.numel() for p in two.parameters()) - sum(p.numel() for p in one.parameters())
    assert more == 2 * 2 * 2 * 12  # two towers, two norms each, scale and shift


def test_prototypes_are_twice_as_fine_and_not_negative() -> None:
    maps = Prototypes(12, 5, scale=2)(torch.randn(2, 12, 6, 8))
    assert tuple(maps.shape) == (2, 5, 12, 16)
    assert maps.min() >= 0
