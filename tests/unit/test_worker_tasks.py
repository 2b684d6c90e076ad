"""Tasks of a worker: an engine that its vendor's runtime breaks is left out of the bench, and the others are measured."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest

from edgekd.board.bench import BenchSettings
from edgekd.board.job import Job
from edgekd.board.long_runs import LongRunSettings
from edgekd.board.options import option
from edgekd.errors import TargetError
from edgekd.targets.base import CompileRequest, CompileResult, SessionBase, Target, TargetInfo
from edgekd.worker_tasks import TASKS
from tests.unit.core.fake_stages import SPEC

FAULTS = {"vendor": RuntimeError("device\nlost"), "refusal": TargetError("of another version")}


@dataclass(frozen=True)
class Options:
    """Which of `FAULTS` a run raises; "" for none."""

    fault: str = option("", "The fault.")


class Session(SessionBase):
    """Zeros, or a fault."""

    options: Options

    def _open(self) -> None:
        self.runtime = {"runtime": "zeros", "version": "1"}

    def _infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self.options.fault:
            raise FAULTS[self.options.fault]
        return {one.name: np.zeros(one.shape, one.dtype) for one in self.spec.outputs}


def build_engine(request: CompileRequest) -> CompileResult:
    raise AssertionError("nothing is built here")


INFO = TargetInfo(".bin", "host", "", ("fp32",), "")
TARGET = Target(INFO, Options, Session, lambda: "1", build_engine)


OFF = LongRunSettings()


def bench_of(folder: Path, *faults: str, longer: LongRunSettings = OFF) -> dict:
    """Return the value of a bench of one engine for each fault."""
    np.save(folder / "image.npy", np.zeros((64, 96, 3), np.uint8))
    (folder / "engine").touch()
    described = {"module": __name__, "engine": "engine", "spec": SPEC.to_dict()}
    engines = {f"{fault or 'good'}-engine": {**described, "options": {"fault": fault}} for fault in faults}
    settings = asdict(BenchSettings(min_samples=2, min_seconds=0.0, warmup_max_seconds=0.0))
    files = {"image": str(folder / "image.npy"), "engine": str(folder / "engine")}
    arguments = {"engines": engines, "images": ["image"], "settings": settings, "long_runs": asdict(longer)}
    job = Job("measure", "", arguments, files=files, out_dir=str(folder))
    return TASKS["measure"](job, lambda what, fraction: None)


def test_an_engine_that_does_not_run_leaves_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    value = bench_of(tmp_path, "vendor", "", "refusal")
    assert list(value["rows"]) == ["good-engine"]
    assert value["failures"] == {"vendor-engine": "RuntimeError: device lost", "refusal-engine": "of another version"}
    shown = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [(one.getMessage(), one.exc_info is not None) for one in shown] == [("vendor-engine is not measured", True)]


def test_without_an_engine_that_runs_all_reasons_are_told(tmp_path: Path) -> None:
    with pytest.raises(
        TargetError, match="vendor-engine: RuntimeError: device lost; refusal-engine: of another version"
    ):
        bench_of(tmp_path, "vendor", "refusal")


def test_the_bench_times_the_decoding_of_image_files_and_a_process_of_the_engines_own(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.zeros((64, 96, 3), np.uint8))
    (tmp_path / "engine").touch()
    files = {"image": str(tmp_path / "image.npy"), "engine": str(tmp_path / "engine")}
    engine = {"module": __name__, "engine": "engine", "spec": SPEC.to_dict(), "options": {"fault": ""}}
    arguments = {
        "engines": {"good": engine},
        "images": ["image"],
        "settings": asdict(BenchSettings(min_samples=2, min_seconds=0.0, warmup_max_seconds=0.0)),
        "decode": {"function": "numpy:load", "images": ["image"]},
        "long_runs": {},
    }
    value = TASKS["measure"](Job("measure", "", arguments, files=files, out_dir=str(tmp_path)), lambda *_: None)
    row = value["rows"]["good"]
    assert list(row["stages_ms"]) == ["decode", "prepare", "engine", "result"]
    assert row["sums_ms"]["file_in"] > row["sums_ms"]["array_in"]
    assert row["footprint"]["load_ms"] > 0
    assert row["footprint"]["peak_bytes"] >= row["footprint"]["base_bytes"] > 0


def test_long_runs_are_in_the_rows_and_files_only_when_asked_for(tmp_path: Path) -> None:
    value = bench_of(tmp_path, "")
    assert not {"energy", "sustained"} & set(value["rows"]["good-engine"])
    assert not (tmp_path / "long_runs.json").exists()
    assert set(value["state"]) == {"before", "after"}
    assert value["state"]["before"]["readings"] is not None
    value = bench_of(tmp_path, "", longer=LongRunSettings(sustained_seconds=0.3))
    row = value["rows"]["good-engine"]
    assert row["sustained"]["runs"] > 1
    assert row["sustained"]["seconds"] > 0.299
    written = json.loads((tmp_path / "long_runs.json").read_text())
    assert written["rows"]["good-engine"]["sustained"] == row["sustained"]
    assert written["rows"]["good-engine"]["timeline"]["second"] == [0]
    assert "energy" not in row


def test_a_sampler_that_fails_costs_the_long_runs_and_not_the_bench(tmp_path: Path) -> None:
    (tmp_path / "sensors.jsonl").mkdir()  # it cannot write its file
    row = bench_of(tmp_path, "", longer=LongRunSettings(sustained_seconds=0.3))["rows"]["good-engine"]
    assert row["latency_ms"]["n"] >= 2
    assert "energy and sustained latency are not measured: the sampler of sensors did not start" in row["warnings"][-1]
