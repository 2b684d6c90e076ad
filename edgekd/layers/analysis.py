"""The errors that a toolchain's own analysis found when it built an engine, as those of `edgekd layers`.

It stands in the engine's details as `build.analysis`: for each layer in graph order `op`, `tensor`, and cosines of its tensor to the
float result: `entire_cosine` with the errors of all layers before it and `single_cosine` on float inputs. For noise that does not
follow the signal, the cosine is 1 / sqrt(1 + noise share).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.layers.model import QUANTIZATION, Blame, LayerError, LayerErrors
from edgekd.quantize.noise import EQUAL_DB, to_db

STANDS_OUT_DB = 6.0  # one bit below the layer in the middle


def analysed(engine: str, rows: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> LayerErrors:
    """Return the errors of an engine from the rows of its toolchain's analysis; the number of images is not known to it."""
    layers = tuple(
        LayerError(
            name=row["tensor"],
            op=row["op"],
            single=_decibel(row["single_cosine"]),
            accumulated=_decibel(row["entire_cosine"]),
        )
        for row in rows
    )
    known = [one for one in layers if one.single is not None]
    blamed: tuple[Blame, ...] = ()
    sentence = "Nothing stands out: no layer loses a bit more than the others."
    if known:
        worst, middle = (
            min(known, key=lambda one: one.single or 0.0),
            statistics.median(one.single or 0.0 for one in known),
        )
        if (worst.single or 0.0) < middle - STANDS_OUT_DB:
            sentence = (
                f"{worst.name} ({worst.op}) loses most by its quantization (float – simulator): from float inputs its output is "
                f"{worst.single:.1f} dB from float, the layer in the middle {middle:.1f} dB."
            )
            blamed = (Blame(QUANTIZATION, worst.name, sentence),)
    return LayerErrors(engine, 0, layers, {}, blamed, sentence, tuple(notes))


def _decibel(cosine: float | None) -> float | None:
    """Return the ratio in dB of a cosine; None for one that is no number."""
    if cosine is None:
        return None
    if cosine <= 0:
        return -EQUAL_DB
    return round(to_db(max(0.0, 1 / cosine**2 - 1)), 2)
