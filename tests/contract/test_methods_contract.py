"""What every distillation method promises: with its default options, with each other choice, with each term that is off."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgekd.core import plugins
from edgekd.core.plugin_options import plugin_options
from edgekd.data.augment import Objects
from edgekd.distill.base import Pyramid
from edgekd.errors import RecipeError
from edgekd.models.base import Outputs
from edgekd.models.heads import BINS
from edgekd.train.batch import Batch

CLASSES, HEIGHT, WIDTH, BATCH = 5, 64, 96, 2
TEACHER = Pyramid({4: 12, 8: 16, 16: 20, 32: 24}, decoder_channels=14, num_classes=CLASSES, level_strides=(4, 8, 16))
STUDENT = Pyramid({4: 4, 8: 6, 16: 8, 32: 10}, decoder_channels=6, num_classes=CLASSES, level_strides=(4, 8, 32))


@dataclasses.dataclass(frozen=True)
class Case:
    """A method and the option that is not its default."""

    method: str
    changed: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def options(self) -> Any:
        return plugins.load("methods", self.method).Options(**self.changed)

    def __str__(self) -> str:
        return " ".join([self.method, *(f"{option}={value}" for option, value in self.changed.items())])


def choices(annotation: Any) -> list[Any]:
    """Return what the Literals in an annotation allow."""
    inner = get_args(annotation)
    return [*inner] if get_origin(annotation) is Literal else [choice for part in inner for choice in choices(part)]


def cases() -> list[Case]:
    found = []
    for method in plugins.names("methods"):
        options = plugins.load("methods", method).Options
        found.append(Case(method))
        for field in dataclasses.fields(options):
            others = choices(get_type_hints(options)[field.name])
            if type(field.default) is float and field.default == 0:
                others.append(1.0)
            found += [Case(method, {field.name: value}) for value in others if value != field.default]
    return found


@pytest.fixture(params=cases(), ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(params=plugins.names("methods"))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def method_of(case: Case, teacher: Pyramid = TEACHER, student: Pyramid = STUDENT) -> nn.Module:
    """Return the method for the first task that takes the options: what is of objects is for instances."""
    torch.manual_seed(0)
    method = plugins.load("methods", case.method).Method
    try:
        return method(case.options, teacher, student)
    except RecipeError:
        of_instances = (dataclasses.replace(pyramid, task="instance") for pyramid in (teacher, student))
        return method(case.options, *of_instances)


def outputs(
    pyramid: Pyramid,
    seed: int,
    decoder_stride: int = 4,
    extra: int = 0,
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> Outputs:
    """Return random leaf tensors that want gradients; `extra` cells more per side than the declared stride gives."""
    random = torch.Generator().manual_seed(seed)

    def leaf(channels: int, stride: int, grown: int) -> Tensor:
        shape = (BATCH, channels, size[0] // stride + grown, size[1] // stride + grown)
        return torch.randn(shape, generator=random).requires_grad_()

    features = {stride: leaf(channels, stride, extra) for stride, channels in pyramid.channels.items()}
    classes = pyramid.num_classes
    heads = {"logits": leaf(classes, 1, 0)}  # of all tasks: each method reads its own
    for stride in pyramid.level_strides:
        heads |= {f"scores_{stride}": leaf(classes, stride, 0), f"boxes_{stride}": leaf(4 * BINS, stride, 0)}
        heads[f"coefficients_{stride}"] = leaf(3, stride, 0)
    heads["prototypes"] = leaf(3, 4, 0)
    levels = {stride: leaf(pyramid.decoder_channels, stride, extra) for stride in pyramid.level_strides}
    decoder = levels[min(levels)] if levels else leaf(pyramid.decoder_channels, decoder_stride, extra)
    return Outputs(heads, features, decoder, levels)


def objects_of() -> list[Objects]:
    """Return two objects per image, of which one lies in the other."""
    boxes = torch.tensor([[4.0, 3.0, 60.0, 50.0], [20.0, 10.0, 30.0, 37.0]])
    return [Objects(boxes + 2 * i, torch.tensor([0, 1])) for i in range(BATCH)]


def batch_of(ignored: bool | None = None) -> Batch:
    """Return a batch with an ignored patch that fits no cell; all labelled for False, all ignored for True."""
    masks = torch.randint(0, CLASSES, (BATCH, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(7))
    if ignored is None:
        masks[:, 5:38, 11:59] = 255
    elif ignored:
        masks[:] = 255
    return Batch(torch.rand(BATCH, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(8)), masks, objects_of())


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that an operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.size_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.size_bytes = max(self.size_bytes, tensor.untyped_storage().nbytes())
        return result


def leaves(out: Outputs) -> list[Tensor]:
    return [*out.heads.values(), *out.features.values(), *(out.levels.values() or [out.decoder])]


def total(terms: dict[str, Tensor]) -> Tensor:
    if not terms:
        pytest.skip("this method has no terms")
    return torch.stack(list(terms.values())).sum()


def loss_of(method: nn.Module, teacher: Outputs, student: Outputs, batch: Batch) -> Tensor:
    """Return the sum of the terms; a method that draws at random draws the same at every call."""
    torch.manual_seed(3)
    return total(method(teacher, student, batch))


def draws(method: nn.Module) -> bool:
    before = torch.get_rng_state()
    method(outputs(TEACHER, 1), outputs(STUDENT, 2), batch_of())
    return not torch.equal(before, torch.get_rng_state())


def assert_finite(tensors: Iterable[Tensor | None]) -> None:
    for tensor in tensors:
        assert tensor is None or torch.isfinite(tensor).all()


def test_options_are_a_frozen_dataclass_that_needs_nothing(name: str) -> None:
    options = plugins.load("methods", name).Options()
    assert dataclasses.is_dataclass(options)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.something = 1


def test_terms_are_finite_non_negative_float32_scalars(case: Case) -> None:
    terms = method_of(case)(outputs(TEACHER, 1), outputs(STUDENT, 2), batch_of())
    for term, value in terms.items():
        assert "." not in term, "the record names a term <method>.<term>"
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        assert value >= -1e-6


def test_a_student_that_equals_its_teacher_has_nothing_to_learn(case: Case) -> None:
    method = method_of(case, TEACHER, TEACHER)
    if list(method.parameters()):
        pytest.skip("adapters start away from the identity")
    same = outputs(TEACHER, 1)
    loss = loss_of(method, same, same, batch_of())
    assert abs(loss.item()) < 1e-5
    other = loss_of(method, same, outputs(TEACHER, 2), batch_of())
    assert other > 100 * abs(loss)


def test_gradients_reach_the_student_and_never_the_teacher(case: Case) -> None:
    teacher, student, method = outputs(TEACHER, 1), outputs(STUDENT, 2), method_of(case)
    loss_of(method, teacher, student, batch_of()).backward()
    assert all(leaf.grad is None for leaf in leaves(teacher))
    reached = [leaf.grad for leaf in leaves(student) if leaf.grad is not None]
    assert any(grad.abs().max() > 0 for grad in reached)
    assert_finite(reached)
    for parameter in method.parameters():
        assert parameter.grad is not None, "an adapter that does not train"


@pytest.mark.parametrize("classes", [2, 3, CLASSES])
def test_every_term_teaches_the_student(case: Case, classes: int) -> None:
    """A term without a gradient costs a user hours: Pearson's r over two classes is 1 or -1 whatever the student says."""
    sides = [dataclasses.replace(pyramid, num_classes=classes) for pyramid in (TEACHER, STUDENT)]
    try:
        method = method_of(case, *sides)
    except RecipeError:
        assert classes == 2
        pytest.skip("refused with two classes")
    student, batch = outputs(sides[1], 2), batch_of()
    batch.masks[:] = (torch.arange(WIDTH) * classes // WIDTH).expand(BATCH, HEIGHT, WIDTH)  # bodies and edges
    terms = method(outputs(sides[0], 1), student, batch)
    for name, term in terms.items():
        grads = torch.autograd.grad(term, leaves(student), retain_graph=True, allow_unused=True)
        slope = sum(grad.abs().sum().item() for grad in grads if grad is not None)
        assert slope > 1e-3 * term.item() > 0, name


def test_a_gradient_step_brings_the_student_nearer(case: Case) -> None:
    teacher, student, method = outputs(TEACHER, 1), outputs(STUDENT, 2), method_of(case)
    before = loss_of(method, teacher, student, batch_of())
    before.backward()
    slope = sum(leaf.grad.square().sum() for leaf in leaves(student) if leaf.grad is not None)
    with torch.no_grad():
        for leaf in leaves(student):
            if leaf.grad is not None:
                leaf -= 1e-3 * before.detach() / slope * leaf.grad  # aims at 0.1 % less
    after = loss_of(method, teacher, student, batch_of())
    assert after < before


def test_bf16_outputs_stay_finite_and_are_compared_in_float32(case: Case) -> None:
    teacher, student, method = outputs(TEACHER, 1), outputs(STUDENT, 2), method_of(case)

    def halved(out: Outputs) -> Outputs:
        features = {stride: feature.bfloat16() for stride, feature in out.features.items()}
        levels = {stride: level.bfloat16() for stride, level in out.levels.items()}
        return Outputs({n: h.bfloat16() for n, h in out.heads.items()}, features, out.decoder.bfloat16(), levels)

    torch.manual_seed(3)
    terms = method(halved(teacher), halved(student), batch_of())
    assert all(value.dtype == torch.float32 for value in terms.values())
    loss = total(terms)
    exact = loss_of(method, teacher, student, batch_of())
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)
    loss.backward()
    assert_finite(leaf.grad for leaf in leaves(student))


def test_large_outputs_stay_finite(case: Case) -> None:
    teacher, student, method = outputs(TEACHER, 1), outputs(STUDENT, 2), method_of(case)
    with torch.no_grad():
        for leaf in [*leaves(teacher), *leaves(student)]:
            leaf *= 1e3
    loss = loss_of(method, teacher, student, batch_of())
    loss.backward()
    assert_finite([loss, *(leaf.grad for leaf in leaves(student))])


def test_constant_outputs_stay_finite(case: Case) -> None:
    """A freshly initialised or collapsed student gives the same vector everywhere."""
    teacher, student, method = outputs(TEACHER, 1), outputs(STUDENT, 2), method_of(case)
    with torch.no_grad():
        for leaf in leaves(student):
            leaf.zero_()
    loss = loss_of(method, teacher, student, batch_of())
    loss.backward()
    assert_finite([loss, *(leaf.grad for leaf in leaves(student))])


def test_logits_where_the_label_is_ignored_do_not_matter(case: Case) -> None:
    teacher, student, method, batch = outputs(TEACHER, 1), outputs(STUDENT, 2), method_of(case), batch_of()
    before = loss_of(method, teacher, student, batch)
    ignored = (~batch.valid).unsqueeze(1)
    with torch.no_grad():
        teacher.logits.masked_fill_(ignored, 9.0)
        student.logits.masked_fill_(ignored, -9.0)
    after = loss_of(method, teacher, student, batch)
    assert after.item() == pytest.approx(before.item(), rel=1e-5)
    after.backward()
    if student.logits.grad is not None:
        assert not student.logits.grad.masked_select(ignored).any()


def test_features_deep_inside_an_ignored_region_do_not_matter(case: Case) -> None:
    method = method_of(case)
    masks = torch.zeros(BATCH, HEIGHT, WIDTH, dtype=torch.int64)
    masks[:, :, : WIDTH // 3] = 255  # whole cells at every stride
    batch = Batch(torch.rand(BATCH, 3, HEIGHT, WIDTH), masks, objects_of())
    teacher, student = outputs(TEACHER, 1), outputs(STUDENT, 2)
    before = loss_of(method, teacher, student, batch)
    with torch.no_grad():
        for x in [x for side in (teacher, student) for x in leaves(side) if x.shape[-1] * 3 >= WIDTH // 32]:
            x[..., : x.shape[-1] // 3] = 5.0
    assert loss_of(method, teacher, student, batch).item() == pytest.approx(before.item(), rel=1e-5)


def test_an_ignored_crop_gives_nothing_and_harms_nothing(case: Case) -> None:
    student, method = outputs(STUDENT, 2), method_of(case)
    loss = loss_of(method, outputs(TEACHER, 1), student, batch_of(ignored=True))
    loss.backward()
    assert_finite([loss, *(leaf.grad for leaf in leaves(student))])
    assert loss.item() == 0.0
    trained = [*leaves(student), *method.parameters()]
    assert not any(leaf.grad.any() for leaf in trained if leaf.grad is not None)


@pytest.mark.parametrize(
    ("teacher_channels", "teacher_decoder_stride"),
    [({2: 8, 4: 12, 8: 16}, 8), ({8: 16}, 8), ({4: 12, 8: 16, 16: 20, 32: 24}, 16)],
    ids=["dilated, stride 8", "one map", "coarse decoder"],
)
@pytest.mark.parametrize("extra", [0, 1])
def test_pyramids_of_other_strides_channels_and_grids_work(
    case: Case, teacher_channels: dict[int, int], teacher_decoder_stride: int, extra: int
) -> None:
    levels = (teacher_decoder_stride, 32)
    pyramid = Pyramid(teacher_channels, decoder_channels=20, num_classes=CLASSES, level_strides=levels)
    teacher, student = outputs(pyramid, 1, extra=extra), outputs(STUDENT, 2)
    loss = loss_of(method_of(case, pyramid, STUDENT), teacher, student, batch_of())
    loss.backward()
    assert_finite([loss, *(leaf.grad for leaf in leaves(student))])
    assert loss > 0


def test_the_order_of_images_in_a_batch_does_not_matter(case: Case) -> None:
    teacher, student, method, batch = outputs(TEACHER, 1), outputs(STUDENT, 2), method_of(case), batch_of()

    if draws(method):
        pytest.skip("every image has its own draws")

    def reversed_(out: Outputs) -> Outputs:
        return Outputs(
            {n: h.flip(0) for n, h in out.heads.items()},
            {s: f.flip(0) for s, f in out.features.items()},
            out.decoder.flip(0),
            {s: x.flip(0) for s, x in out.levels.items()},
        )

    there = loss_of(method, teacher, student, batch)
    flipped = Batch(batch.images.flip(0), batch.masks.flip(0), objects_of()[::-1])
    back = loss_of(method, reversed_(teacher), reversed_(student), flipped)
    assert back.item() == pytest.approx(there.item(), rel=1e-5)


def test_negative_numbers_are_refused(name: str) -> None:
    """Of a recipe: weights, temperatures and counts below zero would switch a term off, or make it NaN, without a word."""
    for field in dataclasses.fields(plugins.load("methods", name).Options):
        if isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
            with pytest.raises(RecipeError, match=field.name):
                plugin_options("methods", name, {field.name: -1}, "distill.methods")
        if field.name == "temperature":
            with pytest.raises(RecipeError, match="greater than 0"):
                plugin_options("methods", name, {field.name: 0}, "distill.methods")


def test_answers_from_the_cache_teach_the_same(case: Case) -> None:
    """A file of tensors lists them by name, so `scores_16` comes before `scores_8`."""
    teacher, student, method = outputs(TEACHER, 1), outputs(STUDENT, 2), method_of(case)
    tensors = teacher.tensors()
    cached = Outputs.of({tensor: tensors[tensor] for tensor in sorted(tensors)})
    live, read = (loss_of(method, answers, student, batch_of()) for answers in (teacher, cached))
    assert read.item() == live.item()


def test_the_state_of_the_generator_decides_every_draw(case: Case) -> None:
    """A step that is repeated after a kill must give the same bits."""
    method, results = method_of(case), []
    for _ in range(2):
        student = outputs(STUDENT, 2)
        method.zero_grad()
        loss = loss_of(method, outputs(TEACHER, 1), student, batch_of())
        loss.backward()
        trained = [*leaves(student), *method.parameters()]
        results.append([loss, *(leaf.grad for leaf in trained if leaf.grad is not None)])
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


def test_no_tensor_is_larger_than_64_mib_per_image(case: Case) -> None:
    """The cosines of all pairs of cells of a stride-4 map would be 256 MiB here."""
    teacher, student = outputs(TEACHER, 1, size=(256, 512)), outputs(STUDENT, 2, size=(256, 512))
    masks = torch.randint(0, CLASSES, (BATCH, 256, 512), generator=torch.Generator().manual_seed(7))
    method = method_of(case)
    with LargestTensor() as largest:
        loss_of(method, teacher, student, Batch(torch.zeros(BATCH, 3, 256, 512), masks, objects_of())).backward()
    assert largest.size_bytes <= BATCH * 64 * 2**20
