"""Counters of a runner, as text for Prometheus (exposition format 0.0.4).

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Dict, List, Tuple

from edgekd.runner.manifest import Manifest

STAGES = ("pre", "engine", "post")
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """Counters and timings since the start. All methods are thread-safe."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest, self._started = manifest, time.time()
        self._lock = threading.Lock()
        self._answers: "Counter[int]" = Counter()
        self._buckets: "Dict[str, Counter[float]]" = {stage: Counter() for stage in STAGES}
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._results, self._dropped, self._failures = 0, 0, 0

    def count_result(self, milliseconds: Tuple[float, float, float], dropped: int = 0) -> None:
        """Count a result, and the frames that were left out before it."""
        with self._lock:
            self._results += 1
            self._dropped += dropped
            for stage, value in zip(STAGES, milliseconds):  # noqa: B905 - Python 3.8
                self._seconds[stage] += value / 1000
                self._buckets[stage][next((le for le in _BUCKETS_S if value / 1000 <= le), float("inf"))] += 1

    def count_answer(self, status: int) -> None:
        """Count an HTTP answer."""
        with self._lock:
            self._answers[status] += 1

    def count_failure(self) -> None:
        """Count a run of the engine that raised."""
        with self._lock:
            self._failures += 1

    @property
    def results(self) -> int:
        """Number of results."""
        return self._results

    def text(self, connections: int, queue: int) -> str:
        """Return all metrics; `connections` are open, `queue` images wait for the engine or are in it."""
        one = self._manifest
        labels = {"name": one.name, "version": str(one.version), "target": one.target, "precision": one.precision}
        with self._lock:
            lines = [
                *_metric("release_info", "gauge", "The release that runs.", [(_labels(labels), 1)]),
                *_metric("start_time_seconds", "gauge", "When it was started.", [("", round(self._started, 3))]),
                *_metric("results_total", "counter", "Results.", [("", self._results)]),
                *_metric("engine_failures_total", "counter", "Runs of the engine that failed.", [("", self._failures)]),
                *_metric("frames_dropped_total", "counter", "Frames that newer ones replaced.", [("", self._dropped)]),
                *_metric("http_connections", "gauge", "Open connections.", [("", connections)]),
                *_metric("queue_images", "gauge", "Images that wait for the engine or are in it.", [("", queue)]),
                *_metric(
                    "http_answers_total",
                    "counter",
                    "HTTP answers by status.",
                    [(_labels({"status": str(status)}), count) for status, count in sorted(self._answers.items())],
                ),
                *self._stages(),
            ]
        return "\n".join(lines) + "\n"

    def _stages(self) -> List[str]:
        lines = [
            "# HELP edgekd_stage_seconds Time in pre-processing, engine and post-processing.",
            "# TYPE edgekd_stage_seconds histogram",
        ]
        for stage in STAGES:
            total = 0
            for le in (*_BUCKETS_S, float("inf")):
                total += self._buckets[stage][le]
                end = "+Inf" if le == float("inf") else f"{le:g}"
                lines.append(f"edgekd_stage_seconds_bucket{_labels({'stage': stage, 'le': end})} {total}")
            lines.append(f"edgekd_stage_seconds_sum{_labels({'stage': stage})} {self._seconds[stage]:.6f}")
            lines.append(f"edgekd_stage_seconds_count{_labels({'stage': stage})} {self._results}")
        return lines


def _metric(name: str, kind: str, about: str, values: List[Tuple[str, float]]) -> List[str]:
    head = [f"# HELP edgekd_{name} {about}", f"# TYPE edgekd_{name} {kind}"]
    return head + [f"edgekd_{name}{labels} {value}" for labels, value in values]


def _labels(values: Dict[str, str]) -> str:
    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in values.items()) + "}"
