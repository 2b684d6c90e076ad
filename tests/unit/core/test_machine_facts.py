"""Facts of the machine: edgekd's own, and those that the targets add."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from edgekd.core import machine_facts

# What manifests and benches of the first version held.
RUNTIMES = {
    *(
        "onnxruntime",
        "onnxruntime-gpu",
        "onnxruntime-openvino",
        "openvino",
        "tensorrt",
        "tensorrt-cu12",
        "tensorrt-cu13",
    ),
    *("tensorrt-rtx-cu12", "rknn-toolkit2", "rknn-toolkit-lite2"),
}


def write(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return str(root)


def test_a_jetson_has_nvidias_facts_beside_the_others(tmp_path: Path) -> None:
    files = {
        "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA L4\nIRQ: 1\n",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.0\nmore\n",
        "var/lib/nvpmodel/status": "pmode:0002\n",
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=15W >\n",
    }
    root = write(tmp_path, files)
    facts = machine_facts.environment(root)
    assert (facts["gpus"], facts["gpu_driver"]) == (["NVIDIA L4"], "# R36 (release), REVISION: 4.0")
    assert facts["cpu_model"] is None
    mode = machine_facts.power_mode(root)
    nvidias = {"nvpmodel": "pmode:0002", "nvpmodel_name": "15W"}
    assert mode == {"governors": [], "raised": [], "turbo": None, **nvidias}


def test_without_nvidias_driver_the_facts_are_there_and_none(tmp_path: Path) -> None:
    facts = machine_facts.environment(str(tmp_path))
    assert (facts["gpus"], facts["gpu_driver"]) == (None, None)
    assert machine_facts.power_mode(str(tmp_path))["nvpmodel"] is None


def test_a_latency_names_every_runtime_and_a_manifest_what_is_installed() -> None:
    assert set(machine_facts.runtime_versions()) == RUNTIMES
    installed = machine_facts.package_versions()
    modules = ("numpy", "onnx", "openvino", "nncf", "onnxruntime")
    assert set(installed) >= {name for name in modules if find_spec(name)}
    assert "rknn-toolkit2" not in installed
