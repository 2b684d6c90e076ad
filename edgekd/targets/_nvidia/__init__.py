"""Code that the targets tensorrt and tensorrt_rtx share."""

from __future__ import annotations

from pathlib import Path

SUPPORT = Path(__file__).with_name("support.yaml")
