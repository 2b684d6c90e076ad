"""The I/O contract that every model, ONNX file and engine carries: ModelSpec.

Nobody guesses preprocessing: code that runs a network reads its `ModelSpec`; code that changes what a network
expects (folding the normalisation into the graph, say) returns a new one.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Dict, Tuple

from edgekd.errors import ArtifactError

SPEC_SCHEMA = "edgekd.model_spec/1"
SpecJson = Dict[str, Any]  # JSON of a ModelSpec in manifests, jobs and report files


@dataclass(frozen=True)
class TensorSpec:
    """One input or output tensor. `shape` is static, batch first; `role` says what it holds:
    `image`, `logits` (B, K, H, W), `class_map` (B, H, W), or of a detector `scores`, `boxes`, `coefficients` (one tensor
    per pyramid level, (B, C, H/stride, W/stride)) and `prototypes`; of one that decodes by itself `decoded_boxes`
    (B, 4, N), `decoded_scores` (B, K, N), `decoded_coefficients` (B, P, N); of one that suppresses, too, `found_boxes`
    (B, N, 4), `found_scores` (B, N), `found_labels` (B, N), `found_coefficients` (B, N, P) and `found_masks` (B, N, h, w);
    see `board/detection.py`."""

    name: str
    dtype: str
    shape: Tuple[int, ...]
    role: str


@dataclass(frozen=True)
class Preprocess:
    """How a uint8 RGB image (H, W, 3) becomes the network's input.

    The image is resized to `size` (height, width), bilinear with antialiasing, pixel centres aligned
    (Pillow's and torchvision's BILINEAR): `resize` stretch changes its aspect, letterbox keeps it and pads with black
    (`board/frame.py`), as the training crop does. For `dtype` float32 each channel is then
    `(pixel / 255 - mean) / std`; for uint8 the pixels go in as they are and the graph normalises.
    """

    size: Tuple[int, int]
    mean: Tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: Tuple[float, float, float] = (1.0, 1.0, 1.0)
    layout: str = "NCHW"
    dtype: str = "float32"
    color_order: str = "RGB"
    resize: str = "stretch"


@dataclass(frozen=True)
class ModelSpec:
    """Task, classes and tensors of one network in one file format."""

    task: str
    classes: Tuple[str, ...]
    ignore_index: int
    inputs: Tuple[TensorSpec, ...]
    outputs: Tuple[TensorSpec, ...]
    preprocess: Preprocess

    def output(self, *roles: str) -> TensorSpec:
        """Return the first output whose role is one of `roles`; KeyError when there is none."""
        for tensor in self.outputs:
            if tensor.role in roles:
                return tensor
        raise KeyError(f"no output with role {' or '.join(roles)}; outputs: {[t.role for t in self.outputs]}")

    def all_outputs(self, role: str) -> Tuple[TensorSpec, ...]:
        """Return the outputs with a role, in order."""
        return tuple(tensor for tensor in self.outputs if tensor.role == role)

    def to_dict(self) -> SpecJson:
        """Return JSON-ready data with its schema version; `from_dict` is its inverse."""
        return {"schema": SPEC_SCHEMA, **dataclasses.asdict(self)}

    @staticmethod
    def from_dict(data: SpecJson) -> "ModelSpec":
        """Rebuild a spec from `to_dict` data or from the same data read from JSON.

        Raises:
            ArtifactError: the data is of another schema version.
        """
        check_spec_schema(data)
        preprocess: SpecJson = {key: tuple(v) if isinstance(v, list) else v for key, v in data["preprocess"].items()}
        return ModelSpec(
            task=data["task"],
            classes=tuple(data["classes"]),
            ignore_index=data["ignore_index"],
            inputs=tuple(_tensor(t) for t in data["inputs"]),
            outputs=tuple(_tensor(t) for t in data["outputs"]),
            preprocess=Preprocess(**preprocess),
        )


def check_spec_schema(data: SpecJson) -> None:
    """Check the schema version of a spec's data; ArtifactError for another one. Data without one is of the first version."""
    found = data.get("schema", SPEC_SCHEMA) if isinstance(data, dict) else data
    if found != SPEC_SCHEMA:
        raise ArtifactError(
            f"model_spec: expected schema {SPEC_SCHEMA}, got {found!r}; use the edgekd that wrote it, or make it again"
        )


def _tensor(data: SpecJson) -> TensorSpec:
    return TensorSpec(data["name"], data["dtype"], tuple(data["shape"]), data["role"])
