"""`edgekd board` on real sshds: what it prints, what it writes, how it ends, and what is left."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgekd.errors import BoardError
from tests.boards.fixtures import SshdBoard, StartBoard
from tests.boards.scripted import executor, run, wait_until

pytestmark = pytest.mark.slow
KnowHosts = Callable[..., None]
Done = subprocess.CompletedProcess[str]


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that an inventory of this test's own would be in."""
    path = tmp_path / "boards.yaml"
    monkeypatch.setenv("EDGEKD_BOARDS", str(path))
    return path


def edgekd_board(*arguments: str) -> Done:
    """Run `edgekd board` in this process's environment, as a shell would; it loads no framework."""
    return subprocess.run(
        [sys.executable, "-m", "edgekd.cli.main", "board", *arguments], capture_output=True, text=True
    )


def lines_of(done: Done) -> dict[str, tuple[str, str]]:
    """Return name -> (state, text) of printed checks."""
    rows = [line for line in done.stdout.splitlines() if line.startswith(("ok ", "note ", "wrong "))]
    return {row[8:28].strip(): (row[:7].strip(), row[29:]) for row in rows}


def checks_of(name: str) -> dict[str, tuple[str, str, str]]:
    """Return name -> (state, text, remedy) of `edgekd board doctor`."""
    return {
        one["name"]: (one["state"], one["text"], one["remedy"])
        for one in json.loads(edgekd_board("doctor", name, "--json").stdout)
    }


def test_a_board_is_added_listed_examined_and_removed(
    loopback_board: SshdBoard, ssh_to: KnowHosts, inventory: Path
) -> None:
    ssh_to(loopback_board)
    added = edgekd_board("add", "lab", "board")
    assert added.returncode == 0, added.stderr
    assert {state for state, _ in lines_of(added).values()} == {"ok"}
    assert added.stdout.splitlines()[-2:] == [str(inventory), "next: edgekd run quickstart --board lab"]
    assert inventory.read_text() == ("schema: edgekd.boards/1\nboards:\n  lab:\n    ssh: board\n    chip: x86-64\n")

    (row,) = json.loads(edgekd_board("list", "--json").stdout)
    assert (row["name"], row["ssh"], row["chip"], row["state"]) == ("lab", "board", "x86-64", "free")
    assert "onnxruntime" in row["runtimes"]

    checks = checks_of("lab")
    assert checks["runtime onnxruntime"][0] == "ok"
    assert {state for state, _, _ in checks.values()} <= {"ok", "note"}
    assert edgekd_board("doctor", "lab").returncode == 0

    assert edgekd_board("cancel", "lab").stdout == "no job runs on lab\n"
    assert "edgekd" in loopback_board.run("ls .cache")
    assert edgekd_board("remove", "lab", "--clean").stdout == f"{inventory}\n"
    assert loopback_board.run("ls -A .cache") == ""
    assert "has no boards; add one" in edgekd_board("list").stdout


def test_a_board_without_python_is_added_with_what_to_install_and_is_not_ready(
    start_board: StartBoard, ssh_to: KnowHosts, inventory: Path
) -> None:
    board = start_board("--python", "none")
    ssh_to(board)
    added = edgekd_board("add", "bare", "board")
    assert lines_of(added)["python"] == ("wrong", "python3: not there; expected 3.8 or newer")
    assert "-> on the board: sudo apt install python3 python3-numpy" in added.stdout
    assert added.stdout.splitlines()[-1] == "next: mend this; edgekd board doctor bare"
    assert edgekd_board("doctor", "bare").returncode == 2
    assert board.run("ls -A") == ""  # a probe writes nothing


def test_a_board_that_is_off_is_not_added_and_says_what_to_try(
    start_board: StartBoard, ssh_to: KnowHosts, inventory: Path
) -> None:
    board = start_board()
    ssh_to(board)
    board.down()
    added = edgekd_board("add", "off", "board")
    assert added.returncode == 2
    assert "edgekd: board off: unreachable" in added.stderr
    assert "try: ssh board" in added.stderr
    assert not inventory.exists()


def test_one_board_that_is_off_does_not_hide_the_others(
    loopback_board: SshdBoard, start_board: StartBoard, ssh_to: KnowHosts, inventory: Path
) -> None:
    board = start_board(host="other")
    ssh_to(loopback_board, board)
    board.down()
    inventory.write_text("schema: edgekd.boards/1\nboards: {lab: {ssh: board}, dark: {ssh: other}}\n")
    rows = {row["name"]: row["state"] for row in json.loads(edgekd_board("list", "--json").stdout)}
    assert rows["lab"] == "free"
    assert rows["dark"].startswith("unreachable")
    assert checks_of("dark").keys() == {"ssh"}


@pytest.mark.parametrize(("key", "advice"), [("", "accept it once: ssh board"), ("changed", "host key has changed")])
def test_an_unknown_or_changed_host_key_is_refused_and_said(
    start_board: StartBoard, ssh_to: KnowHosts, inventory: Path, key: str, advice: str
) -> None:
    board = start_board()
    ssh_to(board)
    known = board.folder / "known_hosts"
    other = (board.folder / "key.pub").read_text().split()[1]
    known.write_text(f"{known.read_text().split()[0]} ssh-ed25519 {other}\n" if key else "")
    added = edgekd_board("add", "lab", "board")
    assert added.returncode == 2
    assert advice in added.stderr
    assert not inventory.exists()


def test_another_chip_than_the_inventorys_is_wrong(
    loopback_board: SshdBoard, ssh_to: KnowHosts, inventory: Path
) -> None:
    ssh_to(loopback_board)
    inventory.write_text("schema: edgekd.boards/1\nboards: {orin: {ssh: board, chip: jetson-orin}}\n")
    state, text, remedy = checks_of("orin")["chip"]
    assert (state, text.partition(" (")[0]) == ("wrong", "expected jetson-orin, got x86-64")
    assert "check that board is the right board" in remedy


def test_who_holds_a_board_is_said_and_nothing_is_run_on_it(
    start_board: StartBoard, ssh_to: KnowHosts, inventory: Path
) -> None:
    board = start_board()
    ssh_to(board)
    inventory.write_text("schema: edgekd.boards/1\nboards: {lab: {ssh: board}}\n")
    board.run(
        "mkdir -p .cache/edgekd && cd .cache/edgekd && printf '%s\\n' key 'ada@lab: measure' >holder && "
        "{ setsid flock lock sleep 60 </dev/null >/dev/null 2>&1 & } && sleep 0.5"
    )
    (row,) = json.loads(edgekd_board("list", "--json").stdout)
    assert row["state"] == "held by ada@lab: measure"
    checks = checks_of("lab")
    assert checks["lock"] == ("note", "held by ada@lab: measure", "edgekd board cancel lab   # ends that job")
    assert checks["runtimes"][0] == "note"
    removed = edgekd_board("remove", "lab", "--clean")
    assert removed.returncode == 2
    assert "ada@lab: measure uses it" in removed.stderr
    assert json.loads(edgekd_board("list", "--json").stdout)  # it stays in the inventory


def test_cancel_ends_the_job_of_another_process_and_says_whose_it_was(
    loopback_board: SshdBoard, ssh_to: KnowHosts, inventory: Path, tmp_path: Path
) -> None:
    ssh_to(loopback_board)
    inventory.write_text("schema: edgekd.boards/1\nboards: {lab: {ssh: board}}\n")
    with executor(loopback_board, "sleep 120") as there, ThreadPoolExecutor(1) as pool:
        job = pool.submit(run, there, tmp_path)
        wait_until(lambda: "held by" in edgekd_board("list").stdout)
        assert "onnxruntime probe" in edgekd_board("cancel", "lab").stdout
        with pytest.raises(BoardError, match="was ended by `edgekd board cancel board`"):
            job.result()
    assert "sleep 120" not in loopback_board.run("ps -e -o args")


def test_the_inventory_can_be_named_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("schema: edgekd.boards/1\n")
    command = [sys.executable, "-m", "edgekd.cli.main", "--boards", str(tmp_path / "lab.yaml"), "board", "list"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == f"{tmp_path / 'lab.yaml'} has no boards; add one: edgekd board add NAME user@host\n"


def test_a_wrong_clock_is_a_note_and_a_full_disk_is_wrong(
    start_board: StartBoard, ssh_to: KnowHosts, inventory: Path
) -> None:
    if not any(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")):
        pytest.skip("needs libfaketime: apt-get install faketime")
    ssh_to(start_board("--clock", "-3days", "--disk", "40m"))
    added = lines_of(edgekd_board("add", "lab", "board"))
    assert added["clock"][0] == "note"
    assert "25920" in added["clock"][1] or "25919" in added["clock"][1]  # seconds, near 259200
    assert added["disk"][0] == "wrong"
    assert "expected 0.5 GB" in added["disk"][1]


def test_adding_a_board_takes_one_call_of_ssh(loopback_board: SshdBoard, ssh_to: KnowHosts, inventory: Path) -> None:
    ssh_to(loopback_board)
    calls = inventory.parent / "calls"
    real = inventory.parent / "ssh" / "ssh"
    real.write_text(real.read_text().replace("exec ", f'echo "$@" >>"{calls}"; exec '))
    assert edgekd_board("add", "lab", "board").returncode == 0
    words = [line for line in calls.read_text().splitlines() if line.startswith("-T")]
    assert len(words) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "local", "board"), "'local' is this machine"),
        (("add", "a b", "board"), "board name 'a b'"),
        (("add", "x", "me@a b"), "expected a Host of ~/.ssh/config or user@host"),
        (("doctor", "nobody"), "edgekd board add nobody user@host"),
        (("cancel", "nobody"), "edgekd board add nobody user@host"),
        (("remove", "nobody"), "edgekd board add nobody user@host"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_code_2(inventory: Path, arguments: tuple[str, ...], message: str) -> None:
    inventory.write_text("schema: edgekd.boards/1\n")
    done = edgekd_board(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
