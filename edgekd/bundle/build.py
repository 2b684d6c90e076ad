"""`edgekd bundle`: collects the files of a bundle in a new folder and packs them.

Time, the machine's paths and the order of files are left out, so two builds are equal byte for byte.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd import stacks
from edgekd.bundle.golden import Source, make_golden
from edgekd.bundle.manifest import manifest_of
from edgekd.bundle.run import EngineRun, open_run
from edgekd.bundle.sbom import sbom
from edgekd.bundle.sign import sign
from edgekd.bundle.verify import Verified, verify
from edgekd.core import plugins
from edgekd.core.workspace import disk_errors
from edgekd.data.splits import shared_splits
from edgekd.errors import BundleError, UserError
from edgekd.executors import portable
from edgekd.executors.boards import connected
from edgekd.release.archive import RUN, pack
from edgekd.release.sums import SUMS, hashes_in, render_sums
from edgekd.runner.golden import write_golden
from edgekd.runner.manifest import MANIFEST, SPEC

SBOM = "sbom.cdx.json"
UNIT = "edgekd@.service"
# Files of the portable packages at the top of a bundle: name there -> package and name here.
_FROM_PACKAGES = {RUN: ("edgekd.runner", "run.sh"), UNIT: ("edgekd.release", UNIT)}


@dataclass(frozen=True)
class BundleRequest:
    """Inputs of a bundle.

    engine: folder of the engine in its run, e.g. `runs/quickstart/engine/openvino-int8`.
    out: the file; None: `NAME.tar` in the current folder.
    name: name of the service on a board; None: the engine's id without its board.
    key: SSH key that signs; None: no signature.
    golden: where the golden outputs come from, see `bundle/golden.py`.
    images: golden images; () for images of the scored split.
    has_stacks: whether it has the files for other software; these hold further copies of the engine.
    """

    engine: Path
    out: Path | None = None
    name: str | None = None
    key: Path | None = None
    golden: Source = "engine"
    images: Sequence[Path] = ()
    has_stacks: bool = False


def build(request: BundleRequest) -> Verified:
    """Write a bundle and return its verified content, read back from the file.

    Raises:
        ArtifactError: not an engine in its run; BundleError: its golden outputs cannot be had, or the key cannot sign.
        UserError: the run has no report; DataError: its images are not here; PackageError: the extra `deploy` is absent.
        WorkspaceError: the disk is full or not writable.
    """
    run = open_run(request.engine)
    name = request.name or run.id.partition("@")[0]
    out = request.out or Path(f"{name}.tar")
    with disk_errors(out.absolute().parent), TemporaryDirectory(prefix="edgekd-bundle-") as text:
        folder = Path(text) / "bundle"
        _collect(run, name, request, folder)
        (folder / SUMS).write_bytes(render_sums(hashes_in(folder)))
        if request.key is not None:
            sign(folder, request.key)
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        pack(folder, out)
    return verify(out)


def _collect(run: EngineRun, name: str, request: BundleRequest, folder: Path) -> None:
    """Write all files of a bundle but the sums."""
    for entry in run.engine.manifest["files"]:
        _copy(run.engine.file(entry["name"]), folder / "engine" / entry["name"])
    with connected(Path.cwd()), shared_splits():
        golden = make_golden(run, request.golden, request.images)
        manifest = manifest_of(run, name, golden)
    write_golden(folder, run.engine.spec, golden.images)
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    (folder / SPEC).write_text(json.dumps(run.engine.spec.to_dict(), indent=1) + "\n", encoding="utf-8")
    portable.copy_to(folder / "runtime", [plugins.load("targets", manifest.target)])
    for place, (package, file) in _FROM_PACKAGES.items():
        (folder / place).write_bytes(resources.files(package).joinpath(file).read_bytes())
    if request.has_stacks:
        _add_stacks(run, folder / "stacks")
    engine_files = {name: digest for name, digest in hashes_in(folder).items() if name.startswith("engine/")}
    (folder / SBOM).write_text(sbom(manifest, run.engine.spec, engine_files), encoding="utf-8")


def _add_stacks(run: EngineRun, folder: Path) -> None:
    reasons = stacks.write_all(run.engine, folder)
    if all(reasons.values()):
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "edgekd knows none for its target"
        raise UserError(f"{run.id}: no software of `edgekd stack` can run it ({why}); leave --stacks out")


def _copy(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, place)
    except FileNotFoundError as exc:
        raise BundleError(f"{source}: {exc.strerror}; run the recipe again") from exc
