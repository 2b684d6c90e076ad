"""Help, recipe keys, plugin options and errors have a text, and none of the phrases that readers stumble over."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import edgekd
from edgekd.cli.main import command_line
from tests.conftest import REPOSITORY

STOCK = re.compile(
    r"\b(all the same|anew|none that|at most so many|so many that|keyless|of it the|of these the|told of|loud|, too\.|"
    r"what (an?|the) \w+ belongs to|the worse one|says otherwise)(?!\w)",
    re.IGNORECASE,
)
REFERENCES = ("recipe", "formats", "families", "methods", "quantizers", "targets")


def help_texts(command: Any, path: str = "edgekd") -> Iterator[tuple[str, str]]:
    yield path, command.help or ""
    yield from ((f"{path} {one.name}", getattr(one, "help", "") or "") for one in command.params)
    for name, one in getattr(command, "commands", {}).items():
        yield from help_texts(one, f"{path} {name}")


def error_texts() -> Iterator[tuple[str, str]]:
    for path in Path(edgekd.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                parts = [one.value for one in ast.walk(node.exc) if isinstance(one, ast.Constant)]
                yield f"{path.name}:{node.lineno}", " ".join(part for part in parts if isinstance(part, str))


def stumbles(texts: Iterator[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(where, found[0]) for where, text in texts if (found := STOCK.search(text))]


def test_every_command_and_option_has_a_help_text() -> None:
    assert [where for where, text in help_texts(command_line()) if not text] == []


def test_help_has_none_of_the_stock_phrases() -> None:
    assert stumbles(help_texts(command_line())) == []


def test_errors_have_none_of_the_stock_phrases() -> None:
    texts = list(error_texts())
    assert len(texts) > 500
    assert stumbles(iter(texts)) == []


def test_descriptions_of_recipe_keys_and_options_have_none_of_the_stock_phrases() -> None:
    pages = [(name, (REPOSITORY / f"docs/reference/{name}.md").read_text(encoding="utf-8")) for name in REFERENCES]
    tables = ((name, line) for name, text in pages for line in text.splitlines() if line.startswith("| `"))
    assert stumbles(tables) == []
