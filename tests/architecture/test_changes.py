"""Fragments of the changelog: one file per change, so that branches do not meet in one list."""

from __future__ import annotations

import re

from tests.architecture.sources import REPOSITORY

CHANGES = REPOSITORY / "changes"
TYPES = ("added", "changed", "fixed", "removed")  # those of [tool.towncrier] in pyproject.toml


def test_every_fragment_has_a_name_that_towncrier_reads_and_one_change() -> None:
    fragments = sorted(CHANGES.glob("*"))
    assert fragments
    for fragment in fragments:
        assert re.fullmatch(rf"\+[a-z0-9-]+\.({'|'.join(TYPES)})\.md", fragment.name), fragment.name
        text = fragment.read_text(encoding="utf-8")
        assert text.strip(), fragment.name
        assert not text.startswith(("-", "#", " ")), fragment.name


def test_changes_go_into_fragments_and_not_into_the_changelog() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "Unreleased" not in text
    assert "<!-- towncrier release notes start -->" in text
