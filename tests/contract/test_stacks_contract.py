"""Every stack: what it says it takes, it takes; its files name the engine that lies beside them, and none leaves its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.core import plugins
from edgekd.errors import UserError
from edgekd.stacks import refusals, stacks_of, write
from edgekd.stacks.base import Engine
from tests import small_nets

STACKS = plugins.names("stacks")


def engine(target: str, folder: Path, is_uint8: bool = False) -> Engine:
    """Return a small segmenter's engine: a real one where the target builds here, else a file of its suffix."""
    import onnx

    model, spec = small_nets.segmenter(is_uint8)
    folder.mkdir(parents=True, exist_ok=True)
    info = plugins.target(target).info
    file = folder / f"engine{info.suffix}"
    onnx.save(model, folder / "model.onnx")
    if info.compile_at == "host":
        from edgekd.targets.base import CompileRequest

        options = plugins.target(target).options()
        plugins.target(target).build_engine(CompileRequest(folder / "model.onnx", spec, "fp32", folder, options))
    else:
        file.write_bytes(b"an engine")
    extra = tuple(one for one in folder.iterdir() if one.stem == file.stem and one != file)
    return Engine(f"{target}-fp32", target, "fp32", file, spec, {}, extra)


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_takes_engines_of_known_targets_only(name: str, tmp_path: Path) -> None:
    stack = plugins.load("stacks", name)
    assert stack.TITLE
    assert set(stack.TARGETS) <= set(plugins.names("targets"))
    other = next(one for one in plugins.names("targets") if one not in stack.TARGETS)
    with pytest.raises(UserError, match=f"stack {name}: takes engines of {stack.TARGETS[0]}.*, got one of {other}"):
        write(name, Engine("x", other, "fp32", tmp_path / "x", small_nets.segmenter()[1]), tmp_path)


@pytest.mark.parametrize(("name", "target"), [(n, t) for n in STACKS for t in plugins.load("stacks", n).TARGETS])
def test_the_files_are_there_and_say_what_to_do(name: str, target: str, tmp_path: Path) -> None:
    given = engine(target, tmp_path / "engine")
    before = {one: one.read_bytes() for one in (tmp_path / "engine").iterdir()}
    steps = write(name, given, tmp_path / "made" / name)
    assert steps
    readme = (tmp_path / "made" / name / "README.md").read_text()
    assert all(step in readme for step in steps)
    texts = [one.read_bytes() for one in (tmp_path / "made").rglob("*") if one.is_file()]
    assert not any(str(tmp_path).encode() in text for text in texts)  # a bundle moves them
    assert {one: one.read_bytes() for one in (tmp_path / "engine").iterdir()} == before
    assert {one.name for one in tmp_path.iterdir()} == {"engine", "made"}
    first = {one.relative_to(tmp_path): one.read_bytes() for one in (tmp_path / "made").rglob("*") if one.is_file()}
    write(name, given, tmp_path / "made" / name)  # once more
    assert {
        one.relative_to(tmp_path): one.read_bytes() for one in (tmp_path / "made").rglob("*") if one.is_file()
    } == first


@pytest.mark.parametrize("target", plugins.names("targets"))
def test_the_stacks_of_a_target_are_those_that_name_it(target: str, tmp_path: Path) -> None:
    assert stacks_of(target) == [name for name in STACKS if target in plugins.load("stacks", name).TARGETS]
    if stacks_of(target):
        given = engine(target, tmp_path)
        assert refusals(given) == {name: plugins.load("stacks", name).why_not(given) for name in stacks_of(target)}
