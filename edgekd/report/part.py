"""Base of the models of `report.json` and `study.json`.

A missing or non-finite number is None in Python. Unset keys are not written, so a file that is read and
written again has the keys that it had.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Strict, ValidationInfo, field_validator

from edgekd.core.task_metrics import TASKS


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def known_task(task: str) -> str:
    """Return the name of a task; ValueError for an unknown one."""
    if task not in TASKS:
        raise ValueError(f"expected {', '.join(TASKS)}")
    return task


Json = dict[str, Any]  # facts for the reader, never computed with
Number = Annotated[float | None, AfterValidator(_finite)]
Point = Annotated[tuple[int, Number], Strict(False)]  # optimizer step, value; JSON has a list for it
TaskName = Annotated[str, AfterValidator(known_task)]


class Part(BaseModel):
    """Base of all parts of a file: immutable, strict types, `null` read as the default, unknown keys kept."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    @field_validator("*", mode="before")
    @classmethod
    def _null_is_the_default(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        return field.get_default(call_default_factory=True) if value is None and not field.is_required() else value

    def to_dict(self) -> Json:
        """Return the content of the file: JSON values, without the keys that nobody set."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def to_json(self) -> str:
        """Return the text of the file."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)
