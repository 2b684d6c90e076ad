"""What must hold of every file in edgekd/chips; a new one is tested without being named here."""

from __future__ import annotations

from datetime import date

import pytest

from edgekd.core import chips, plugins
from edgekd.preflight.tables import tables_for, tables_of, without_table


@pytest.mark.parametrize("name", chips.names())
def test_a_chip_has_sourced_facts_and_evidence_of_what_its_targets_build(name: str) -> None:
    chip = chips.load(name)
    assert chip.title
    assert chip.facts
    assert all(fact.text.endswith(".") and fact.source for fact in chip.facts)
    assert set(chip.targets) <= set(plugins.names("targets"))
    for one in chip.evidence:
        assert one.target in chip.targets
        assert set(one.precisions) <= set(plugins.target(one.target).info.precisions) - set(chip.lacks)
        assert date.fromisoformat(one.date)


@pytest.mark.parametrize("target", plugins.names("targets"))
def test_every_target_stands_in_the_support_matrix(target: str) -> None:
    assert any(target in chips.load(name).targets for name in chips.names())


@pytest.mark.parametrize("name", chips.names())
def test_a_chip_can_be_checked_and_a_missing_table_is_said(name: str) -> None:
    for target in chips.load(name).targets:
        by_chip = {chip for table in tables_of(target) for chip in table.chips}
        if not by_chip:
            continue  # what is known of the target holds for all of its chips
        tables_for(target, name)
        said = [one.consequence for one in without_table(target, name)]
        assert said == ([] if name in by_chip else ["unverified"])


def test_rv1106_has_no_table_yet() -> None:
    assert [one.says for one in without_table("rknn", "rv1106")] == [
        "no table says which operators rv1106 takes, only for rk3562, rk3566, rk3568, rk3576, rk3588"
    ]
