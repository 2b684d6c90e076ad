"""The segmenter's task loss: cross-entropy per labelled pixel, and its weights by class."""

import math
from pathlib import Path

import pytest
import torch

from edgekd.errors import RecipeError
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch
from edgekd.train.losses.semantic import balanced, semantic_loss
from tests.unit.core.small_recipe import small_recipe

LOGITS = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]]).T.reshape(1, 2, 1, 2)  # P(class 1) is 3/4, then 1/2


def loss_of(masks: list[int], weights: torch.Tensor | None, logits: torch.Tensor = LOGITS) -> torch.Tensor:
    batch = Batch(torch.zeros(1, 3, 1, 2), torch.tensor(masks).reshape(1, 1, 2), class_weights=weights)
    return semantic_loss(Outputs({"logits": logits}, {}, torch.zeros(1, 1, 1, 1)), batch)["pixels"]


def test_every_labelled_pixel_counts_alike_without_weights() -> None:
    assert float(loss_of([1, 0], None)) == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert float(loss_of([255, 0], None)) == pytest.approx(math.log(2))


def test_a_pixel_counts_what_its_class_weighs() -> None:
    weights = torch.tensor([0.5, 3.0])
    assert float(loss_of([1, 0], weights)) == pytest.approx((3 * math.log(4 / 3) + 0.5 * math.log(2)) / 2)
    assert float(loss_of([1, 255], weights)) == pytest.approx(3 * math.log(4 / 3))
    assert float(loss_of([1, 0], torch.ones(2))) == pytest.approx(float(loss_of([1, 0], None)))


def test_auxiliary_logits_add_their_weighted_losses() -> None:
    batch = Batch(torch.zeros(1, 3, 1, 2), torch.tensor([1, 0]).reshape(1, 1, 2))
    auxiliary = {"one": LOGITS, "other": torch.zeros(1, 2, 1, 2)}
    terms = semantic_loss(Outputs({"logits": LOGITS}, {}, torch.zeros(1, 1, 1, 1), {}, auxiliary, 0.25), batch)
    own = (math.log(4 / 3) + math.log(2)) / 2
    assert float(terms["pixels"]) == pytest.approx(own)
    assert float(terms["auxiliary"]) == pytest.approx(0.25 * (own + math.log(2)))


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 3.0])])
def test_without_a_labelled_pixel_it_is_0_and_teaches_nothing(weights: torch.Tensor | None) -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = loss_of([255, 255], weights, logits)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_weights_are_the_inverse_frequency_to_the_power_of_the_balance() -> None:
    shares = [0.64, 0.36, 0.0]
    assert balanced(shares, 1.0).tolist() == pytest.approx([0.5 / 0.64, 0.5 / 0.36, 0])
    # 0.64 / 0.8 + 0.36 / 0.6 = 1.4
    assert balanced(shares, 0.5).tolist() == pytest.approx([1.25 / 1.4, 1 / 0.6 / 1.4, 0])


def test_the_mean_over_all_pixels_keeps_its_size() -> None:
    shares = torch.tensor([0.9, 0.0999, 0.0001])
    for balance in (0.25, 0.5, 1.0):
        assert float((shares * balanced(shares.tolist(), balance)).sum()) == pytest.approx(1)


def test_a_balance_of_classes_is_of_segmenters_alone(tmp_path: Path) -> None:
    balanced = small_recipe(tmp_path, "student.train.class_balance=0.5")
    assert balanced.student.train is not None
    assert balanced.student.train.class_balance == 0.5
    for name in ("teacher", "student"):
        with pytest.raises(RecipeError, match=f"{name}.train.class_balance weighs pixels; it has no meaning for task"):
            small_recipe(tmp_path, "task=detection", f"{name}.train.class_balance=0.5")
