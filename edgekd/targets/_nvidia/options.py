"""Options of both builders, TensorRT's and TensorRT-RTX's.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Tuple

from edgekd.board.options import option
from edgekd.targets.base import check_range


@dataclass(frozen=True)
class BuilderOptions:
    """Options that both builders have."""

    float_layers: Literal["fp32", "fp16"] = option("fp16", "Precision of the float layers of int8 and mixed engines.")
    workspace_mib: int = option(0, "Limit of the scratch memory of layers in MiB. 0: the runtime's own limit.")
    debug_tensors: Tuple[str, ...] = option(
        (),
        "Shell-style patterns of ONNX tensors that `edgekd layers` can read. They are not fused, so the engine is another one.",
    )

    def __post_init__(self) -> None:
        check_range("workspace_mib", self.workspace_mib, 0)
