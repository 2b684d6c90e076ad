"""`edgekd layers`: the error of an engine layer by layer, and the layer to blame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgekd.layers.model import LayerErrors


def layers(
    engine: Annotated[Path, typer.Argument(help="Engine of a run: RUN/engine/ID.")],
    images: Annotated[int, typer.Option("--images", help="Number of training images.")] = 8,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find the layer in which an engine loses accuracy: by quantization, in the runtime, or on its board.

    Exit code 1 if the engine, or its board, computes a layer wrongly.
    """
    from edgekd.cli import show
    from edgekd.core.progress import progress_bar
    from edgekd.executors.boards import connected
    from edgekd.layers.model import QUANTIZATION
    from edgekd.layers.work import errors_in_run

    with connected(Path.cwd()), progress_bar("layers quantized alone", redraws_itself=False) as progress:
        found = errors_in_run(engine, images, progress)
    if json:
        show.print_json(found.to_dict())
    else:
        _show(found, engine)
    if any(one.comparison != QUANTIZATION for one in found.blamed):
        raise typer.Exit(1)


def _show(found: LayerErrors, folder: Path) -> None:
    from edgekd.cli import show
    from edgekd.layers.model import COMPARISONS
    from edgekd.layers.table import headers, rows

    titles = headers(found)
    show.print_table(titles, rows(found), left=("layer",))
    print("\ndB of signal to noise: higher is better, 6 dB are one bit")
    for name, title in COMPARISONS.items():
        if (value := found.answer.get(name)) is not None:
            print(f"outputs, {title}: {'the same' if value >= 200 else f'{value:.1f} dB'}")
    for note in found.notes:
        print(f"note: {note}")
    print(f"\n{found.sentence}")
    for blame in found.blamed[1:]:
        print(f"also: {blame.text}")
    print(f"next: {_next(found, folder)}")


def _next(found: LayerErrors, folder: Path) -> str:
    """Return the advice for the layer that loses most: a command if one helps."""
    from edgekd.cli import show
    from edgekd.core.recipe_loading import shipped_recipes, stored_recipe
    from edgekd.layers.advice import float_option, float_override, override_against, round_override
    from edgekd.layers.model import BOARD, QUANTIZATION, TAPS
    from edgekd.report.stored import read_report

    run = folder.absolute().parent.parent
    blame = found.blamed[0] if found.blamed else None
    if blame is not None and blame.comparison == BOARD:
        return "compare the versions of the runtime: edgekd board doctor NAME"
    if blame is not None and blame.comparison == TAPS:
        return "build the engine with fewer optimizations (options of its target), and compare again"
    report = read_report(run)
    recipe, name = stored_recipe(report.recipe, str(run)), report.recipe_name
    engine = next((one for one in recipe.engines if one.id == folder.absolute().name), None)

    def command(setting: str) -> str:
        shown = name if name in shipped_recipes() else "RECIPE"
        asked = show.command("run", shown, "--out", str(folder.parent.parent), set_=[setting])
        return f"{asked}  (and the run's own --set)"

    is_quantized = engine is not None and engine.precision.is_quantized
    if engine is None or (blame is not None and not is_quantized):
        return f"build the engine with other options of its target, and compare {blame.layer if blame else 'it'} again"
    if blame is None:
        setting = round_override(recipe, engine) if is_quantized and found.answer.get(QUANTIZATION) is not None else ""
        shown = show.command("report", str(folder.parent.parent))
        return f"{shown}; if the engine loses too much there: {command(setting)}" if setting else shown
    setting = (
        override_against(recipe, engine, blame)
        if blame.comparison == QUANTIZATION
        else float_override(recipe, engine, [blame.layer])
    )
    if setting:
        return command(setting)
    if option := float_option(engine, blame.layer):
        return f"leave it in float with the options of engine {engine.id}, {option}, and run again"
    return f"target {engine.target} keeps no layer in float; try other calibration images"
