"""CPU time of an interval of mAP: 500 images, 80 classes, 50 000 random detections, 2000 resamples.

python benchmarks/map_interval.py
"""

from __future__ import annotations

import time

import numpy as np

from edgekd.evaluate.intervals import RESAMPLES, score_intervals
from edgekd.evaluate.object_matches import THRESHOLDS, Matches, ObjectMatches

IMAGES, CLASSES, DETECTIONS, OBJECTS, HITS = 500, 80, 50_000, 7, 0.06


def main() -> None:
    """Print the seconds."""
    rng = np.random.default_rng(0)
    share = rng.dirichlet(np.full(CLASSES, 0.3))  # some classes are frequent, most are rare
    objects = np.stack([rng.multinomial(rng.poisson(OBJECTS), share) for _ in range(IMAGES)]).astype(np.int32)
    label = np.sort(rng.choice(CLASSES, DETECTIONS, p=share)).astype(np.int32)
    thresholds = rng.integers(0, len(THRESHOLDS) + 1, DETECTIONS) * (rng.random(DETECTIONS) < HITS)
    hits = ((1 << thresholds) - 1).astype(np.uint16)
    matches = Matches(rng.integers(0, IMAGES, DETECTIONS), label, hits, np.zeros_like(hits), objects)
    started = time.process_time()
    score_intervals(ObjectMatches({"map": matches}, 100))
    print(f"{RESAMPLES} resamples: {time.process_time() - started:.1f} s of CPU time")


if __name__ == "__main__":
    main()
