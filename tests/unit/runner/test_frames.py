"""Frames come from what the user names, in order and all of them; of a live source the newest wins, and a loss is one line."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import FrameError, StreamLostError
from edgekd.runner.frame_thread import FrameThread
from edgekd.runner.frames import Frames, FrameSettings, find_places, hide_password
from edgekd.runner.stop import Stop
from edgekd.runner.video import IS_HERE, READERS, Place, _escaped, open_video
from tests.readers import reader_or_skip

SIZE = (50, 70)
MOVIE = np.random.default_rng(0).integers(0, 256, (12, *SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lossless video under a plain name and one that quotes, spaces and a pipeline are made of."""
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("videos")
    writer = cv2.VideoWriter(
        str(folder / "plain.avi"), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"FFV1"), 10, (SIZE[1], SIZE[0])
    )
    for frame in MOVIE:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    data = (folder / "plain.avi").read_bytes()
    (folder / '-i it\'s "x" ! fakesink %02d.avi').write_bytes(data)
    (folder / "http:").mkdir()
    (folder / "http:/127.0.0.1:9").write_bytes(data)
    (folder / "cut.avi").write_bytes(data[: len(data) // 2])
    (folder / "no video.mp4").write_text("#!/bin/sh\necho this is no video\n")
    return folder


def all_frames(place: Place, reader: str) -> list[np.ndarray]:
    video, first = open_video(place, 10**6, reader)
    frames: list[np.ndarray] = [first]
    while (frame := video.read()) is not None:
        frames.append(frame)
    video.close()
    return frames


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["plain.avi", '-i it\'s "x" ! fakesink %02d.avi', "http:/127.0.0.1:9"])
def test_every_reader_gives_every_frame_of_a_lossless_video_whatever_its_name(
    videos: Path, reader: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader_or_skip(reader)
    monkeypatch.chdir(videos)
    found = all_frames(find_places([name])[0], reader)
    np.testing.assert_array_equal(np.stack(found), MOVIE)


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_is_no_video_is_said_in_one_line(videos: Path, reader: str) -> None:
    reader_or_skip(reader)
    with pytest.raises(FrameError, match=rf"no video\.mp4: cannot be opened \({reader}: ") as failed:
        open_video(find_places([str(videos / "no video.mp4")])[0], 10**6, reader)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("reader", READERS)
def test_frames_of_too_many_pixels_are_refused(videos: Path, reader: str) -> None:
    reader_or_skip(reader)
    with pytest.raises(FrameError, match="frames of 70x50 pixels, expected at most 3000 pixels; see --max-pixels"):
        open_video(find_places([str(videos / "plain.avi")])[0], 3000, reader)


def test_without_a_reader_the_line_says_what_to_install(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekd.runner.video.IS_HERE", dict.fromkeys(READERS, lambda: False))
    with pytest.raises(FrameError, match="neither OpenCV nor GStreamer nor ffmpeg is installed here; install OpenCV"):
        open_video(find_places([str(videos / "plain.avi")])[0], 10**6)


def collect(names: list[str], **settings: object) -> tuple[list[tuple[str, int]], Frames, list[str]]:
    notes: list[str] = []
    frames = Frames(find_places(names), FrameSettings(**settings), Stop(), notes.append)  # type: ignore[arg-type]
    return [(frame.source, frame.index) for frame in frames], frames, notes


def test_images_folders_and_videos_come_in_order_and_a_damaged_one_stops_no_other(videos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("b.npy", "a.npy", ".hidden.npy"):
        np.save(folder / name, MOVIE[0])
    (folder / "c.ppm").write_bytes(b"P6 9 9 255\n")
    (folder / "notes.txt").touch()
    found, frames, notes = collect([str(folder), str(videos / "plain.avi")], every=5)
    expected = [(str(folder / name), 0) for name in ("a.npy", "b.npy")]
    assert found == expected + [(str(videos / "plain.avi"), index) for index in (0, 5, 10)]
    assert frames.unread == notes
    assert notes[0].startswith(f"{folder}/c.ppm: expected 243 bytes of pixels, got 0")
    with pytest.raises(FrameError, match="expected 243 bytes"):
        collect([str(folder / "c.ppm")])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent.jpg", "absent.jpg: no such file, folder or camera"),
        ("file:///etc/passwd", "expected one of rtsp, rtsps, http"),
        ("concat://a|b", "expected one of rtsp, rtsps, http"),
        ("rtsp://me:secret@host/a b", "a URL has no spaces"),
        ("camera:0;x", "no such file"),
    ],
)
def test_what_is_no_source_is_refused_without_its_password(name: str, says: str) -> None:
    with pytest.raises(FrameError, match=says) as failed:
        find_places([name])
    assert "secret" not in str(failed.value)


def test_a_camera_runs_alone() -> None:
    with pytest.raises(FrameError, match="camera:0: one runner reads one camera or stream"):
        find_places(["camera:0", "camera:1"])


def test_passwords_are_hidden() -> None:
    assert hide_password("rtsp://me:secret@10.0.0.2/live?x=a@b") == "rtsp://***@10.0.0.2/live?***"
    assert find_places(["RTSP://me:pw@host/x"])[0] == Place("stream", "RTSP://***@host/x", "rtsp://me:pw@host/x")


def test_a_url_cannot_become_a_pipeline() -> None:
    assert _escaped("http://h/a!b\"c'd\\e f(g)") == "http://h/a%21b%22c%27d%5Ce%20f%28g%29"


class Gate:
    """Frames that come when the test says so."""

    def __init__(self, count: int) -> None:
        self.given = [threading.Event() for _ in range(count)]

    def __iter__(self) -> Iterator[int]:
        for number, event in enumerate(self.given):
            event.wait(20)
            yield number


def until(is_true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < limit
        time.sleep(0.001)


def test_the_newest_frame_wins_and_the_others_are_counted() -> None:
    source = Gate(6)
    thread = FrameThread(source, True, lambda: False)
    frames = iter(thread)
    source.given[0].set()
    assert next(frames) == 0
    for number in (1, 2, 3):
        source.given[number].set()
    until(lambda: thread.dropped == 2)
    assert next(frames) == 3
    for number in (4, 5):
        source.given[number].set()
    assert list(frames)[-1] == 5


def test_a_thread_ahead_drops_nothing_and_raises_in_its_turn() -> None:
    def numbers() -> Iterator[int]:
        yield from range(100)
        raise FrameError("over")

    found = []
    with pytest.raises(FrameError, match="over"):
        for number in FrameThread(numbers(), False, lambda: False):
            found.append(number)
    assert found == list(range(100))


def test_a_stop_ends_the_wait_for_a_frame_that_never_comes() -> None:
    stop = Stop()
    threading.Timer(0.2, stop.set).start()
    assert list(FrameThread(Gate(1), True, stop.is_set)) == []


def test_a_source_that_gives_no_frame_is_lost() -> None:
    def lost() -> None:
        raise StreamLostError("no frame")

    with pytest.raises(StreamLostError):
        list(FrameThread(Gate(1), True, lambda: False, 0.2, lost))


@pytest.fixture
def web(videos: Path) -> Iterator[str]:
    """A server of the videos, like a camera that ends after twelve frames."""
    handler = partial(Quiet, directory=str(videos))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("reader", READERS)
def test_a_stream_that_ends_is_lost_and_all_its_frames_were_there(web: str, reader: str) -> None:
    url = f"{web.replace('://', '://me:secret@')}/plain.avi"
    frames = Frames(find_places([url]), FrameSettings(reader_or_skip(reader), is_complete=True), Stop(), print)
    found = []
    with pytest.raises(StreamLostError, match=r"http://\*\*\*@127.0.0.1:\d+/plain.avi: ended after 12 frames"):
        for frame in frames:
            found.append(frame.pixels)
    np.testing.assert_array_equal(np.stack(found), MOVIE)


def test_a_lost_stream_is_opened_again_until_told_to_stop(web: str) -> None:
    reader = next((name for name in ("opencv", "ffmpeg", "gstreamer") if IS_HERE[name]()), None)
    if reader is None:
        pytest.skip("nothing here reads videos")
    stop, notes = Stop(), []
    settings = FrameSettings(reader, is_complete=True, reconnects=True)
    indices = []
    for frame in Frames(find_places([f"{web}/plain.avi"]), settings, stop, notes.append):
        indices.append(frame.index)
        if len(indices) == 15:
            stop.set()
    assert indices == [*range(12), 0, 1, 2]
    assert notes == [f"{web}/plain.avi: ended after 12 frames; --reconnect opens it again; next try in 1 s"]
