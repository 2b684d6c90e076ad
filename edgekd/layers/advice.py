"""Settings that keep a layer of an engine in float: an override of the recipe, or an option of the target."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from glob import escape

from edgekd.core import plugins
from edgekd.core.recipe import PTQ, Engine, Recipe

_PLAIN = re.compile(r"[\w./*-]+")  # names that YAML reads as they stand


def float_override(recipe: Recipe, engine: Engine, layer: str) -> str:
    """Return `key=value` that adds a layer to those in float; "" where the quantizer leaves that to the target."""
    quantizer = plugins.target(engine.target).info.quantizer
    if not plugins.load("quantizers", quantizer).KEEPS_FLOAT:
        return ""
    settings = recipe.quantize.variant(engine.variant)
    kept = [*getattr(settings.typed_options(quantizer), "keep_float", ()), escape(layer)]
    section = "quantize" if engine.variant == PTQ else f"quantize.variants.{engine.variant}"
    return f"{section}.options.{quantizer}.keep_float={_listed(kept)}"


def float_option(engine: Engine, layer: str) -> str:
    """Return the option of the target that keeps a layer in float, as it stands in a recipe; "" for a target without one."""
    keeps = plugins.target(engine.target).keeps_float
    found = {} if keeps is None else keeps(engine.target_options, [layer])
    return ", ".join(f"{name}: {_listed(tensors)}" for name, tensors in found.items())


def _listed(names: Sequence[str]) -> str:
    names = list(names)
    return f"[{', '.join(names)}]" if all(map(_PLAIN.fullmatch, names)) else json.dumps(names)
