"""The sampler as a real process on a recorded machine whose files change."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.board.sampling import Sampler, Samples, load_samples
from edgekd.errors import ArtifactError
from tests.recorded_tree import make_tree


def wait_for(sampler: Sampler, is_there: Callable[[Samples], bool]) -> Samples:
    """Return the samples as soon as they hold what is waited for."""
    for _ in range(1000):
        samples = sampler.read()
        if is_there(samples):
            return samples
        time.sleep(0.02)
    raise AssertionError(f"not within 20 s: {samples}")


def count(samples: Samples, key: str) -> int:
    return len(samples.series[key].values)


def test_values_follow_the_files_with_the_times_of_the_bench(tmp_path: Path) -> None:
    root = make_tree("jetson-orin", tmp_path / "root")
    current = tmp_path / "root/sys/class/hwmon/hwmon4/curr1_input"
    began = time.perf_counter_ns()
    with Sampler(tmp_path, hz=10, root=root) as sampler:
        wait_for(sampler, lambda samples: count(samples, "power_w/VDD_IN") >= 2)
        changed = time.perf_counter_ns()
        current.write_text("2000\n")
        wait_for(sampler, lambda samples: samples.series["power_w/VDD_IN"].values[-1] == 10.08)  # 5.040 V * 2 A
    samples = sampler.read()
    series = samples.series["power_w/VDD_IN"]
    assert set(series.values) == {7.4592, 10.08}
    assert series.values[0] == 7.4592
    assert list(series.times_ns) == sorted(series.times_ns)
    assert began < series.times_ns[0] < changed < series.times_ns[-1] < time.perf_counter_ns()
    assert series.times_ns[np.flatnonzero(series.values == 10.08)[0]] > changed
    assert samples.hz == 10
    assert np.isnan(samples.series["temp_c/cv0-thermal"].values).all()
    assert "nothing at" in samples.unreadable["energy_j"]


def test_slow_sensors_are_read_once_a_second(tmp_path: Path) -> None:
    root = make_tree("intel-core-ultra", tmp_path / "root")
    with Sampler(tmp_path, hz=10, root=root) as sampler:
        samples = wait_for(sampler, lambda samples: count(samples, "busy_s/npu") >= 2)
    times = samples.series["busy_s/npu"].times_ns
    assert np.diff(times).min() >= 0.999e9
    assert count(samples, "energy_j/package-0") > 2 * count(samples, "busy_s/npu")


def test_a_paused_sampler_reads_nothing_and_goes_on(tmp_path: Path) -> None:
    root = make_tree("rk3588", tmp_path / "root")
    key = "temp_c/npu-thermal"
    with Sampler(tmp_path, hz=10, root=root) as sampler:
        wait_for(sampler, lambda samples: count(samples, key) >= 2)
        sampler.pause()
        time.sleep(0.3)  # a reading under way ends
        before = count(sampler.read(), key)
        time.sleep(0.5)
        assert count(sampler.read(), key) == before
        sampler.resume()
        wait_for(sampler, lambda samples: count(samples, key) >= before + 2)


def test_it_runs_at_the_lowest_priority_on_one_cpu(tmp_path: Path) -> None:
    with Sampler(tmp_path, root=make_tree("vm", tmp_path / "root")) as sampler:
        process = sampler._process.pid
        assert os.getpriority(os.PRIO_PROCESS, process) == 19
        assert os.sched_getaffinity(process) == {sampler.cpu}


def test_it_ends_with_the_process_that_started_it_also_when_paused(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom edgekd.board.sampling import Sampler\n"
        "with Sampler(Path(sys.argv[1]), root=sys.argv[2]) as sampler:\n"
        "    sampler.pause()\n    print(sampler._process.pid, flush=True)\n    os._exit(1)\n"
    )
    root = make_tree("vm", tmp_path / "root")
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path), root], capture_output=True, text=True)
    for _ in range(1000):
        if not is_running(int(done.stdout)):
            return
        time.sleep(0.02)
    pytest.fail("the sampler still runs after 20 s")


def is_running(process: int) -> bool:
    """Whether a process is there and no zombie, which stays where nobody waits for it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_cut_last_line_is_left_out_and_a_foreign_file_refused(tmp_path: Path) -> None:
    file = tmp_path / "sensors.jsonl"
    channel = '{"name": "a", "quantity": "power_w", "group": "", "origin": "/x", "wraps_at": null}'
    head = f'{{"schema": "edgekd.sensors/1", "hz": 5.0, "sources": [[{channel}]], "unreadable": {{}}}}\n'
    file.write_text(head + "[0, 100, 120, [1.5]]\n[0, 200, 220, [null]]\n[0, 300, 3")
    series = load_samples(file).series["power_w/a"]
    assert list(series.times_ns) == [110, 210]
    assert np.array_equal(series.values, [1.5, np.nan], equal_nan=True)
    assert list(series.between(0, 250).values) == [1.5]
    for text in ("", "{}\n", head.replace("sensors/1", "sensors/9"), head + "[7, 1, 1, []]\n"):
        file.write_text(text)
        with pytest.raises(ArtifactError, match=r"sensors\.jsonl"):
            load_samples(file)
