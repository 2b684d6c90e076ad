"""Options with a number that no runtime takes are refused with the recipe, before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest

from edgekd.core.plugin_options import plugin_options
from edgekd.errors import RecipeError


@pytest.mark.parametrize(
    ("kind", "name", "options", "words"),
    [
        ("targets", "onnxruntime", {"intra_op_threads": -1}, "intra_op_threads: expected 1 to 1024, got -1"),
        (
            "targets",
            "onnxruntime",
            {"intra_op_threads": 10**10},
            "intra_op_threads: expected 1 to 1024, got 10000000000",
        ),
        ("targets", "onnxruntime", {"providers": []}, "providers: expected at least one"),
        ("targets", "onnxruntime", {"session_config": {"": "1"}}, "session_config: expected names"),
        ("targets", "openvino", {"num_threads": -2}, "num_threads: expected 1 or more, got -2"),
        ("targets", "tensorrt", {"workspace_mib": -1}, "workspace_mib: expected 0 or more, got -1"),
        ("targets", "tensorrt", {"dla_core": -1}, "dla_core: expected 0 or more, got -1"),
        ("targets", "tensorrt_rtx", {"workspace_mib": -1}, "workspace_mib: expected 0 or more, got -1"),
        ("targets", "rknn", {"optimization_level": 9}, "optimization_level: expected 0 to 3, got 9"),
        (
            "targets",
            "rknn",
            {"chip": "rk3566", "core_mask": "0_1"},
            "core_mask: expected some of the NPU cores of rk3566 (1)",
        ),
        (
            "targets",
            "rknn",
            {"core_mask": "0_1", "chip": "rk3576", "auto_hybrid": True, "keep_float16": ["a"]},
            "one of the two",
        ),
        ("targets", "rknn", {"analysed_images": -1}, "analysed_images: expected 0 or more, got -1"),
        ("quantizers", "qdq", {"percentile": 150}, "percentile: Input should be less than or equal to 100, got 150"),
        ("quantizers", "qdq_signed", {"percentile": -1}, "percentile: Input should be greater than 50, got -1"),
    ],
)
def test_a_number_out_of_range_is_one_line(kind: str, name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        plugin_options(kind, name, options, "here")
    assert str(refusal.value).startswith("here")
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
