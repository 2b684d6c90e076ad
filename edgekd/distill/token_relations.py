"""The relation of all cells of a map to each other: its grid of cells and the loss between two networks' relations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def token_grid(height: int, width: int, tokens: int) -> tuple[int, int]:
    """Return the largest grid of about the same aspect with at most `tokens` cells, not finer than the map."""
    if height * width <= tokens:
        return height, width
    rows = min(tokens, max(1, int((tokens * height / width) ** 0.5)))
    return rows, max(1, min(width, tokens // rows))


def relation_loss(
    teacher: Tensor, student: Tensor, valid: Tensor, temperature: float, rows: Tensor | None = None
) -> Tensor:
    """Return the mean over valid cells of KL( P^T || P^S ), for unit vectors (B, Ct, h, w), (B, Cs, h, w).

    P are a cell's softmax over its cosine to all other valid cells, itself left out. The teacher gets no gradient. rows (R,)
    are the numbers of the cells whose rows are compared; all N by default. Without a valid cell the loss is 0.
    """
    of_teacher, of_student = (unit.flatten(2).transpose(1, 2) for unit in (teacher, student))
    return _RelationLoss.apply(of_teacher, of_student, valid.flatten(1), temperature, rows)


def relation_log_rows(tokens: Tensor, valid: Tensor, temperature: float, rows: Tensor | None = None) -> Tensor:
    """Return log P, (B, R, N), of vectors (B, N, C) and valid (B, N) bool, see `relation_loss`."""
    cells = torch.arange(tokens.shape[1], device=tokens.device)
    chosen, rows = (tokens, cells) if rows is None else (tokens[:, rows], rows)
    similarity = torch.bmm(chosen / temperature, tokens.transpose(1, 2))  # (B, R, N)
    similarity.masked_fill_((rows.unsqueeze(1) == cells) | ~valid.unsqueeze(1), -1e4)
    return F.log_softmax(similarity, dim=2)


class _RelationLoss(torch.autograd.Function):
    """The loss of relation rows and, at once, its gradient.

    Autograd would make and keep eight arrays of the size of the relation. Here no array outlives its image: on a CPU one
    image's relation stays in the cache, and no step maps memory again.
    """

    @staticmethod
    def forward(
        ctx: Any, teacher: Tensor, student: Tensor, valid: Tensor, temperature: float, rows: Tensor | None
    ) -> Tensor:
        weight = valid.to(student.dtype)
        weight = weight if rows is None else weight[:, rows]  # (B, R)
        weight = weight / weight.sum().clamp_min(1)
        total, grads = student.new_zeros(()), []
        for images in torch.arange(len(student)).split(1 if student.device.type == "cpu" else len(student)):
            part = slice(int(images[0]), int(images[-1]) + 1)
            p_t = relation_log_rows(teacher[part], valid[part], temperature, rows)
            log_s = relation_log_rows(student[part], valid[part], temperature, rows)
            difference = p_t - log_s
            kl = torch.linalg.vecdot(p_t.exp_(), difference)
            total += (kl * weight[part]).sum()
            if ctx.needs_input_grad[1]:
                # Gradient of the similarity before the softmax: P^S - P^T. A cell is in its row and in all other rows' columns.
                of_pairs = log_s.exp_().sub_(p_t).mul_((weight[part] / temperature).unsqueeze(2))
                grads.append(_of_tokens(of_pairs, student[part], rows))
        ctx.save_for_backward(*([torch.cat(grads)] if grads else []))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None, None]:
        (of_tokens,) = ctx.saved_tensors
        return None, of_tokens * grad, None, None, None


def _of_tokens(of_pairs: Tensor, tokens: Tensor, rows: Tensor | None) -> Tensor:
    """Return the gradient of vectors (B, N, C) from that of their inner products (B, R, N)."""
    chosen = tokens if rows is None else tokens[:, rows]
    as_columns, as_rows = torch.bmm(of_pairs.transpose(1, 2), chosen), torch.bmm(of_pairs, tokens)
    return as_columns.add_(as_rows) if rows is None else as_columns.index_add_(1, rows, as_rows)
