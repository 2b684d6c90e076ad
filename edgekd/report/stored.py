"""Reads `report.json`; a changed file, or one of another edgekd, is a UserError."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from edgekd.board.installation import update
from edgekd.errors import UserError
from edgekd.report.model import SCHEMA, Report
from edgekd.report.part import Part

REPORT = "report.json"
_Model = TypeVar("_Model", bound=Part)


def read_report(path: Path) -> Report:
    """Return the report in a `report.json`, or in the folder that holds one.

    Raises:
        UserError: no such file, not a report, or a report of a newer edgekd.
    """
    file = path / REPORT if path.is_dir() else path
    if not file.exists():
        is_run = path.is_dir() and any((path / name / "manifest.json").is_file() for name in ("data", "teacher"))
        hint = "the run has not ended; start it again to go on" if is_run else "give the folder of an edgekd run"
        raise UserError(f"{file}: no such file; {hint}")
    return read_file(file, Report, SCHEMA, "run")


def read_file(file: Path, model: type[_Model], schema: str, command: str) -> _Model:
    """Return the content of a JSON file as its model.

    Args:
        file: the file.
        model: model of its content.
        schema: the one schema that `model` describes, e.g. `edgekd.report/1`.
        command: the `edgekd` command that writes such files.

    Raises:
        UserError: not readable, another schema, or an invalid value.
    """
    kind = schema.partition("/")[0].removeprefix("edgekd.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise UserError(f"{file}: not a readable {file.name} ({exc}); give the folder of an edgekd {command}") from exc
    found = content.get("schema") if isinstance(content, dict) else None
    if found != schema:
        name, _, version = schema.partition("/")
        newer = re.fullmatch(rf"{re.escape(name)}/(\d+)", str(found))
        hint = f"give the folder of an edgekd {command}"
        if newer and int(newer[1]) > int(version):
            hint = f"a newer edgekd wrote it; update this one: {update()}"
        raise UserError(f"{file}: expected a {kind} with schema {schema}, got {found!r}; {hint}")
    try:
        return model.model_validate(content)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{file}: {where}: {first['msg']}; edgekd {command} writes it again") from exc
