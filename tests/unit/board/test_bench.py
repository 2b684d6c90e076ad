"""The bench on a session made by hand and on real engines: what is timed, what is kept, what is written."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekd.board import timing
from edgekd.board.bench import BenchSettings, _slowed, bench
from edgekd.board.bench_files import load, save
from edgekd.board.footprint import Footprint
from edgekd.board.specs import ModelSpec
from edgekd.errors import ArtifactError, DataError
from edgekd.targets.base import CompileRequest
from edgekd.targets.onnxruntime import target as onnxruntime
from tests.small_nets import CLASSES, images, prepared, segmenter

QUICK = BenchSettings(min_samples=60, min_seconds=0.0, warmup_max_seconds=0.2)


@dataclass
class Recorder:
    """A session that keeps the first inputs it was given and answers with zeros."""

    spec: ModelSpec
    runtime: dict[str, Any] = field(default_factory=lambda: {"runtime": "by hand"})
    seen: list[np.ndarray] = field(default_factory=list)

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(self.seen) < 100:
            self.seen.append(inputs["image"])
        return {"logits": np.zeros((1, len(CLASSES), 32, 48), np.float32)}


def test_both_series_rotate_all_images_prepared_as_the_contract_says() -> None:
    session = Recorder(segmenter()[1])
    pictures = images(3)
    bench({"a": session}, pictures, QUICK)
    expected = [prepared(session.spec, image)["image"] for image in pictures]
    for i, given in enumerate(session.seen[:9]):
        np.testing.assert_allclose(given, expected[i % 3], atol=1e-6)
    # Engine time reuses three arrays made beforehand; wall time prepares anew for every run.
    addresses = [array.ctypes.data for array in session.seen[:9]]
    assert addresses[:3] == addresses[3:6] == addresses[6:9]
    assert {array.shape for array in session.seen} == {(1, 3, 32, 48)}


def test_results_hold_the_raw_runs_their_summary_and_the_machine() -> None:
    sessions = {"a": Recorder(segmenter()[1]), "b": Recorder(segmenter()[1])}
    results = bench(sessions, images(2), QUICK)
    assert list(results) == ["a", "b"]
    for result in results.values():
        for measured in (result.engine, result.wall):
            assert len(measured.series.samples_ns) == len(measured.series.starts_ns) == measured.summary_ms["n"] >= 60
            assert measured.summary_ms == timing.summarize(measured.series.samples_ns)
            assert {"p50", "p90", "n"} <= set(measured.summary_ms)
            assert measured.warm_up.runs >= 20
        assert result.throughput_fps == pytest.approx(1e9 / result.engine.series.samples_ns.mean())
        assert result.runtime == {"runtime": "by hand"}
        assert result.images == {"count": 2, "sizes": [[32, 48]]}
        assert "load_average" in result.before
        assert set(result.row()) == {
            "latency_ms",
            "wall_ms",
            "stages_ms",
            "sums_ms",
            "footprint",
            "throughput_fps",
            "stream_fps",
            "runtime",
            "warnings",
        }


def test_the_stages_of_a_run_add_up_to_its_wall_time() -> None:
    decoded: list[int] = []
    sessions = {"a": Recorder(segmenter()[1])}
    result = bench(sessions, images(2), QUICK, decode=lambda: decoded.append(1))["a"]
    wall = result.wall.series
    assert wall.parts_ns.shape == (len(wall.samples_ns), 3)
    between = wall.samples_ns - wall.parts_ns.sum(axis=1)  # two readings of the clock, and a call
    assert between.min() >= 0
    assert np.median(between) < 0.2 * np.median(wall.samples_ns)
    stages = result.stages_ms()
    assert list(stages) == ["decode", "prepare", "engine", "result"]
    assert stages["prepare"] == timing.summarize(wall.parts_ns[:, 0])
    assert result.decode is not None
    assert decoded
    sums = result.sums_ms()
    assert sums["array_in"] == result.wall.summary_ms["p50"]
    assert sums["file_in"] == pytest.approx(sums["array_in"] + stages["decode"]["p50"])


def test_without_files_there_is_no_decoding() -> None:
    result = bench({"a": Recorder(segmenter()[1])}, images(1), QUICK)["a"]
    assert list(result.stages_ms()) == ["prepare", "engine", "result"]
    assert list(result.sums_ms()) == ["array_in"]


def test_engines_take_turns() -> None:
    sessions = {"a": Recorder(segmenter()[1]), "b": Recorder(segmenter()[1])}
    results = bench(sessions, images(1), BenchSettings(1, 0.5, 0.1))  # three rounds or more: a burst is 0.2 s at most
    first = {name: result.engine.series.starts_ns for name, result in results.items()}
    assert first["a"][0] < first["b"][-1]
    assert first["b"][0] < first["a"][-1]


def test_what_is_saved_is_loaded_back(tmp_path: Path) -> None:
    measured = bench({"openvino-int8": Recorder(segmenter()[1])}, images(1), QUICK, decode=lambda: None)[
        "openvino-int8"
    ]
    before = replace(measured, footprint=Footprint(12.5, 1.5, 30 << 20, None))
    save({"openvino-int8": before}, tmp_path)
    loaded = load(tmp_path)["openvino-int8"]
    for kind in ("engine", "wall", "decode"):
        kept, made = getattr(loaded, kind), getattr(before, kind)
        assert np.array_equal(kept.series.samples_ns, made.series.samples_ns)
        assert np.array_equal(kept.series.starts_ns, made.series.starts_ns)
        assert np.array_equal(kept.series.bursts, made.series.bursts)
        assert np.array_equal(kept.series.parts_ns, made.series.parts_ns)
        assert (kept.summary_ms, kept.cv, kept.drift, kept.warm_up) == (
            made.summary_ms,
            made.cv,
            made.drift,
            made.warm_up,
        )
    assert loaded.row() == before.row()
    assert (loaded.images, loaded.before, loaded.after) == (before.images, before.before, before.after)
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as archive:
        assert archive["openvino-int8/engine_ns"].dtype == np.int64


def test_damaged_results_are_refused(tmp_path: Path) -> None:
    save(bench({"a": Recorder(segmenter()[1])}, images(1), QUICK), tmp_path)
    data = json.loads((tmp_path / "bench.json").read_text())
    (tmp_path / "bench.json").write_text(json.dumps({**data, "schema": "else"}))
    with pytest.raises(ArtifactError, match=r"expected schema edgekd\.bench/2, got 'else'"):
        load(tmp_path)
    (tmp_path / "bench.json").write_text(json.dumps({**data, "rows": {"b": data["rows"]["a"]}}))
    with pytest.raises(ArtifactError, match="row b"):
        load(tmp_path)
    (tmp_path / "samples.npz").write_bytes(b"PK not a zip")
    with pytest.raises(ArtifactError, match="run the bench again"):
        load(tmp_path)


def test_a_bench_without_images_is_refused() -> None:
    with pytest.raises(DataError, match="no images"):
        bench({"a": Recorder(segmenter()[1])}, [], QUICK)


def test_wall_time_includes_engine_time_on_a_real_engine(tmp_path: Path) -> None:
    net, spec = segmenter()
    onnx.save(net, tmp_path / "model.onnx")
    request = CompileRequest(tmp_path / "model.onnx", spec, "fp32", tmp_path, onnxruntime.Options())
    engine = onnxruntime.build_engine(request).engine
    larger = [np.kron(image, np.ones((4, 4, 1), np.uint8)) for image in images(2)]
    with onnxruntime.Session(engine, spec, onnxruntime.Options()) as session:
        (result,) = bench({"onnxruntime-fp32": session}, larger, QUICK).values()
    assert result.wall.summary_ms["min"] > result.engine.summary_ms["min"]
    assert result.runtime["runtime"] == "onnxruntime"


def test_lost_speed_is_told_apart_from_a_fan() -> None:
    def state(max_khz: int, cooling: list[str], throttled: int | None = None) -> dict[str, Any]:
        counts = None if throttled is None else {"core_throttle_count": throttled}
        policy = {"policy": "policy0", "max_khz": max_khz}
        return {"cpufreq": [policy], "cooling_active": cooling, "throttle_counts": counts}

    quiet = state(2_400_000, ["pwm-fan"])
    assert _slowed(quiet, state(2_400_000, ["pwm-fan", "pwm-fan"])) == []
    nothing = {"cpufreq": None, "cooling_active": None, "throttle_counts": None}
    assert _slowed(nothing, nothing) == []
    assert _slowed(quiet, state(816_000, ["pwm-fan", "thermal-cpufreq-0"])) == [
        "the highest clock that policy0 may have fell from 2400 to 816 MHz",
        "the kernel's cooling came on during the run: thermal-cpufreq-0",
    ]
    hot = state(816_000, ["thermal-cpufreq-0"])  # by what ran before
    assert _slowed(hot, hot) == ["the kernel's cooling was on before the run: thermal-cpufreq-0"]
    laptop = state(816_000, ["LCD", "TCC Offset"])
    assert _slowed(laptop, laptop) == []
    assert _slowed(state(1, [], 3), state(1, [], 5)) == ["the processor throttled during the run"]
