"""A few training steps on images without labels, for benchmarks of untrained networks; `qat_agreement.py` calls it."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from edgekd.models.base import DenseModel


def settle(model: DenseModel, images: list[np.ndarray]) -> None:
    """Give batch norms the statistics of images."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    model.train()
    with torch.no_grad():
        for at in range(0, len(images), 4):
            model.forward_normalized(torch.from_numpy(np.concatenate(images[at : at + 4])))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def train(model: DenseModel, images: list[np.ndarray], steps: int) -> None:
    """Learn the brightness of a pixel, in classes: labels that every folder of images has."""
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)
    for step in range(steps):
        batch = torch.from_numpy(np.concatenate([images[(4 * step + i) % len(images)] for i in range(4)]))
        grey = batch.mean(dim=1, keepdim=True)
        share = (grey - grey.min()) / (grey.max() - grey.min())
        model.train()
        heads = model(batch * model.std + model.mean).heads
        loss = sum(_loss(value, share) for name, value in heads.items() if name.startswith(("logits", "scores")))
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def _loss(logits: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    classes = logits.shape[1]
    labels = F.interpolate(share, logits.shape[2:], mode="bilinear").mul(classes - 1).round().long()[:, 0]
    return F.cross_entropy(logits, labels)
