"""Every command stands in a group of the help, and has an example that its parser takes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from edgekd.cli.help import GROUPS
from edgekd.cli.main import command_line


def commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, one in command.commands.items():
        yield f"{path} {name}".strip(), one
        if hasattr(one, "commands"):
            yield from commands(one, f"{path} {name}".strip())


ALL = dict(commands(command_line()))


def test_every_command_is_in_one_group() -> None:
    listed = [name for group in GROUPS.values() for name in group]
    assert sorted(listed) == sorted(set(listed))
    assert set(listed) == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_the_example_of_a_command_is_one_that_its_parser_takes(name: str) -> None:
    example = ALL[name].epilog.removeprefix("Example: ")
    program, *words = shlex.split(example)
    assert program == "edgekd"
    command, context = command_line(), None
    while hasattr(command, "commands"):
        command, context, words = command.commands[words[0]], command.make_context("edgekd", words, context), words[1:]
    command.make_context("edgekd", words, context)
