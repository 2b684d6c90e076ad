"""Frames of images, folders, videos, cameras and streams, as the user names them.

Portable: standard library + numpy at import, Python 3.8.
"""

from __future__ import annotations

import re
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Sequence

import numpy as np

from edgekd.errors import FrameError, StreamLostError, one_line
from edgekd.runner.frame_thread import FrameThread
from edgekd.runner.images import MOST_PIXELS, SUFFIXES, read_image
from edgekd.runner.stop import Stop
from edgekd.runner.video import SCHEMES, Place, Video, open_video

_FIRST_WAIT_S, _LAST_WAIT_S = 1.0, 30.0  # between two tries to reach a camera


@dataclass(frozen=True)
class Frame:
    """One image.

    source: as results show it.
    index: in its source, from 0.
    time: seconds since 1970 when it was read.
    pixels: (H, W, 3) uint8 RGB.
    dropped: frames of a live source that were left out since the one before.
    """

    source: str
    index: int
    time: float
    pixels: np.ndarray
    dropped: int = 0


@dataclass(frozen=True)
class FrameSettings:
    """How frames are read.

    reader: reader of videos; None: the first that can.
    most_pixels: largest number of pixels of a frame.
    every: only frames whose index is a multiple are taken.
    most_fps: taken per second; None: all.
    is_complete: a live source waits for the engine; else its newest frame wins.
    reconnects: a live source that is lost is opened again, for ever.
    patience_s: seconds without a frame after which a live source is lost.
    """

    reader: Optional[str] = None
    most_pixels: int = MOST_PIXELS
    every: int = 1
    most_fps: Optional[float] = None
    is_complete: bool = False
    reconnects: bool = False
    patience_s: float = 20.0


def find_places(names: Sequence[str]) -> List[Place]:
    """Return where the frames are, of `IMAGE`, `FOLDER`, `VIDEO`, `camera:0`, `/dev/video0` or `rtsp://...`.

    Raises:
        FrameError: there is nothing of that name, or a live source is not alone.
    """
    places = [place for name in names for place in _places(name)]
    live = [place for place in places if is_live(place)]
    if live and len(places) > 1:
        raise FrameError(f"{live[0].name}: one runner reads one camera or stream; start a runner for each")
    return places


def is_live(place: Place) -> bool:
    """Whether frames come at their own time."""
    return place.kind in ("camera", "stream")


def _places(name: str) -> List[Place]:
    path = Path(name)
    camera = re.fullmatch(r"camera:(\d{1,3})", name)
    if camera:
        return [Place("camera", name, f"/dev/video{camera.group(1)}")]
    if re.fullmatch(r"/dev/video\d+", name):
        return [Place("camera", name, name)]
    if path.is_dir():
        return _images_in(path)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", name)
    if scheme and not path.exists():
        if scheme.group(1).lower() not in SCHEMES:
            raise FrameError(f"{hide_password(name)}: expected one of {', '.join(SCHEMES)}, got {scheme.group(1)}")
        if re.search(r"[\x00-\x20\x7f]", name):
            raise FrameError(f"{hide_password(name)!r}: a URL has no spaces; write %20")
        return [Place("stream", hide_password(name), scheme.group(1).lower() + name[scheme.end(1) :])]
    if not path.exists():
        raise FrameError(
            f"{name}: no such file, folder or camera; expected e.g. photo.jpg, folder/, video.mp4 or camera:0"
        )
    kind = "image" if path.suffix.lower() in SUFFIXES else "video"
    return [Place(kind, name, str(path.absolute()))]


def _images_in(folder: Path) -> List[Place]:
    files = [f for f in sorted(folder.iterdir()) if f.suffix.lower() in SUFFIXES and f.name[0] != "." and f.is_file()]
    if not files:
        raise FrameError(f"{folder}: no image in this folder, expected files like *.jpg or *.png")
    return [Place("image", str(file), str(file.absolute())) for file in files]


def hide_password(url: str) -> str:
    """Return a URL whose user and password, and whose query, are `***`."""
    return re.sub(r"\?.*", "?***", re.sub(r"^([^/]*//)[^/]*@", r"\1***@", url))


class Frames:
    """Iterates over the frames of some places.

    unread: errors of images that could not be read; when there is only one place, its error is raised.

    Args:
        places: of `find_places`.
        settings: how they are read.
        stop: ends the iteration, also while a camera is waited for.
        note: gets a line about what happens: an unread image, a lost camera.
    """

    def __init__(
        self, places: Sequence[Place], settings: FrameSettings, stop: Stop, note: Callable[[str], None]
    ) -> None:
        self.unread: List[str] = []
        self._places, self._settings, self._stop, self._note = places, settings, stop, note
        self._video: Optional[Video] = None

    def __iter__(self) -> Iterator[Frame]:
        if self._places and is_live(self._places[0]):
            yield from self._live(self._places[0])
        else:
            with closing(iter(FrameThread(self._files(), False, self._stop.is_set))) as frames:
                yield from self._paced(frames)

    def _files(self) -> Iterator[Frame]:
        for place in self._places:
            try:
                if place.kind == "image":
                    pixels = read_image(Path(place.name), self._settings.most_pixels)
                    yield Frame(place.name, 0, time.time(), pixels)
                else:
                    yield from self._video_frames(place)
            except FrameError as exc:
                if len(self._places) == 1:
                    raise
                self.unread.append(str(exc))
                self._note(str(exc))

    def _video_frames(self, place: Place) -> Iterator[Frame]:
        settings, index = self._settings, 0
        video, pixels = open_video(place, settings.most_pixels, settings.reader)
        self._video = video
        try:
            found: Optional[np.ndarray] = pixels
            while found is not None:
                if index % settings.every == 0:
                    yield Frame(place.name, index, time.time(), found)
                index += 1
                try:
                    found = video.read()
                except FrameError as exc:
                    kind = StreamLostError if is_live(place) else FrameError
                    raise kind(f"{place.name}: {exc}, after {index} frames") from exc
            if is_live(place) and not self._stop.is_set():
                raise StreamLostError(f"{place.name}: ended after {index} frames; --reconnect opens it again")
        finally:
            video.close()

    def _live(self, place: Place) -> Iterator[Frame]:
        wait = _FIRST_WAIT_S
        while True:
            try:
                for frame in self._connection(place):
                    wait = _FIRST_WAIT_S
                    yield frame
                return
            except (FrameError, StreamLostError) as exc:
                if not self._settings.reconnects:
                    raise
                self._note(f"{one_line(exc, None)}; next try in {wait:g} s")
            if self._stop.wait(wait):
                return
            wait = min(2 * wait, _LAST_WAIT_S)

    def _connection(self, place: Place) -> Iterator[Frame]:
        settings = self._settings

        def lost() -> None:
            if self._video:
                self._video.stop()
            raise StreamLostError(f"{place.name}: no frame for {settings.patience_s:g} s; --reconnect opens it again")

        frames = self._paced_live(self._video_frames(place))
        thread = FrameThread(frames, not settings.is_complete, self._stop.is_set, settings.patience_s, lost)
        try:
            for frame in thread:
                dropped, thread.dropped = thread.dropped, 0
                yield Frame(frame.source, frame.index, frame.time, frame.pixels, dropped)
        finally:
            if self._video:
                self._video.stop()

    def _paced(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Yield all frames of files, no faster than `most_fps`."""
        due = time.monotonic()
        for frame in frames:
            if self._settings.most_fps:
                self._stop.wait(max(0.0, due - time.monotonic()))
                due = max(due, time.monotonic()) + 1 / self._settings.most_fps
            yield frame

    def _paced_live(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Leave out frames of a live source that come sooner than `most_fps` wants."""
        due = 0.0
        for frame in frames:
            now = time.monotonic()
            if not self._settings.most_fps or now >= due:
                due = max(due + 1 / self._settings.most_fps, now) if self._settings.most_fps else now
                yield frame


def to_stderr(line: str) -> None:
    """Print a line for people."""
    sys.stderr.write(f"edgekd: {' '.join(line.splitlines())}\n")
    sys.stderr.flush()
