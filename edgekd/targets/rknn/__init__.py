"""The target rknn: Rockchip's NPUs."""

from __future__ import annotations

from edgekd.targets.rknn.target import TARGET

__all__ = ["TARGET"]
