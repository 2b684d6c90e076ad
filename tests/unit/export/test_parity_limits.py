"""Parity with torch is held against the limit of what the task gives."""

from __future__ import annotations

import pytest

from edgekd.core.recipe import Export
from edgekd.errors import GateError
from edgekd.export.stage import check_parity


@pytest.mark.parametrize(
    ("task", "limit", "words"),
    [
        ("semantic", "class_map_tolerance", "2.00e-02 of the pixels get another class than in torch"),
        ("detection", "detections_tolerance", "2.00e-02 of the detections have no counterpart in torch"),
        ("instance", "detections_tolerance", "2.00e-02 of the detections have no counterpart in torch"),
    ],
)
def test_results_that_differ_have_a_limit_of_their_own(task: str, limit: str, words: str) -> None:
    parity = {"images": 8, "outputs_relative": 1e-6, "different": 0.02, "compared": 100}
    check_parity(parity, task, Export(**{limit: 0.02}))
    other = {"class_map_tolerance": 1.0, "detections_tolerance": 1.0, limit: 0.01}
    with pytest.raises(GateError) as refusal:
        check_parity(parity, task, Export(**other))
    assert str(refusal.value) == f"export: {words}, limit export.{limit} = 0.01, on 8 images"
