"""Networks from recipes and from checkpoint artifacts."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from edgekd.core.artifact import Artifact
from edgekd.core.recipe import Network
from edgekd.errors import ArtifactError
from edgekd.models.base import DenseModel
from edgekd.models.build import build_model
from edgekd.models.session import TorchSession
from edgekd.models.weights import load_into, load_state

WEIGHTS = "weights.safetensors"
START_WEIGHTS = "encoder_weights"  # the name of this option in every family that has it


def network_from_recipe(network: Network, task: str, num_classes: int, section: str) -> DenseModel:
    """Build the network of a recipe section and load its `checkpoint`, if it names one.

    Raises:
        RecipeError: unknown family, variant or option.
        CheckpointError: the checkpoint is damaged or belongs to another network.
    """
    options = network.options.typed("families", network.family, f"{section}.options")
    model = build_model(network.family, network.variant, task, num_classes, options)
    if network.checkpoint is not None:
        state = load_state(network.checkpoint, network.checkpoint_key, f"{section}.checkpoint_key")
        what = f"{section}.checkpoint {network.checkpoint}"
        load_into(model, state, what, section, network.checkpoint_skip)
    return model


def untrained_network(network: Network, task: str, num_classes: int, section: str) -> DenseModel:
    """Build the network of a recipe section with random weights, without reading a weight file.

    Raises:
        RecipeError: unknown family, variant or option.
    """
    options = network.options.typed("families", network.family, f"{section}.options")
    return build_model(network.family, network.variant, task, num_classes, _without_start_weights(options))


def network_from_artifact(artifact: Artifact) -> DenseModel:
    """Load the trained network of a checkpoint artifact, in eval mode."""
    try:
        network = Network.model_validate(artifact.details.get("network"))
    except ValidationError as exc:
        raise ArtifactError(f"{artifact.path}: damaged manifest (details.network); train it again") from exc
    options = _without_start_weights(network.options.typed("families", network.family, artifact.path.name))
    model = build_model(network.family, network.variant, artifact.spec.task, len(artifact.spec.classes), options)
    weights = artifact.file(WEIGHTS)
    load_into(
        model, load_state(Path(weights)), str(weights), is_checked=False
    )  # later stages report values that are not finite
    return model.eval()


def open_checkpoint(artifact: Artifact) -> TorchSession:
    """Open a session on the trained network of a checkpoint artifact, on a GPU where there is one (not run on hardware)."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    return TorchSession(network_from_artifact(artifact).to(device), artifact.spec)


def _without_start_weights(options: Any) -> Any:
    """Return the family's options without the file of start weights, which need not exist here."""
    if START_WEIGHTS not in {field.name for field in fields(options)}:
        return options
    return replace(options, **{START_WEIGHTS: None})
