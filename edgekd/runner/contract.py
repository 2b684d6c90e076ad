"""Reads and checks `spec.json` of a bundle, the contract of its engine; the file is untrusted.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Iterable

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.errors import ArtifactError, BundleError, one_line
from edgekd.runner.manifest import SPEC, Manifest, read_json

_MOST_VALUES = 1 << 31  # of a tensor
_TASKS = ("semantic", "detection", "instance")
_DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")
_WORDS = {
    "layout": ("NCHW", "NHWC"),
    "dtype": _DTYPES,
    "color_order": ("RGB", "BGR"),
    "resize": ("stretch", "letterbox"),
}


def read_spec(folder: Path, manifest: Manifest) -> ModelSpec:
    """Return the contract of an unpacked bundle.

    Raises:
        BundleError: it is missing, damaged, of another schema or task, or a value is not one of a contract.
    """
    path = folder / SPEC
    try:
        spec = ModelSpec.from_dict(read_json(path))
        _check(spec)
    except (ArtifactError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise BundleError(f"{path}: not the contract of an engine ({one_line(exc)}); unpack the bundle again") from exc
    if spec.task != manifest.task:
        raise BundleError(f"{path}: task {spec.task}, but the manifest says {manifest.task}; do not trust this bundle")
    return spec


def _check(spec: ModelSpec) -> None:
    """ValueError for a value that no contract has."""
    _expect(spec.task in _TASKS, "task", spec.task)
    _expect(all(isinstance(name, str) for name in spec.classes) and bool(spec.classes), "classes", spec.classes)
    _expect(_is_whole(spec.ignore_index, 0), "ignore_index", spec.ignore_index)
    for kind, tensors in (("inputs", spec.inputs), ("outputs", spec.outputs)):
        _expect(bool(tensors) and len({one.name for one in tensors}) == len(tensors), kind, tensors)
        for one in tensors:
            _check_tensor(one)
    _check_preprocess(spec.preprocess)


def _check_tensor(tensor: TensorSpec) -> None:
    _expect(isinstance(tensor.name, str) and isinstance(tensor.role, str), "name or role", tensor)
    _expect(tensor.dtype in _DTYPES, "dtype", tensor.dtype)
    _expect(_are_sides(tensor.shape) and math.prod(tensor.shape) <= _MOST_VALUES, "shape", tensor.shape)


def _check_preprocess(given: Preprocess) -> None:
    _expect(
        len(given.size) == 2 and _are_sides(given.size) and math.prod(given.size) <= _MOST_VALUES, "size", given.size
    )
    for name, words in _WORDS.items():
        _expect(getattr(given, name) in words, name, getattr(given, name))
    for name in ("mean", "std"):
        numbers = getattr(given, name)
        are_numbers = all(isinstance(one, (int, float)) and math.isfinite(one) for one in numbers)
        _expect(len(numbers) == 3 and are_numbers, name, numbers)
    _expect(all(one > 0 for one in given.std), "std", given.std)


def _are_sides(sides: Iterable[object]) -> bool:
    return all(_is_whole(one, 1) for one in sides)


def _is_whole(number: object, least: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= least


def _expect(is_right: bool, name: str, value: object) -> None:
    if not is_right:
        raise ValueError(f"`{name}` cannot be {value!r:.80}")
