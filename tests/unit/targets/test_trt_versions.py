"""What TensorRT's versions want, by the tables of their bindings; no vendor package is needed."""

from __future__ import annotations

import pytest

from edgekd.errors import TargetError
from edgekd.targets._nvidia.versions import (
    PlanHeader,
    build_flags,
    check_dla,
    has_dla,
    read_plan_header,
    version_of,
    why_not_loadable,
)


@pytest.mark.parametrize(
    ("text", "version"), [("8.6.2", (8, 6)), ("10.3.0.30", (10, 3)), ("10.16.2.10", (10, 16)), ("11.4.1.1", (11, 4))]
)
def test_a_version_is_read_as_numbers(text: str, version: tuple[int, int]) -> None:
    assert version_of(text) == version


@pytest.mark.parametrize("text", ["8.5.2.2", "8.2.1", "12.0.0.1"])
def test_versions_outside_8_6_to_11_are_refused(text: str) -> None:
    with pytest.raises(TargetError, match=f"expected version 8.6 to 11, got {text}"):
        version_of(text)


@pytest.mark.parametrize(
    ("version", "precision", "float_layers", "network", "builder", "is_fp16_graph"),
    [
        ((8, 6), "fp32", "fp16", ("EXPLICIT_BATCH",), (), False),
        ((8, 6), "fp16", "fp16", ("EXPLICIT_BATCH",), ("FP16",), False),
        ((8, 6), "int8", "fp32", ("EXPLICIT_BATCH",), ("INT8",), False),
        ((10, 3), "fp16", "fp32", (), ("FP16",), False),
        ((10, 16), "int8", "fp16", (), ("INT8", "FP16"), False),
        ((11, 0), "fp32", "fp16", (), (), False),
        ((11, 0), "fp16", "fp32", (), (), True),
        ((11, 4), "int8", "fp16", (), (), True),
        ((11, 4), "int8", "fp32", (), (), False),
    ],
)
def test_precision_is_asked_for_by_flags_before_11_and_by_the_graph_since(
    version: tuple[int, int], precision: str, float_layers: str, network: tuple, builder: tuple, is_fp16_graph: bool
) -> None:
    flags = build_flags(version, precision, float_layers)
    assert (flags.network, flags.builder, flags.is_fp16_graph) == (network, builder, is_fp16_graph)


def test_dla_ends_with_10_7_and_returns_with_11_4() -> None:
    versions = [(8, 6), (10, 3), (10, 7), (10, 8), (10, 16), (11, 0), (11, 3), (11, 4)]
    assert [has_dla(version) for version in versions] == [True, True, True, False, False, False, False, True]


@pytest.mark.parametrize(
    ("version", "precision", "core", "cores", "words"),
    [
        ((10, 13), "fp16", 0, 2, "TensorRT 10.13 has no DLA, only up to 10.7 and from 11.4 on"),
        ((10, 3), "fp16", 0, 0, "got 0 DLA cores on this chip"),
        ((10, 3), "fp16", 2, 2, "got 2 DLA cores on this chip"),
        ((10, 3), "fp16", -1, 2, "expected an existing core"),
        ((10, 3), "fp32", 0, 2, "computes in fp16 and int8, got precision fp32"),
        ((10, 3), "int8", 0, 2, "does not take explicit Q/DQ"),
    ],
)
def test_a_dla_that_cannot_is_refused(
    version: tuple[int, int], precision: str, core: int, cores: int, words: str
) -> None:
    with pytest.raises(TargetError, match=words):
        check_dla(version, precision, core, cores)


def test_a_dla_that_can_is_taken() -> None:
    check_dla((10, 3), "fp16", 1, 2)
    check_dla((11, 4), "int8", 0, 2)


def plan(magic: bytes, version: tuple[int, ...], serialization: int = 0) -> bytes:
    return magic + serialization.to_bytes(4, "little") + bytes(16) + bytes(version) + bytes(36)


def test_a_plans_header_is_magic_format_and_version() -> None:
    assert read_plan_header(plan(b"ftrt", (10, 3, 0, 30))) == PlanHeader("TensorRT", (10, 3, 0, 30))
    assert read_plan_header(plan(b"vtrt", (1, 7, 1, 116))) == PlanHeader("TensorRT-RTX", (1, 7, 1, 116))


@pytest.mark.parametrize("data", [b"", b"ftrt", b"not an engine at all, but long", plan(b"ftrt", (10, 3, 0, 30), 1)])
def test_what_is_no_plan_has_no_header(data: bytes) -> None:
    assert read_plan_header(data) is None


@pytest.mark.parametrize(
    ("built", "runtime", "is_compatible", "words"),
    [
        ((10, 3, 0, 30), "10.3.0.30", False, ""),
        ((10, 3, 0, 30), "10.3.0.26", False, ""),
        ((10, 3, 0, 30), "10.7.0.23", False, "built with TensorRT 10.3.0.30, and the runtime here is 10.7.0.23"),
        ((10, 3, 0, 30), "10.7.0.23", True, ""),
        ((10, 7, 0, 23), "10.3.0.30", True, "built with TensorRT 10.7.0.23"),
        ((8, 6, 2, 3), "10.3.0.30", True, ""),
        ((10, 16, 2, 10), "11.4.1.1", True, ""),
        ((8, 6, 2, 3), "11.4.1.1", True, "built with TensorRT 8.6.2.3"),
    ],
)
def test_an_engine_loads_in_its_own_version_or_a_later_compatible_one(
    built: tuple[int, int, int, int], runtime: str, is_compatible: bool, words: str
) -> None:
    reason = why_not_loadable(PlanHeader("TensorRT", built), "TensorRT", runtime, is_compatible)
    assert reason.startswith(words)
    assert bool(reason) == bool(words)


def test_a_file_of_another_product_is_named() -> None:
    rtx = PlanHeader("TensorRT-RTX", (1, 7, 1, 116))
    assert "an engine of TensorRT-RTX" in why_not_loadable(rtx, "TensorRT", "10.3.0.30", False)
    assert why_not_loadable(None, "TensorRT", "10.3.0.30", False) == "not a TensorRT engine"
