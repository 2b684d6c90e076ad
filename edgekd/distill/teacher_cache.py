"""A teacher's answers to the fixed views of a training set, kept on disk: they are worked out once for all arms and seeds.

One safetensors file per view, rounded to float16 for half the disk; a tensor with values beyond float16's 65504 stays
float32. A folder belongs to one teacher, one data set and one augmentation (`key_of`), so a changed one never meets old
answers; of what the key does not hold, a teacher's own code for one, an answer that is there is asked for again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path

import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from edgekd.board.files import replacing
from edgekd.core.artifact import Artifact, package_version
from edgekd.core.recipe import Data
from edgekd.data.loader import FixedViews
from edgekd.errors import WorkspaceError
from edgekd.models.artifact import WEIGHTS
from edgekd.train.module import Teacher

log = logging.getLogger(__name__)
BATCH = 8


class TeacherAnswers:
    """Answers in a folder; called with the number of a view it returns its float32 tensors, without a batch axis."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, number: int) -> dict[str, Tensor]:
        return {name: value.float() for name, value in load_file(self.file(number)).items()}

    def file(self, number: int) -> Path:
        """Return the file of a view's answers."""
        return self.folder / f"{number // 1000:04d}" / f"{number:07d}.safetensors"


def key_of(teacher: Artifact, data: Artifact, section: Data) -> str:
    """Return what the answers depend on, as a hex digest: weights, network, images, size and augmentation."""
    content = {
        "versions": [package_version(name) for name in ("edgekd", "torchvision", "pillow")],  # they draw the views
        "weights": [entry["sha256"] for entry in teacher.manifest["files"] if entry["name"] == WEIGHTS],
        "network": teacher.details["network"],
        "names": ["heads/", "features/", "levels/ or decoder"],
        "data": [
            section.model_dump(mode="json", exclude={"options": {"root"}, "val": True}),
            data.details["splits"][section.train]["fingerprint"],
        ],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def filled(folder: Path, teacher: Teacher, views: FixedViews, device: torch.device) -> TeacherAnswers:
    """Return the answers to all views, working out those that are missing; interrupted, it goes on where it was.

    Args:
        folder: of these answers alone (`key_of`).
        teacher: answers in float32 on `device`.
        views: of the training split.
        device: where the teacher runs.

    Raises:
        WorkspaceError: the disk has no room for all answers; nothing was written then. Or the answers that are there are
            not this teacher's.
    """
    answers = TeacherAnswers(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):  # one process works them out, others wait for it
        kept = [number for number in range(len(views)) if answers.file(number).is_file()]
        missing = sorted(set(range(len(views))) - set(kept))
        teacher.to(device, torch.channels_last)
        if kept:
            _check_same(answers, kept[0], teacher, views, device)
        if missing:
            _check_room(folder, teacher, views, missing, device)
            loader = DataLoader(
                Subset(views, missing), BATCH, collate_fn=lambda items: torch.stack([v.image for v in items])
            )
            title, screen = "the teacher answers", Console(stderr=True)
            for at, images in enumerate(track(loader, title, console=screen, disable=not screen.is_terminal)):
                for number, tensors in zip(missing[at * BATCH :], _answer(teacher, images, device), strict=False):
                    answers.file(number).parent.mkdir(exist_ok=True)
                    with replacing(answers.file(number)) as temporary:
                        save_file(tensors, temporary)
    return answers


def _answer(teacher: Teacher, images: Tensor, device: torch.device) -> list[dict[str, Tensor]]:
    """Return the answers to uint8 images (B, 3, H, W), one by one, on the CPU, in the type that they are kept in."""
    outputs = teacher(images.to(device).float().div(255).contiguous(memory_format=torch.channels_last))
    host = {name: value.float().cpu() for name, value in outputs.tensors().items()}
    return [{name: _rounded(value[i].contiguous()) for name, value in host.items()} for i in range(len(images))]


def _check_same(
    answers: TeacherAnswers, number: int, teacher: Teacher, views: FixedViews, device: torch.device
) -> None:
    """Check that the kept answer to a view is the teacher's; devices and versions of torch may differ a little."""
    kept, (live,) = answers(number), _answer(teacher, views[number].image.unsqueeze(0), device)
    same = kept.keys() == live.keys() and all(
        kept[name].shape == value.shape and (kept[name] - value).abs().max() <= 0.02 * value.float().abs().max()
        for name, value in live.items()
    )
    if not same:
        raise WorkspaceError(
            f"trainer.teacher_cache: the answers in {answers.folder} are not this teacher's, though its weights and options "
            "are the same; its code has changed: delete that folder"
        )


def _rounded(value: Tensor) -> Tensor:
    half = value.half()
    return half if half.isfinite().all() else value


def _check_room(folder: Path, teacher: Teacher, views: FixedViews, missing: list[int], device: torch.device) -> None:
    (first,) = _answer(teacher, views[missing[0]].image.unsqueeze(0), device)
    each = sum(value.nbytes for value in first.values())
    needed, free = len(missing) * each, shutil.disk_usage(folder).free
    facts = f"{len(missing)} answers of {each / 2**20:.1f} MiB need {needed / 2**30:.2f} GiB"
    if needed * 1.02 > free:
        raise WorkspaceError(
            f"trainer.teacher_cache: {facts} in {folder}, {free / 2**30:.2f} GiB are free; "
            "choose another folder, fewer data.augment.views, or leave it out"
        )
    log.info("teacher cache: %s in %s", facts, folder)
