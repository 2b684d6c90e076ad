"""The inventory: the boards that a user can reach, a YAML file of `edgekd.boards/1`.

The file is `$EDGEKD_BOARDS`, else `boards.yaml` beside the recipe, else `edgekd/boards.yaml` in the user's configuration
folder; the first that exists is used. It holds no passwords, keys, ports or jump hosts: these belong in `~/.ssh/config`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import yaml
from pydantic import Field, field_validator

from edgekd.board.files import write_atomic
from edgekd.core.board_sections import Deploy, Expects, Quiet
from edgekd.core.deployment_sections import LOCAL
from edgekd.core.recipe_file import parse_tree, read_text
from edgekd.core.recipe_loading import validate
from edgekd.core.training_sections import Section
from edgekd.errors import RecipeError, WorkspaceError, did_you_mean, one_line

SCHEMA = "edgekd.boards/1"
FILE = "boards.yaml"
VARIABLE = "EDGEKD_BOARDS"
_WHAT = "an inventory of boards"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Entry(Section):
    """A board in the file, under its name."""

    ssh: str = Field(description="A Host of ~/.ssh/config, or user@host.")
    chip: str | None = Field(None, description="The chip that the board must have; `edgekd board add` writes it.")
    folder: str = Field(
        "~/.cache/edgekd", description="The board's folder for jobs, files and the lock; edgekd deletes in it."
    )
    python: str = Field("python3", description="Python of the board, 3.8 or newer, with numpy.")
    environment: dict[str, str] = Field({}, description="Environment variables of the jobs.")
    expects: Expects = Field(Expects(), description="State that is required.")
    quiet: Quiet = Field(Quiet(), description="State that a measurement waits for.")
    store_gb: float = Field(4, gt=0, description="Room for files that jobs share; the least recently used go first.")
    deploy: Deploy = Field(Deploy(), description="What `edgekd deploy` may do; true or false: whether it may.")

    @field_validator("deploy", mode="before")
    @classmethod
    def _deploy_of(cls, given: object) -> object:
        return {"allowed": given} if isinstance(given, bool) else given

    @field_validator("ssh")
    @classmethod
    def _is_a_destination(cls, text: str) -> str:
        if not text or text.startswith("-") or not text.isprintable() or " " in text:
            raise ValueError("expected a Host of ~/.ssh/config or user@host")
        return text

    @field_validator("folder", "python")
    @classmethod
    def _is_a_path(cls, text: str) -> str:
        if not text.strip() or text.startswith("-") or not text.isprintable():
            raise ValueError("expected a path on the board")
        return text

    @field_validator("folder")
    @classmethod
    def _is_edgekds_own(cls, text: str) -> str:
        """Refuse a folder of the user's: edgekd deletes `store`, `in`, `jobs` and `code` in its own."""
        last = PurePosixPath(text).name
        if not text.startswith(("/", "~/")) or not (last.startswith("edgekd") or last.endswith("edgekd")):
            proposed = f"{text.rstrip('/')}/edgekd" if text.startswith(("/", "~/")) else "~/.cache/edgekd"
            raise ValueError(
                "expected a path from / or ~/ to a folder of edgekd's own, whose name begins or ends with 'edgekd', because "
                f"edgekd deletes in it; got {text!r}; try {proposed}"
            )
        return text

    @field_validator("environment")
    @classmethod
    def _has_names(cls, variables: dict[str, str]) -> dict[str, str]:
        for name in variables:
            if not _VARIABLE_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of an environment variable")
        return variables


class Board(Entry):
    """A board of the inventory: its entry and its name."""

    name: str

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        return check_name(name)


class _File(Section):
    schema_: Literal["edgekd.boards/1"] = Field(alias="schema")
    boards: dict[str, Entry] = Field({})

    @field_validator("boards")
    @classmethod
    def _check_names(cls, boards: dict[str, Entry]) -> dict[str, Entry]:
        for name in boards:
            check_name(name)
        return boards


@dataclass(frozen=True)
class Inventory(Mapping[str, Board]):
    """Boards by name, and the inventory's file. Without a file it is empty, and `path` is where one would be written."""

    path: Path
    boards: Mapping[str, Board]

    def __getitem__(self, name: str) -> Board:
        return self.boards[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.boards)

    def __len__(self) -> int:
        return len(self.boards)

    def board(self, name: str) -> Board:
        """Return a board by name; RecipeError when there is none."""
        if name in self.boards:
            return self.boards[name]
        if not self.boards:
            raise RecipeError(f"board {name!r}: {self.path} has no boards; add it: edgekd board add {name} user@host")
        raise RecipeError(f"board {name!r} is not in {self.path}{did_you_mean(name, self.boards)}")


def check_name(name: str) -> str:
    """Return a board's name unchanged; ValueError for a name that cannot be part of ids and file names."""
    if name == LOCAL:
        raise ValueError(f"{LOCAL!r} is this machine; give the board another name")
    if not _NAME.fullmatch(name):
        raise ValueError(f"board name {name!r}: expected letters, digits, '.', '_' and '-', at most 63, e.g. orin")
    return name


def load_inventory(beside: Path | None = None) -> Inventory:
    """Return the inventory in use; an empty one where no file exists.

    Args:
        beside: folder of the recipe; None looks for no file there.

    Raises:
        RecipeError: the file cannot be read, has an unknown key or a value that does not fit.
    """
    path = inventory_file(beside)
    if not path.exists() and not os.environ.get(VARIABLE):
        return Inventory(path, {})
    return _parse(read_text(path, _WHAT), path)


def inventory_file(beside: Path | None = None) -> Path:
    """Return the file of the inventory in use; if none exists, the one in the user's configuration folder."""
    if given := os.environ.get(VARIABLE):
        return Path(given).absolute()
    if beside is not None and (beside / FILE).is_file():
        return (beside / FILE).absolute()
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(folder).absolute() / "edgekd" / FILE


def check_new(name: str) -> Path:
    """Return the inventory's file; RecipeError if it has a board of this name, or cannot be read."""
    path = inventory_file()
    if path.exists() and name in load_inventory():
        raise RecipeError(f"board {name!r} is in {path} already; edit it there, or type: edgekd board remove {name}")
    return path


def add_board(board: Board) -> Path:
    """Write a board into the inventory in use and return the file; other entries and comments stay.

    Raises:
        RecipeError: the file cannot be read, or has a board of this name.
        WorkspaceError: it cannot be written.
    """
    path = check_new(board.name)
    text = read_text(path, _WHAT) if path.exists() else f"schema: {SCHEMA}\nboards: {{}}\n"
    entry = board.model_dump(mode="json", exclude_unset=True, exclude={"name"})
    tree = parse_tree(text, path, _WHAT)
    tree["boards"] = {**(tree.get("boards") or {}), board.name: entry}
    lines = text.splitlines(keepends=True)
    if siblings := _entries(text):
        first = siblings[0]
        block = yaml.safe_dump({board.name: entry}, sort_keys=False, allow_unicode=True)
        lines[first.line : first.line] = [" " * first.column + line for line in block.splitlines(keepends=True)]
    _write(path, "".join(lines), tree)
    return path


def remove_board(name: str) -> Path:
    """Delete a board from the inventory in use and return the file; other entries and comments stay.

    Raises:
        RecipeError: the file cannot be read, or has no such board.
        WorkspaceError: it cannot be written.
    """
    inventory = load_inventory()
    inventory.board(name)
    path = inventory.path
    text = read_text(path, _WHAT)
    tree = parse_tree(text, path, _WHAT)
    del tree["boards"][name]
    lines = text.splitlines(keepends=True)
    for entry in _entries(text):
        if entry.name == name:
            del lines[entry.line : entry.end]
    _write(path, "".join(lines), tree)
    return path


@dataclass(frozen=True)
class _Lines:
    """The lines of an entry in the file: `line` to `end`, indented by `column`."""

    name: str
    line: int
    end: int
    column: int


def _entries(text: str) -> list[_Lines]:
    """Return the entries of a file whose `boards` is in block style, one key a line; [] for another."""
    top = yaml.compose(text, Loader=yaml.SafeLoader)
    for key, value in top.value if isinstance(top, yaml.MappingNode) else ():
        if key.value == "boards" and isinstance(value, yaml.MappingNode) and not value.flow_style:
            return [
                _Lines(name.value, name.start_mark.line, _last_line(entry) + 1, name.start_mark.column)
                for name, entry in value.value
            ]
    return []


def _last_line(node: yaml.Node) -> int:
    """Return the line of the last character of a node. A block mapping's own mark lies behind the comments that follow it."""
    if isinstance(node, yaml.MappingNode | yaml.SequenceNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.line)


def _write(path: Path, text: str, tree: dict[str, object]) -> None:
    """Write the edited text where it says what `tree` says, else the tree; without comments, then."""
    try:
        edited = parse_tree(text, path, _WHAT)
    except RecipeError:
        edited = {}
    if {**edited, "boards": edited.get("boards") or {}} != tree:
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    except OSError as exc:
        raise WorkspaceError(f"{path}: the inventory of boards cannot be written: {one_line(exc)}") from exc


def _parse(text: str, path: Path) -> Inventory:
    tree = parse_tree(text, path, _WHAT)
    if tree.get("boards", ()) is None:  # `boards:` and nothing below
        tree["boards"] = {}
    found = validate(_File, tree, str(path))
    return Inventory(path, {name: Board(name=name, **dict(entry)) for name, entry in found.boards.items()})
