"""The recipe section of quantization-aware training, and the engines that it adds to a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from pydantic import Field, field_validator

from edgekd.board.precision import Precision
from edgekd.core.deployment_sections import DEPLOYED, Engine
from edgekd.core.training_sections import Distill, Method, Section, Train

QAT, CONTROL = "qat", "control"


class Qat(Section):
    """Quantization-aware training (QAT) of the deployed student, and its control: the same training without quantizers.

    For each int8 engine of the recipe the run also builds `<id>-qat`, from the trained student, and `<id>-control`.
    """

    train: Train = Field(description="Training budget. `precision` is always `32-true`.")
    methods: dict[str, Method] = Field(
        Distill().methods, description="Distillation methods. Default: `distill.methods`. `{}`: the labels alone."
    )
    quantizer: str | None = Field(
        None, description="Quantizer that the training imitates. `null`: that of the first int8 engine."
    )
    when: Literal["always", "over_budget"] = Field(
        "always",
        description="`over_budget`: train only if a target has no quantized engine of the deployed student within "
        "`quantize.budget`. Otherwise both students get its weights.",
    )
    control: bool = Field(
        True,
        description="Also train the control: the same steps without quantizers. Without it the report cannot tell a gain of "
        "QAT from a gain of more training.",
    )

    @field_validator("train")
    @classmethod
    def _in_float32(cls, train: Train) -> Train:
        if train.precision not in ("auto", "32-true"):
            raise ValueError(
                f"precision: expected 32-true, got {train.precision}, whose 16 bits move values off the integers of int8; "
                "leave out `precision`"
            )
        return train.model_copy(update={"precision": "32-true"})

    @property
    def students(self) -> tuple[str, ...]:
        """The students that the section trains, by the name of their stage."""
        return (CONTROL, QAT) if self.control else (QAT,)


def with_trained(engines: Sequence[Engine], qat: Qat) -> tuple[Engine, ...]:
    """Return the engines, each int8 engine of the deployed student followed by those of the students that section `qat` trains.

    Engines that the recipe already has are not added twice: a stored recipe has them all.
    """
    known = {engine.id for engine in engines}
    more = [[one for one in _twins(engine, qat.students) if one.id not in known] for engine in engines]
    return tuple(one for engine, others in zip(engines, more, strict=True) for one in (engine, *others))


def twin_of(engines: Iterable[Engine], engine: Engine, student: str) -> Engine | None:
    """Return the engine of another student that is otherwise the same as `engine`; None where there is none."""
    wanted = engine.model_copy(update={"student": student, "id": ""})
    return next((one for one in engines if one.model_copy(update={"id": ""}) == wanted), None)


def one_of_each(engines: Sequence[Engine]) -> tuple[Engine, ...]:
    """Return the engines without the copies for other students that `with_trained` adds."""
    return tuple(one for one in engines if one.student == DEPLOYED or twin_of(engines, one, DEPLOYED) is None)


def _twins(engine: Engine, students: Sequence[str]) -> Iterator[Engine]:
    if engine.student != DEPLOYED or engine.precision != Precision.INT8:
        return
    place = f"@{engine.board}"
    stem, place = (engine.id.removesuffix(place), place) if engine.id.endswith(place) else (engine.id, "")
    for student in students:
        yield engine.model_copy(update={"student": student, "id": f"{stem}-{student}{place}"})
