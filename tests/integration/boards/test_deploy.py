"""`edgekd deploy` from the host: a real engine on a board with Python 3.8, and what goes wrong on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edgekd.bundle.verify import verify
from edgekd.deploy import deploy as host
from edgekd.deploy.deploy import Conditions, deploy, releases
from edgekd.errors import BoardError, DeployError, RecipeError
from tests.boards.fixtures import SshdBoard, StartBoard
from tests.boards.scripted import LIMITS, slow_down, wait_until
from tests.boards.small_bundles import Small, make_bundle

pytestmark = pytest.mark.slow
Know = Callable[..., None]
ROOT = ".local/share/edgekd"
MB = 1_000_000


@pytest.fixture(autouse=True)
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An inventory of this test's own, with one board `lab`; short waits for lost links."""
    path = tmp_path / "boards.yaml"
    path.write_text("schema: edgekd.boards/1\nboards:\n  lab:\n    ssh: board\n")
    monkeypatch.setenv("EDGEKD_BOARDS", str(path))
    monkeypatch.setattr(host, "LIMITS", LIMITS)
    return path


def edgekd_deploy(*words: object) -> subprocess.CompletedProcess[str]:
    """Run `edgekd deploy` as a shell would."""
    line = [sys.executable, "-m", "edgekd.cli.main", "deploy", *map(str, words), "--board", "lab"]
    return subprocess.run(line, capture_output=True, text=True)


def small(tmp_path: Path, word: str, version: int, **changes: Any) -> Path:
    return make_bundle(tmp_path / f"{word}-{version}", Small(word, version, **changes))


def word_of(board: SshdBoard) -> str:
    """Return what the current release says."""
    return board.run(f"cd {ROOT}/onnxruntime-fp32/current/ && sha256sum --quiet -c SHA256SUMS && ./run --check").strip()


def test_an_engine_is_deployed_rolled_back_and_removed(
    loopback_board: SshdBoard, ssh_to: Know, tiny_run: Path, tmp_path: Path
) -> None:
    ssh_to(loopback_board)
    engine = tiny_run / "engine/onnxruntime-int8"
    tried = edgekd_deploy(engine, "--name", "lane", "--dry-run")
    assert tried.returncode == 0, tried.stderr
    assert [line.split()[0] for line in tried.stdout.splitlines()] == ["room", "unpack", "fit", "golden", "next:"]
    assert json.loads(edgekd_deploy("--list", "--json").stdout) == []

    done = edgekd_deploy(engine, "--name", "lane")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "not signed" in lines["unpack"]
    assert "x86-64; onnxruntime" in lines["fit"]
    assert "2 golden images" in lines["golden"]
    assert lines["next:"] == f"next: ssh board ~/{ROOT}/lane/control service --http 8080"
    assert "2 golden images" in loopback_board.run(f"{ROOT}/lane/current/run --check")

    assert edgekd_deploy(tiny_run / "engine/onnxruntime-fp32", "--name", "lane", "--older").returncode == 0
    (row,) = json.loads(edgekd_deploy("--list", "--json").stdout)
    assert [one["engine"] for one in row["releases"]] == ["onnxruntime-fp32", "onnxruntime-int8"]
    assert [one["is_current"] for one in row["releases"]] == [True, False]
    rolled = edgekd_deploy("--rollback")
    assert (rolled.returncode, rolled.stdout.split()[0]) == (0, "switch")
    assert "lane: no unit" in edgekd_deploy("--list").stdout
    assert edgekd_deploy("--remove", "--name", "lane").stdout == "removed lane from lab\n"
    assert loopback_board.run(f"ls {ROOT}") == ""


def test_a_golden_output_that_differs_is_refused_on_the_board(
    loopback_board: SshdBoard, ssh_to: Know, tiny_run: Path, tmp_path: Path
) -> None:
    """The bundle is whole and its sums are right; another engine is in it than the one that gave the golden outputs."""
    import numpy as np

    from edgekd.bundle.build import BundleRequest, build
    from edgekd.release.archive import pack, unpack
    from edgekd.release.sums import SUMS, hashes_in, render_sums

    ssh_to(loopback_board)
    bundle = tmp_path / "bundle.tar"
    build(BundleRequest(tiny_run / "engine/onnxruntime-fp32", bundle))
    unpack(bundle, tmp_path / "content")
    place = tmp_path / "content/golden/0/class_map.npy"
    classes = np.load(place)
    np.save(place, (classes + 1) % 3, allow_pickle=False)
    (tmp_path / "content" / SUMS).write_bytes(render_sums(hashes_in(tmp_path / "content")))
    pack(tmp_path / "content", bundle)
    done = edgekd_deploy(bundle)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("edgekd:")]
    assert line.startswith("edgekd: board lab: golden: onnxruntime-fp32: "), line
    assert "50.00% of the results differ, limit 2.00%" in line


def test_ten_cuts_of_the_link_do_not_stop_a_deployment(start_board: StartBoard, ssh_to: Know, tmp_path: Path) -> None:
    board = start_board()
    ssh_to(board)
    slow_down(board, 20 * MB)
    bundle = verify(small(tmp_path, "two", 2, ballast=40 * MB))
    with ThreadPoolExecutor() as pool:
        done = pool.submit(deploy, bundle, "lab")
        for count in range(1, 11):
            wait_until(lambda count=count: sent(board) > count * 3 * MB or done.done())  # type: ignore[misc]
            board.cut()
        assert [step.name for step in done.result().steps][-1] == "tidy"
    assert word_of(board) == "two"


def sent(board: SshdBoard) -> int:
    return sum(path.stat().st_size for path in board.home.glob(".cache/edgekd/in/*") if len(path.name) == 64)


def test_two_deployments_at_once_are_one_after_the_other(start_board: StartBoard, ssh_to: Know, tmp_path: Path) -> None:
    board = start_board()
    ssh_to(board)
    bundles = [verify(small(tmp_path, word, 1)) for word in ("one", "two")]
    with ThreadPoolExecutor() as pool:
        done = [pool.submit(deploy, bundle, "lab") for bundle in bundles]
        assert [one.result().steps[-1].name for one in done] == ["tidy", "tidy"]
    (row,) = releases("lab")
    assert sorted((one.is_current, one.is_previous) for one in row.releases) == [(False, True), (True, False)]
    assert word_of(board) in ("one", "two")


HOST = "from pathlib import Path; import sys; from edgekd.bundle.verify import verify; from edgekd.deploy.deploy import deploy; "
HOST += "deploy(verify(Path(sys.argv[1])), 'lab')"


def test_a_host_that_is_killed_leaves_the_old_or_the_new_release(
    start_board: StartBoard, ssh_to: Know, tmp_path: Path
) -> None:
    board = start_board()
    ssh_to(board)
    deploy(verify(small(tmp_path, "one", 1)), "lab")
    process = subprocess.Popen([sys.executable, "-c", HOST, str(small(tmp_path, "two", 2, check="sleep 2; exit 0"))])
    wait_until(lambda: bool(list(board.home.glob(f"{ROOT}/*/.in-*"))))
    process.kill()
    process.wait()
    assert word_of(board) == "one"
    done = deploy(verify(small(tmp_path, "three", 3)), "lab")  # waits for the installer that lives on, without its host
    assert done.steps[-1].name == "tidy"
    (row,) = releases("lab")
    assert [one.version for one in row.releases] == [3, 2, 1]
    assert word_of(board) == "three"


@pytest.mark.parametrize(("free_mb", "where"), [(25, "no room in .*edgekd"), (50, "room: no room in")])
def test_a_full_disk_leaves_the_old_release(
    free_mb: int, where: str, start_board: StartBoard, ssh_to: Know, tmp_path: Path
) -> None:
    """A bundle of 30 MB: it does not get into the store, or not out of it."""
    board = start_board("--disk", f"{free_mb}m")
    ssh_to(board)
    deploy(verify(small(tmp_path, "one", 1)), "lab")
    with pytest.raises(DeployError, match=f"board lab: .*{where}") as caught:
        deploy(verify(small(tmp_path, "two", 2, ballast=30 * MB)), "lab")
    assert (caught.value.exit_code, "\n" in str(caught.value)) == (1, False)
    assert word_of(board) == "one"


PROMISED_ROOM = """
import sys
from edgekd.release import __main__ as command, install
install.room = lambda folder: 1 << 40
sys.exit(command.main(sys.argv[1:]))
"""


def test_a_disk_that_fills_up_while_it_is_unpacked_leaves_the_old_release(
    start_board: StartBoard, ssh_to: Know, tmp_path: Path
) -> None:
    """The disk is full in truth; only the look at the free room, which comes before, is given another answer."""
    board = start_board("--disk", "40m")
    ssh_to(board)
    deploy(verify(small(tmp_path, "one", 1)), "lab")
    board.run("cat >two.tar", small(tmp_path, "two", 2, ballast=20 * MB).read_bytes())
    board.run("cat >promised_room.py", PROMISED_ROOM.encode())
    name = f"{ROOT}/onnxruntime-fp32"
    line = f"PYTHONPATH=$(echo .cache/edgekd/code/*/*) python3 promised_room.py {name} install two.tar"
    assert board.run(f"{line} 2>&1; echo exit $?").splitlines()[1:] == ["unpack: the disk is full", "exit 1"]
    assert board.run(f"ls -A {name}").split() == ["control", "current", "lock", "releases"]
    assert word_of(board) == "one"


def test_what_the_host_refuses_is_said_before_anything_is_sent(inventory: Path, tmp_path: Path) -> None:
    bundle = small(tmp_path, "one", 1)
    content = bytearray(bundle.read_bytes())
    content[-1500] ^= 1
    bundle.write_bytes(content)
    done = edgekd_deploy(bundle)
    assert done.returncode == 1
    assert done.stderr.endswith("; nothing was sent\n")
    assert edgekd_deploy(tmp_path / "absent.tar").returncode == 2
    assert edgekd_deploy(bundle, "--list").returncode == 2
    assert edgekd_deploy().returncode == 2


def test_a_board_that_only_measures_is_not_deployed_to(inventory: Path, tmp_path: Path) -> None:
    inventory.write_text(inventory.read_text() + "    deploy: false\n")
    with pytest.raises(RecipeError, match="board lab: the inventory says `deploy: false`"):
        deploy(verify(small(tmp_path, "one", 1)), "lab", None, Conditions())


def test_a_board_that_is_off_is_unreachable(start_board: StartBoard, ssh_to: Know, tmp_path: Path) -> None:
    board = start_board()
    ssh_to(board)
    board.down()
    with pytest.raises(BoardError, match="unreachable"):
        deploy(verify(small(tmp_path, "one", 1)), "lab")
