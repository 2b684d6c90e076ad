"""Quantizes a network on noise, to find a quantizer's refusals before the training."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edgekd.board.preprocess import prepare
from edgekd.board.specs import ModelSpec
from edgekd.core import plugins
from edgekd.core.recipe import Engine, Recipe
from edgekd.errors import EdgekdError, TargetError

_IMAGES, _SEED = 2, 0


def check_quantizers(recipe: Recipe, model: Path, spec: ModelSpec) -> dict[str, str]:
    """Quantize a model for each quantized engine of a recipe, once for each quantizer and variant.

    Args:
        recipe: names engines and quantizers.
        model: float ONNX file.
        spec: its contract.

    Returns:
        Id of the engine -> why its quantizer refuses the model, on one line; engines that are quantized are absent.
    """
    answers: dict[tuple[str, str], str] = {}
    refused = {}
    for engine in recipe.engines:
        if not engine.precision.is_quantized:
            continue
        name = plugins.target(engine.target).info.quantizer
        if (name, engine.variant) not in answers:
            answers[name, engine.variant] = _quantized(recipe, engine, name, model, spec)
        if answers[name, engine.variant]:
            refused[engine.id] = answers[name, engine.variant]
    return refused


def _quantized(recipe: Recipe, engine: Engine, name: str, model: Path, spec: ModelSpec) -> str:
    """Return why a quantizer refuses a model, "" when it does not, or is not installed."""
    module = plugins.load("quantizers", name)
    options = recipe.quantize.variant(engine.variant).typed_options(name)
    rng, (image,) = np.random.default_rng(_SEED), spec.inputs
    noise = [rng.integers(0, 256, (*spec.preprocess.size, 3), np.uint8) for _ in range(_IMAGES)]
    with TemporaryDirectory(prefix="edgekd-check-") as folder:
        try:
            module.quantize(
                model, spec, [{image.name: prepare(one, spec.preprocess)} for one in noise], Path(folder), options
            )
        except TargetError as exc:
            return "" if isinstance(exc.__cause__, ImportError) else str(exc)
        except EdgekdError as exc:
            return str(exc)
    return ""
