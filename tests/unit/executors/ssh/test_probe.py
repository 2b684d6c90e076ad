"""What is read from the probe's answer, and the checks that follow from it."""

from __future__ import annotations

import pytest

from edgekd.core.inventory import Board
from edgekd.errors import BoardError
from edgekd.executors.ssh.checks import checks_of
from edgekd.executors.ssh.probe import parse

ORIN = """\
Welcome to the lab!
edgekd-probe 1
kernel Linux
machine aarch64
os Ubuntu 22.04.5 LTS
model NVIDIA Jetson Orin Nano Developer Kit
compatible nvidia,p3768-0000+p3767-0005 nvidia,p3767-0005 nvidia,tegra234
python 3.10.12 python3
numpy 1.26.4
distribution tensorrt 10.3.0
folder /home/me/.cache/edgekd
free_kb 20000000
mount_options rw,relatime
now 1700000003
boot 0b1c
load 0.10 0.20 0.30 1/300 4242
end
"""


def found(changes: dict[str, str] | None = None, **entry: object) -> dict[str, tuple[str, str, str]]:
    """Return name -> (state, text, remedy) of the checks of ORIN with some lines changed."""
    text = ORIN
    for old, new in (changes or {}).items():
        assert old in text
        text = text.replace(old, new)
    board = Board.model_validate({"name": "orin", "ssh": "orin", "chip": "jetson-orin", **entry})
    return {one.name: (one.state, one.text, one.remedy) for one in checks_of(board, parse("orin", text, 1700000000.0))}


def test_a_board_that_is_well_has_no_remedy() -> None:
    checks = found()
    assert {state for state, _, _ in checks.values()} == {"ok"}
    assert not any(remedy for _, _, remedy in checks.values())
    assert checks["python"][1] == "3.10.12, python3"
    assert checks["chip"][1] == "jetson-orin (NVIDIA Jetson Orin Nano Developer Kit)"
    assert checks["disk"][1] == "20.5 GB free"


def test_the_answer_is_read_after_what_a_login_shell_prints() -> None:
    facts = parse("orin", ORIN, 1700000000.0)
    assert facts.skew_s == 3
    assert facts.distributions == {"tensorrt": "10.3.0"}
    assert facts.free_bytes == 20_480_000_000
    assert (facts.holder, facts.lacks, facts.unwritable) == ("", (), "")


@pytest.mark.parametrize("text", ["", "no such shell", ORIN.replace("end\n", "")])
def test_another_answer_is_a_board_error(text: str) -> None:
    with pytest.raises(BoardError, match="board orin: expected the answer of edgekd's probe, got"):
        parse("orin", text, 0)


def test_a_hostile_answer_is_cut_and_has_no_control_characters() -> None:
    facts = parse("orin", ORIN.replace("NVIDIA Jetson", "\x1b[2J" + "x" * 10_000), 0)
    assert facts.model.startswith("xxx")
    assert len(facts.model) < 600


@pytest.mark.parametrize(
    ("changes", "name", "state", "text", "remedy"),
    [
        ({"kernel Linux": "kernel Darwin"}, "system", "wrong", "expected Linux, got Darwin", ""),
        ({"folder": "lacks flock\nlacks xargs\nfolder"}, "commands", "wrong", "not there: flock, xargs",
         "on the board: sudo apt install findutils util-linux"),
        ({"python 3.10.12 python3\nnumpy 1.26.4\n": ""}, "python", "wrong", "python3: not there; expected 3.8 or newer",
         "on the board: sudo apt install python3 python3-numpy"),
        ({"python 3.10.12 python3": "python 3.6.9 python3"}, "python", "wrong",
         "python3 is 3.6.9; expected 3.8 or newer",
         "on the board: sudo apt install python3.8 (JetPack 4), or a newer system image"),
        ({"python 3.10.12 python3": "python 3.6.9 python3\npython 3.8.0 python3.8"}, "python", "wrong",
         "python3 is 3.6.9; python3.8 is 3.8.0 and would do", "in the inventory: orin: python: python3.8"),
        ({"numpy 1.26.4\n": ""}, "numpy", "wrong", "python3 has none",
         "on the board: sudo apt install python3-numpy, or python3 -m pip install numpy"),
        ({"nvidia,tegra234": "nvidia,tegra264"}, "chip", "wrong", "expected jetson-orin, got jetson-thor",
         "check that orin is the right board; in the inventory: orin: chip: jetson-thor"),
        ({"folder /home": "unwritable /home\nfolder /home"}, "folder", "wrong", "/home is not writable", "folder: a folder"),
        ({"rw,relatime": "rw,noexec"}, "folder", "wrong", "its disk is mounted noexec", "in the inventory: orin: folder:"),
        ({"free_kb 20000000": "free_kb 1000"}, "disk", "wrong", "0.0 GB free, expected 0.5 GB", "make room"),
        ({"now 1700000003": "now 1699740800"}, "clock", "note", "259200 s behind this machine's", "set-ntp true"),
        ({"end": "held ada@lab, since 10:00\nend"}, "lock", "note", "held by ada@lab, since 10:00", "edgekd board cancel orin"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_to_type(
    changes: dict[str, str], name: str, state: str, text: str, remedy: str
) -> None:
    got = found(changes)[name]
    assert got[0] == state
    assert text in got[1]
    assert remedy in got[2]


def test_a_python_that_the_inventory_has_by_now_is_right() -> None:
    tried = {"python 3.10.12 python3": "python 3.6.9 python3\npython 3.8.0 python3.8"}
    assert found(tried, python="python3.8")["python"][:2] == ("ok", "3.8.0, python3.8")


def test_a_chip_that_edgekd_does_not_know_is_a_note_unless_the_inventory_names_one() -> None:
    unknown = {"machine aarch64": "machine riscv64", "nvidia,tegra234": "starfive,jh7110"}
    assert found(unknown, chip=None)["chip"][:2] == (
        "note",
        "none that edgekd knows (NVIDIA Jetson Orin Nano Developer Kit)",
    )
    assert found(unknown)["chip"][0] == "wrong"
