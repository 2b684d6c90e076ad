"""The target onnxruntime: ONNX Runtime."""

from __future__ import annotations

from edgekd.targets.onnxruntime.target import TARGET

__all__ = ["TARGET"]
