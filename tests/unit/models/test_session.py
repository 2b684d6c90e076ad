"""A torch network as a session."""

from __future__ import annotations

import numpy as np
import torch

from edgekd.board.specs import ModelSpec, TensorSpec
from edgekd.models.build import build_model
from edgekd.models.families import edgeseg
from edgekd.models.session import TorchSession, torch_spec

CLASSES = ("road", "car", "sky")


def test_spec_describes_one_normalised_image_in_and_logits_out() -> None:
    spec = torch_spec(build_model("edgeseg", "n", "semantic", 3, edgeseg.Options()), "semantic", CLASSES, (64, 96))
    assert spec.inputs == (TensorSpec("image", "float32", (1, 3, 64, 96), "image"),)
    assert spec.outputs == (TensorSpec("logits", "float32", (1, 3, 64, 96), "logits"),)
    assert spec.classes == CLASSES
    assert spec.ignore_index == 255
    assert spec.preprocess.size == (64, 96)
    assert spec.preprocess.mean == (0.485, 0.456, 0.406)
    assert spec.preprocess.std == (0.229, 0.224, 0.225)
    assert ModelSpec.from_dict(spec.to_dict()) == spec


def test_session_gives_the_logits_of_eval_mode_without_a_graph() -> None:
    model = build_model("edgeseg", "n", "semantic", 3, edgeseg.Options()).train()
    spec = torch_spec(model, "semantic", CLASSES, (64, 96))
    image = np.random.default_rng(0).standard_normal((2, 3, 64, 96), dtype=np.float32)
    with TorchSession(model, spec) as session:
        logits = session.infer({"image": image})["logits"]
        assert session.runtime["precision"] == "fp32"
        assert session.spec == spec
    assert not model.training
    assert logits.dtype == np.float32
    with torch.no_grad():
        expected = model((torch.from_numpy(image) * model.std) + model.mean).logits
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-3, atol=1e-4)
