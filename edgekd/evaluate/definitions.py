"""Titles and definitions of the metrics, and whether higher is better; for the report and the docs."""

from __future__ import annotations

from edgekd.evaluate.boundary import BAND_RATIO
from edgekd.evaluate.connectivity import MIN_AREA_PX, MIN_OVERLAP

TRIMAP_RADIUS_PX = 3
COCO_DETECTIONS = 100


def recall_name(kind: str, max_detections: int) -> str:
    """Return the name of the average recall beside an average precision: `mar_100` beside `map`."""
    return kind.replace("map", f"mar_{max_detections}")


def _average_precision(
    max_detections: int, name: str, title: str, at_50: str, at_75: str, short: str, what: str
) -> dict[str, tuple[str, str, bool]]:
    """Return the definitions of one kind of average precision."""
    text = (
        f"Mean over classes with objects and over the IoU thresholds 0.50, 0.55, ..., 0.95 of the average precision of the "
        f"{what}, as COCO measures it: 101 recall points, at most {max_detections} detections per image, at the image's own size."
    )
    found = {
        name: (title, text, True),
        f"{name}_50": (at_50, f"{title} at the threshold 0.50 alone.", True),
        f"{name}_75": (at_75, f"{title} at the threshold 0.75 alone.", True),
    }
    for size, area in (("small", "up to 32 x 32"), ("medium", "of 32 x 32 to 96 x 96"), ("large", "from 96 x 96 on")):
        found[f"{name}_{size}"] = (f"{short} {size}", f"{title} of the objects {area} square pixels alone.", True)
    found[recall_name(name, max_detections)] = (
        short.replace("AP", f"AR{max_detections}"),
        f"Share of the objects that is found at all, by their {what}, with at most {max_detections} detections per image: mean "
        "over the same classes and IoU thresholds.",
        True,
    )
    return found


_PIXELS: dict[str, tuple[str, str, bool]] = {
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


def definitions(max_detections: int = COCO_DETECTIONS) -> dict[str, tuple[str, str, bool]]:
    """Return name -> (title, definition, higher is better) of all metrics, in the order in which they are shown.

    max_detections: scored per image; average recall has it in its name.
    """
    return {
        **_PIXELS,
        **_average_precision(max_detections, "map", "mAP", "AP50", "AP75", "AP", "boxes"),
        **_average_precision(max_detections, "mask_map", "mask mAP", "mask AP50", "mask AP75", "mask AP", "masks"),
        "boundary_map": (
            "boundary AP",
            f"Like mask mAP, but what counts is the smaller of the masks' IoU and the IoU of their bands within {BAND_RATIO:.0%} "
            "of the image diagonal inside their contours (Boundary IoU, arXiv 2103.16562, minimum rule).",
            True,
        ),
        "boundary_map_50": ("boundary AP50", "Boundary AP at the threshold 0.50 alone.", True),
        "boundary_map_75": ("boundary AP75", "Boundary AP at the threshold 0.75 alone.", True),
    }


DEFINITIONS = definitions()
