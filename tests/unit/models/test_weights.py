"""Weight files: what loads, and what is refused with which words."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
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
    with pytest.raises(
        CheckpointError, match=r"\(state_dict, state_dict_ema\); set teacher.checkpoint_key to one of them"
    ):
        load_state(tmp_path / "w.pth", where="teacher.checkpoint_key")


def zeros() -> dict[str, Tensor]:
    return {key: torch.zeros_like(value) for key, value in other_weights().items()}


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"model": zeros(), "ema": other_weights()}, "ema"),
        ({"model": zeros(), "ema": {"decay": 0.9, "module": other_weights()}}, "ema"),
        ({"model": zeros(), "ema": {"decay": 0.9, "module": other_weights()}}, "ema.module"),
        ({"state_dict": under("teacher.", other_weights()) | under("student.", zeros())}, "teacher"),
        ({"state_dict": under("net.a.", other_weights()) | under("net.b.", zeros())}, "net.a"),
        ({"state_dict": {"x": other_weights()}, "model": zeros()}, "state_dict.x"),
    ],
)
def test_a_key_chooses_among_several_sets(tmp_path: Path, content: dict[str, object], key: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    net = network()
    load_into(net, load_state(tmp_path / "w.pth", key), "teacher.checkpoint w.pth", "teacher")
    assert_filled(net)


def test_a_key_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    torch.save({"model": zeros(), "ema": under("student.", zeros())}, tmp_path / "w.pth")
    with pytest.raises(
        CheckpointError, match="teacher.checkpoint_key: no weights are called 'emma'; did you mean 'ema'"
    ):
        load_state(tmp_path / "w.pth", "emma", "teacher.checkpoint_key")


@pytest.mark.parametrize("section", ["teacher", "student"])
@pytest.mark.parametrize("outer", ["", "model."])
def test_of_several_prefixes_the_sections_own_comes_first(section: str, outer: str) -> None:
    other = {"teacher": "student", "student": "teacher"}[section]
    state = under(f"{outer}{other}.", zeros()) | under(f"{outer}{section}.", other_weights())
    net = network()
    load_into(net, state, "w.pth", section)
    assert_filled(net)


def test_an_averaged_student_in_a_teachers_file_is_not_taken_for_the_teacher() -> None:
    """The names of the other section are no prefix of this one's, where there is another choice."""
    net = network()
    load_into(net, under("student.", zeros()) | under("backbone.", other_weights()), "w.pth", "teacher")
    assert_filled(net)


def test_several_prefixes_that_fit_are_refused_with_their_names() -> None:
    state = under("a.net.", zeros()) | under("b.", other_weights())
    with pytest.raises(CheckpointError, match=r"that fit \(a.net, b\); set teacher.checkpoint_key to one of them"):
        load_into(network(), state, "teacher.checkpoint w.pth", "teacher")


def test_any_common_prefix_is_removed_and_a_compiled_part_is_a_part() -> None:
    for prefix in ("model.segformer.", "lightning.wrapped.module.", "0."):
        net = network()
        load_into(net, under(prefix, other_weights()), "w.pth")
        assert_filled(net)


def test_a_part_compiled_by_torch_has_its_own_names(tmp_path: Path) -> None:
    torch.save({key.replace(".", "._orig_mod."): value for key, value in other_weights().items()}, tmp_path / "w.pth")
    net = network()
    load_into(net, load_state(tmp_path / "w.pth"), "w.pth")
    assert_filled(net)


def test_a_missing_weight_is_named_without_the_prefix() -> None:
    state = under("model.net.", other_weights())
    del state["model.net.0.bias"]
    with pytest.raises(CheckpointError, match=r"1 of 7 weights are missing \(first: 0.bias\)$"):
        load_into(network(), state, "w.pth")


def test_weights_that_are_shared_may_be_in_the_file_once_and_counters_not_at_all() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    net = nn.Sequential(first, second, nn.BatchNorm1d(2))
    state = {key: torch.full_like(value, 3) for key, value in net.state_dict().items()}
    del state["1.weight"], state["2.num_batches_tracked"]
    load_into(net, state, "w")
    assert (net[1].weight == 3).all()
    del state["0.weight"]
    with pytest.raises(CheckpointError, match="2 of 9 weights are missing"):
        load_into(net, state, "w")


BROKEN = {
    "int8": lambda x: x.to(torch.int8),
    "fp8": lambda x: x.to(torch.float8_e4m3fn),
    "quantized": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
    "sparse": lambda x: x.to_sparse(),
    "complex": lambda x: x.to(torch.complex64),
    "meta": lambda x: x.to("meta"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_weights_that_are_no_numbers_of_a_training_are_refused(how: str) -> None:
    state = other_weights()
    state["0.weight"] = BROKEN[how](state["0.weight"])
    with pytest.raises(
        CheckpointError, match=r"w.pth: expected numbers as in training, got 0.weight as .*torch.save\("
    ):
        load_into(network(), state, "w.pth")


def test_values_that_are_not_finite_are_refused_but_in_constants() -> None:
    state = other_weights()
    state["0.weight"][0, 0] = float("inf")
    state["1.running_var"][0] = float("nan")
    with pytest.raises(
        CheckpointError, match=r"w.pth: 2 of 6 weights have values that are not finite \(first: 0.weight\)"
    ):
        load_into(network(), state, "w.pth")
    net = nn.Linear(2, 2)
    net.register_buffer("mask", torch.zeros(2))
    load_into(net, {**net.state_dict(), "mask": torch.tensor([0, -torch.inf])}, "w.pth")
    assert net.mask[1] == -torch.inf


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_float_type_are_converted(dtype: torch.dtype) -> None:
    net = network()
    load_into(net, {key: value.to(dtype) for key, value in other_weights().items()}, "w.pth")
    assert net[0].weight.dtype == torch.float32
    torch.testing.assert_close(net[0].weight.detach(), other_weights()["0.weight"], rtol=1e-2, atol=1e-2)


def segmenter(classes: int) -> nn.Module:
    torch.manual_seed(classes)
    return nn.ModuleDict(
        {"body": nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), "head": nn.Conv2d(4, classes, 1)}
    )


def test_a_head_of_other_classes_is_named_and_left_untrained_on_request() -> None:
    net, state = segmenter(9), segmenter(21).state_dict()
    with pytest.raises(CheckpointError) as caught:
        load_into(net, state, "teacher.checkpoint w.pth", "teacher")
    assert str(caught.value) == (
        "teacher.checkpoint w.pth has 21 outputs in head, where this recipe's classes need 9; to train it again set "
        "teacher.checkpoint_skip: [head]"
    )
    before = net["head"].weight.clone()
    load_into(net, state, "teacher.checkpoint w.pth", "teacher", ["head"])
    assert torch.equal(net["head"].weight, before)
    assert torch.equal(net["body"][0].weight, state["body.0.weight"])
    with pytest.raises(
        CheckpointError, match="teacher.checkpoint_skip: the network has no weights 'heads'; from its end: head"
    ):
        load_into(net, state, "w", "teacher", ["heads"])


def test_values_beside_the_weights_are_no_weights(tmp_path: Path) -> None:
    beside = {
        "epoch": 3,
        "best": np.float64(0.5),
        "args": argparse.Namespace(lr=1, out=Path("x")),
        "rng_state": torch.zeros(3),
    }
    optimizer = {"state": {"0.weight": {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({**beside, "state_dict": other_weights(), "optimizer": optimizer}, tmp_path / "w.ckpt")
    torch.save({**other_weights(), "epoch": 3, "meta": "x"}, tmp_path / "v.pth")
    for name in ("w.ckpt", "v.pth"):
        assert sorted(load_state(tmp_path / name)) == sorted(other_weights())


@pytest.mark.parametrize("name", ["weights", "w.th", "w.pkl", "w.model"])
def test_files_are_told_apart_by_their_content(tmp_path: Path, name: str) -> None:
    torch.save(other_weights(), tmp_path / name)
    assert sorted(load_state(tmp_path / name)) == sorted(other_weights())
    (tmp_path / name).write_bytes(safetensors.torch.save(other_weights()))
    assert sorted(load_state(tmp_path / name)) == sorted(other_weights())


def test_a_folder_and_an_index_name_the_files_in_them(tmp_path: Path) -> None:
    assert "got a folder; it has no weight file" in refusal(tmp_path)
    safetensors.torch.save_file(other_weights(), tmp_path / "model.safetensors")
    assert f"got a folder; name the file in it: {tmp_path}/model.safetensors" in refusal(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"}}')
    assert "got the index of 2; join them: safetensors.torch.save_file(" in refusal(index)
    index.write_text("{}")
    assert "expected a weight file, got JSON" in refusal(index)


def test_files_of_other_kinds_say_what_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=np.zeros(2))
    assert "got arrays of numpy" in refusal(tmp_path / "w.npz")
    (tmp_path / "w.onnx").write_bytes(b"\x08\x07")
    assert "got a graph of ONNX" in refusal(tmp_path / "w.onnx")
    with pytest.warns(FutureWarning):
        torch.jit.save(torch.jit.trace(network().eval(), torch.zeros(1, 3, 4, 4)), tmp_path / "w.pt")
    assert "got a scripted module (torch.jit); save its weights: torch.save(torch.jit.load('w.pt')" in refusal(
        tmp_path / "w.pt"
    )


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


@pytest.mark.parametrize("content", [nn.Linear(2, 2), {"metric": np.zeros(2), "model": {}}])
def test_pickle_with_foreign_classes_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    said = refusal(tmp_path / "w.pt")
    assert "would have to run code" in said
    assert "(it names " in said


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
