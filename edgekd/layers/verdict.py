"""Names the layer to blame, and the comparison that says so.

Two questions, each with a limit of its own:

* *Does the engine compute its graph?* Each layer is compared on the engine's own inputs. Rounding explains an error up to what
  quantization changes in that layer, one rounding of its result, and float arithmetic. A larger error is a fault: saturation, a
  wrong scale, a wrong kernel. Where the board shows it and this machine does not, the board is to blame. Where no layer shows
  it and the engine's answer differs more from the tapped engine's than quantization changes it, a fusion is, which tapping undoes.
* *Which layer does quantization cost most?* The noise of layers quantized alone adds up. Layers stand out when a tenth
  of them, or one, or those that read one tensor, make half of the noise of all: leaving them in float gains 3 dB or more.

A fault stands before a loss: every quantized network has a layer that loses most. Of two faults the one that makes more noise in
the outputs stands first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgekd.layers.costs import Costs
from edgekd.layers.measure import FLOAT_SHARE, Sums
from edgekd.layers.model import BOARD, QUANTIZATION, RUNTIME, TAPS, Blame, LayerError
from edgekd.quantize.grids import Placement
from edgekd.quantize.noise import EQUAL_DB, Noise, to_db, to_share

HALF = 0.5  # of the noise of all layers: what makes it stands out
FEW = 10  # a tenth of the layers, or one


def judge(
    layers: Sequence[LayerError], sums: Sums, places: Sequence[str], placement: Placement | None
) -> tuple[tuple[Blame, ...], str]:
    """Return the layers to blame, the worst comparison first, and one sentence.

    Args:
        layers: of the engine.
        sums: what was measured.
        places: where the engine ran, the first one is compared with the graph.
        placement: of the quantized model.
    """
    found = [*_faults(layers, sums, places), *_losses(layers, placement)]
    found.sort(key=lambda one: (one.comparison == QUANTIZATION, -_share(sums, one.comparison)))
    if found:
        return tuple(found), found[0].text
    return (), _nothing(layers)


def _share(sums: Sums, comparison: str) -> float:
    return sums.answer[comparison].share if comparison in sums.answer else 0.0


def _faults(layers: Sequence[LayerError], sums: Sums, places: Sequence[str]) -> list[Blame]:
    """Return the faults of the engine: at most one of its runtime, its board and its fusions."""
    found: list[Blame] = []
    for place in places:
        is_first = place == places[0]
        excess = {
            layer.name: own.share / sums.allowed(layer.name)
            for layer in layers
            if (own := sums.own.get((place, layer.name))) is not None and own.share > sums.allowed(layer.name)
        }
        if not excess or (found and not is_first):
            continue
        found.append(_fault(layers, sums, place, excess, RUNTIME if is_first else BOARD))
    if places and not found and _share(sums, TAPS) > max(_share(sums, QUANTIZATION), FLOAT_SHARE):
        text = (
            f"No layer of the tapped engine is wrong, but its outputs differ from the engine's ({_db(sums.answer[TAPS].db)}): a "
            "fused operator is to blame, which tapping splits (tapped – untapped engine)."
        )
        found.append(Blame(TAPS, "", text))
    return found


def _fault(layers: Sequence[LayerError], sums: Sums, place: str, excess: Mapping[str, float], comparison: str) -> Blame:
    name = max(excess, key=lambda one: excess[one])
    layer = next(one for one in layers if one.name == name)
    own, allowed = sums.own[place, name].db, to_db(sums.allowed(name))
    where = "the engine" if comparison == RUNTIME else f"board {place}"
    said = "Q/DQ graph – engine" if comparison == RUNTIME else "engine here – engine on its board"
    others = (
        f"; {len(excess) - 1} more {'layer is' if len(excess) == 2 else 'layers are'} wrong" if len(excess) > 1 else ""
    )
    text = (
        f"{layer.title} is wrong on {where} ({said}): from the same inputs, engine and graph agree to {_db(own)} only; rounding "
        f"explains no less than {_db(allowed)}{others}."
    )
    return Blame(comparison, name, text)


def _losses(layers: Sequence[LayerError], placement: Placement | None) -> list[Blame]:
    """Return the layer that quantization costs most, when few layers make half of the noise."""
    shares = {layer.name: to_share(layer.alone) for layer in layers if layer.alone is not None}
    total = sum(shares.values())
    if placement is None or total <= 0 or len(shares) < 2:
        return []
    ranked = sorted(shares, key=lambda name: -shares[name])
    few = ranked[: max(1, len(shares) // FEW)]
    if shares[ranked[0]] < HALF * total:
        few = max(few, _readers(placement, ranked[0], shares), key=lambda names: sum(shares[one] for one in names))
    part = sum(shares[name] for name in few) / total
    if part < HALF:
        return []
    few = [name for name in few if sum(shares[one] for one in few[: few.index(name)]) < HALF * total]
    part = sum(shares[name] for name in few) / total
    titles = {layer.name: layer.title for layer in layers}
    alone = next(layer.alone for layer in layers if layer.name == few[0]) or 0.0
    gain = to_db(total * (1 - part)) - to_db(total)
    rest = f", with {', '.join(titles[name] for name in few[1:])}" if few[1:] else ""
    what = "quantizing it alone makes" if not rest else "quantized alone they make"
    text = (
        f"{titles[few[0]]} loses most by its quantization (float ONNX – Q/DQ graph){rest}: {what} {part:.0%} of the noise of all "
        f"layers ({_db(alone)} at the outputs); leaving {'it' if not rest else 'them'} in float gains up to {_db(min(gain, 99))}."
    )
    return [Blame(QUANTIZATION, few[0], text)]


def _readers(placement: Placement, name: str, shares: Mapping[str, float]) -> list[str]:
    """Return the nodes that read one activation of a node, those that cost most together."""
    node = next(one for one in placement.nodes if one.name == name)
    groups = [
        [one.name for one in placement.nodes if tensor in one.activations and one.name in shares]
        for tensor in node.activations
    ]
    found = max(groups, key=lambda group: sum(shares[one] for one in group), default=[name])
    return sorted(found, key=lambda one: -shares[one])


def _nothing(layers: Sequence[LayerError]) -> str:
    shares = {layer.name: to_share(layer.alone) for layer in layers if layer.alone is not None}
    total, parts = sum(shares.values()), []
    if total > 0:
        best = max(shares, key=lambda one: shares[one])
        title = next(one.title for one in layers if one.name == best)
        parts.append(f"no layer makes half of the quantization noise (most: {title}, {shares[best] / total:.0%})")
    if any(layer.engine_own is not None for layer in layers):
        parts.append("every layer of the engine computes its graph, up to rounding")
    return f"Nothing stands out: {'; '.join(parts)}." if parts else "Nothing was compared layer by layer."


def _db(value: float) -> str:
    return "the same" if value >= EQUAL_DB else f"{value:.1f} dB"


def _measured(noise: Noise | None) -> float | None:
    return None if noise is None else _rounded(noise.db)


def _rounded(db: float | None) -> float | None:
    return None if db is None else round(db, 2)


def filled(layers: Sequence[LayerError], sums: Sums, places: Sequence[str], costs: Costs) -> tuple[LayerError, ...]:
    """Return the layers with what was measured."""
    result = []
    for layer in layers:
        first = places[0] if places else ""
        own = _measured(sums.own.get((first, layer.name)))
        changed = replace(
            layer,
            alone=_rounded(costs.alone.get(layer.name)),
            accumulated=_rounded(costs.accumulated.get(layer.name)),
            engine=_measured(sums.engine.get(layer.name)),
            engine_own=own,
            board=_measured(sums.board.get(layer.name)),
            board_own=_measured(sums.own.get((places[1], layer.name))) if len(places) > 1 else None,
            allowed=None if own is None else round(to_db(sums.allowed(layer.name)), 2),
        )
        result.append(changed)
    return tuple(result)
