"""config.pbtxt parses as Triton's own protobuf message and says what the contract says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.stacks import triton, write
from edgekd.stacks.base import Engine
from tests.stack_checks import CHECKS, needs_checks

SCHEMA = CHECKS / "tritonclient/grpc/model_config_pb2.py"


def parsed(file: Path) -> Any:
    """Return a `ModelConfig`. The module is loaded by its path: the package around it wants clients for gRPC."""
    from google.protobuf import text_format

    spec = importlib.util.spec_from_file_location("model_config_pb2", SCHEMA)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return text_format.Parse(file.read_text(), module.ModelConfig()), module


def engine(target: str, file: Path, **change: Any) -> Engine:
    file.write_bytes(b"an engine")
    outputs = (
        TensorSpec("found_boxes", "float32", (1, 20, 4), "found_boxes"),
        TensorSpec("found_labels", "int32", (1, 20), "found_labels"),
    )
    image = TensorSpec("image", "uint8", (1, 32, 48, 3), "image")
    spec = ModelSpec(
        "detection", ("a", "b"), 255, (image,), outputs, Preprocess((32, 48), layout="NHWC", dtype="uint8")
    )
    return Engine("my engine@pi", target, "int8", file, spec, **change)


@needs_checks
@pytest.mark.parametrize(
    ("target", "suffix", "options", "kind"),
    [
        ("onnxruntime", ".onnx", {}, "KIND_CPU"),
        ("onnxruntime", ".onnx", {"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]}, "KIND_GPU"),
        ("openvino", ".xml", {"device": "CPU"}, "KIND_CPU"),
        ("openvino", ".xml", {"device": "GPU.1"}, "KIND_GPU"),
        ("tensorrt", ".plan", {}, "KIND_GPU"),
    ],
)
def test_the_configuration_is_a_model_config(
    tmp_path: Path, target: str, suffix: str, options: dict[str, Any], kind: str
) -> None:
    write("triton", engine(target, tmp_path / f"engine{suffix}", options=options), tmp_path / "repository")
    model = tmp_path / "repository/my_engine_pi"
    config, schema = parsed(model / "config.pbtxt")
    assert (config.name, config.backend, config.max_batch_size) == ("my_engine_pi", target, 0)
    assert (model / "1" / config.default_model_filename).read_bytes() == b"an engine"
    types = schema.DataType.Name
    assert [(one.name, types(one.data_type), list(one.dims)) for one in config.input] == [
        ("image", "TYPE_UINT8", [1, 32, 48, 3])
    ]
    assert [(one.name, types(one.data_type), list(one.dims)) for one in config.output] == [
        ("found_boxes", "TYPE_FP32", [1, 20, 4]),
        ("found_labels", "TYPE_INT32", [1, 20]),
    ]
    (group,) = config.instance_group
    assert (group.count, schema.ModelInstanceGroup.Kind.Name(group.kind)) == (1, kind)


@needs_checks
def test_the_threads_of_the_engine_are_those_of_the_server(tmp_path: Path) -> None:
    given = engine("onnxruntime", tmp_path / "engine.onnx", options={"intra_op_threads": 2})
    write("triton", given, tmp_path / "repository")
    config, _ = parsed(tmp_path / "repository/my_engine_pi/config.pbtxt")
    assert config.parameters["intra_op_thread_count"].string_value == "2"


def test_the_weights_beside_an_ir_come_along(tmp_path: Path) -> None:
    (tmp_path / "engine.bin").write_bytes(b"weights")
    given = engine("openvino", tmp_path / "engine.xml", extra=(tmp_path / "engine.bin",))
    write("triton", given, tmp_path / "repository")
    assert (tmp_path / "repository/my_engine_pi/1/model.bin").read_bytes() == b"weights"


def test_a_compiled_blob_is_refused(tmp_path: Path) -> None:
    assert "reads .xml files, got engine.blob" in triton.why_not(engine("openvino", tmp_path / "engine.blob"))
