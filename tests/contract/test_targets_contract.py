"""Every target, in every precision it declares, against the ONNX reference evaluator; a new target enrols by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from edgekd.core import plugins
from edgekd.errors import TargetError
from edgekd.quantize.ptq import QuantizeResult
from edgekd.targets.base import CompileRequest, CompileResult, SessionBase
from tests.contract.target_record import findings
from tests.small_nets import images, prepared, segmenter

CASES = [
    pytest.param(name, precision, id=f"{name}-{precision}")
    for name in plugins.names("targets")
    for precision in plugins.target(name).info.precisions
]
# RMS error over RMS of the logits. int8: 7-bit weights, 8-bit activations, four layers, calibrated on 8 images.
TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.05, "mixed": 0.05}


def needs(name: str, device: bool = True) -> None:
    """Skip where the target's toolchain is not installed or, if a session is opened, where its device is absent."""
    target = plugins.target(name)
    try:
        target.runtime_version()
    except TargetError as exc:
        pytest.skip(str(exc))
    if device and (reason := target.why_not_here(None)):
        pytest.skip(reason)


def quantized(name: str, folder: Path, is_uint8: bool = False, has_argmax: bool = False) -> QuantizeResult:
    """Return what the target's quantizer makes of the small net in `folder/model.onnx`."""
    target = plugins.target(name)
    net, spec = segmenter(is_uint8, has_argmax)
    onnx.save(net, folder / "model.onnx")
    quantizer = plugins.load("quantizers", target.info.quantizer)
    (folder / "quantized").mkdir()
    calibration = [prepared(spec, image) for image in images(8)]
    result: QuantizeResult = quantizer.quantize(
        folder / "model.onnx", spec, calibration, folder / "quantized", quantizer.Options()
    )
    assert (result.pixels is not None) == (target.info.calibration == "pixels")
    return result


def build(name: str, precision: str, folder: Path, is_uint8: bool = False, has_argmax: bool = False) -> CompileResult:
    target = plugins.target(name)
    net, spec = segmenter(is_uint8, has_argmax)
    model, pixels = folder / "model.onnx", None
    onnx.save(net, model)
    if precision in ("int8", "mixed"):
        made = quantized(name, folder, is_uint8, has_argmax)
        model, pixels = made.model, made.pixels
    (folder / "engine").mkdir()
    request = CompileRequest(model, spec, precision, folder / "engine", target.options(), pixels)
    try:
        return target.build_engine(request)
    except TargetError as exc:
        if "to run in f16, got" in str(exc):  # this CPU has no float16, and a fallback would be an error
            pytest.skip(str(exc))
        raise


@pytest.mark.parametrize("name", plugins.names("targets"))
def test_the_record_holds_what_the_pipeline_calls(name: str) -> None:
    assert findings(plugins.target(name)) == []


def test_a_misspelt_field_is_an_error_and_a_half_written_one_is_found() -> None:
    target = plugins.target("onnxruntime")
    with pytest.raises(TypeError, match="prob"):
        replace(target, prob=target.probe)  # type: ignore[call-arg]

    def two_of_three(precision: str, options: Any) -> None:
        """Takes no contract."""

    def yes(options: Any) -> bool:
        return True

    changes: list[tuple[dict[str, Any], str]] = [
        ({"check_engine": two_of_three}, "check_engine: expected to be called with 3 arguments"),
        ({"bound_to": yes}, "bound_to: expected to return <class 'str'>, got <class 'bool'>"),
        ({"probe": None}, "probe: the module has a function of this name, the record does not"),
        ({"session": SessionBase}, "session: expected a class made of SessionBase"),
        ({"options": object}, "options: expected a frozen dataclass"),
        ({"info": replace(target.info, compile_at="hots")}, "info.compile_at: expected typing.Literal"),
        ({"info": replace(target.info, precisions="fp32")}, "info.precisions: expected typing.Tuple"),
    ]
    for change, words in changes:
        assert any(one.startswith(words) for one in findings(replace(target, **change))), (change, words)


@pytest.mark.parametrize(("name", "precision"), CASES)
@pytest.mark.parametrize("is_uint8", [False, True], ids=["float_nchw", "uint8_nhwc"])
def test_engine_agrees_with_the_onnx_reference(name: str, precision: str, is_uint8: bool, tmp_path: Path) -> None:
    needs(name)
    target = plugins.target(name)
    built = build(name, precision, tmp_path, is_uint8)
    assert built.engine.parent == tmp_path / "engine"
    assert built.engine.suffix == target.info.suffix
    reference = ReferenceEvaluator(segmenter(is_uint8)[0])
    with target.session(built.engine, built.spec, target.options()) as session:
        for image in images(3, seed=7):  # several, so that reused output memory would show
            inputs = prepared(built.spec, image)
            (expected,) = reference.run(None, inputs)
            logits = session.infer(inputs)["logits"]
            assert logits.dtype == np.float32
            error = np.sqrt(np.mean((logits - expected) ** 2) / np.mean(expected**2))
            assert error < TOLERANCE[precision]
            assert (logits.argmax(1) == expected.argmax(1)).mean() > 0.96


@pytest.mark.parametrize("name", plugins.names("targets"))
def test_an_input_buffer_that_is_filled_anew_or_read_only_is_read_each_time(name: str, tmp_path: Path) -> None:
    needs(name)
    target = plugins.target(name)
    built = build(name, "fp32", tmp_path)
    frames = [prepared(built.spec, image)["image"] for image in images(3, seed=7)]
    buffer, locked = np.empty_like(frames[0]), frames[1].copy()
    locked.flags.writeable = False
    with target.session(built.engine, built.spec, target.options()) as session:
        fresh = [session.infer({"image": frame.copy()})["logits"].copy() for frame in frames]
        for frame, expected in zip(frames, fresh, strict=True):
            buffer[...] = frame
            assert np.array_equal(session.infer({"image": buffer})["logits"], expected)
            assert np.array_equal(session.infer({"image": locked})["logits"], fresh[1])


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_class_maps_come_out_as_declared(name: str, precision: str, tmp_path: Path) -> None:
    needs(name)
    target = plugins.target(name)
    built = build(name, precision, tmp_path, has_argmax=True)
    inputs = prepared(built.spec, images(1, seed=7)[0])
    (expected,) = ReferenceEvaluator(segmenter(has_argmax=True)[0]).run(None, inputs)
    with target.session(built.engine, built.spec, target.options()) as session:
        class_map = session.infer(inputs)["class_map"]
    assert (class_map.dtype, class_map.shape) == (np.uint8, expected.shape)
    assert (class_map == expected).mean() > 0.96


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_session_says_what_it_runs_on(name: str, precision: str, tmp_path: Path) -> None:
    needs(name)
    target = plugins.target(name)
    built = build(name, precision, tmp_path)
    with target.session(built.engine, built.spec, target.options()) as session:
        assert session.runtime["version"] == target.runtime_version()
        assert session.runtime["runtime"] == name
        assert session.runtime["threads"] >= 1


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_the_engine_is_built_also_where_it_cannot_run(name: str, precision: str, tmp_path: Path) -> None:
    needs(name, device=False)
    built = build(name, precision, tmp_path)
    assert built.engine.stat().st_size > 1000
    assert built.engine.suffix == plugins.target(name).info.suffix
    assert json.loads(json.dumps(built.details)) == built.details


@pytest.mark.parametrize("name", plugins.names("targets"))
def test_an_engine_whose_device_is_absent_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    needs(name, device=False)
    target = plugins.target(name)
    if not target.why_not_here(None):
        pytest.skip("its device is here")
    built = build(name, "fp32", tmp_path)
    with (
        pytest.raises(TargetError, match="and there is no ") as caught,
        target.session(built.engine, built.spec, target.options()),
    ):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", plugins.names("targets"))
def test_a_damaged_engine_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    needs(name, device=False)
    target = plugins.target(name)
    _, spec = segmenter()
    built = build(name, "fp32", tmp_path)
    for damage in (built.engine.read_bytes()[:200], b"", b"this is not an engine"):
        built.engine.write_bytes(damage)
        with pytest.raises(TargetError) as caught, target.session(built.engine, spec, target.options()):
            pass
        assert str(built.engine) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", plugins.names("targets"))
def test_a_missing_engine_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    needs(name, device=False)
    target = plugins.target(name)
    missing = tmp_path / f"engine{target.info.suffix}"
    with (
        pytest.raises(TargetError, match="engine") as caught,
        target.session(missing, segmenter()[1], target.options()),
    ):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", plugins.names("targets"))
def test_an_engine_of_another_contract_is_refused(name: str, tmp_path: Path) -> None:
    needs(name)
    target = plugins.target(name)
    built = build(name, "fp32", tmp_path)
    other = replace(built.spec, outputs=(replace(built.spec.outputs[0], name="scores"),))
    with (
        pytest.raises(TargetError, match=r"expected output scores float32 \[1, 3, 32, 48\], got logits float32"),
        target.session(built.engine, other, target.options()),
    ):
        pass


@pytest.mark.parametrize("name", plugins.names("targets"))
def test_a_float_model_is_not_passed_off_as_int8(name: str, tmp_path: Path) -> None:
    needs(name, device=False)
    target = plugins.target(name)
    net, spec = segmenter()
    onnx.save(net, tmp_path / "model.onnx")
    request = CompileRequest(tmp_path / "model.onnx", spec, "int8", tmp_path, target.options())
    with pytest.raises(TargetError, match="precision int8 expected a quantized model"):
        target.build_engine(request)


@pytest.mark.parametrize("name", plugins.names("targets"))
def test_a_quantized_model_is_not_passed_off_as_fp32(name: str, tmp_path: Path) -> None:
    needs(name, device=False)
    target = plugins.target(name)
    made = quantized(name, tmp_path)
    again = tmp_path / "again"
    again.mkdir()
    request = CompileRequest(made.model, segmenter()[1], "fp32", again, target.options(), made.pixels)
    with pytest.raises(TargetError, match="precision fp32 expected a float model"):
        target.build_engine(request)


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_a_tapped_engine_gives_its_outputs_and_the_inner_tensors_that_it_has(
    name: str, precision: str, tmp_path: Path
) -> None:
    target = plugins.target(name)
    if target.tap is None:
        pytest.skip("shows no inner tensors")
    needs(name)
    built = build(name, precision, tmp_path)
    net = segmenter()[0]
    asked = ["block.relu.out", "never.there", "head.out", "stem.relu.out"]
    known = ["block.relu.out", "head.out", "stem.relu.out"]
    net.graph.output.extend(onnx.ValueInfoProto(name=one) for one in known)
    reference = ReferenceEvaluator(net)
    with target.tap(built.engine, built.spec, target.options(), asked) as session:
        assert session.tensors == tuple(known)
        for image in images(2, seed=7):
            inputs = prepared(built.spec, image)
            found = session.infer(inputs)
            for one, expected in zip(["logits", *known], reference.run(None, inputs), strict=True):
                got = (
                    np.maximum(found[one], 0) if one.endswith("relu.out") else found[one]
                )  # a quantizer may move a ReLU
                assert got.shape == expected.shape
                assert np.sqrt(np.mean((got - expected) ** 2) / np.mean(expected**2)) < TOLERANCE[precision]
