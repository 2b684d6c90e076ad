"""Arrays beside a report, in its folder `report_data/`."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgekd.board.files import write_atomic
from edgekd.core.artifact import Artifact
from edgekd.errors import ArtifactError
from edgekd.evaluate.image_counts import FILE as IMAGE_COUNTS


def write_image_counts(scored: Mapping[str, Artifact], folder: Path) -> None:
    """Write the image counts of all rows into one file; artifacts of an earlier edgekd and of objects have none.

    Args:
        scored: scores by row.
        folder: the report's data folder.
    """
    arrays = {}
    for row, artifact in scored.items():
        if (file := artifact.file(IMAGE_COUNTS)).is_file():
            arrays[row] = read_arrays(file)["counts"]
    write_arrays(folder / IMAGE_COUNTS, arrays)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays atomically; without any, delete the file, which belongs to an earlier state of the run."""
    if not arrays:
        path.unlink(missing_ok=True)
        return
    in_memory = io.BytesIO()
    np.savez_compressed(in_memory, **arrays)  # type: ignore[arg-type]  # keys never shadow its flags
    write_atomic(path, in_memory.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name, {} without the file.

    Raises:
        ArtifactError: it is damaged.
    """
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as exc:
        raise ArtifactError(f"{path}: damaged ({exc}); run the recipe again to rewrite it") from exc
