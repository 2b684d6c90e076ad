"""Loads weights into networks: the set under a prefix, value by value; and writes weight files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from edgekd.errors import CheckpointError, WorkspaceError
from edgekd.models.base import DenseModel
from edgekd.models.weight_files import load_state

__all__ = ["fill", "load_into", "load_state", "save_state"]
_COUNTER = ".num_batches_tracked"  # of batch norms: inference does not read it, and frozen ones have none
_SECTIONS = ("teacher", "student")


def load_into(
    module: nn.Module,
    state: Mapping[str, Tensor],
    what: str,
    section: str = "",
    skip: Collection[str] = (),
    is_checked: bool = True,
) -> None:
    """Load every parameter and buffer of a network; a prefix that all its names have in the file is removed.

    Args:
        module: the network; in a `DenseModel` that wraps another, the wrapped one is loaded.
        state: the weights from `load_state`.
        what: the file in errors, e.g. `teacher.checkpoint weights.safetensors`.
        section: `teacher` or `student` for a file that the recipe names. If two sets of weights fit, the one whose
            prefix has this name is loaded.
        skip: prefixes of the network's weights that are left as they are.
        is_checked: whether values that are not finite are refused.

    Raises:
        CheckpointError: a weight is missing, unused, of another shape or not a number, or several sets fit.
    """
    unused = module.unused_weights if isinstance(module, DenseModel) else ()
    target = _weights_module(module)
    own = target.state_dict()
    skipped = {key for key in own for prefix in skip if f"{key}.".startswith(f"{prefix}.")}
    for prefix in skip:
        if not any(f"{key}.".startswith(f"{prefix}.") for key in own):
            heads = ", ".join(dict.fromkeys(key.rpartition(".")[0] for key in reversed(own)))
            raise CheckpointError(
                f"{section}.checkpoint_skip: the network has no weights {prefix!r}; from its end: {heads[:200]}"
            )
    wanted = [key for key in own if key not in skipped]
    given = {
        key: value
        for key, value in _unprefixed(state, wanted, what, section).items()
        if not key.startswith(unused)
        and (key in own or not key.endswith(_COUNTER))
        and not any(f"{key}.".startswith(f"{prefix}.") for prefix in skip)
    }
    fill(target, given | {key: own[key] for key in skipped}, what, section=section, is_checked=is_checked)


def fill(
    module: nn.Module,
    given: Mapping[str, Tensor],
    what: str,
    leftover: Callable[[str], bool] | None = None,
    section: str = "",
    is_checked: bool = True,
) -> None:
    """Load weights whose names are already the module's.

    Args:
        module: the module to load into.
        given: weights by name.
        what: the file in errors.
        leftover: decides whether a weight without a place in the module may be ignored; by default none may.
        section: the recipe's section that names the file, for the advice in an error.
        is_checked: whether values that are not finite are refused.

    Raises:
        CheckpointError: as for `load_into`.
    """
    wanted = module.state_dict()
    given = {**given, **_tied(wanted, given)}
    missing = [key for key in wanted if key not in given and not key.endswith(_COUNTER)]
    unexpected = [key for key in given if key not in wanted and not (leftover and leftover(key))]
    shared = [key for key in wanted if key in given]
    reshaped = [key for key in shared if wanted[key].shape != given[key].shape]
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
        said = "" if missing or unexpected else _other_classes(wanted, given, reshaped, section)
        said = said or f"belongs to another network: {', '.join(findings)}"
        raise CheckpointError(f"{what} {said}")
    _check_numbers(wanted, given, shared, what)
    if is_checked:
        _check_finite(module, given, what)
    module.load_state_dict({key: given.get(key, value) for key, value in wanted.items()})


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


def _unprefixed(state: Mapping[str, Tensor], wanted: Iterable[str], what: str, section: str) -> Mapping[str, Tensor]:
    """Return the weights under the prefix that has all wanted names, or most of them where none has all.

    Other prefixes belong to other modules (a Lightning module that also holds the teacher).

    Raises:
        CheckpointError: several prefixes have all wanted names, and none of them is the section's.
    """
    names = {key for key in wanted if not key.endswith(_COUNTER)}
    found: Counter[str] = Counter()
    for key in state:
        ends = [0, *(i + 1 for i, letter in enumerate(key) if letter == ".")]
        found.update(key[:end] for end in ends if key[end:] in names)
    whole = [prefix for prefix, count in found.items() if count == len(names)]
    own = [prefix for prefix in whole if section and section in prefix.split(".")]
    others = [prefix for prefix in whole if section and (set(_SECTIONS) - {section}) & set(prefix.split("."))]
    for chosen in (
        own,
        [prefix for prefix in whole if prefix == ""],
        [one for one in whole if one not in others],
        whole,
    ):
        if len(chosen) == 1:
            return _under(chosen[0], state)
        if chosen:
            listed = ", ".join(sorted(prefix.removesuffix(".") for prefix in chosen))
            ask = f"set {section}.checkpoint_key to one of them" if section else "save one of them"
            raise CheckpointError(f"{what} holds several sets of weights that fit ({listed}); {ask}")
    return _under(max(found, key=lambda prefix: (found[prefix], -len(prefix)), default=""), state)


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _tied(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights missing in a file because they are tied: another name of weights that it has."""
    by_memory = {(wanted[key].data_ptr(), wanted[key].shape): value for key, value in given.items() if key in wanted}
    keys = {key: (value.data_ptr(), value.shape) for key, value in wanted.items() if key not in given and value.numel()}
    return {key: by_memory[memory] for key, memory in keys.items() if memory in by_memory}


def _other_classes(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], reshaped: list[str], section: str) -> str:
    """Return the remedy for a head of another number of classes, "" where the weights differ in something else."""
    sizes = {(given[key].shape[:1], wanted[key].shape[:1]) for key in reshaped}
    rest = all(given[key].shape[1:] == wanted[key].shape[1:] for key in reshaped)
    if not section or len(sizes) != 1 or not rest or 2 * len(reshaped) > len(wanted):
        return ""
    ((there, here),) = sizes
    heads = list(dict.fromkeys(key.rpartition(".")[0] or key for key in reshaped))
    return (
        f"has {there[0]} outputs in {', '.join(heads)}, where this recipe's classes need {here[0]}; to train "
        f"{'it' if len(heads) == 1 else 'them'} again set {section}.checkpoint_skip: [{', '.join(heads)}]"
    )


def _check_numbers(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], keys: list[str], what: str) -> None:
    """Check that values are plain numbers of at least 16 bits where the network computes in floats; CheckpointError."""
    for key in keys:
        value = given[key]
        is_plain = not value.is_meta and value.layout == torch.strided and not value.is_quantized
        if not wanted[key].is_floating_point():
            fits = is_plain and not value.is_complex()
        else:
            fits = is_plain and value.is_floating_point() and value.element_size() > 1
        if not fits:
            kind = str(value.dtype).removeprefix("torch.")
            state = "on the meta device, without values" if value.is_meta else f"{kind}, {value.layout}"
            raise CheckpointError(
                f"{what}: expected numbers as in training, got {key} as {state}; save the weights before they are quantized "
                "or packed: torch.save(model.float().state_dict(), 'weights.pth')"
            )


def _check_finite(module: nn.Module, given: Mapping[str, Tensor], what: str) -> None:
    """Check for NaN and infinity; constants of the network such as attention masks may be infinite. CheckpointError."""
    constants = {name for name, _ in module.named_buffers() if not name.endswith(("running_mean", "running_var"))}
    wanted = [key for key in module.state_dict() if key in given and given[key].is_floating_point()]
    bad = [
        key
        for key in wanted
        if not (given[key].isnan().logical_not() if key in constants else given[key].isfinite()).all()
    ]
    if bad:
        raise CheckpointError(
            f"{what}: {len(bad)} of {len(wanted)} weights have values that are not finite (first: {bad[0]}); its training "
            "diverged, use an earlier checkpoint"
        )
