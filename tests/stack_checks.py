"""Other software's own packages, with which the files of stacks are checked: `make stack-checks` brings them.

They lie beside the environment's packages: Model API asks for opencv-python-headless 4, Triton's client for protobuf 6. What is used
of them here works with the versions that are there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

CHECKS = Path(sys.prefix) / ".stack-checks"
needs_checks = pytest.mark.skipif(
    not (CHECKS / "model_api").is_dir(), reason="no .stack-checks here (make stack-checks)"
)
