"""Settings that help against a layer's loss: overrides of the recipe, or an option of the target."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import fields
from glob import escape
from typing import Any

from edgekd.core import plugins
from edgekd.core.recipe import PTQ, Engine, Recipe
from edgekd.layers.model import RANGE, WEIGHTS, Blame

_PLAIN = re.compile(r"[\w./*-]+")  # names that YAML reads without quotes
_ROUND = "round"
_QAT = "qat"


def override_against(recipe: Recipe, engine: Engine, blame: Blame) -> str:
    """Return `key=value` against a loss by quantization, the setting that costs no speed first; "" where the target decides.

    Against a small range: the default way to find ranges, then more calibration images. Against the rounding of weights: one scale
    per channel, then `round`. Otherwise the layers stay in float. QAT has chosen ranges and weights already.
    """
    quantizer = plugins.target(engine.target).info.quantizer
    settings, section = recipe.quantize.variant(engine.variant), _section(engine)
    options = settings.typed_options(quantizer)
    if engine.student != _QAT and blame.cause == RANGE:
        if (default := _default(options, "calibration")) is not None and options.calibration != default:
            return f"{section}.options.{quantizer}.calibration={default}"
        return f"{section}.images={2 * settings.images}"
    if engine.student != _QAT and blame.cause == WEIGHTS:
        if getattr(options, "weights", "") == "per_tensor":
            return f"{section}.options.{quantizer}.weights=per_channel"
        if round_override(recipe, engine):
            return round_override(recipe, engine)
    return float_override(recipe, engine, (blame.layer, *blame.others))


def round_override(recipe: Recipe, engine: Engine) -> str:
    """Return `key=value` that rounds weights by their effect on the layer's output; "" where the recipe does."""
    adjust = recipe.quantize.variant(engine.variant).adjustments(plugins.target(engine.target).info.quantizer)
    return "" if _ROUND in adjust else f"{_section(engine)}.adjust={_listed([*adjust, _ROUND])}"


def float_override(recipe: Recipe, engine: Engine, layers: Sequence[str]) -> str:
    """Return `key=value` that adds layers to those in float; "" where the quantizer leaves that to the target."""
    quantizer = plugins.target(engine.target).info.quantizer
    if not plugins.load("quantizers", quantizer).KEEPS_FLOAT:
        return ""
    settings = recipe.quantize.variant(engine.variant)
    kept = [*getattr(settings.typed_options(quantizer), "keep_float", ()), *map(escape, layers)]
    return f"{_section(engine)}.options.{quantizer}.keep_float={_listed(kept)}"


def float_option(engine: Engine, layer: str) -> str:
    """Return the option of the target that keeps a layer in float, as it stands in a recipe; "" for a target without one."""
    keeps = plugins.target(engine.target).keeps_float
    found = {} if keeps is None else keeps(engine.target_options, [layer])
    return ", ".join(f"{name}: {_listed(tensors)}" for name, tensors in found.items())


def _section(engine: Engine) -> str:
    return "quantize" if engine.variant == PTQ else f"quantize.variants.{engine.variant}"


def _default(options: Any, name: str) -> Any:
    """Return the default of an option; None where there is no such option."""
    return next((field.default for field in fields(options) if field.name == name), None)


def _listed(names: Sequence[str]) -> str:
    names = list(names)
    return f"[{', '.join(names)}]" if all(map(_PLAIN.fullmatch, names)) else json.dumps(names)
