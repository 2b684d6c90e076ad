"""The quantization configuration between the toolkit's two steps: which tensors stay in float16, written and read back.

    custom_quantize_layers: {}
    quantize_parameters:
        relu_1:
            qtype: asymmetric_quantized
            ...

Source: rknn-toolkit2 2.5.0, the file `<model>.quantization.cfg` that `hybrid_quantization_step1` writes. The reading back was not
run with the toolkit.
Portable: standard library, Python 3.8.
"""

from __future__ import annotations

import json
import re
from typing import Dict, List, Sequence, Tuple

from edgekd.errors import TargetError
from edgekd.rewrites.graph import Graph

_CUSTOM = "custom_quantize_layers:"
_FLOAT = "float16"


def known_tensors(cfg: str) -> List[str]:
    """Return the tensors that the toolkit has quantization parameters for."""
    return [name.strip("'\"") for name in re.findall(r"^    (\S+):$", cfg, re.M)]


def resolved(cfg: str, tensors: Sequence[str], graph: Graph) -> Tuple[str, ...]:
    """Return the tensors by the names that the toolkit knows.

    It merges an activation function into the operator before and knows the result alone. So a tensor that it does not know stands
    for the output of its only reader.

    Raises:
        TargetError: no such tensor is known.
    """
    known = set(known_tensors(cfg))
    found = []
    for tensor in tensors:
        name, reader = tensor, graph.only_reader(tensor)
        while name not in known and reader is not None:
            name = reader.output[0]
            reader = graph.only_reader(name)
        if name not in known:
            raise TargetError(f"rknn: keep_float16: no tensor {tensor!r}; known: {', '.join(sorted(known))}")
        found.append(name)
    return tuple(dict.fromkeys(found))


def keep_float16(cfg: str, tensors: Sequence[str]) -> str:
    """Return the text of a `.quantization.cfg` with tensors set to float16.

    Raises:
        TargetError: a tensor is not in the file, or the file is not what step 1 of 2.5.0 writes.
    """
    empty, known = f"{_CUSTOM} {{}}", known_tensors(cfg)
    for name in tensors:
        if name not in known:
            raise TargetError(f"rknn: keep_float16: no tensor {name!r}; known: {', '.join(known)}")
    if cfg.count(empty) != 1:
        raise TargetError(
            f"rknn: expected one line {empty!r} in the quantization configuration, got {cfg.count(empty)}"
        )
    return cfg.replace(empty, "\n".join([_CUSTOM, *(f"    {json.dumps(t)}: {_FLOAT}" for t in tensors)]))


def check_kept(cfg: str, tensors: Sequence[str]) -> None:
    """Compare the tensors that a configuration keeps in float16 with those that were asked for.

    Raises:
        TargetError: others than these; a user reports that a name moved the tensor before it (airockchip/rknn-toolkit2 360).
    """
    got = {name for name, kind in _custom_layers(cfg).items() if kind == _FLOAT}
    if got != set(tensors):
        raise TargetError(
            f"rknn: keep_float16: expected {', '.join(sorted(tensors))} in float16, got {', '.join(sorted(got)) or 'none'} in the "
            "toolkit's quantization configuration"
        )


def _custom_layers(cfg: str) -> Dict[str, str]:
    """Return type by tensor; the entries stand on lines of their own, or in braces."""
    found = re.search(rf"^{_CUSTOM}[ ]*(\{{[^}}]*\}}|(?:\n[ ]+.*)*)", cfg, re.M)
    text = found[1].strip("{}") if found else ""
    entry = r"""(?:"([^"\n]+)"|'([^'\n]+)'|([^\s,{}'"]+))\s*:\s+(\w+)"""
    return {double or single or plain: kind for double, single, plain, kind in re.findall(entry, text)}
