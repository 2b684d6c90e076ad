"""Declares the options of a plugin: default, description, and whether the value is a path.

    @dataclass(frozen=True)
    class Options:
        root: str = option(..., "Folder of the data set.", is_path=True)
        stride: int = option(8, "Image pixels per cell of the pooled logits.")

The reference pages print the descriptions. A recipe's relative paths start at the folder of the recipe.
Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, Dict, Tuple


def option(default: Any, description: str, is_path: bool = False, names_classes: bool = False) -> Any:
    """Return the dataclass field of one option.

    Args:
        default: value of recipes that leave it out; `...` for an option that every recipe has to give. A list or a dict
            is copied for every `Options`.
        description: the meaning, in sentences.
        is_path: a text value is a file or a folder. Write `is_path=True` in the plugin's own module: it is read from the
            source without an import (`core/plugin_options.py`).
        names_classes: the option holds class names of a data format (list or mapping). A renamed class is no reason to train
            again, so cache keys hold numbers for the names.
    """
    metadata = {"description": description, "is_path": is_path, "names_classes": names_classes}
    if default is ...:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def descriptions(options_type: Any) -> Dict[str, str]:
    """Return option -> description, "" for one that is declared without `option`."""
    return {field.name: field.metadata.get("description", "") for field in dataclasses.fields(options_type)}


def class_name_options(options_type: Any) -> Tuple[str, ...]:
    """Return the names of the options that hold class names."""
    return tuple(field.name for field in dataclasses.fields(options_type) if field.metadata.get("names_classes"))


def path_options(options_type: Any) -> Tuple[str, ...]:
    """Return the names of the options that are paths."""
    return tuple(field.name for field in dataclasses.fields(options_type) if field.metadata.get("is_path"))
