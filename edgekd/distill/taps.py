"""The feature maps that a method compares: the decoder's last, the backbone's coarsest, a detector's levels."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from edgekd.distill import relations, token_relations
from edgekd.distill.base import Pyramid
from edgekd.errors import RecipeError
from edgekd.models.base import Outputs
from edgekd.train.batch import Batch

MapName = Literal["decoder", "backbone"]

# A relation matrix of N cells has N^2 float32: 4096 cells are 64 MiB per image.
MAX_TOKENS = 4096


def channels(pyramid: Pyramid, at: MapName, method: str) -> int:
    """Return the channels of a network's map; RecipeError when the network has no backbone features."""
    if at == "decoder":
        return pyramid.decoder_channels
    if not pyramid.channels:
        raise RecipeError(f"{method}: this network shows no feature maps; give it `taps` or set at: decoder")
    return pyramid.channels[max(pyramid.channels)]


def pair(
    teacher: Outputs, student: Outputs, batch: Batch, at: MapName, tokens: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return both maps on a common grid, as `relations.on_common_grid`, the teacher's without gradient.

    With `tokens` the grid has at most `tokens` cells.
    """
    map_t, map_s = (_map(outputs, at) for outputs in (teacher, student))
    if tokens is None:
        return relations.on_common_grid(map_t.detach(), map_s, batch.labelled)
    return pooled_pair(map_t, map_s, batch, tokens)


def pooled_pair(teacher: Tensor, student: Tensor, batch: Batch, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return two maps on a common grid of at most `tokens` cells, as `relations.on_common_grid`, the teacher's without
    gradient.

    Both are pooled to the coarser map's grid first: cells of a grid that does not divide a map overlap, differently on every map.
    """
    map_t, map_s, _ = relations.on_common_grid(teacher.detach(), student, batch.labelled)
    grid = token_relations.token_grid(map_t.shape[-2], map_t.shape[-1], tokens)
    map_t, map_s = (relations.pooled_to(x, grid, batch.labelled) for x in (map_t, map_s))
    return map_t, map_s, relations.cells(batch.labelled, grid)


def shared_levels(teacher: Pyramid, student: Pyramid, method: str) -> tuple[int, ...]:
    """Return the strides of the levels that both detectors' pyramids have, fine to coarse; RecipeError without any."""
    shared = tuple(stride for stride in student.level_strides if stride in teacher.level_strides)
    if not shared:
        raise RecipeError(
            f"{method}: expected detectors whose pyramids share a level, got levels of strides "
            f"{list(teacher.level_strides)} of the teacher and {list(student.level_strides)} of the student"
        )
    return shared


def level_pair(teacher: Outputs, student: Outputs, batch: Batch, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return both maps of a level on a common grid, as `relations.on_common_grid`, the teacher's without gradient."""
    return relations.on_common_grid(teacher.levels[stride].detach(), student.levels[stride], batch.labelled)


def projection(student: int, teacher: int) -> nn.Module:
    """Return the adapter from the student's channels to the teacher's: a 1x1 convolution, or the identity where they agree."""
    return nn.Identity() if student == teacher else nn.Conv2d(student, teacher, kernel_size=1)


def check_tokens(tokens: int, method: str) -> None:
    """Check that a relation matrix stays within 64 MiB per image; RecipeError when it does not."""
    if not 2 <= tokens <= MAX_TOKENS:
        raise RecipeError(f"{method}.tokens: expected 2 to {MAX_TOKENS} (64 MiB per image), got {tokens}")


def _map(outputs: Outputs, at: MapName) -> Tensor:
    return outputs.decoder if at == "decoder" else outputs.features[max(outputs.features)]
