"""`edgekd predict`: an engine on images: overlays to look at, index masks to use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def predict(
    engine: Annotated[Path, typer.Argument(help="Artifact folder, e.g. runs/quickstart/engine/openvino-int8.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("predictions"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run an engine on images: writes NAME_overlay.png, and NAME_mask.png or NAME_objects.json, for each."""
    from edgekd.api import load_engine
    from edgekd.cli.show import print_json
    from edgekd.core.workspace import disk_errors
    from edgekd.data.predictions import check_names, write_prediction

    check_names(images, out)
    results = []
    with disk_errors(out), load_engine(engine) as loaded:
        out.mkdir(parents=True, exist_ok=True)
        for image in images:
            results.append(write_prediction(loaded, image, out))
            if not json:
                seen = results[-1]["classes"].items()
                shares = ", ".join(f"{name} {n}" if isinstance(n, int) else f"{name} {n:.0%}" for name, n in seen)
                print(f"{results[-1]['overlay']}  {shares}")
    if json:
        print_json(results)
