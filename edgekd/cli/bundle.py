"""`edgekd bundle`: one file of an engine with all that a board needs, checked and signed."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgekd.bundle.verify import Verified


class Golden(str, Enum):
    """Where the golden outputs come from."""

    engine = "engine"
    simulator = "simulator"
    reference = "reference"
    none = "none"


def bundle(
    engine: Annotated[Path | None, typer.Argument(help="Engine's folder in its run, RUN/engine/ID.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File to write; default NAME.tar.")] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the service on the board; default the engine's id without @board."),
    ] = None,
    sign: Annotated[
        Path | None, typer.Option("--sign", metavar="KEY", help="SSH key that signs, or the .pub of one in ssh-agent.")
    ] = None,
    golden: Annotated[
        Golden,
        typer.Option(
            "--golden",
            help="Source of the golden outputs: `engine` (own board), `simulator`, `reference` (ONNX graph, wider limits), `none`.",
        ),
    ] = Golden.engine,
    image: Annotated[
        list[Path],
        typer.Option("--image", help="Golden image; repeat it for several. Default: two of the scored split."),
    ] = [],  # noqa: B006
    stacks: Annotated[
        bool, typer.Option("--stacks", help="Also add the files of `edgekd stack`, each with a copy of the engine.")
    ] = False,
    verify: Annotated[
        Path | None, typer.Option("--verify", metavar="FILE", help="Check a bundle instead; needs no network.")
    ] = None,
    allowed_signers: Annotated[
        Path | None,
        typer.Option(
            "--allowed-signers", metavar="FILE", help="With --verify: file of accepted signers, see ssh-keygen(1)."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Pack an engine with everything that a board needs to run and check it into one file, or check such a file.

    The file holds the engine, its contract, the runner, golden outputs and an SBOM. Two builds of one engine are byte-identical.
    """
    from edgekd.errors import UserError

    if (engine is None) == (verify is None):
        raise UserError("expected the folder of an engine, or --verify FILE; see `edgekd bundle --help`")
    if verify is not None:
        from edgekd.bundle.verify import verify as check

        found = check(verify, allowed_signers)
    else:
        from edgekd.bundle.build import BundleRequest, build

        assert engine is not None
        found = build(BundleRequest(engine, out, name, sign, golden.value, tuple(image), stacks))
    _show(found, json, is_new=verify is None)


def _show(found: Verified, json: bool, is_new: bool) -> None:
    from dataclasses import asdict

    from edgekd.cli import show

    if json:
        show.print_json({**asdict(found), "path": str(found.path)})
        return
    manifest = found.manifest
    print(f"{found.path}  {found.size_bytes / 1e6:.2f} MB, release {found.release}, version {manifest.version}")
    print(f"engine     {manifest.name}: {manifest.task}, {manifest.target} {manifest.precision}, for {_place(found)}")
    for metric, value in list(manifest.accuracy.items())[:1]:
        print(f"accuracy   {metric} {value:.4f}")
    source = manifest.made_by.get("golden", {}).get("from", "none")
    print(f"golden     {manifest.golden} images, outputs of: {source}, error {manifest.tolerance.error:g}, "
          f"different {manifest.tolerance.different:g}")  # fmt: skip
    print("contents   " + ", ".join(f"{part} {size / 1e3:.0f} kB" for part, size in found.parts.items()))
    print(f"signature  {found.trust}")
    if is_new:
        print(f"next:      edgekd deploy {found.path} --board NAME")


def _place(found: Verified) -> str:
    if found.manifest.machine:
        return "one kind of machine"
    return f"chip {found.manifest.chip}" if found.manifest.chip else "any machine with the runtime"
