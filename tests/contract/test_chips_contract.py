"""What must hold of every file in edgekd/chips; a new one is tested without being named here."""

from __future__ import annotations

from datetime import date

import pytest

from edgekd.core import chips, plugins


@pytest.mark.parametrize("name", chips.names())
def test_a_chip_has_sourced_facts_and_evidence_of_what_its_targets_build(name: str) -> None:
    chip = chips.load(name)
    assert chip.title
    assert chip.facts
    assert all(fact.text.endswith(".") and fact.source for fact in chip.facts)
    assert set(chip.targets) <= set(plugins.names("targets"))
    for one in chip.evidence:
        assert one.target in chip.targets
        assert set(one.precisions) <= set(plugins.load("targets", one.target).INFO.precisions) - set(chip.lacks)
        assert date.fromisoformat(one.date)


@pytest.mark.parametrize("target", plugins.names("targets"))
def test_every_target_stands_in_the_support_matrix(target: str) -> None:
    assert any(target in chips.load(name).targets for name in chips.names())
