"""A torch network behind the interface of an engine's session, so that both are evaluated by the same code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.data.base import IGNORE_INDEX
from edgekd.models.base import DenseModel
from edgekd.targets.base import SessionBase


def torch_spec(model: DenseModel, task: str, classes: tuple[str, ...], size: tuple[int, int]) -> ModelSpec:
    """Return the contract of a torch network at input `size` (height, width): a normalised image in, logits out."""
    mean, std = (tuple(round(v, 6) for v in buffer.flatten().tolist()) for buffer in (model.mean, model.std))
    return ModelSpec(
        task=task,
        classes=classes,
        ignore_index=IGNORE_INDEX,
        inputs=(TensorSpec("image", "float32", (1, 3, *size), "image"),),
        outputs=(TensorSpec("logits", "float32", (1, len(classes), *size), "logits"),),
        preprocess=Preprocess(size=size, mean=mean, std=std),
    )


class TorchSession(SessionBase):
    """A `DenseModel` in eval mode and fp32. `infer` takes any batch size, unlike an engine's."""

    def __init__(self, model: DenseModel, spec: ModelSpec) -> None:
        super().__init__(Path(), spec, None)  # no engine file: the weights are in memory
        self.model = model

    def _open(self) -> None:
        self.model.eval().float()
        self.runtime = {
            "version": torch.__version__,
            "threads": torch.get_num_threads(),
            "precision": "fp32",
            "device": str(self.model.mean.device),
        }

    def _infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        image = torch.from_numpy(inputs[self.spec.inputs[0].name]).to(self.model.mean.device)
        with torch.inference_mode():
            logits = self.model.forward_normalized(image).logits
        return {self.spec.outputs[0].name: logits.cpu().numpy()}
