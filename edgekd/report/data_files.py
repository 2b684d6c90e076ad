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
from edgekd.evaluate.image_scores import FILE as IMAGE_SCORES
from edgekd.evaluate.image_scores import ImageScores, read_image_scores


def write_image_scores(scored: Mapping[str, Artifact], folder: Path) -> None:
    """Write pixel counts (`<row>`) or matches (`<row>/<array>`) of each image of all rows into one file.

    Artifacts of an earlier edgekd have none.

    Args:
        scored: scores by row.
        folder: the report's data folder.
    """
    arrays: dict[str, np.ndarray] = {}
    for row, artifact in scored.items():
        own = read_arrays(artifact.file(IMAGE_SCORES))
        arrays |= {row if name == "counts" else f"{row}/{name}": array for name, array in own.items()}
    write_arrays(folder / IMAGE_SCORES, arrays)


def image_scores_of(row: str, arrays: Mapping[str, np.ndarray]) -> ImageScores | None:
    """Return the pixel counts or matches of one row from the arrays of that file; None without them."""
    own = {name.removeprefix(f"{row}/"): array for name, array in arrays.items() if name.startswith(f"{row}/")}
    return read_image_scores({"counts": arrays[row]} if row in arrays else own)


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
