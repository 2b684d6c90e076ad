"""95 % intervals of scores and of their changes: a bootstrap over the scored images.

Two rows draw the same images, so that hard images cancel. It covers another choice of images, not another training.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval).
"""

from __future__ import annotations

import numpy as np

from edgekd.evaluate.image_scores import ImageScores

Interval = tuple[float, float]
CONFIDENCE = 0.95
RESAMPLES = 2000
MIN_IMAGES = 20  # a bootstrap of fewer images is too narrow
_SEED = 0
_CHUNK = 64  # resamples at a time: bounds the memory for many classes


def score_intervals(images: ImageScores) -> dict[str, Interval]:
    """Return metric -> interval of the score; {} for fewer than MIN_IMAGES images."""
    return _quantiles(_resampled(images))


def score_change_intervals(old: ImageScores, new: ImageScores) -> dict[str, Interval]:
    """Return metric -> interval of the difference new - old on the same images; {} for fewer than MIN_IMAGES images.

    Args:
        old, new: of the same images, in the same order.
    """
    before, after = _resampled(old), _resampled(new)
    return _quantiles({name: after[name] - before[name] for name in before if name in after})


def _resampled(images: ImageScores) -> dict[str, np.ndarray]:
    """Return metric -> (RESAMPLES,) scores of as many images drawn with replacement, the same for every call; {} for few images."""
    count = images.num_images
    if count < MIN_IMAGES:
        return {}
    rng = np.random.default_rng(_SEED)
    parts: list[dict[str, np.ndarray]] = []
    for begin in range(0, RESAMPLES, _CHUNK):
        parts.append(images.scores(rng.multinomial(count, np.full(count, 1 / count), min(_CHUNK, RESAMPLES - begin))))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _quantiles(drawn: dict[str, np.ndarray]) -> dict[str, Interval]:
    tail = (1 - CONFIDENCE) / 2
    found = {}
    for name, values in drawn.items():
        defined = values[~np.isnan(values)]
        if len(defined):
            low, high = np.quantile(defined, [tail, 1 - tail])
            found[name] = (float(low), float(high))
    return found
