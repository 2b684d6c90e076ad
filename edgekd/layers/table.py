"""The table of an engine's layers, for the terminal and the page."""

from __future__ import annotations

from edgekd.layers.model import LayerError, LayerErrors

# Column -> field, in the order of a network's way to a board; a column without a value is left out.
_COLUMNS = {
    "alone": "alone",
    "single": "single",
    "accumulated": "accumulated",
    "engine": "engine",
    "engine, own": "engine_own",
    "rounding": "allowed",
    "board": "board",
    "board, own": "board_own",
}


def headers(found: LayerErrors) -> tuple[str, ...]:
    """Return the titles of the columns."""
    is_quantized = any(one.cause or one.is_float for one in found.layers)
    return ("layer", "MACs", *_shown(found), *(("noise from",) if is_quantized else ()))


def rows(found: LayerErrors) -> list[tuple[str, ...]]:
    """Return the rows as text: dB with one digit, `=` for tensors that are the same."""
    blamed = {one.layer for one in found.blamed}
    return [
        _row(layer, tuple(_shown(found).values()), layer.name in blamed)[: len(headers(found))]
        for layer in found.layers
    ]


def decibel(value: float | None) -> str:
    """Return a ratio in dB as text."""
    if value is None:
        return ""
    return "=" if value >= 200 else f"{value:.1f}"


def _shown(found: LayerErrors) -> dict[str, str]:
    return {
        title: name for title, name in _COLUMNS.items() if any(getattr(one, name) is not None for one in found.layers)
    }


def _row(layer: LayerError, names: tuple[str, ...], is_blamed: bool) -> tuple[str, ...]:
    title = f"{'> ' if is_blamed else '  '}{layer.title}"
    macs = f"{layer.macs:.1%}" if layer.macs else ""
    return (
        title,
        macs,
        *(decibel(getattr(layer, name)) for name in names),
        "(float)" if layer.is_float else layer.cause,
    )
