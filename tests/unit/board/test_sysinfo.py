"""Facts of a machine, on a file tree made by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgekd.board import sysinfo
from edgekd.board.state import snapshot


def write(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.fixture
def fake_x86(tmp_path: Path) -> str:
    cpu = "sys/devices/system/cpu"
    return write(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU @ 2GHz\n"
            "flags\t\t: fpu avx2 avx512_vnni amx_bf16\n\nprocessor\t: 1\n",
            "proc/meminfo": "MemTotal:        8000 kB\nMemFree: 1 kB\n",
            "proc/loadavg": "0.50 1.25 2.00 1/234 5678\n",
            "etc/os-release": 'NAME="X"\nPRETTY_NAME="X Linux 1"\n',
            f"{cpu}/cpufreq/policy0/scaling_cur_freq": "1800000\n",
            f"{cpu}/cpufreq/policy0/scaling_min_freq": "800000\n",
            f"{cpu}/cpufreq/policy0/scaling_max_freq": "3600000\n",
            f"{cpu}/cpufreq/policy0/scaling_governor": "powersave\n",
            f"{cpu}/cpufreq/policy10/scaling_cur_freq": "-1\n",
            f"{cpu}/cpufreq/policy2/scaling_cur_freq": "<unknown>\n",
            f"{cpu}/intel_pstate/no_turbo": "1\n",
            f"{cpu}/cpu0/thermal_throttle/core_throttle_count": "3\n",
            f"{cpu}/cpu1/thermal_throttle/core_throttle_count": "4\n",
            "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
            "sys/class/thermal/thermal_zone0/temp": "48500\n",
            "sys/class/thermal/thermal_zone1/type": "broken\n",
            "sys/class/thermal/thermal_zone1/temp": "-274000\n",
            "sys/class/thermal/cooling_device0/type": "Processor\n",
            "sys/class/thermal/cooling_device0/cur_state": "2\n",
            "sys/class/thermal/cooling_device1/type": "Fan\n",
            "sys/class/thermal/cooling_device1/cur_state": "0\n",
        },
    )


def test_environment_of_an_x86_host(fake_x86: str) -> None:
    facts = sysinfo.environment(fake_x86)
    assert facts["cpu_model"] == "Some CPU @ 2GHz"
    assert facts["cpu_flags"] == ["avx2", "avx512_vnni", "amx_bf16"]
    assert facts["memory_bytes"] == 8000 * 1024
    assert facts["os"] == "X Linux 1"
    assert facts["logical_cores"] == 2
    assert facts["virtualized"] is False
    assert facts["board_model"] is None


def test_environment_of_an_arm_board(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd42\n",
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano\0",
        },
    )
    facts = sysinfo.environment(root)
    assert facts["board_model"] == facts["cpu_model"] == "NVIDIA Jetson Orin Nano"
    assert facts["cpu_flags"] == ["asimd", "asimddp"]
    assert facts["virtualized"] is None


def test_a_hypervisor_flag_means_virtualized(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/cpuinfo": "flags : fpu hypervisor\n"})
    assert sysinfo.environment(root)["virtualized"] is True


@pytest.mark.parametrize("file", ["core_cpus_list", "thread_siblings_list"])  # since Linux 5.3, and before
def test_hyper_threads_share_a_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    topology = {f"sys/devices/system/cpu/cpu{n}/topology/{file}": f"{n % 2},{n % 2 + 2}\n" for n in range(4)}
    assert sysinfo.usable_cores(write(tmp_path, topology)) == 2


def test_every_core_of_every_arm_cluster_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An RK3588 under Linux 6.1: clusters of 4, 2 and 2 cores, whose core_id begins at 0 in each, one package.
    clusters = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (2, 0), (2, 1)]
    tree = {}
    for cpu, (cluster, core) in enumerate(clusters):
        names = {"physical_package_id": 0, "cluster_id": cluster, "core_id": core, "core_cpus_list": cpu}
        tree |= {f"sys/devices/system/cpu/cpu{cpu}/topology/{name}": f"{value}\n" for name, value in names.items()}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert sysinfo.usable_cores(write(tmp_path, tree)) == 8


@pytest.mark.parametrize(("limit", "quota"), [("150000 100000", 1.5), ("max 100000", None), ("50000 100000", 0.5)])
def test_a_container_quota_limits_the_cores(tmp_path: Path, limit: str, quota: float | None) -> None:
    root = write(tmp_path, {"sys/fs/cgroup/cpu.max": limit + "\n"})
    assert sysinfo.environment(root)["cpu_quota"] == quota
    assert sysinfo.usable_cores(root) == (len(os.sched_getaffinity(0)) if quota is None else 1)


def test_the_tightest_quota_of_the_groups_around_a_process_counts(tmp_path: Path) -> None:
    """As systemd and SLURM set it; the root of control groups has no cpu.max."""
    files = {
        "proc/self/cgroup": "0::/system.slice/job.scope/step\n",
        "sys/fs/cgroup/system.slice/cpu.max": "max 100000\n",
        "sys/fs/cgroup/system.slice/job.scope/cpu.max": "250000 100000\n",
        "sys/fs/cgroup/system.slice/job.scope/step/cpu.max": "400000 100000\n",
    }
    assert sysinfo.environment(write(tmp_path / "v2", files))["cpu_quota"] == 2.5
    files = {
        "proc/self/cgroup": "5:memory:/slurm\n4:cpuset,cpu,cpuacct:/slurm/job\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu/slurm/job/cpu.cfs_quota_us": "200000\n",
        "sys/fs/cgroup/cpu/slurm/job/cpu.cfs_period_us": "100000\n",
    }
    assert sysinfo.environment(write(tmp_path / "v1", files))["cpu_quota"] == 2.0


def test_this_machine_can_be_read_and_written_as_json() -> None:
    facts = {**sysinfo.environment(), **snapshot()}
    assert json.loads(json.dumps(facts)) == facts
    assert 1 <= facts["usable_cores"] <= facts["logical_cores"]


def test_the_power_mode_changes_with_what_a_person_sets_and_not_with_heat(tmp_path: Path) -> None:
    assert sysinfo.power_mode(str(tmp_path)) == {"governors": [], "raised": [], "turbo": None}
    policy = tmp_path / "sys/devices/system/cpu/cpufreq/policy0"
    policy.mkdir(parents=True)
    files = {
        policy / "scaling_governor": "schedutil\n",
        policy / "scaling_min_freq": "2201600\n",  # as jetson_clocks leaves it
        policy / "cpuinfo_min_freq": "115200\n",
        policy / "scaling_max_freq": "2201600\n",
    }
    for path, text in files.items():
        path.write_text(text)
    before = sysinfo.power_mode(str(tmp_path))
    assert before == {"governors": ["schedutil"], "raised": [True], "turbo": None}
    for name in ("min", "max"):  # the kernel lowers both
        (policy / f"scaling_{name}_freq").write_text("729600\n")
    assert sysinfo.power_mode(str(tmp_path)) == before
    for path, text in (
        (policy / "scaling_min_freq", "115200\n"),
        (tmp_path / "sys/class/devfreq/fdab0000.npu/governor", "performance\n"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        mode = sysinfo.power_mode(str(tmp_path))
        assert mode != before
        before = mode
