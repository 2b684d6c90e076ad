"""Detectors of torchvision as teachers: what they find, features by stride, classes, local weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import box_iou

from edgekd.board.detection import Detections
from edgekd.board.postprocess import Predictor
from edgekd.board.preprocess import prepare
from edgekd.board.specs import Preprocess
from edgekd.errors import CheckpointError, RecipeError
from edgekd.models.base import DenseModel
from edgekd.models.build import build_model, count
from edgekd.models.families.torchvision_det import (
    COCO_OUTPUTS,
    MEAN,
    STD,
    VARIANTS,
    Options,
    class_of_output,
    output_of_class,
)
from edgekd.models.session import TorchSession, torch_spec
from edgekd.models.weights import load_into, load_state

HEIGHT, WIDTH, CLASSES = 96, 128, 5
NAMES = tuple("abcde")


def loaded(variant: str, task: str, folder: Path, options: Options = Options()) -> tuple[DenseModel, torch.nn.Module]:  # noqa: B008  frozen
    """Return our network and torchvision's own, with the same random weights, which went through a file."""
    torch.manual_seed(0)
    # Their resizing is to the size that the images have: nothing.
    theirs = (
        VARIANTS[variant]
        .function(weights=None, weights_backbone=None, num_classes=CLASSES + 1, min_size=HEIGHT, max_size=WIDTH)
        .eval()
    )
    getattr(theirs, "roi_heads", theirs).detections_per_img = 300
    if hasattr(theirs, "head"):  # one-stage: untrained scores are 0.01, below what is reported
        torch.nn.init.normal_(theirs.head.classification_head.cls_logits.weight, std=0.3)
    torch.save(theirs.state_dict(), folder / "w.pth")
    ours = build_model("torchvision_det", variant, task, CLASSES, options)
    load_into(ours, load_state(folder / "w.pth"), "teacher.checkpoint")
    return ours.eval(), theirs


def found(model: DenseModel, task: str, image: np.ndarray, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Detections:
    with TorchSession(model, torch_spec(model, task, NAMES, size)) as session:
        return Predictor(session)(image)


@pytest.mark.parametrize(
    ("variant", "task"),
    [
        ("retinanet_resnet50_fpn_v2", "detection"),
        ("fasterrcnn_resnet50_fpn", "detection"),
        ("maskrcnn_resnet50_fpn_v2", "instance"),
    ],
)
def test_it_finds_what_torchvisions_own_network_finds(variant: str, task: str, tmp_path: Path) -> None:
    ours, theirs = loaded(variant, task, tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    mine = found(ours, task, image)
    with torch.no_grad():
        (wanted,) = theirs([torch.from_numpy(image).permute(2, 0, 1).float().div(255)])
    sides = wanted["boxes"][:, 2:] - wanted["boxes"][:, :2]  # RetinaNet cuts boxes at the image and keeps empty ones
    order = wanted["scores"].argsort(descending=True, stable=True)
    order = order[(sides > 0).all(dim=1)[order]][:100]
    assert len(mine.scores) == len(order) > 10
    np.testing.assert_allclose(mine.scores, wanted["scores"][order].numpy(), atol=1e-3)
    # Scores of an untrained network are nearly equal: their order, and what NMS keeps, hangs on rounding.
    boxes, labels = wanted["boxes"][order], wanted["labels"][order] - 1
    same = (box_iou(torch.from_numpy(mine.boxes), boxes) > 0.99) & (torch.from_numpy(mine.labels)[:, None] == labels)
    partner = same.any(dim=1)
    assert partner.float().mean() > 0.8
    if task == "instance":
        assert mine.masks is not None
        theirs_pasted = wanted["masks"][order][same.float().argmax(dim=1)][:, 0].numpy() > 0.5
        # They round boxes to whole pixels before they paste.
        assert (mine.masks == theirs_pasted)[partner.numpy()].mean() > 0.97


def test_masks_of_a_box_on_whole_pixels_are_torchvisions(tmp_path: Path) -> None:
    from edgekd.board.detection import paste

    # Away from the mask's frame, which torchvision pads with zeros, the two agree.
    y, x = np.mgrid[:28, :28]
    disk = (((y - 13.5) ** 2 + (x - 13.5) ** 2) < 80).astype(np.float32)[None]
    boxes = np.array([[10, 20, 66, 90]], np.float32)
    wanted = paste_masks_in_image(torch.from_numpy(disk)[:, None], torch.from_numpy(boxes), (100, 120))[:, 0] > 0.5
    mine = paste(disk, boxes, (100, 120))
    shared, either = (mine & wanted.numpy()).sum(), (mine | wanted.numpy()).sum()
    assert shared / either > 0.93


def test_boxes_of_a_larger_image_are_in_its_pixels(tmp_path: Path) -> None:
    ours, _ = loaded("fasterrcnn_resnet50_fpn", "detection", tmp_path)
    small = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    large = np.repeat(np.repeat(small, 2, axis=0), 2, axis=1)
    spec = torch_spec(ours, "detection", NAMES, (HEIGHT, WIDTH))
    shrunk = prepare(large, spec.preprocess)
    with torch.no_grad():
        on_input = ours.detect_normalized(torch.from_numpy(shrunk))["found_boxes"][0].numpy()  # type: ignore[operator]
    on_image = found(ours, "detection", large).boxes
    np.testing.assert_allclose(on_image[:5], 2 * on_input[:5], rtol=1e-4)


def test_normalisation_is_torchvisions() -> None:
    net = VARIANTS["fcos_resnet50_fpn"].function(weights=None, weights_backbone=None)
    assert (tuple(net.transform.image_mean), tuple(net.transform.image_std)) == (MEAN, STD)
    assert Preprocess((HEIGHT, WIDTH)).resize == "stretch"


def test_cocos_ids_are_its_80_classes_in_order() -> None:
    outputs, numbers = output_of_class(Options("coco"), 80)
    # torchvision's own list of names for these outputs, in which an id without annotations is N/A.
    names = coco_names()
    assert outputs == COCO_OUTPUTS == len(names)
    assert [names[number] for number in (numbers[0], numbers[11], numbers[79])] == ["person", "stop sign", "toothbrush"]
    assert [i for i, name in enumerate(names) if name not in ("N/A", "__background__")] == list(numbers)


def coco_names() -> list[str]:
    from torchvision.models.detection import FCOS_ResNet50_FPN_Weights

    return FCOS_ResNet50_FPN_Weights.DEFAULT.meta["categories"]


def test_outputs_that_are_no_class_of_the_data_are_dropped() -> None:
    outputs, numbers = output_of_class(Options((3, 1), outputs=5), 2)
    assert class_of_output(outputs, numbers).tolist() == [-1, 1, -1, 0, -1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options("coco"), "each of the data set's 2 classes, got 80 of them"),
        (Options((1,)), "got 1 of them"),
        (Options((1, 91)), "got 91, which is twice there or not below 91"),
        (Options((7, 7)), "got 7, which is twice"),
    ],
)
def test_labels_that_do_not_fit_the_classes_are_refused(options: Options, expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        output_of_class(options, 2)


def test_the_decoder_is_the_pyramids_level_of_the_students_finest_stride(tmp_path: Path) -> None:
    image, maps = torch.rand(1, 3, 64, 64), {}
    for finest in (4, 8):
        model, theirs = loaded("fasterrcnn_resnet50_fpn", "detection", tmp_path, Options(finest=finest))  # type: ignore[arg-type]
        with torch.no_grad():
            maps[finest] = model.forward_normalized(image)
            pyramid = list(theirs.backbone(image).values())  # type: ignore[operator]
        assert list(maps[finest].levels) == [stride for stride in (4, 8, 16, 32) if stride >= finest]
        torch.testing.assert_close(maps[finest].decoder, pyramid[0 if finest == 4 else 1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(maps[4].levels[8], maps[8].decoder)
    with pytest.raises(RecipeError, match="the pyramid of fcos_resnet50_fpn begins at stride 8, got 4; use 8"):
        build_model("torchvision_det", "fcos_resnet50_fpn", "detection", 3, Options(finest=4))


def test_masks_of_a_box_detector_are_refused() -> None:
    with pytest.raises(RecipeError, match="fcos.*'instance'; use maskrcnn_resnet50_fpn or"):
        build_model("torchvision_det", "fcos_resnet50_fpn", "instance", 3, Options())


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    loaded("fcos_resnet50_fpn", "detection", tmp_path)
    other = build_model("torchvision_det", "fcos_resnet50_fpn", "detection", 7, Options())
    with pytest.raises(CheckpointError, match="another shape"):
        load_into(other, load_state(tmp_path / "w.pth"), "teacher.checkpoint")


def test_the_cost_counts_the_heads(tmp_path: Path) -> None:
    ours, _ = loaded("fcos_resnet50_fpn", "detection", tmp_path)
    counted = count(ours, (HEIGHT, WIDTH))[1]
    convolutions: list[int] = []
    for module in ours.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda m, _, out: convolutions.append(out.shape[2] * out.shape[3] * m.weight.numel())
            )
    with torch.no_grad():
        ours.detect_normalized(torch.zeros(1, 3, HEIGHT, WIDTH))  # type: ignore[operator]
    assert counted == sum(convolutions)
