"""The target tensorrt_rtx: TensorRT for RTX."""

from __future__ import annotations

from edgekd.targets.tensorrt_rtx.target import TARGET

__all__ = ["TARGET"]
