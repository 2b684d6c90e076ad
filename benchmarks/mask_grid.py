"""How much of the true masks survives the grid of a network's prototypes, at several sizes of its input.

    python benchmarks/mask_grid.py instance/nuclei_edgedet-s_lite2_bckd --sizes 256 384

Every true mask of the scored split becomes the share of each prototype cell (a fourth of the input) that it covers, and of that
a mask at the image's size again by `edgekd.board.masks`, as of an engine: what a network reaches that has learned the shares
exactly. Also counted: the objects whose box holds no point of the finest level, of stride 8. Prints the mean IoU of all
objects and of those below 32x32 pixels of the image.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from edgekd.board.frame import frame
from edgekd.board.masks import assemble
from edgekd.board.run_masks import mask_areas
from edgekd.board.specs import Preprocess
from edgekd.core.recipe_loading import load_recipe
from edgekd.data.splits import open_split
from edgekd.models.heads import MASK_STRIDE

STRIDE = 8  # of the finest level
SMALL = 32**2


def main() -> None:
    """Print one line per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[256, 384], help="heights of the square input, in pixels"
    )
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe)
    dataset = open_split(recipe, recipe.data.val)
    for size in arguments.sizes:
        overlaps, areas, held = [], [], []
        for index in range(len(dataset)):
            instances = dataset.load(index).instances
            assert instances is not None
            assert instances.masks is not None
            if len(instances.labels) == 0:
                continue
            overlap, hold = of_image(instances.masks.whole(), instances.boxes_xyxy, size)
            overlaps += overlap
            areas += mask_areas(instances.masks).tolist()
            held += hold
        every, small = np.array(overlaps), np.array(areas) < SMALL
        print(
            f"{size}x{size}: mean IoU {every.mean():.3f} of {len(every)} objects, {every[small].mean():.3f} of {small.sum()} "
            f"small ones; {1 - np.mean(held):.1%} hold no point of stride {STRIDE}",
            flush=True,
        )


def of_image(masks: np.ndarray, boxes: np.ndarray, size: int) -> tuple[list[float], list[bool]]:
    """Return each object's IoU after the grid, and whether its box holds a point; masks (N, H, W) bool, boxes (N, 4)."""
    height, width = masks.shape[1:]
    place = frame((height, width), Preprocess((size, size)))
    grid = size // MASK_STRIDE
    shares = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(masks).float(), grid)
    logits = shares.numpy() - 0.5
    overlaps = []
    for mask, logit, box in zip(masks, logits, boxes, strict=True):
        made = assemble(logit[None], np.ones((1, 1), np.float32), box[None], place)[0]
        overlaps.append(float((made & mask).sum() / max(1, (made | mask).sum())))
    scaled = boxes * (np.array([size / width, size / height] * 2))
    points = [np.floor(scaled[:, i + 2] / STRIDE - 0.5) - np.ceil(scaled[:, i] / STRIDE - 0.5) >= 0 for i in (0, 1)]
    return overlaps, (points[0] & points[1]).tolist()


if __name__ == "__main__":
    main()
