"""Names the layer to blame, and the comparison that says so.

Two questions, each with a limit of its own:

* *Does the engine compute its graph?* Each layer is compared on the engine's own inputs. Explained are roundings that the engine
  leaves out, one more rounding of the layer's result, and float arithmetic. A larger error is a fault: saturation, a wrong scale, a
  wrong kernel. Where the board shows it and this machine does not, the board is to blame. Where no layer shows it and the outputs of
  the engine differ from those of the tapped engine by more than the rounding of activations explains, a fused operator that tapping
  splits is to blame.
* *Which layer does quantization cost most?* The noise of layers quantized alone adds up. A range that is too small is a fault of
  the calibration: clipping makes more noise in this tensor than rounding. It is named if its layer makes more noise than the
  average layer. Then come the layers that stand out: a tenth of all layers (at least one), or the layers that read one tensor, if
  they make half of the noise. Leaving them in float gains 3 dB or more.

A fault of the engine comes before a loss: every quantized network has a layer that loses most. Of two faults the one that makes
more noise in the outputs comes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgekd.layers.costs import Costs
from edgekd.layers.measure import FLOAT_SHARE, ROUNDING, Subject, Sums
from edgekd.layers.model import BOARD, INPUTS, QUANTIZATION, RANGE, RUNTIME, TAPS, WEIGHTS, Blame, LayerError
from edgekd.quantize.noise import EQUAL_DB, Noise, to_db, to_share

HALF = 0.5  # of the noise of all layers: what makes it stands out
FEW = 10  # a tenth of the layers, or one
_WHY = {
    RANGE: ", mostly by a range of its inputs that is too small",
    INPUTS: ", mostly by rounding its inputs",
    WEIGHTS: ", mostly by rounding its weights",
}


def judge(
    layers: Sequence[LayerError], sums: Sums, places: Sequence[str], sharing: Sequence[Sequence[str]]
) -> tuple[tuple[Blame, ...], str]:
    """Return the layers to blame, the worst comparison first, and one sentence.

    Args:
        layers: of the engine.
        sums: what was measured.
        places: where the engine ran, the first one is compared with the graph.
        sharing: names of layers that read the same quantized tensor, see `shared_inputs`.
    """
    faults = sorted(_faults(layers, sums, places), key=lambda one: -sums.share(one.comparison))
    found = (*faults, *_losses(layers, sharing))
    return (found, found[0].text) if found else ((), _nothing(layers))


def shared_inputs(subject: Subject) -> list[list[str]]:
    """Return the names of the layers that read a quantized activation, for each one."""
    if subject.placement is None:
        return []
    reads = {node.name: node.activations for node in subject.placement.nodes}
    found: dict[str, list[str]] = {name: [] for name in subject.placement.activations}
    for layer in subject.layered.layers:
        for tensor in dict.fromkeys(name for node in layer.nodes for name in reads.get(node, ())):
            found[tensor].append(layer.name)
    return list(found.values())


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
    # Both engines have the graph's weights. If they round activations independently, they differ by twice the noise of one.
    explained = 2 * sums.share(ROUNDING) + FLOAT_SHARE
    if places and not found and sums.share(TAPS) > explained:
        text = (
            "No layer of the tapped engine is wrong, but its outputs agree with those of the engine to "
            f"{_db(to_db(sums.share(TAPS)))} only (tapped – untapped engine); rounding explains no less than "
            f"{_db(to_db(explained))}. A fused operator that tapping splits is to blame."
        )
        found.append(Blame(TAPS, "", text))
    return found


def _fault(layers: Sequence[LayerError], sums: Sums, place: str, excess: Mapping[str, float], comparison: str) -> Blame:
    name = max(excess, key=lambda one: excess[one])
    layer = next(one for one in layers if one.name == name)
    own, allowed = to_db(sums.own[place, name].share), to_db(sums.allowed(name))
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


def _losses(layers: Sequence[LayerError], sharing: Sequence[Sequence[str]]) -> list[Blame]:
    """Return the layers that quantization costs most: one whose range is too small, and one that stands out."""
    shares = {layer.name: to_share(layer.alone) for layer in layers if layer.alone is not None}
    total = sum(shares.values())
    if total <= 0:
        return []
    by_name = {layer.name: layer for layer in layers}
    found = []
    if (clipped := _clipped(by_name, shares)) is not None:
        text = (
            f"{clipped.title} reads a range that is too small (float ONNX – Q/DQ graph): {_percent(clipped.outside)} of the values "
            f"lie outside. Quantized alone, it makes {shares[clipped.name] / total:.0%} of the noise of all layers "
            f"({_db(clipped.alone or 0.0)} at the outputs)."
        )
        found.append(Blame(QUANTIZATION, clipped.name, text, RANGE))
    few = _standing_out(shares, sharing)
    if few and (clipped is None or few[0] != clipped.name):
        found.append(_loss([by_name[name] for name in few], shares))
    return found


def _loss(few: Sequence[LayerError], shares: Mapping[str, float]) -> Blame:
    """Return the blame of layers that stand out, the worst one first."""
    first, titles, total = few[0], [one.title for one in few[1:]], sum(shares.values())
    noise = sum(shares[one.name] for one in few)
    gain = _db(min(99.0, to_db(total - noise) - to_db(total)))
    text = (
        f"{first.title} loses most by quantization (float ONNX – Q/DQ graph): alone, it makes {shares[first.name] / total:.0%} of "
        f"the noise of all layers ({_db(first.alone or 0.0)} at the outputs){_WHY.get(first.cause, '')}. "
    )
    if titles:
        listed = " and ".join(filter(None, (", ".join(titles[:-1]), titles[-1])))
        text += f"With {listed} it makes {noise / total:.0%}. In float, they gain up to {gain}."
    else:
        text += f"In float, it gains up to {gain}."
    return Blame(QUANTIZATION, first.name, text, first.cause, tuple(one.name for one in few[1:]))


def _clipped(layers: Mapping[str, LayerError], shares: Mapping[str, float]) -> LayerError | None:
    """Return the layer that costs most among those whose range is too small and whose noise is at least average."""
    part = sum(shares.values()) / len(shares)
    some = [name for name, share in shares.items() if layers[name].cause == RANGE and share >= part]
    return layers[max(some, key=lambda name: shares[name])] if some else None


def _standing_out(shares: Mapping[str, float], sharing: Sequence[Sequence[str]]) -> list[str]:
    """Return the few layers that make half of the noise, the worst first; empty if it takes more layers."""
    if len(shares) < 2:
        return []
    ranked, total = sorted(shares, key=lambda name: -shares[name]), sum(shares.values())
    few = ranked[: max(1, len(shares) // FEW)]
    if shares[ranked[0]] < HALF * total:
        groups = [[name for name in ranked if name in group] for group in sharing if ranked[0] in group]
        few = max([few, *groups], key=lambda names: sum(shares[one] for one in names))
    if sum(shares[name] for name in few) < HALF * total:
        return []
    return [name for place, name in enumerate(few) if sum(shares[one] for one in few[:place]) < HALF * total]


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


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "less than 0.1%"


def filled(layers: Sequence[LayerError], sums: Sums, places: Sequence[str], costs: Costs) -> tuple[LayerError, ...]:
    """Return the layers with what was measured."""
    result = []
    for layer in layers:
        own = [sums.own.get((place, layer.name)) for place in places] + [None, None]
        changed = replace(
            layer,
            alone=_rounded(costs.alone.get(layer.name)),
            accumulated=_rounded(costs.accumulated.get(layer.name)),
            engine=_measured(sums.engine.get(layer.name)),
            engine_own=None if own[0] is None else _rounded(to_db(own[0].share)),
            board=_measured(sums.board.get(layer.name)),
            board_own=None if own[1] is None else _rounded(to_db(own[1].share)),
            allowed=None if own[0] is None else _rounded(to_db(sums.allowed(layer.name))),
            cause=costs.causes.get(layer.name, ""),
            outside=costs.outside.get(layer.name, 0.0),
        )
        result.append(changed)
    return tuple(result)


def _measured(noise: Noise | None) -> float | None:
    return None if noise is None else _rounded(noise.db)


def _rounded(db: float | None) -> float | None:
    return None if db is None else round(db, 2)
