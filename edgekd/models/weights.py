"""Reads and writes weight files without running code from a file."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from edgekd.errors import CheckpointError, WorkspaceError, one_line
from edgekd.models.base import DenseModel

PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".tar")
# Keys under which training programs store the weights inside a checkpoint (Lightning, timm, torchvision, mmengine, ...).
NESTS = ("state_dict", "model", "model_state_dict", "module", "net", "ema", "model_ema", "state_dict_ema")
# Prefixes that wrappers add to every key: DataParallel, a LightningModule's attribute, torch.compile.
PREFIXES = ("module.", "model.", "net.", "student.", "_orig_mod.")

_COUNTER = ".num_batches_tracked"  # of batch norms: inference does not read it, and frozen ones have none


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of a file, by name; a state dict inside a checkpoint is unwrapped where there is only one.

    Raises:
        CheckpointError: missing, damaged, would have to run code, or holds none or several sets of weights.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {path}: no such file; name another, or make it first, as the head of a shipped recipe says how"
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in PICKLED:
        return _weights_in(_read_pickled(path), path)
    raise CheckpointError(f"checkpoint {path}: expected .safetensors or {', '.join(PICKLED)}, got {path.suffix!r}")


def load_into(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load every parameter and buffer of a network; a prefix that all its names have in the file is removed.

    Args:
        module: the network; in a `DenseModel` that wraps another, the wrapped one is loaded.
        state: the weights from `load_state`.
        what: the file in errors, e.g. `teacher.checkpoint weights.safetensors`.

    Raises:
        CheckpointError: anything is missing, left over, or of another shape.
    """
    unused = module.unused_weights if isinstance(module, DenseModel) else ()
    target = _weights_module(module)
    wanted = target.state_dict()
    given = {
        key: value
        for key, value in _unprefixed(state, wanted).items()
        if not key.startswith(unused) and (key in wanted or not key.endswith(_COUNTER))
    }
    fill(target, given, what)


def fill(
    module: nn.Module, given: Mapping[str, Tensor], what: str, leftover: Callable[[str], bool] | None = None
) -> None:
    """Load weights whose names are already the module's.

    Args:
        module: the module to load into.
        given: weights by name.
        what: the file in errors.
        leftover: whether a name that the module lacks may be ignored; by default no name.

    Raises:
        CheckpointError: as for `load_into`.
    """
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in given]
    unexpected = [key for key in given if key not in wanted and not (leftover and leftover(key))]
    reshaped = [key for key in wanted if key in given and wanted[key].shape != given[key].shape]
    if missing or unexpected or reshaped:
        findings = []
        if missing:
            findings.append(f"{len(missing)} of {len(wanted)} weights are missing (first: {missing[0]})")
        if unexpected:
            findings.append(f"{len(unexpected)} are unexpected (first: {unexpected[0]})")
        if reshaped:
            key = reshaped[0]
            shapes = f"expected {tuple(wanted[key].shape)}, got {tuple(given[key].shape)}"
            findings.append(f"{len(reshaped)} have another shape (first: {key}, {shapes})")
        raise CheckpointError(f"{what} belongs to another network: {', '.join(findings)}")
    module.load_state_dict({key: given[key] for key in wanted})


def save_state(module: nn.Module, path: str | Path) -> None:
    """Write the weights as safetensors; `load_into(module, load_state(path), ...)` is the inverse.

    Raises:
        WorkspaceError: the file cannot be written.
    """
    # safetensors refuses tensors that share memory (clone) and those in channels_last (contiguous).
    state = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in _weights_module(module).state_dict().items()
    }
    try:
        Path(path).write_bytes(safetensors.torch.save(state))
    except OSError as exc:
        raise WorkspaceError(f"cannot write the weights to {path}: {exc.strerror or exc}") from exc


def _weights_module(module: nn.Module) -> nn.Module:
    return module.weights_module() if isinstance(module, DenseModel) else module


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as exc:
        raise CheckpointError(f"checkpoint {path}: damaged or not safetensors: {one_line(exc)}") from exc


def _read_pickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # torch asks to report unknown pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        # torch names the class or function that the file wants to call; anything else it cannot even parse.
        sure = any(sign in str(exc) for sign in ("GLOBAL", "unrecognized function", "Can only"))
        reason = "would have to run code to load" if sure else "is damaged, or would have to run code to load"
        raise CheckpointError(
            f"checkpoint {path} {reason}, and is refused; "
            "save the bare weights: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        ) from exc
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as exc:
        raise CheckpointError(f"checkpoint {path}: damaged or not a torch file: {one_line(exc)}") from exc


def _weights_in(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the only state dict in a checkpoint's content."""
    if _is_state(content):
        return dict(content)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"checkpoint {path}: expected a state dict, got {type(content).__name__}")
    nests = [key for key in NESTS if isinstance(content.get(key), Mapping)]
    if len(nests) == 1:
        return _weights_in(content[nests[0]], path)
    if nests:
        raise CheckpointError(
            f"checkpoint {path}: holds several sets of weights ({', '.join(nests)}); save one of them"
        )
    raise CheckpointError(
        f"checkpoint {path}: no weights in it; its keys: {', '.join(map(str, list(content)[:8])) or 'none'}"
    )


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping) and bool(content) and all(isinstance(value, Tensor) for value in content.values())
    )


def _unprefixed(state: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """Return the weights under the shortest prefix with all wanted names; all weights when there is none.

    Other prefixes belong to other modules (a Lightning module that also holds the teacher).
    """
    names = set(wanted)
    prefixes = [""]
    while prefixes:
        for prefix in prefixes:
            inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            if names <= set(inside):
                return inside
        prefixes = [a + b for a in prefixes for b in PREFIXES if any(key.startswith(a + b) for key in state)]
    return dict(state)
