"""Weight files: what loads, and what is refused with which words."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from edgekd.errors import CheckpointError, WorkspaceError
from edgekd.models.weights import load_into, load_state, save_state


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, kernel_size=1), nn.BatchNorm2d(4))


def other_weights() -> dict[str, Tensor]:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 4, kernel_size=1), nn.BatchNorm2d(4))
    return net.state_dict()


def assert_filled(net: nn.Module) -> None:
    for key, value in other_weights().items():
        assert torch.equal(net.state_dict()[key], value)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_state(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_saved_weights_come_back_equal(tmp_path: Path) -> None:
    net = network().to(memory_format=torch.channels_last)
    save_state(net, tmp_path / "w.safetensors")
    state = load_state(tmp_path / "w.safetensors")
    assert sorted(state) == sorted(net.state_dict())
    assert all(torch.equal(state[key], value) for key, value in net.state_dict().items())


def test_weights_that_are_shared_are_saved_under_both_names(tmp_path: Path) -> None:
    first = nn.Linear(2, 2)
    second = nn.Linear(2, 2)
    second.weight = first.weight
    save_state(nn.Sequential(first, second), tmp_path / "w.safetensors")
    state = load_state(tmp_path / "w.safetensors")
    assert torch.equal(state["0.weight"], state["1.weight"])


def test_weights_that_cannot_be_written_say_where(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"cannot write the weights to .*nowhere"):
        save_state(network(), tmp_path / "nowhere" / "w.safetensors")


@pytest.mark.parametrize("nest", ["state_dict", "model", "ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "student.", "module.student.", "model._orig_mod."])
def test_wrapped_checkpoints_are_unwrapped(tmp_path: Path, nest: str, prefix: str) -> None:
    state = {prefix + key: value for key, value in other_weights().items()}
    torch.save({"epoch": 3, nest: state}, tmp_path / "w.ckpt")
    net = network()
    load_into(net, load_state(tmp_path / "w.ckpt"), "student.checkpoint")
    assert_filled(net)


def test_student_is_found_beside_a_teacher(tmp_path: Path) -> None:
    state = {f"student.{key}": value for key, value in other_weights().items()} | {"teacher.0.weight": torch.ones(1)}
    torch.save({"state_dict": state}, tmp_path / "w.ckpt")
    net = network()
    load_into(net, load_state(tmp_path / "w.ckpt"), "student.checkpoint")
    assert_filled(net)


def test_network_whose_own_names_begin_like_a_wrapper_loads_its_own_file(tmp_path: Path) -> None:
    net = nn.Module()
    net.model = network()
    save_state(net, tmp_path / "w.safetensors")
    load_into(net, load_state(tmp_path / "w.safetensors"), "teacher.checkpoint")


def test_several_sets_of_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": other_weights(), "state_dict_ema": other_weights()}, tmp_path / "w.pth")
    assert "several sets of weights (state_dict, state_dict_ema); save one of them" in refusal(tmp_path / "w.pth")


def test_file_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "loss": 0.5}, tmp_path / "w.pth")
    assert "no weights in it; its keys: epoch, loss" in refusal(tmp_path / "w.pth")


def test_checkpoint_of_another_network_names_counts_and_first_keys() -> None:
    state = other_weights()
    state["1.weight"] = torch.ones(7)
    del state["0.bias"]
    state["2.weight"] = torch.ones(1)
    with pytest.raises(CheckpointError) as caught:
        load_into(network(), state, "student.checkpoint w.pth")
    assert str(caught.value) == (
        "student.checkpoint w.pth belongs to another network: 1 of 7 weights are missing (first: 0.bias), "
        "1 are unexpected (first: 2.weight), 1 have another shape (first: 1.weight, expected (4,), got (7,))"
    )


def test_refused_weights_leave_the_network_as_it_was() -> None:
    net = network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = other_weights()
    del state["1.running_var"]
    with pytest.raises(CheckpointError):
        load_into(net, state, "w")
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


class RunsCode:
    """A pickle of this creates a file when it is loaded without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": other_weights(), "extra": RunsCode(tmp_path / "ran")}, tmp_path / "w.pth")
    assert "would have to run code to load, and is refused" in refusal(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [nn.Linear(2, 2), {"args": argparse.Namespace(lr=1), "model": {}}])
def test_pickle_with_foreign_classes_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert "would have to run code" in refusal(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("keep", [0, 10, 400, -1])
def test_truncated_file_is_called_damaged(tmp_path: Path, name: str, keep: int) -> None:
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(other_weights(), path)
    else:
        safetensors.torch.save_file(other_weights(), path)
    path.write_bytes(path.read_bytes()[:keep])
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("content", [b"hello, this is a text", bytes(range(128, 256)), b"\x00" * 64])
def test_file_of_something_else_is_called_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    assert "damaged" in refusal(tmp_path / "w.pt")


def test_missing_file_and_unknown_suffix_are_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "w.pth")
    (tmp_path / "w.h5").write_bytes(b"x")
    assert "expected .safetensors or .pt" in refusal(tmp_path / "w.h5")
