"""Opens the engine of an unpacked release.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional

from edgekd.board.detection import MIN_SCORE, Selection
from edgekd.board.postprocess import Predictor
from edgekd.board.specs import ModelSpec
from edgekd.errors import BundleError, one_line
from edgekd.runner.contract import read_spec
from edgekd.runner.manifest import Manifest, read_manifest
from edgekd.targets.base import SessionBase, Target, options_of, target_of


@dataclass(frozen=True)
class Engine:
    """A release's engine, ready to run: its manifest, session, and one predictor (one call at a time)."""

    manifest: Manifest
    session: SessionBase
    predictor: Predictor
    selection: Selection

    @property
    def spec(self) -> ModelSpec:
        """Contract of the engine."""
        return self.session.spec


@contextmanager
def open_engine(folder: Path, selection: Optional[Selection] = None) -> Iterator[Engine]:
    """Open the engine of a release for inference.

    Args:
        folder: the unpacked release.
        selection: selection of objects; None: those of score 0.3 and more, at most 100.

    Raises:
        BundleError: the folder is no release, or its parts contradict each other.
        TargetError: the runtime is not installed, or refuses the engine.
    """
    selection = selection or Selection(min_score=MIN_SCORE)
    manifest = read_manifest(folder)
    spec, target = read_spec(folder, manifest), find_target(manifest)
    engine = folder / manifest.engine
    if not engine.exists():
        raise BundleError(f"{engine}: no such file, but the manifest names it; unpack the bundle again")
    try:
        options = options_of(target, manifest.options)
    except (TypeError, ValueError) as exc:  # an option has another type or range
        raise BundleError(f"{folder}: options of the target {manifest.target}: {one_line(exc)}") from exc
    with target.session(engine, spec, options) as session:
        yield Engine(manifest, session, Predictor(session, selection), selection)


def find_target(manifest: Manifest) -> Target:
    """Return the target of a release; BundleError when this runtime does not have it."""
    name = manifest.module or f"edgekd.targets.{manifest.target}"
    try:
        return target_of(name)
    except (ImportError, AttributeError) as exc:
        raise BundleError(
            f"manifest.json: this bundle has no code for target {manifest.target!r} ({one_line(exc)}); build the bundle again"
        ) from exc
