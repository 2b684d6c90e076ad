"""Reads JSON files of annotations: the content, or a DataError of one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgekd.errors import DataError, one_line


def read_json(path: Path, hint: str = "check data.options and the split name") -> Any:
    """Return the content of a JSON file; DataError when it is missing or damaged. `hint` is what to do where it is missing."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as exc:
        raise DataError(f"{path}: no such file; {hint}") from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise DataError(f"{path}: not readable as JSON ({one_line(exc)}); replace the file") from exc
