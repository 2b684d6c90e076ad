"""Reads weight files of training programs without running code from them: format, keys, set of weights."""

from __future__ import annotations

import argparse
import json
import pathlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from edgekd.errors import CheckpointError, did_you_mean, one_line

PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".tar")
# Keys under which training programs store the weights inside a checkpoint (Lightning, timm, torchvision, mmengine, ...).
NESTS = (
    "state_dict", "model", "model_state_dict", "module", "net", "network", "weights", "params", "ema", "model_ema",
    "state_dict_ema", "params_ema",
)  # fmt: skip
# Values beside the weights that Lightning, argparse programs and numpy leave in checkpoints. Their classes hold data only.
_NUMPY_SCALAR = np.float64(0).__reduce__()[0]
_SAFE: list[Any] = [
    (_NUMPY_SCALAR, "numpy._core.multiarray.scalar"), (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
    np.dtype, *{type(np.dtype(code)) for code in "?bBhHiIlLqQefdFD"}, argparse.Namespace,
    (pathlib.PosixPath, "pathlib.PosixPath"), (pathlib.PosixPath, "pathlib._local.PosixPath"),
]  # fmt: skip
_INSTEAD = "save the bare weights: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
_OTHER_FORMATS = {
    ".onnx": "a graph of ONNX", ".npz": "arrays of numpy", ".npy": "an array of numpy", ".h5": "HDF5", ".keras": "Keras",
    ".tflite": "a graph of TFLite", ".engine": "an engine", ".msgpack": "Flax",
}  # fmt: skip


def load_state(path: str | Path, key: str | None = None, where: str = "") -> dict[str, Tensor]:
    """Read the weights of a file, by name; a state dict inside a checkpoint is unwrapped where there is only one.

    Args:
        path: a safetensors or torch file; its content decides which.
        key: the set of weights in it: a key, keys joined by dots, or a prefix of the weights' names. None: the only set.
        where: the key of the recipe that chooses the set, for errors; "" where there is none.

    Raises:
        CheckpointError: missing, damaged, needs code to load, has no weights, or has several sets without `key`.
    """
    path = Path(path)
    if path.is_dir():
        found = [
            file.name for pattern in ("*.safetensors", *(f"*{end}" for end in PICKLED)) for file in path.glob(pattern)
        ]
        named = f"name the file in it: {path / sorted(found)[0]}" if found else "it has no weight file"
        raise CheckpointError(f"checkpoint {path}: expected a file, got a folder; {named}")
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {path}: no such file; name another, or make it first, as the first lines of a shipped recipe describe"
        )
    if path.suffix == ".json":
        raise CheckpointError(f"checkpoint {path}: {_said_by_index(path)}")
    content: Any = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    state = _chosen(content, path, key, where)
    return {name.replace("_orig_mod.", ""): value for name, value in state.items()}  # torch.compile adds it


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _said_by_index(path: Path) -> str:
    try:
        shards = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "expected a weight file, got JSON"
    return (
        f"expected one weight file, got the index of {len(shards)}; join them: safetensors.torch.save_file({{k: v for f in "
        f"{shards[:2]}{'...' if len(shards) > 2 else ''} for k, v in safetensors.torch.load_file(f).items()}}, 'weights.safetensors')"
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as exc:
        raise CheckpointError(f"checkpoint {path}: damaged or not safetensors: {one_line(exc)}") from exc


def _read_torch(path: Path) -> Any:
    is_zip = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        is_pickle = file.read(1) == b"\x80"
    if path.suffix not in PICKLED and not is_zip and not is_pickle:
        kind = _OTHER_FORMATS.get(path.suffix, repr(path.suffix))
        raise CheckpointError(
            f"checkpoint {path}: expected .safetensors or {', '.join(PICKLED)}, got {kind}; {_INSTEAD}"
        )
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            raise CheckpointError(
                f"checkpoint {path}: expected weights, got a scripted module (torch.jit); save its weights: "
                f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth')"
            )
        if any(name.endswith(".npy") for name in names):
            raise CheckpointError(f"checkpoint {path}: expected weights of torch, got arrays of numpy; {_INSTEAD}")
    return _unpickled(path)


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(_SAFE):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        # torch names the class or function that the file wants to call; anything else it cannot even parse.
        sure = any(sign in str(exc) for sign in ("GLOBAL", "unrecognized function", "Can only"))
        reason = "would have to run code to load" if sure else "is damaged, or would have to run code to load"
        named = re.search(r"GLOBAL (\S+)", str(exc))
        what = f" (it names {named[1]})" if named else ""
        raise CheckpointError(f"checkpoint {path} {reason}, and is refused{what}; {_INSTEAD}") from exc
    except Exception as exc:
        raise CheckpointError(f"checkpoint {path}: damaged or not a torch file: {one_line(exc)}") from exc


def _chosen(content: Any, path: Path, key: str | None, where: str) -> dict[str, Tensor]:
    """Return the set of weights in a checkpoint's content that the key names, or the only one."""
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"checkpoint {path}: expected a state dict, got {type(content).__name__}; save model.state_dict()"
        )
    found = dict(_sets(content))
    if key is None:
        return _only(found, content, path, where)
    inside = {
        name.removeprefix(f"{key}").removeprefix("."): one
        for name, one in found.items()
        if f"{name}.".startswith(f"{key}.")
    }
    if inside:
        return _only(inside, content, path, where)
    for state in found.values():  # a prefix of names
        if under := {
            name.removeprefix(f"{key}."): value for name, value in state.items() if name.startswith(f"{key}.")
        }:
            return under
    prefixes = {name.partition(".")[0] for state in found.values() for name in state if "." in name}
    known = [name for name in (*found, *sorted(prefixes)) if name]
    raise CheckpointError(
        f"checkpoint {path}: {where or 'key'}: no weights are called {key!r}{did_you_mean(key, known)}"
    )


def _only(
    found: Mapping[str, dict[str, Tensor]], content: Mapping[Any, Any], path: Path, where: str
) -> dict[str, Tensor]:
    """Return the only set of weights, or the only one under a key that training programs use."""
    usual = [name for name in found if name.partition(".")[0] in NESTS]
    names = usual or list(found)
    if len(names) == 1:
        return found[names[0]]
    if names:
        ask = f"set {where} to one of them" if where else "save one of them"
        raise CheckpointError(f"checkpoint {path}: holds several sets of weights ({', '.join(names)}); {ask}")
    keys = ", ".join(map(str, list(content)[:8])) or "none"
    raise CheckpointError(f"checkpoint {path}: no weights in it; its keys: {keys}")


def _sets(content: Mapping[Any, Any], name: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the sets of weights in a checkpoint, by their keys joined by dots; states of optimizers are none."""
    nested = [
        one
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Mapping) and "optim" not in key.lower()
        for one in _sets(value, f"{name}.{key}" if name else key)
    ]
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if nested:
        yield from nested  # tensors beside them are states of random generators and the like
    elif tensors:
        yield name, tensors
