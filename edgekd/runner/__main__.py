"""`python3 -m edgekd.runner RELEASE ...`: runs an unpacked release; `RELEASE/run ...` calls it.

Results go to stdout, one JSON object per frame, all else to stderr. Exit codes: 0 done or told to stop, 1 a camera or stream
was lost or golden outputs differ,
2 wrong arguments, or an image that cannot be read, 70 a bug.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Deque, Iterator, List, Optional, Tuple

import numpy as np

from edgekd.board.detection import MIN_SCORE, Selection
from edgekd.board.postprocess import Timed
from edgekd.board.stream import timed_stream
from edgekd.errors import EdgekdError, FrameError, GateError, UserError
from edgekd.runner.child import stop_children
from edgekd.runner.engine import Engine, open_engine
from edgekd.runner.engine_queue import EngineQueue
from edgekd.runner.frames import Frame, Frames, FrameSettings, find_places, is_live, to_stderr
from edgekd.runner.golden import check_golden
from edgekd.runner.images import MOST_PIXELS
from edgekd.runner.metrics import Metrics
from edgekd.runner.results import ResultSettings, to_json, to_line, write_map
from edgekd.runner.server import Limits, Server, is_loopback, parse_address
from edgekd.runner.stop import Stop, on_signals
from edgekd.runner.video import READERS


def main(arguments: Optional[List[str]] = None) -> int:
    """Run a release as the arguments say and return the exit code."""
    given = _parser().parse_args(arguments)
    stop = Stop()
    on_signals(stop)
    try:
        return _run(given, stop)
    except BrokenPipeError:  # who reads our results has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except EdgekdError as exc:
        to_stderr(str(exc))
        return exc.exit_code
    except OSError as exc:
        to_stderr(f"{exc.filename or 'results'}: {exc.strerror or exc}")
        return UserError.exit_code
    except Exception:  # noqa: BLE001 - the last resort of a program
        traceback.print_exc()
        to_stderr("this is a bug of edgekd, or the runtime failed; please report it with the lines above")
        return 70


def _run(given: argparse.Namespace, stop: Stop) -> int:
    if given.check:
        return _check(given.release)
    places = find_places(given.sources)
    if not places and given.http is None:
        raise FrameError("nothing to do; give images, folders, a video, camera:0 or a stream, or --http PORT")
    selection = Selection(
        given.min_score, given.iou, max(Selection.candidates, 10 * given.max_detections), given.max_detections
    )
    results = ResultSettings(selection, given.class_map, not given.no_masks)
    with ExitStack() as stack:
        engine = stack.enter_context(open_engine(given.release, selection))
        queue = _serve(given, stack, engine, results) if given.http else None
        if not places:
            stop.wait()
            return 0
        frames = Frames(places, _frame_settings(given), stop, to_stderr)
        out: BinaryIO = stack.enter_context(open(given.out, "wb")) if given.out else sys.stdout.buffer
        if given.maps:
            given.maps.mkdir(parents=True, exist_ok=True)
        for number, (frame, timed) in enumerate(_results(engine, frames, is_live(places[0]), queue)):
            line = to_json(frame, timed, engine.spec.classes, results)
            if given.maps and engine.spec.task == "semantic":
                line["class_map_file"] = write_map(given.maps, frame.source, number, timed.result)
            out.write(to_line(line))
            out.flush()
    if frames.unread:
        raise FrameError(
            f"{len(frames.unread)} of {len(places)} images could not be read, the first: {frames.unread[0]}"
        )
    return 0


def _check(folder: Path) -> int:
    """Compare the engine with its golden outputs and return the exit code, 1 when they are too far apart."""
    with open_engine(folder) as engine, np.errstate(all="ignore"):  # answers may be far off
        report = check_golden(folder, engine.manifest, engine.session)
    if report.reason:
        raise GateError(
            f"{engine.manifest.name}: outputs on this machine differ from the golden outputs: {report.reason}"
        )
    sys.stdout.write(f"{engine.manifest.name}: {report.text}\n")
    return 0


def _results(
    engine: Engine, frames: Frames, is_alone: bool, queue: Optional[EngineQueue]
) -> Iterator[Tuple[Frame, Timed]]:
    """Yield frames with results: files as a stream; a live source one frame at a time, for lower latency."""
    if queue is not None:
        for frame in frames:
            yield frame, queue.run(frame.pixels, frame.dropped)
        return
    if is_alone:
        for frame in frames:
            yield frame, engine.predictor.timed(frame.pixels)
        return
    sent: Deque[Frame] = deque()

    def pixels() -> Iterator[np.ndarray]:
        for frame in frames:
            sent.append(frame)
            yield frame.pixels

    for timed in timed_stream(engine.session, pixels(), engine.selection):
        yield sent.popleft(), timed


def _serve(given: argparse.Namespace, stack: ExitStack, engine: Engine, results: ResultSettings) -> EngineQueue:
    """Start the HTTP server; it ends with the stack."""
    queue = EngineQueue(engine, Metrics(engine.manifest))
    stack.callback(queue.close)
    queue.try_out()
    limits = Limits(given.max_body << 20, given.max_pixels, connections=given.connections)
    host, port = given.http
    try:
        server = Server((host, port), queue, results, limits, frozenset(name.lower() for name in given.allow_host))
    except OSError as exc:
        raise UserError(f"--http {host}:{port}: {exc.strerror or exc}; take another port or address") from exc
    server.start()
    stack.callback(server.close)
    if not is_loopback(host):
        to_stderr(
            f"warning: everybody who reaches {host} can use this engine; there is neither password nor encryption"
        )
    shown = f"[{host}]" if ":" in host else host
    to_stderr(f"{engine.manifest.name}: http://{shown}:{server.server_port}/infer, /health, /metrics")
    return queue


def _frame_settings(given: argparse.Namespace) -> FrameSettings:
    return FrameSettings(
        reader=given.reader,
        most_pixels=given.max_pixels,
        every=given.every,
        most_fps=given.max_fps,
        is_complete=given.all_frames,
        reconnects=given.reconnect,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run", description="Run this release on images, videos, a camera or a stream: one line of JSON per frame."
    )
    parser.add_argument("release", type=Path, help=argparse.SUPPRESS)
    add = parser.add_argument
    add(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="images, folders, videos, camera:0, /dev/video0, rtsp://..., http://...",
    )
    add("--check", action="store_true", help="compare the engine with its golden outputs; exit code 1 when they differ")
    add(
        "--http",
        type=_address,
        metavar="[HOST:]PORT",
        help="serve POST /infer, GET /health and /metrics; host 127.0.0.1",
    )
    add("--out", type=Path, metavar="FILE", help="file for the results; default stdout")
    add("--min-score", type=_share, default=MIN_SCORE, metavar="X", help="objects: min score; default 0.3")
    add("--iou", type=_share, default=Selection.iou, metavar="X", help="objects: NMS IoU threshold; default 0.6")
    add(
        "--max-detections",
        type=_count,
        default=Selection.most,
        metavar="N",
        help="objects: max detections; default 100",
    )
    add("--no-masks", action="store_true", help="objects: leave the masks out")
    add("--class-map", action="store_true", help="segmenters: the class map as run lengths")
    add("--maps", type=Path, metavar="FOLDER", help="segmenters: the class map as a PNG file of class indices")
    add("--every", type=_count, default=1, metavar="N", help="videos: only every Nth frame")
    add("--max-fps", type=_rate, metavar="X", help="max frames per second")
    add("--all-frames", action="store_true", help="cameras: drop no frame when the engine is slower")
    add("--reconnect", action="store_true", help="cameras: open it again when it is lost, for ever")
    add("--reader", choices=sorted(READERS), help="what reads videos; default the first that can")
    _add_limits(parser)
    return parser


def _add_limits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--max-pixels", type=_count, default=MOST_PIXELS, metavar="N", help="of an image or frame; default 50000000")
    add(
        "--max-body", type=_count, default=Limits.body_bytes >> 20, metavar="MIB", help="HTTP: of a request; default 16"
    )
    add("--connections", type=_count, default=Limits.connections, metavar="N", help="HTTP: at a time; default 32")
    add(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="HTTP: a name that clients call this machine by",
    )


def _address(text: str) -> Tuple[str, int]:
    try:
        return parse_address(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected 0 to 1, got {text}")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return value


def _end(code: int) -> None:
    """End the process without the interpreter's own end: a thread that waits in OpenCV for a camera would abort it."""
    stop_children()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _end(main())
