"""A torch network with the interface of an engine's session, so that the same code evaluates both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.data.base import IGNORE_INDEX
from edgekd.models.base import DenseModel, ReadyDetector
from edgekd.targets.base import SessionBase


def torch_spec(
    model: DenseModel, task: str, classes: tuple[str, ...], size: tuple[int, int], resize: str = "stretch"
) -> ModelSpec:
    """Return the contract of a torch network at input `size` (height, width): a normalised image in, its heads out.

    `resize` is how an image is brought to that size, see `Preprocess`.

    A `ReadyDetector` has its detections as outputs instead of heads.
    """
    mean, std = (tuple(round(v, 6) for v in buffer.flatten().tolist()) for buffer in (model.mean, model.std))
    return ModelSpec(
        task=task,
        classes=classes,
        ignore_index=IGNORE_INDEX,
        inputs=(TensorSpec("image", "float32", (1, 3, *size), "image"),),
        outputs=tuple(
            TensorSpec(name, str(value.dtype).removeprefix("torch."), tuple(value.shape), name.rstrip("_0123456789"))
            for name, value in _outputs_for_zeros(model, size).items()
        ),
        preprocess=Preprocess(size=size, mean=mean, std=std, resize=resize),
    )


def head_shapes(model: DenseModel, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every head for one image of `size` (height, width), from a forward pass on zeros."""
    return {name: tuple(value.shape) for name, value in _outputs_for_zeros(model, size).items()}


def outputs_of(model: DenseModel, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return a network's outputs for normalised images (B, 3, H, W): its heads, or the detections of a `ReadyDetector`."""
    if isinstance(model, ReadyDetector):
        return model.detect_normalized(images)
    return model.forward_normalized(images).heads


def _outputs_for_zeros(model: DenseModel, size: tuple[int, int]) -> dict[str, torch.Tensor]:
    was_training = model.training
    with torch.inference_mode():
        outputs = outputs_of(model.eval(), model.mean.new_zeros(1, 3, *size))
    model.train(was_training)
    return outputs


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
        # cuDNN would round to TF32, which is not fp32.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            heads = outputs_of(self.model, image)
        return {tensor.name: heads[tensor.name].cpu().numpy() for tensor in self.spec.outputs}
