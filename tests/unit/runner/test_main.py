"""The command line of a release: lines of JSON, exit codes, a clean end; also under the Python of old boards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.executors.portable import copy_to
from edgekd.runner.video import READERS
from tests.boards.fixtures import board_python
from tests.readers import reader_or_skip
from tests.small_release import HEIGHT, WIDTH, striped, write_color_release

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release as it lies on a board, with its own code and script."""
    folder = write_color_release(tmp_path_factory.mktemp("release") / "color")
    copy_to(folder / "runtime", [])
    script = folder / "runtime/edgekd/runner/run.sh"
    (folder / "run").write_bytes(script.read_bytes())
    (folder / "run").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(20):
        np.save(folder / f"{number:02}.npy", striped(10 * number, 5))
    (folder / "20.ppm").write_bytes(b"P6 %d %d 255\n" % (WIDTH, HEIGHT) + striped(200, 5).tobytes())
    return folder


def command(
    release: Path, *arguments: object, python: Path = Path(sys.executable), **options: Any
) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    words = [str(release / "run"), *map(str, arguments)]
    return subprocess.Popen(words, env={**environment, "EDGEKD_PYTHON": str(python)}, **pipes)


def run(release: Path, *arguments: object, **options: Any) -> tuple[int, list[dict[str, Any]], str]:
    with command(release, *arguments, **options) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


@pytest.mark.parametrize("python", [Path(sys.executable), board_python()], ids=["this", "board"])
def test_each_image_is_one_line_in_order_with_the_right_classes(release: Path, images: Path, python: Path) -> None:
    code, lines, said = run(release, images, python=python)
    assert (code, said) == (0, "")
    assert [line["source"] for line in lines] == [str(path) for path in sorted(images.iterdir())]
    red = [line["classes"].get("red", 0) for line in lines]
    assert red == [round(10 * number / (WIDTH * HEIGHT), 4) for number in range(21)]
    assert set(lines[0]) == {"schema", "source", "index", "time", "width", "height", "milliseconds", "classes"}


def test_a_link_to_the_release_or_to_its_script_runs_it(release: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(release)
    (tmp_path / "segment").symlink_to(release / "run")
    for script in ("current/run", "segment"):
        environment = {**os.environ, "EDGEKD_PYTHON": sys.executable}
        done = subprocess.run([tmp_path / script, images / "00.npy"], capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
    assert not list(release.rglob("__pycache__"))


def test_no_module_of_the_current_folder_is_imported(release: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported')")
    code, lines, said = run(release, images / "00.npy", cwd=tmp_path)
    assert (code, len(lines), said) == (0, 1, "")


def test_variables_are_read_beside_an_installed_release_only(release: Path, images: Path, tmp_path: Path) -> None:
    for place, code in (("releases/0123456789abcdef", 7), ("shared/street", 0)):
        folder = shutil.copytree(release, tmp_path / place)
        folder.with_name(f"{folder.name}.env").write_text("exit 7\n")
        assert run(folder, images / "00.npy")[0] == code


def test_a_file_name_that_is_not_utf_8_can_be_read_back(release: Path, images: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.npy"
    Path(os.fsdecode(name)).write_bytes((images / "00.npy").read_bytes())
    code, (line,), said = run(release, tmp_path)
    assert (code, os.fsencode(line["source"]), said) == (0, name, "")


def test_class_maps_are_run_lengths_and_files(release: Path, images: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    code, lines, _ = run(
        release, images / "07.npy", "--class-map", "--maps", tmp_path / "maps", "--out", tmp_path / "out"
    )
    line = json.loads((tmp_path / "out").read_text())
    expected = striped(70, 5).argmax(axis=2)
    runs = line["class_map"]
    assert (code, lines) == (0, [])
    np.testing.assert_array_equal(np.repeat(runs["values"], runs["counts"]).reshape(WIDTH, HEIGHT).T, expected)
    assert Path(line["class_map_file"]) == tmp_path / "maps/07_000000_mask.png"
    np.testing.assert_array_equal(np.array(image.open(line["class_map_file"])), expected)


def test_an_unreadable_image_stops_no_other_and_the_exit_code_is_2(release: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG")
    code, lines, said = run(release, tmp_path / "bad.png", images / "00.npy")
    assert (code, len(lines)) == (2, 1)
    assert said.splitlines()[-1].startswith("edgekd: 1 of 2 images could not be read, the first: ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to do; give images"),
        (["absent.jpg"], "absent.jpg: no such file, folder or camera"),
        (["camera:99"], "camera:99: no such camera"),
        (["--http", "8080x"], "expected PORT or HOST:PORT, got '8080x'"),
        (["--http", "203.0.113.1:8080"], "Cannot assign requested address"),
        (["x.png", "--min-score", "2"], "expected 0 to 1, got 2"),
        (["x.png", "--every", "0"], "expected 1 or more, got 0"),
        (["x.png", "--max-fps", "nan"], "expected a positive number, got nan"),
    ],
)
def test_what_is_wrong_stands_on_one_line_and_the_exit_code_is_2(
    release: Path, arguments: list[str], says: str
) -> None:
    code, lines, said = run(release, *arguments)
    assert (code, lines) == (2, [])
    assert says in said.splitlines()[-1]
    assert "Traceback" not in said


def test_a_full_disk_is_one_line(release: Path, images: Path) -> None:
    code, _, said = run(release, images, "--out", "/dev/full")
    assert (code, said) == (2, "edgekd: results: No space left on device\n")


def test_who_stops_reading_ends_the_run_without_a_word(release: Path, images: Path) -> None:
    with command(release, *[images] * 300) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["schema"] == "edgekd.results/1"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_with_whole_lines_and_exit_code_0(release: Path, images: Path, number: int) -> None:
    with command(release, images, *[images] * 300, "--max-fps", "50") as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(60) == 0
    lines = (first + rest).splitlines()
    assert 1 <= len(lines) < 21 * 301
    assert all(json.loads(line)["schema"] == "edgekd.results/1" for line in lines)
    assert rest == b"" or rest.endswith(b"\n")


@pytest.mark.parametrize("python", [Path(sys.executable), board_python()], ids=["this", "board"])
def test_the_server_says_where_it_is_serves_and_ends_with_exit_code_0(
    release: Path, images: Path, python: Path
) -> None:
    with command(release, "--http", "0", python=python) as process:
        assert process.stderr is not None
        said = process.stderr.readline().decode()
        assert said.startswith("edgekd: tiny: http://127.0.0.1:")
        url = said.split()[2].split(",")[0]
        with urllib.request.urlopen(url, (images / "10.npy").read_bytes(), timeout=20) as answer:
            assert json.loads(answer.read())["classes"]["red"] == round(100 / (WIDTH * HEIGHT), 4)
        process.terminate()
        assert process.wait(60) == 0
        assert process.stderr.read() == b""


def test_an_address_that_others_reach_is_warned_of(release: Path) -> None:
    with command(release, "--http", "0.0.0.0:0") as process:
        assert process.stderr is not None
        assert b"warning: everybody who reaches 0.0.0.0 can use this engine" in process.stderr.readline()
        process.terminate()
        assert process.wait(60) == 0


def test_results_of_frames_count_in_the_metrics_of_the_server(release: Path, images: Path) -> None:
    with command(release, *[images] * 300, "--http", "0", "--max-fps", "100") as process:
        assert process.stderr is not None
        assert process.stdout is not None
        url = process.stderr.readline().decode().split()[2].split("/infer")[0]
        for _ in range(3):
            process.stdout.readline()
        with urllib.request.urlopen(f"{url}/metrics", timeout=20) as answer:
            values = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
        assert int(values["edgekd_results_total"]) >= 3
        process.stdout.close()
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.parametrize("reader", READERS)
def test_a_signal_ends_the_wait_for_a_stream_that_hangs_and_leaves_no_process(
    release: Path, tmp_path: Path, reader: str
) -> None:
    reader_or_skip(reader)
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(
        str(tmp_path / "a.mkv"), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"FFV1"), 10, (WIDTH, HEIGHT)
    )
    for number in range(400):
        writer.write(np.ascontiguousarray(striped(number, 5)[..., ::-1]))
    writer.release()
    data = (tmp_path / "a.mkv").read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:  # half of the video, and then nothing
            connections.append(listener.accept()[0])
            asked.set()
            connections[-1].sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data[: len(data) // 2]
            )

        connections: list[socket.socket] = []
        asked = threading.Event()
        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.mkv"
        with command(release, url, "--reader", reader, "--all-frames") as process:
            assert process.stdout is not None
            if reader == "gstreamer":  # it fills a buffer before the first frame of an HTTP stream
                asked.wait(20)
            else:
                assert json.loads(process.stdout.readline())["index"] == 0
            process.terminate()
            lines = process.stdout.read().splitlines()
            assert process.wait(60) == 0
        assert all(json.loads(line)["source"] == url for line in lines)
        left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
        assert [line for line in left.splitlines() if url in line] == []
        connections[0].close()
