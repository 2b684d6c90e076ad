"""The precisions of an engine, and the properties of each.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

from enum import Enum


class Precision(str, Enum):
    """The precision that an engine computes in.

    `mixed` is int8 with chosen layers left in float.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    MIXED = "mixed"

    def __str__(self) -> str:
        return str(self.value)

    @property
    def is_quantized(self) -> bool:
        """Whether the engine is compiled from a quantized model instead of the exported one."""
        return self in (Precision.INT8, Precision.MIXED)


# The float precisions that a quantized engine is compared with, the best first. Some runtimes have no fp32.
REFERENCES = (Precision.FP32, Precision.FP16)
