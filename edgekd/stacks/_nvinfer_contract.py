"""The tensors of an engine as a C++ header, which the nvinfer parser (`_nvinfer_parser.cpp`) includes."""

from __future__ import annotations

import json
from math import prod

from edgekd.board.detection import Selection
from edgekd.board.specs import ModelSpec, TensorSpec

# dtype of a contract -> nvinfer's name of it (nvdsinfer.h).
_TYPES = {"float32": "FLOAT", "int32": "INT32"}
DTYPES = tuple(_TYPES)
_NONE = '{"", FLOAT, 0}'


def header(spec: ModelSpec) -> str:
    """Return the text of `contract.h`: constants of every output that the parser may read, empty where there is none."""
    outputs = {tensor.role: tensor for tensor in spec.outputs}
    kinds = [kind for kind in ("decoded", "found") if f"{kind}_boxes" in outputs]
    kind = kinds[0] if kinds else ""
    maps, prototypes = outputs.get("logits") or outputs.get("class_map"), outputs.get("prototypes")
    selection = Selection()
    lines = [
        "// The outputs of one engine. edgekd writes this file; see spec.json for the whole contract.",
        "#pragma once",
        "#include <vector>",
        '#include "nvdsinfer.h"',
        "struct Tensor { const char* name; NvDsInferDataType type; unsigned int count; };",
        "struct Level { Tensor scores, boxes, coefficients; unsigned int height, width; };",
        "enum Outputs { kRawHeads, kDecoded, kSuppressed };",
        f"constexpr Outputs kOutputs = {({'decoded': 'kDecoded', 'found': 'kSuppressed'}).get(kind, 'kRawHeads')};",
        f"constexpr unsigned int kClasses = {len(spec.classes)}, kMixes = {prototypes.shape[1] if prototypes else 0};",
        f"constexpr float kInputHeight = {spec.preprocess.size[0]}, kInputWidth = {spec.preprocess.size[1]};",
        f"constexpr float kIou = {selection.iou}f;",
        f"constexpr unsigned int kMost = {selection.most};",
        f"constexpr Tensor kMap = {_tensor(maps)}, kPrototypes = {_tensor(prototypes)};",
        *_sides("kMap", maps),
        *_sides("kPrototypes", prototypes),
        *(f"constexpr Tensor k{part} = {_tensor(outputs.get(f'{kind}_{part.lower()}'))};" for part in _PARTS),
        f"const std::vector<Level> kLevels = {{{', '.join(_levels(spec))}}};",
    ]
    return "\n".join([*lines, ""])


_PARTS = ("Scores", "Boxes", "Labels", "Coefficients")


def _levels(spec: ModelSpec) -> list[str]:
    scores, boxes, coefficients = (spec.all_outputs(role) for role in ("scores", "boxes", "coefficients"))
    mixes = coefficients or (None,) * len(scores)
    return [
        f"{{{_tensor(score)}, {_tensor(box)}, {_tensor(mix)}, {score.shape[2]}, {score.shape[3]}}}"
        for score, box, mix in zip(scores, boxes, mixes, strict=True)
    ]


def _sides(name: str, tensor: TensorSpec | None) -> list[str]:
    height, width = tensor.shape[-2:] if tensor else (0, 0)
    return [f"constexpr unsigned int {name}Height = {height}, {name}Width = {width};"]


def _tensor(tensor: TensorSpec | None) -> str:
    if tensor is None:
        return _NONE
    return f"{{{json.dumps(tensor.name)}, {_TYPES[tensor.dtype]}, {prod(tensor.shape[1:])}}}"
