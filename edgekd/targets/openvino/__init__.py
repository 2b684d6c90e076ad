"""The target openvino: OpenVINO."""

from __future__ import annotations

from edgekd.targets.openvino.target import TARGET

__all__ = ["TARGET"]
