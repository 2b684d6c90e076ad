"""Triton Inference Server: a model repository with one model, `NAME/config.pbtxt` and `NAME/1/model.*`.

The server runs the engine only. Clients prepare images and read the outputs as the contract says, which lies beside the
configuration. Batches are of the engine's size: `max_batch_size` is 0, and the sizes include the batch.

Source: triton-inference-server/common, protobuf/model_config.proto; docs of server, "Model repository" and "Model
configuration" (2026). Checked: the file parses as `inference.ModelConfig`. Not run in a server.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgekd.board.specs import TensorSpec
from edgekd.stacks.base import Engine, plain_name, write_contract, write_readme

TITLE = "Triton Inference Server"
# Target -> Triton's backend, which has the same name.
TARGETS = ("onnxruntime", "openvino", "tensorrt")
_SUFFIXES = {"onnxruntime": ".onnx", "openvino": ".xml", "tensorrt": ".plan"}
_TYPES = {"float32": "FP32", "float16": "FP16", "uint8": "UINT8", "int8": "INT8", "int32": "INT32", "int64": "INT64"}
_GPU_PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider")


def why_not(engine: Engine) -> str:
    """Return why Triton does not take an engine, "" when it does."""
    if engine.file.suffix != _SUFFIXES[engine.target]:
        return (
            f"the backend {engine.target} reads {_SUFFIXES[engine.target]} files, got {engine.file.name}; build the engine "
            "in that format"
        )
    return ""


def write(engine: Engine, folder: Path) -> list[str]:
    """Write the model repository and return the steps that remain."""
    name = plain_name(engine)
    model = folder / name
    file = engine.copy_to(model / "1", "model")
    (model / "config.pbtxt").write_text(_config(engine, name, file), encoding="utf-8")
    write_contract(engine, model)
    steps = [
        "tritonserver --model-repository $PWD",
        f"clients prepare images as {name}/spec.json says (`preprocess`), and read outputs by their `role`",
    ]
    facts = ["config.pbtxt was parsed with Triton's own protobuf schema. It was not run in a server."]
    if engine.target == "tensorrt":
        facts.append(
            "A plan runs only in the TensorRT version and on the GPU that built it: choose the server's release by it."
        )
    if engine.target == "openvino":
        facts.append(
            "The backend chooses the precision of float operators: bf16 on CPUs that have it, where edgekd pins f32."
        )
    write_readme(folder, TITLE, steps, facts)
    return steps


def _config(engine: Engine, name: str, file: str) -> str:
    lines = [
        f'name: "{name}"',
        f'backend: "{engine.target}"',
        f'default_model_filename: "{file}"',
        "max_batch_size: 0",
        *_tensors("input", engine.spec.inputs),
        *_tensors("output", engine.spec.outputs),
        f"instance_group [ {{ count: 1, kind: {_kind(engine)} }} ]",
    ]
    if threads := engine.options.get("intra_op_threads"):
        lines.append(f'parameters {{ key: "intra_op_thread_count" value: {{ string_value: "{threads}" }} }}')
    return "\n".join(lines) + "\n"


def _tensors(side: str, tensors: Iterable[TensorSpec]) -> list[str]:
    return [
        f'{side} [ {{ name: "{one.name}", data_type: TYPE_{_TYPES[one.dtype]}, dims: {list(one.shape)} }} ]'
        for one in tensors
    ]


def _kind(engine: Engine) -> str:
    """Return where an instance runs."""
    on_gpu = engine.target == "tensorrt" or str(engine.options.get("device", "CPU")).startswith("GPU")
    on_gpu = on_gpu or any(name in _GPU_PROVIDERS for name in engine.options.get("providers", ()))
    return "KIND_GPU" if on_gpu else "KIND_CPU"
