"""The target tensorrt: TensorRT."""

from __future__ import annotations

from edgekd.targets.tensorrt.target import TARGET

__all__ = ["TARGET"]
