"""Checks of a job's result, which another machine may have written."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from edgekd.board.job import Json
from edgekd.board.specs import ModelSpec
from edgekd.errors import BoardAnswerError
from edgekd.executors.logs import printable


def texts_of(value: Json, key: str, count: int) -> list[str]:
    """Return a list of texts in a job's value, without control characters; BoardAnswerError unless it has `count` texts."""
    texts = value.get(key)
    if not isinstance(texts, list) or len(texts) != count or not all(isinstance(text, str) for text in texts):
        raise BoardAnswerError(f"a job's {key}: expected {count} texts, got {texts!r:.200}; run it again")
    return [printable(text) for text in texts]


def text_of(value: Json, key: str) -> str:
    """Return a text in a job's value, without control characters; BoardAnswerError for another type."""
    return texts_of({key: [value.get(key)]}, key, 1)[0]


def path_of(value: Json, key: str) -> Path:
    """Return the path of a file in the job's folder; BoardAnswerError for a path that leaves it."""
    path = Path(text_of(value, key))
    if path.is_absolute() or ".." in path.parts:
        raise BoardAnswerError(
            f"a job's {key}: expected a path in the job's folder, got {str(path)!r:.200}; run it again"
        )
    return path


def spec_of(value: Json, key: str) -> ModelSpec:
    """Return a contract (`ModelSpec`) in a job's value; BoardAnswerError for anything else."""
    try:
        return ModelSpec.from_dict(mapping_of(value, key))
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise BoardAnswerError(f"a job's {key}: expected the contract of an engine, got {value[key]!r:.200}") from exc


def mapping_of(value: Json, key: str) -> Json:
    """Return a mapping in a job's value; BoardAnswerError for another type."""
    mapping = value.get(key)
    if not isinstance(mapping, dict):
        raise BoardAnswerError(f"a job's {key}: expected a mapping, got {mapping!r:.200}; run it again")
    return mapping


def rows_of(value: Json, key: str, names: Collection[str]) -> dict[str, Json]:
    """Return the rows of a measurement by engine, their `warnings` without control characters; BoardAnswerError for anything else.

    Args:
        value: value of the job.
        key: key of the rows in it.
        names: engines that the job was given.
    """
    rows = {}
    for name, row in mapping_of(value, key).items():
        if name not in names or not isinstance(row, dict) or not isinstance(row.get("warnings"), list):
            raise BoardAnswerError(f"a job's {key}: expected a row for each engine, got {name!r:.80}: {row!r:.200}")
        rows[name] = {**row, "warnings": texts_of(row, "warnings", len(row["warnings"]))}
    return rows


def reasons_of(value: Json, key: str) -> dict[str, str]:
    """Return a mapping of names to texts in a job's value, without control characters; BoardAnswerError for another type."""
    names = list(mapping_of(value, key))
    texts = texts_of({key: list(value[key].values())}, key, len(names))
    return dict(zip(names, texts, strict=True))
