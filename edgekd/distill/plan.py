"""Plan of a distillation: the maps of both networks, and the maps that each loss term reads.

Shapes come from one forward pass of the untrained networks on a zero image. A term reads a map if its value changes
with the map: the test needs only a method's terms.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.core import plugins
from edgekd.core.recipe import Distill, Method, Recipe
from edgekd.core.user_code import blamed
from edgekd.data.augment import Objects
from edgekd.data.splits import open_split
from edgekd.distill.base import pyramid_of
from edgekd.errors import RecipeError, UserError
from edgekd.models.artifact import untrained_network
from edgekd.models.base import DenseModel, Outputs
from edgekd.models.build import check_input_size
from edgekd.train.batch import Batch
from edgekd.train.refusals import check_compiles, check_first_step, check_trainable

_LABEL_BLOCK = 32  # max pixels of a block of one label: there are borders, and cells away from borders


@dataclass(frozen=True)
class MapPlan:
    """One map of a network. name: `stride 8`, `level 16` and so on, `decoder`, `logits`; size: (height, width)."""

    name: str
    stride: float
    channels: int
    size: tuple[int, int]


@dataclass(frozen=True)
class TermPlan:
    """One loss term, and the maps that it reads."""

    name: str
    teacher: list[str]
    student: list[str]


@dataclass(frozen=True)
class AdapterPlan:
    """One parameter of a method: it trains with the student and is not exported."""

    name: str
    shape: tuple[int, ...]
    params: int


@dataclass(frozen=True)
class MethodPlan:
    """One method of the recipe; options: all options, with the defaults of those that the recipe does not name."""

    name: str
    weight: float
    warmup: float
    schedule: str
    options: dict[str, Any]
    terms: list[TermPlan]
    adapters: list[AdapterPlan]


@dataclass(frozen=True)
class DistillPlan:
    """The maps of both networks for one training crop (height, width), and the methods.

    answers_bytes: disk space of `trainer.teacher_cache`, None without it.
    """

    crop: tuple[int, int]
    classes: int
    teacher: list[MapPlan]
    student: list[MapPlan]
    methods: list[MethodPlan]
    answers_bytes: int | None


def plan(recipe: Recipe) -> DistillPlan:
    """Return the plan of a recipe's distillation. It trains nothing and reads no weights.

    Raises:
        RecipeError: an option of a network or method is invalid, a method does not fit the networks, or one of its terms
            has no effect with them.
        DataError: the data set, which has the number of classes, cannot be opened.
        UserError: the crop is not divisible by a network's stride, or torch.compile, which the recipe wants, does not work here.
    """
    dataset = open_split(recipe, recipe.data.train)
    classes, crop = len(dataset.classes), recipe.data.augment.crop or recipe.data.size
    teacher, student = _networks(recipe, classes)
    maps_t, maps_s = _both_maps(recipe, teacher, student, crop)
    labels = _labels(crop, classes) if recipe.task == "semantic" else _object_labels(crop)
    methods = [
        MethodPlan(
            name, config.weight, config.warmup, config.schedule, asdict(config.typed_options(name)),
            _working(name, _terms(method, maps_t, maps_s, labels)),
            [AdapterPlan(n, tuple(p.shape), p.numel()) for n, p in method.named_parameters()],
        )
        for name, (config, method) in build_methods(recipe.distill, teacher, student, classes, recipe.task).items()
    ]  # fmt: skip
    if methods and recipe.student.train:
        check_compiles(recipe.student.train, recipe.trainer)
    answers_bytes = None
    if recipe.trainer.teacher_cache and recipe.data.augment.views:
        answers_bytes = (
            len(dataset) * recipe.data.augment.views * sum(2 * x.numel() for x in maps_t.values())
        )  # float16
    return DistillPlan(crop, classes, _described(maps_t, crop), _described(maps_s, crop), methods, answers_bytes)


def check_arms(recipe: Recipe, arms: dict[str, dict[str, Method]]) -> None:
    """Check that every arm's methods fit the recipe's networks and have an effect, as `plan` does for `distill.methods`.

    Args:
        recipe: with the networks.
        arms: methods by place in the recipe, `study.arms.NAME` or `qat`, for errors.

    Raises:
        RecipeError: a method does not fit, or an option is invalid; the message names the arm.
    """
    classes, crop = len(open_split(recipe, recipe.data.train).classes), recipe.data.augment.crop or recipe.data.size
    networks = _networks(recipe, classes)
    maps_t, maps_s = _both_maps(recipe, *networks, crop)
    labels = _labels(crop, classes) if recipe.task == "semantic" else _object_labels(crop)
    for arm, methods in arms.items():
        try:
            built = build_methods(Distill(methods=methods), *networks, classes, recipe.task)
            for name, (_, method) in built.items():
                _working(name, _terms(method, maps_t, maps_s, labels))
        except UserError as exc:
            raise RecipeError(f"{arm}: {exc}") from exc


def build_methods(
    distill: Distill, teacher: DenseModel, student: DenseModel, num_classes: int, task: str
) -> dict[str, tuple[Method, nn.Module]]:
    """Return the config and the module of every method of the recipe; RecipeError when one does not fit."""
    methods = {}
    for name, config in distill.methods.items():
        module = plugins.load("methods", name)
        if task not in module.TASKS:
            others = [other for other in plugins.names("methods") if task in plugins.load("methods", other).TASKS]
            raise RecipeError(f"distill.methods.{name}: not for task {task!r}; use {', '.join(others)}")
        pyramids = (pyramid_of(network, num_classes, task) for network in (teacher, student))
        methods[name] = (config, module.Method(config.typed_options(name), *pyramids))
    return methods


def _networks(recipe: Recipe, classes: int) -> tuple[DenseModel, DenseModel]:
    """Return teacher and student, untrained."""
    teacher = untrained_network(recipe.teacher, recipe.task, classes, "teacher")
    student = untrained_network(recipe.student, recipe.task, classes, "student")
    check_trainable(teacher, recipe.teacher, "teacher")
    check_trainable(student, recipe.student, "student")
    return teacher, student


def _both_maps(
    recipe: Recipe, teacher: DenseModel, student: DenseModel, crop: tuple[int, int]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the maps of both networks; RecipeError when one that is trained fails in its first step."""
    maps = _maps(teacher, crop, "teacher"), _maps(student, crop, "student")
    for network, train, section in (
        (teacher, recipe.teacher.train, "teacher"),
        (student, recipe.student.train, "student"),
    ):
        if train is not None:
            check_first_step(network, section, train, recipe.trainer, crop)
    return maps


def _maps(model: DenseModel, crop: tuple[int, int], section: str) -> dict[str, Tensor]:
    check_input_size(model, crop)
    # Encoders for a fixed image size fail on others.
    with torch.no_grad(), blamed(f"the {section} fails on images of {crop[0]}x{crop[1]}", "use another data.size"):
        out = model.eval()(torch.zeros(1, 3, *crop))
    features = {f"stride {stride}": x for stride, x in out.features.items()}
    levels = {f"level {stride}": x for stride, x in out.levels.items()}
    return {**features, **(levels or {"decoder": out.decoder}), **out.heads}


def _described(maps: dict[str, Tensor], crop: tuple[int, int]) -> list[MapPlan]:
    return [MapPlan(n, round(crop[0] / x.shape[2], 2), x.shape[1], (x.shape[2], x.shape[3])) for n, x in maps.items()]


def _terms(method: nn.Module, teacher: dict[str, Tensor], student: dict[str, Tensor], labels: Batch) -> list[TermPlan]:
    """Return a method's terms, each with the maps on which its value depends, tested on random maps of the real shapes."""
    sides = {"teacher": _drawn(teacher, 1), "student": _drawn(student, 2)}
    reads: dict[str, dict[str, list[str]]] = {}
    before = _values(method, sides, labels)
    for side, maps in sides.items():
        for name, other in _drawn(maps, 3).items():
            after = _values(method, {**sides, side: {**maps, name: other}}, labels)
            for term in before:
                seen = reads.setdefault(term, {"teacher": [], "student": []})
                if after[term] != before[term]:
                    seen[side].append(name)
    return [TermPlan(term, seen["teacher"], seen["student"]) for term, seen in reads.items()]


def _working(method: str, terms: list[TermPlan]) -> list[TermPlan]:
    """Check that every term depends on both networks, and that a method other than `none` has terms; RecipeError."""
    if not terms and method != "none":
        raise RecipeError(f"distill.methods.{method}: its options switch off every term; leave the method out")
    for term in terms:
        if not (term.teacher and term.student):
            raise RecipeError(
                f"distill.methods.{method}: its term {term.name!r} does not depend on the "
                f"{'student' if term.teacher else 'teacher'} for these networks and this size; change its options"
            )
    return terms


def _drawn(maps: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(x.shape, generator=random) for name, x in maps.items()}


def _values(method: nn.Module, sides: dict[str, dict[str, Tensor]], labels: Batch) -> dict[str, float]:
    torch.manual_seed(0)  # a method with random draws repeats them
    with torch.no_grad():
        terms = method(_outputs(sides["teacher"]), _outputs(sides["student"]), labels)
    return {name: value.item() for name, value in terms.items()}


def _outputs(maps: dict[str, Tensor]) -> Outputs:
    features, levels = (
        {int(name.split()[1]): x for name, x in maps.items() if name.startswith(kind)} for kind in ("stride ", "level ")
    )
    heads = {name: x for name, x in maps.items() if " " not in name and name != "decoder"}
    return Outputs(heads, features, levels[min(levels)] if levels else maps["decoder"], levels)


def _labels(crop: tuple[int, int], classes: int) -> Batch:
    height, width = crop
    block = min(_LABEL_BLOCK, height // 2, width // 2)
    rows, columns = -(-height // block), -(-width // block)
    blocks = (torch.arange(rows * columns) % classes).view(1, 1, rows, columns).float()
    masks = F.interpolate(blocks, (height, width), mode="nearest").squeeze(1).long()
    return Batch(torch.zeros(1, 3, height, width), masks)


def _object_labels(crop: tuple[int, int]) -> Batch:
    """Make labels with one object in the middle of the crop."""
    (height, width), labels = crop, torch.zeros(1, dtype=torch.int64)
    top, left = height // 4, width // 4
    masks = torch.zeros(1, height, width, dtype=torch.int64)
    masks[:, top : height - top, left : width - left] = 1
    box = torch.tensor([[left, top, width - left, height - top]], dtype=torch.float32)
    return Batch(torch.zeros(1, 3, height, width), masks, [Objects(box, labels)])
