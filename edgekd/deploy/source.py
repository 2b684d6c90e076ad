"""The bundle for `edgekd deploy`: a file, or made from an engine of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.bundle.build import BundleRequest, build
from edgekd.bundle.verify import Verified, verify
from edgekd.errors import BundleError, DeployError, RecipeError


@contextmanager
def bundle_of(source: Path, key: Path | None = None) -> Iterator[Verified]:
    """Yield a checked bundle; a bundle made from an engine is deleted after the block.

    Args:
        source: a bundle's file, or an engine's folder in its run.
        key: SSH key that signs an engine's bundle.

    Raises:
        BundleError: no bundle could be made.
        DeployError: the bundle is damaged; nothing was sent.
        RecipeError: a key was given for a finished bundle.
        EdgekdError: as `build`.
    """
    if source.is_dir():
        with TemporaryDirectory(prefix="edgekd-deploy-") as folder:
            yield build(BundleRequest(source, Path(folder) / "bundle.tar", key=key))
        return
    if not source.is_file():
        raise BundleError(f"{source}: no such file; give a bundle, or an engine's folder RUN/engine/ID")
    if key is not None:
        raise RecipeError(
            f"--sign: {source} is a bundle already; sign it when you build it: edgekd bundle ENGINE --sign KEY"
        )
    try:
        found = verify(source)
    except BundleError as exc:
        raise DeployError(f"{exc}; nothing was sent") from exc
    yield found
