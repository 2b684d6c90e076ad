"""Which chip a board has, by what its device tree and its processor say."""

from __future__ import annotations

import pytest

from edgekd.core.chips import recognize


@pytest.mark.parametrize(
    ("machine", "compatible", "chip"),
    [
        ("aarch64", ["nvidia,p3768-0000+p3767-0005", "nvidia,p3767-0005", "nvidia,tegra234"], "jetson-orin"),
        ("aarch64", ["nvidia,p3834-0008", "nvidia,tegra264"], "jetson-thor"),
        ("aarch64", ["radxa,rock-5b", "rockchip,rk3588"], "rk3588"),
        ("aarch64", ["radxa,rock-5a", "rockchip,rk3588s"], "rk3588"),
        ("aarch64", ["raspberrypi,5-model-b", "brcm,bcm2712"], "raspberry-pi-5"),
        ("aarch64", ["nvidia,p2972-0000", "nvidia,tegra194"], "arm64"),
        ("aarch64", [], "arm64"),
        ("x86_64", [], "x86-64"),
        ("riscv64", ["starfive,jh7110"], None),
    ],
)
def test_a_board_is_known_by_its_device_tree_then_by_its_processor(
    machine: str, compatible: list[str], chip: str | None
) -> None:
    assert recognize(machine, compatible) == chip
