"""The session protocol: a network loaded for inference by torch, ONNX or an engine's runtime.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from typing import Dict, Protocol

import numpy as np

from edgekd.board.specs import ModelSpec
from edgekd.board.sysinfo import Facts


class Session(Protocol):
    """A network loaded for inference: a torch checkpoint, an ONNX file or an engine.

    spec: its contract.
    runtime: facts that the runtime reports after loading (version, threads, precision, device), JSON-ready.
    """

    spec: ModelSpec
    runtime: Facts

    def infer(self, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Run once, synchronously, and return all outputs of the spec by name."""
