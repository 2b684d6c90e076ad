"""Frames of videos, cameras and streams, through what the board has: OpenCV, GStreamer or ffmpeg.

GStreamer and ffmpeg run as child processes that write raw frames into a pipe. A name that a user gives reaches them as a
`file:` or percent-encoded URI and never as an option, a pipeline or another protocol.

Portable: standard library + numpy at import, Python 3.8.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import urllib.parse
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np

from edgekd.errors import FrameError, one_line
from edgekd.runner.child import Child, first_line, read_exactly

# URL schemes of streams, and the protocols that ffmpeg may use for each. None may read files of this machine.
SCHEMES = {
    "rtsp": "rtsp,rtp,rtcp,udp,tcp",
    "rtsps": "rtsp,rtsps,rtp,rtcp,srtp,udp,tcp,tls",
    "http": "http,tcp",
    "https": "https,tls,tcp",
    "rtmp": "rtmp,tcp",
    "udp": "udp",
    "srt": "srt",
}
# Printed by `gst-launch-1.0 -v` when the sink gets its format.
_SIZE = re.compile(r"fdsink0\.GstPad:sink: caps = .*width=\(int\)(\d+), height=\(int\)(\d+)")
_INSTALL = (
    "install OpenCV (`apt install python3-opencv` or `pip install opencv-python-headless`), GStreamer "
    "(`apt install gstreamer1.0-tools gstreamer1.0-plugins-good gstreamer1.0-libav`) or ffmpeg (`apt install ffmpeg`)"
)


@dataclass(frozen=True)
class Place:
    """Where frames come from.

    kind: `video` (a file), `camera` or `stream`.
    name: as messages and results show it, without a password.
    address: absolute path of the file or device, or the URL.
    """

    kind: str
    name: str
    address: str


class Video(ABC):
    """An open video, camera or stream. The first frame has been read when it is there."""

    @abstractmethod
    def read(self) -> Optional[np.ndarray]:
        """Return the next frame (H, W, 3) uint8 RGB as a new array; None at the end. FrameError for damage."""

    @abstractmethod
    def stop(self) -> None:
        """Let `read` of another thread end soon; can be called twice."""

    def close(self) -> None:
        """Release what is open."""
        self.stop()


def open_video(place: Place, most_pixels: int, reader: Optional[str] = None) -> Tuple[Video, np.ndarray]:
    """Open a video, camera or stream, and return it with its first frame.

    Args:
        place: source of the frames.
        most_pixels: largest number of pixels of a frame.
        reader: `opencv`, `gstreamer` or `ffmpeg`; None: the first of them that is here and can open it.

    Raises:
        FrameError: nothing here can read it; the reason of each reader on one line.
    """
    if place.kind != "stream" and not os.path.exists(place.address):
        raise FrameError(f"{place.name}: no such {'camera' if place.kind == 'camera' else 'file'}")
    chosen = [one for one in ([reader] if reader else READERS) if IS_HERE[one]()]
    if not chosen:
        wanted = f"{reader} is not" if reader else "neither OpenCV nor GStreamer nor ffmpeg is"
        raise FrameError(f"{place.name}: {wanted} installed here; {_INSTALL}")
    reasons: List[str] = []
    for name in chosen:
        video: Optional[Video] = None
        try:
            video = READERS[name](place, most_pixels)
            first = video.read()
            if first is not None:
                return video, first
            reasons.append(f"{name}: it has no frame")
        except FrameError as exc:
            reasons.append(f"{name}: {exc}")
        if video:
            video.close()
    raise FrameError(f"{place.name}: cannot be opened ({'; '.join(reasons)})")


class OpenCv(Video):
    """Frames by OpenCV's FFmpeg backend, or Video4Linux for cameras: backends that take no pipelines."""

    def __init__(self, place: Place, most_pixels: int) -> None:
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # our error is one line
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "0")
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = f"rtsp_transport;tcp|protocol_whitelist;{_allowed(place)}"
        import cv2

        self._most_pixels = most_pixels
        if place.kind == "camera":
            self._capture = cv2.VideoCapture(int(place.address[len("/dev/video") :]), cv2.CAP_V4L2)
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        else:
            self._capture = cv2.VideoCapture(_ffmpeg_address(place), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise FrameError("cannot open it")
        self._is_stopped = False

    def read(self) -> Optional[np.ndarray]:
        """See `Video`."""
        if self._is_stopped:
            return None
        is_there, frame = self._capture.read()
        if not is_there:
            return None
        _check_size(frame.shape[0], frame.shape[1], self._most_pixels)
        return np.ascontiguousarray(frame[..., ::-1])

    def stop(self) -> None:
        """See `Video`; a `read` that waits for a camera is not interrupted."""
        self._is_stopped = True

    def close(self) -> None:
        """See `Video`."""
        self._capture.release()


class Ffmpeg(Video):
    """Frames by the program ffmpeg, each as a PPM: the size stands before the pixels, so it may change."""

    def __init__(self, place: Place, most_pixels: int) -> None:
        self._most_pixels = most_pixels
        given = ["-f", "v4l2"] if place.kind == "camera" else ["-protocol_whitelist", _allowed(place)]
        if place.address.startswith("rtsp"):
            given += ["-rtsp_transport", "tcp"]
        command = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", *given, "-i", _ffmpeg_address(place)]
        command += ["-map", "0:v:0", *_every_frame(), "-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "-"]
        self._child = Child(command, place)

    def read(self) -> Optional[np.ndarray]:
        """See `Video`."""
        lines = [self._child.out.readline(64) for _ in range(3)]
        if not lines[0]:
            self._child.check_end()
            return None
        found = re.match(rb"P6 (\d+) (\d+) 255 ", b" ".join(line.strip() for line in lines) + b" ")
        if found is None:
            raise FrameError(f"ffmpeg wrote no frame but {b''.join(lines)!r:.80}")
        width, height = int(found.group(1)), int(found.group(2))
        _check_size(height, width, self._most_pixels)
        pixels = np.empty((height, width, 3), np.uint8)
        if not read_exactly(self._child.out, pixels):
            self._child.check_end()
            return None
        return pixels

    def stop(self) -> None:
        """See `Video`."""
        self._child.stop()


class GStreamer(Video):
    """Frames by the program gst-launch-1.0, as RGBx: its rows have no padding. It prints the size before the first frame."""

    def __init__(self, place: Place, most_pixels: int) -> None:
        uri = place.address if place.kind == "stream" else Path(place.address).as_uri()
        start = ["v4l2src", f"device={place.address}", "!", "decodebin"] if place.kind == "camera" else []
        start = start or ["uridecodebin", f"uri={_escaped(uri)}"]
        turn = ["!", "videoflip", "video-direction=auto", "!", "videoconvert", "!", "video/x-raw,format=RGBx", "!"]
        command = ["gst-launch-1.0", "-v", *start, *turn, "fdsink", "sync=false", "fd={pipe}"]
        self._child, self._most_pixels = Child(command, place, _SIZE), most_pixels

    def read(self) -> Optional[np.ndarray]:
        """See `Video`."""
        if not self._child.wait_for_word():
            self._child.check_end()
            return None
        sizes = {(int(size.group(2)), int(size.group(1))) for size in list(self._child.matches)}
        if len(sizes) > 1:  # nothing says with which frame
            raise FrameError("the size of its frames changed")
        height, width = sizes.pop()
        _check_size(height, width, self._most_pixels)
        pixels = np.empty((height, width, 4), np.uint8)
        if not read_exactly(self._child.out, pixels):
            self._child.check_end()
            return None
        return np.ascontiguousarray(pixels[..., :3])

    def stop(self) -> None:
        """See `Video`."""
        self._child.stop()


READERS: Dict[str, Callable[[Place, int], Video]] = {"opencv": OpenCv, "gstreamer": GStreamer, "ffmpeg": Ffmpeg}
IS_HERE: Dict[str, Callable[[], bool]] = {
    "opencv": lambda: importlib.util.find_spec("cv2") is not None,
    "gstreamer": lambda: shutil.which("gst-launch-1.0") is not None,
    "ffmpeg": lambda: shutil.which("ffmpeg") is not None,
}


def _check_size(height: int, width: int, most_pixels: int) -> None:
    if not 0 < height * width <= most_pixels:
        raise FrameError(f"frames of {width}x{height} pixels, expected at most {most_pixels} pixels; see --max-pixels")


def _allowed(place: Place) -> str:
    return SCHEMES[place.address.partition(":")[0].lower()] if place.kind == "stream" else "file"


def _ffmpeg_address(place: Place) -> str:
    return f"file:{place.address}" if place.kind == "video" else place.address


def _escaped(uri: str) -> str:
    """Return a URI without what the pipeline's grammar knows: spaces, quotes, backslashes, exclamation marks, parentheses."""
    return urllib.parse.quote(uri, safe="%/:?#[]@&+,;=~._-$*")


def _every_frame() -> List[str]:
    """Return ffmpeg's option that neither repeats nor drops frames: `-vsync` went, `-fps_mode` came with 5.1."""
    try:
        found = re.match(r"ffmpeg version n?(\d+)\.(\d+)", first_line(["ffmpeg", "-version"]))
    except OSError as exc:
        raise FrameError(f"ffmpeg cannot be run ({one_line(exc)})") from exc
    is_old = found is not None and (int(found.group(1)), int(found.group(2))) < (5, 1)
    return ["-vsync", "passthrough"] if is_old else ["-fps_mode", "passthrough"]
