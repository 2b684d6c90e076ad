"""Fixtures of all tests."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

with suppress(ImportError):  # the tests that need it are skipped then
    from hypothesis import settings

    settings.register_profile("untimed", deadline=None)  # a busy machine is no fault
    settings.load_profile("untimed")

pytest_plugins = ["tests.boards.fixtures"]
REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data sets, `$EDGEKD_SHARED/data` or `../shared/data`; skip where there is none."""
    folder = Path(os.environ.get("EDGEKD_SHARED") or REPOSITORY.parent / "shared") / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set EDGEKD_SHARED to the folder that holds data/")
    return folder
