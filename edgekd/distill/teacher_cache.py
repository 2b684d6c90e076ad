"""The teacher's outputs for the fixed views of a training set, cached on disk: computed once for all arms and seeds.

One safetensors file per view, rounded to float16 for half the disk; a tensor with values beyond float16's 65504 stays
float32. A folder belongs to one teacher, one data set and one augmentation (`cache_key`). The key does not cover the code of
a teacher from another package. `fill_cache` therefore computes one cached view again and compares.
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
from edgekd.core.artifact import Artifact
from edgekd.core.machine_facts import package_version
from edgekd.core.recipe import Data
from edgekd.data.loader import FixedViews
from edgekd.errors import WorkspaceError
from edgekd.models.artifact import WEIGHTS
from edgekd.train.module import Teacher

log = logging.getLogger(__name__)
BATCH = 8


class TeacherCache:
    """The cached outputs in a folder; a call with the number of a view reads its float32 tensors, without a batch axis."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, number: int) -> dict[str, Tensor]:
        return {name: value.float() for name, value in load_file(self.file(number)).items()}

    def file(self, number: int) -> Path:
        """Return the file with the outputs for a view."""
        return self.folder / f"{number // 1000:04d}" / f"{number:07d}.safetensors"


def cache_key(teacher: Artifact, data: Artifact, section: Data) -> str:
    """Return a hash (hex) over everything that the outputs depend on: weights, network, images, size, augmentation."""
    described = section.model_dump(mode="json", exclude={"val"})
    described["options"] = section.options.in_keys("formats", section.format)
    del described["augment"]["flip_pairs"]  # they swap labels, and the teacher sees images only
    content = {
        "versions": [package_version(name) for name in ("edgekd", "torchvision", "pillow")],  # they draw the views
        "weights": [entry["sha256"] for entry in teacher.manifest["files"] if entry["name"] == WEIGHTS],
        "network": teacher.details["network"],
        "names": ["heads/", "features/", "levels/ or decoder"],
        "data": [described, data.details["splits"][section.train]["fingerprint"]],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def fill_cache(folder: Path, teacher: Teacher, views: FixedViews, device: torch.device) -> TeacherCache:
    """Return the cache with the outputs for all views, after computing those that are missing. It can be interrupted.

    Args:
        folder: the folder of this key (`cache_key`).
        teacher: runs in float32 on `device`.
        views: views of the training split.
        device: where the teacher runs.

    Raises:
        WorkspaceError: the disk has no room for all outputs (nothing is written then), or the cached outputs are not this
            teacher's.
    """
    cache = TeacherCache(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):  # one process computes, the others wait for it
        cached = [number for number in range(len(views)) if cache.file(number).is_file()]
        missing = sorted(set(range(len(views))) - set(cached))
        teacher.to(device, torch.channels_last)
        if cached:
            _check_same(cache, cached[0], teacher, views, device)
        if missing:
            _check_room(folder, teacher, views, missing, device)
            loader = DataLoader(
                Subset(views, missing), BATCH, collate_fn=lambda items: torch.stack([v.image for v in items])
            )
            title, screen = "teacher outputs", Console(stderr=True)
            for at, images in enumerate(track(loader, title, console=screen, disable=not screen.is_terminal)):
                for number, tensors in zip(missing[at * BATCH :], _outputs(teacher, images, device), strict=False):
                    cache.file(number).parent.mkdir(exist_ok=True)
                    with replacing(cache.file(number)) as temporary:
                        save_file(tensors, temporary)
    return cache


def _outputs(teacher: Teacher, images: Tensor, device: torch.device) -> list[dict[str, Tensor]]:
    """Compute the outputs for uint8 images (B, 3, H, W): one dict per image, on the CPU, in the type that is cached."""
    outputs = teacher(images.to(device).float().div(255).contiguous(memory_format=torch.channels_last))
    host = {name: value.float().cpu() for name, value in outputs.tensors().items()}
    return [{name: _rounded(value[i].contiguous()) for name, value in host.items()} for i in range(len(images))]


def _check_same(cache: TeacherCache, number: int, teacher: Teacher, views: FixedViews, device: torch.device) -> None:
    """Check that the cached outputs for a view are the teacher's, with a tolerance for other devices and versions of torch."""
    cached, (live,) = cache(number), _outputs(teacher, views[number].image.unsqueeze(0), device)
    is_same = cached.keys() == live.keys() and all(
        cached[name].shape == value.shape and (cached[name] - value).abs().max() <= 0.02 * value.float().abs().max()
        for name, value in live.items()
    )
    if not is_same:
        raise WorkspaceError(
            f"trainer.teacher_cache: the outputs in {cache.folder} are not this teacher's, although its weights and options "
            "are the same; its code has changed: delete that folder"
        )


def _rounded(value: Tensor) -> Tensor:
    half = value.half()
    return half if half.isfinite().all() else value


def _check_room(folder: Path, teacher: Teacher, views: FixedViews, missing: list[int], device: torch.device) -> None:
    (first,) = _outputs(teacher, views[missing[0]].image.unsqueeze(0), device)
    view_bytes = sum(value.nbytes for value in first.values())
    needed, free = len(missing) * view_bytes, shutil.disk_usage(folder).free
    facts = f"the outputs for {len(missing)} views of {view_bytes / 2**20:.1f} MiB need {needed / 2**30:.2f} GiB"
    if needed * 1.02 > free:
        raise WorkspaceError(
            f"trainer.teacher_cache: {facts} in {folder}, {free / 2**30:.2f} GiB are free; "
            "choose another folder, fewer data.augment.views, or leave it out"
        )
    log.info("teacher cache: %s in %s", facts, folder)
