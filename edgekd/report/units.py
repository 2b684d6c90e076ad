"""Numbers as text with their unit; a missing number is a dash, never a zero."""

from __future__ import annotations

MISSING = "–"


def percent(fraction: float | None, digits: int = 1) -> str:
    """Return a fraction as percent without the sign, e.g. 0.6123 -> `61.2`."""
    return MISSING if fraction is None else f"{100 * fraction:.{digits}f}"


def points(difference: float | None, digits: int = 1) -> str:
    """Return a difference of two fractions in percentage points with its sign, e.g. -0.0123 -> `−1.2`.

    A difference that rounds to zero has no sign: `0.0`.
    """
    if difference is None:
        return MISSING
    text = f"{abs(100 * difference):.{digits}f}"
    if float(text) == 0:
        return text
    return ("+" if difference > 0 else "−") + text


def milliseconds(value: float | None) -> str:
    """Return three significant digits, e.g. `0.812`, `4.12`, `31.4`, `128`."""
    if value is None:
        return MISSING
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.{2 if value >= 1 else 3}f}"


def size(size_bytes: float | None) -> str:
    """Return bytes in SI units, e.g. `1.23 MB`."""
    return f"{scaled(size_bytes)}B" if size_bytes is not None else MISSING


def scaled(value: float | None) -> str:
    """Return a count with an SI prefix and a space before it, e.g. `1.05 M`, `870 k`, `12 `."""
    if value is None:
        return MISSING
    for limit, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            shown = value / limit
            return f"{shown:.{2 if shown < 10 else 1 if shown < 100 else 0}f} {prefix}"
    return f"{value:.0f} "


def ratio(value: float) -> str:
    """Return a factor, e.g. `2.31×`, `12.4×`."""
    return f"{value:.{2 if value < 10 else 1}f}×"


def utc_time(iso: str) -> str:
    """Return `2026-01-31 12:00 UTC` for an ISO time with that offset; anything else unchanged."""
    return f"{iso[:10]} {iso[11:16]} UTC" if iso.endswith("+00:00") else iso
