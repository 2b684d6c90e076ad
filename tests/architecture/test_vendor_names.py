"""A vendor's name stands in its target's folder, in chips and in quantizers, and nowhere else in edgekd's sources."""

from __future__ import annotations

import io
import itertools
import re
import tokenize
from pathlib import Path

from tests.architecture.sources import PACKAGE

VENDORS = re.compile(
    r"rknn|rockchip|tensorrt|openvino|nncf|cuda|nvidia|jetson|tegra|onnx_?runtime|\bqnn\b|qualcomm|hailo|intel\b", re.I
)
# Where a name belongs: targets, quantizers, which are made for a toolchain, and stacks, which are other software.
HOMES = ("targets/onnxruntime/", "targets/openvino/", "targets/rknn/", "targets/tensorrt/", "targets/tensorrt_rtx/",
         "targets/_nvidia/", "quantize/schemes/", "stacks/")  # fmt: skip
# File -> names that may stand in its code and texts, with the reason.
ALLOWED: dict[str, set[str]] = {
    "cli/help.py": {"openvino", "rknn"},  # examples in help texts
    "cli/predict.py": {"openvino"},  # an example in a help text
    "cli/stack.py": {"openvino"},  # examples in a help text
    "cli/toolchain.py": {"rknn"},  # an example in a help text
    "data/loader.py": {"cuda"},  # PyTorch's name of a device to train on
    "doctor.py": {"onnxruntime"},  # the packages that the export needs
    "executors/local.py": {"onnxruntime"},  # REFERENCE_TARGET: the runtime with which the others are compared
    "quantize/reference.py": {"onnxruntime"},  # the runtime that evaluates a graph as its definition says
    "report/model.py": {"openvino"},  # an example of a value
    "report/training.py": {"cuda"},  # the same
    "rewrites/graph.py": {"onnxruntime"},  # the extra that installs onnx
    "study/launchers/local.py": {"cuda", "nvidia"},  # which GPUs a training process sees
    "train/place.py": {"cuda"},  # PyTorch's name of a device to train on
}


def names_in(path: Path) -> dict[str, list[int]]:
    """Return the vendors' names in the code and the texts of a file, comments and docstrings apart, with their lines."""
    found: dict[str, list[int]] = {}
    tokens = list(tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline))
    for before, token in itertools.pairwise(tokens):
        is_docstring = token.type == tokenize.STRING and before.type in (
            tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE, tokenize.NL, tokenize.ENCODING, tokenize.COMMENT,
        )  # fmt: skip
        if token.type not in (tokenize.NAME, tokenize.STRING) or is_docstring:
            continue
        for match in VENDORS.findall(token.string):
            found.setdefault(match.lower(), []).append(token.start[0])
    return found


def test_no_vendors_name_stands_outside_of_its_home() -> None:
    found = {path.relative_to(PACKAGE).as_posix(): names_in(path) for path in sorted(PACKAGE.rglob("*.py"))}
    elsewhere = {name: names for name, names in found.items() if names and not name.startswith(HOMES)}
    wrong = [
        f"{name}:{lines[0]}: {vendor}"
        for name, names in elsewhere.items()
        for vendor, lines in names.items()
        if vendor not in ALLOWED.get(name, set())
    ]
    assert wrong == []
    assert {name: set(names) for name, names in elsewhere.items()} == ALLOWED, "an entry of ALLOWED is no longer needed"


def test_a_name_in_code_is_found_and_one_in_a_comment_or_docstring_is_not(tmp_path: Path) -> None:
    source = '"""Like RKNN."""\n\n\ndef f() -> str:\n    """Not OpenVINO."""\n    return "tensorrt"  # nor CUDA\n'
    (tmp_path / "some.py").write_text(source)
    assert names_in(tmp_path / "some.py") == {"tensorrt": [6]}
