"""A second error, while what was finished is written, does not hide the first."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from edgekd.errors import EdgekdError, add_note, one_line

log = logging.getLogger(__name__)


@contextmanager
def noted_on(first: BaseException) -> Iterator[None]:
    """Add an error inside the block to `first` as a note, so that it does not hide `first`."""
    try:
        yield
    except Exception as exc:
        log.debug("the report of what was finished could not be written", exc_info=True)
        said = one_line(exc) if isinstance(exc, EdgekdError | OSError) else f"{type(exc).__name__}: {one_line(exc)}"
        if said not in str(first):  # a damaged artifact ends both
            add_note(first, f"the report of what was finished could not be written: {said}")
