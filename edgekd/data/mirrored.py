"""Class names that a flip swaps, such as left and right."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

# Words that a horizontal flip swaps, as whole words of a name; and those that also stand inside a longer word.
_WORDS = (("l", "r"), ("lt", "rt"), ("lh", "rh"), ("lhs", "rhs"), ("lft", "rgt"), ("cw", "ccw"), ("clockwise", "counterclockwise"),
          ("clockwise", "anticlockwise"))  # fmt: skip
_PARTS = (("left", "right"),)
# Words that a vertical flip swaps.
_UPRIGHT_WORDS = (("up", "down"), ("top", "bottom"), ("upper", "lower"), ("above", "below"))


def mirrored_pairs(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of class names that differ in left and right alone: `left lane` and `lane_right`, `L_hand` and `R_hand`."""
    return _pairs(classes, _WORDS, _PARTS)


def upended_pairs(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of class names that differ in up and down alone, which a vertical flip swaps."""
    return _pairs(classes, _UPRIGHT_WORDS, ())


def _pairs(
    classes: Sequence[str], words: Collection[tuple[str, str]], parts: Collection[tuple[str, str]]
) -> list[tuple[str, str]]:
    named = [_words_of(name) for name in classes]
    places = {tuple(sorted(one)): place for place, one in reversed(list(enumerate(named)))}
    pairs: list[tuple[str, str]] = []
    for place, one in enumerate(named):
        for swapped in _mirrors(one, words, parts):
            other = places.get(tuple(sorted(swapped)))
            if other is not None and other > place:
                pairs.append((classes[place], classes[other]))
    return list(dict.fromkeys(pairs))


def _words_of(name: str) -> list[str]:
    """Return the words of a name in lower case: `LeftLane_2` and `left-lane 2` are left, lane, 2."""
    return [word.lower() for word in re.findall(r"[^\W\d_]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])|\d+", name)]


def _mirrors(
    name: Sequence[str], words: Collection[tuple[str, str]], parts: Collection[tuple[str, str]]
) -> list[list[str]]:
    """Return a name's words with one pair of words swapped, for each pair that it holds."""
    found = []
    for one, other in (*words, *parts):
        swap = {one: other, other: one}
        inside = re.compile(f"{other}|{one}") if (one, other) in parts else None
        swapped = [inside.sub(lambda m: swap[m[0]], word) if inside else swap.get(word, word) for word in name]  # noqa: B023
        if swapped != list(name):
            found.append(swapped)
    return found
