"""`edgekd predict`: runs an engine on images; writes overlays, class maps and objects."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edgekd.data.predictions import WrittenPrediction


def predict(
    engine: Annotated[Path, typer.Argument(help="Artifact folder, e.g. runs/quickstart/engine/openvino-int8.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, and folders of them.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results; default predictions.")] = Path(
        "predictions"
    ),
    min_score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Objects: min score; default 0.3.", show_default=False)
    ] = None,
    iou: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Objects: NMS IoU threshold; default 0.6.", show_default=False),
    ] = None,
    max_detections: Annotated[
        int | None, typer.Option(min=1, help="Objects: max detections; default 100.", show_default=False)
    ] = None,
    board: Annotated[
        str | None, typer.Option("--board", metavar="NAME", help="Board that runs the engine; default its own.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run an engine on images. Writes an overlay, and a class map or objects, for each image.

    The files are NAME_overlay.png, and NAME_mask.png or NAME_objects.json. An unreadable image does not stop the others; the exit
    code is then 2.
    """
    from edgekd import api
    from edgekd.board.detection import MIN_SCORE, Selection
    from edgekd.cli.show import print_json
    from edgekd.core.workspace import disk_errors
    from edgekd.data.predictions import check_names, image_files, read_images, write_result
    from edgekd.errors import DataError

    images = image_files(images)
    check_names(images, out)
    given = {"min_score": min_score, "iou": iou, "most": max_detections}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    selection = replace(Selection(min_score=MIN_SCORE), **chosen)
    selection = replace(selection, candidates=max(selection.candidates, 10 * selection.most))
    results, unread = [], []

    def note(exc: DataError) -> None:
        if len(images) == 1:
            raise exc
        unread.append(str(exc))
        print(exc, file=sys.stderr)

    with disk_errors(out):
        for one in api.predict(engine, read_images(images, note), selection if chosen else None, board):
            out.mkdir(parents=True, exist_ok=True)
            written = write_result(one.result, one.image, one.classes, out, selection)
            results.append(written)
            if written.get("more"):
                print(
                    f"{one.image.path}: the {selection.most} best are written, there may be more: see --max-detections",
                    file=sys.stderr,
                )
            if not json:
                _show(written, selection.min_score)
    if json:
        print_json(results)
    if unread:
        raise DataError(f"{len(unread)} of {len(images)} images could not be read, the first: {unread[0]}")


def _show(written: WrittenPrediction, min_score: float) -> None:
    seen = written["classes"].items()
    shares = ", ".join(f"{name} {n}" if isinstance(n, int) else f"{name} {n:.0%}" for name, n in seen)
    print(f"{written['overlay']}  {shares or f'no object of score {min_score:g} or more'}")
