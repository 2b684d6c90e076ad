"""What each metric is called and means, and whether more is better; for the report and the docs."""

from __future__ import annotations

from edgekd.evaluate.boundary import BAND_RATIO
from edgekd.evaluate.connectivity import MIN_AREA_PX, MIN_OVERLAP

TRIMAP_RADIUS_PX = 3

# Name -> (title, definition, higher is better). In the order in which they are shown.
DEFINITIONS: dict[str, tuple[str, str, bool]] = {
    "miou": (
        "mIoU",
        "Mean over classes of intersection over union, from one confusion matrix of the whole split at label "
        "resolution; ignored pixels are left out, and so are classes in neither labels nor predictions.",
        True,
    ),
    "pixel_accuracy": ("pixel accuracy", "Share of the labelled pixels of the split that got the right class.", True),
    "boundary_iou": (
        "boundary IoU",
        f"Like mIoU, but of each class only the band within {BAND_RATIO:.0%} of the image diagonal of its contours "
        "(and the frame) counts, in labels and predictions; ignored pixels leave the bands after these are made.",
        True,
    ),
    f"trimap_miou_{TRIMAP_RADIUS_PX}px": (
        f"trimap mIoU {TRIMAP_RADIUS_PX} px",
        f"mIoU of the labelled pixels that have a pixel of another true class at most {TRIMAP_RADIUS_PX} px away "
        "(Chebyshev distance); contours against ignored pixels do not count.",
        True,
    ),
    "spurious_components": (
        "spurious components",
        f"Share of the predicted 4-connected regions of at least {MIN_AREA_PX} labelled px that have their class "
        f"in the labels on less than {MIN_OVERLAP:.0%} of these pixels.",
        False,
    ),
    "missing_components": (
        "missing components",
        f"Share of the labelled 4-connected regions of at least {MIN_AREA_PX} px of which less than {MIN_OVERLAP:.0%} "
        "of the pixels were predicted as their class.",
        False,
    ),
}
