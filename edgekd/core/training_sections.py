"""Recipe sections for training: data, networks, distillation, trainer, study."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from edgekd.core.plugin_options import PluginOptions


class Section(BaseModel):
    """Base of all recipe sections: immutable, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_MAX_NAME_BYTES = 100  # file systems allow 255; a folder's name also has the kind of stage and a cache key


def names_a_folder(name: str) -> str:
    """Return a name unchanged; ValueError for a name that cannot be a folder's."""
    if not name.strip() or "/" in name or name.startswith(".") or not name.isprintable():
        raise ValueError(
            "expected a name that can be a folder's: not empty, no '/', no '.' in front, no control characters"
        )
    return name


def names_a_stage(name: str) -> str:
    """Return a name unchanged; ValueError for a name that cannot be part of a stage's name (`--until` splits at commas)."""
    if "," in name or len(name.encode()) > _MAX_NAME_BYTES:
        raise ValueError(f"expected a name without ',' and of at most {_MAX_NAME_BYTES} bytes")
    return names_a_folder(name)


def differ_in_case_only(names: Collection[str]) -> str:
    """Return the first names that differ only in case (one folder on some file systems), joined by a comma; else ""."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(name.casefold(), []).append(name)
    return next((", ".join(found) for found in alike.values() if len(found) > 1), "")


class Augment(Section):
    """Training augmentation."""

    crop: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="Size of training crops (height, width). `null`: `data.size`."
    )
    scale: tuple[PositiveFloat, PositiveFloat] = Field(
        (0.75, 1.5), description="Smallest and largest random scale, relative to `data.size`."
    )
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    flip_pairs: tuple[tuple[str, str], ...] = Field(
        (),
        description="Pairs of classes that a horizontal flip swaps, e.g. `[[left lane, right lane]]`: the labels of a flipped "
        "view have the other class.",
    )
    flip_vertical: float = Field(
        0.0, ge=0, le=1, description="Probability of a vertical flip, for views from above and microscopes."
    )
    color: float = Field(0.3, ge=0, le=1, description="Strength of brightness, contrast and saturation jitter.")
    views: int | None = Field(
        None, gt=0, description="Fixed augmentations per image, shown in turn. `null`: a new augmentation every time."
    )

    @field_validator("flip_pairs")
    @classmethod
    def _once(cls, pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        names = [name for pair in pairs for name in pair]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is listed twice; expected pairs of two classes, each class in one pair")
        return pairs

    @field_validator("scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("expected the smaller factor first")
        return scale


class Data(Section):
    """The data set, its splits, and the network's input size."""

    format: str = Field(description="Data format (a plugin).")
    options: PluginOptions = Field(PluginOptions(), description="Options of the format.")
    train: str = Field(
        "train",
        description="Split that trains and calibrates. `all`: the whole data set, where it has no splits, without the images "
        "of `val`. A name that ends in `.txt`: a list of image names below `data.options.root`.",
    )
    val: str = Field(
        "val",
        description="Split that is scored. A fraction such as `0.2`: that share of the images of `train`, which then does "
        "not train. A name that ends in `.txt`: a list of image names below `data.options.root`.",
    )
    split_seed: int = Field(
        0,
        description="Seed of a fraction in `val`. Seed and image names decide which images are scored, and nothing else.",
    )
    size: tuple[PositiveInt, PositiveInt] = Field(description="Input size of the networks (height, width).")
    resize: Literal["stretch", "letterbox"] = Field(
        "stretch", description="Resizing to `size`: `stretch` changes the aspect, `letterbox` adds black bars."
    )
    augment: Augment = Field(Augment(), description="Training augmentation.")

    @field_validator("size", mode="before")
    @classmethod
    def _height_and_width(cls, size: Any) -> Any:
        if not isinstance(size, list | tuple) or len(size) != 2:
            raise ValueError("expected height and width as a list, e.g. [512, 1024]")
        return size

    @field_validator("val", mode="before")
    @classmethod
    def _fraction(cls, val: Any) -> Any:
        if isinstance(val, bool) or not isinstance(val, int | float):
            return val
        if not 0 < val < 1:
            raise ValueError("expected a split's name, or a fraction between 0 and 1 of the images of `train`")
        return str(val)

    @field_validator("train", mode="before")
    @classmethod
    def _no_fraction(cls, train: Any) -> Any:
        if isinstance(train, int | float) and not isinstance(train, bool):
            raise ValueError(
                "expected a split's name, `all` for a data set without splits; the fraction belongs to `val`"
            )
        return train

    @property
    def format_options(self) -> Any:
        """The format's `Options`; RecipeError when they do not fit."""
        return self.options.typed("formats", self.format, "data.options")


class Train(Section):
    """One training budget. Both students, plain and distilled, use the student's."""

    steps: int = Field(gt=0, description="Number of optimizer steps.")
    batch_size: int = Field(8, gt=0, description="Images per optimizer step, over all devices.")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="Optimizer.")
    lr: float = Field(1e-3, gt=0, description="Peak learning rate.")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay.")
    schedule: Literal["one_cycle", "poly"] = Field("one_cycle", description="Learning-rate schedule.")
    gradient_clip: float | None = Field(5.0, gt=0, description="Max gradient norm. `null`: no clipping.")
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of the averaged weights, which then become the result. `null`: no averaging.",
    )
    class_balance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Segmenters: weight classes by frequency^-class_balance in the task loss (0 off, 1 inverse frequency). "
        "Finds rare classes more often, with more false positives.",
    )
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        "auto",
        description="Training precision. `auto`: `bf16-mixed` where the hardware computes in bf16, else `32-true`.",
    )
    checkpoint_every: int = Field(100, gt=0, description="Steps between resume checkpoints.")
    validate_every: int | None = Field(
        None,
        gt=0,
        description="Steps between scores on `data.val`, for the learning curve only; they choose nothing. `null`: none.",
    )


class Network(Section):
    """One network."""

    family: str = Field(description="Model family (a plugin).")
    variant: str = Field(description="Variant of the family.")
    options: PluginOptions = Field(PluginOptions(), description="Options of the family.")
    checkpoint: Path | None = Field(
        None, description="Local file with the network's weights. Without `train` the network is used as it is."
    )
    checkpoint_key: str | None = Field(
        None,
        description="Set of weights in a `checkpoint` with several: a key of the file (`ema`), or a prefix of its names "
        "(`teacher`). `null`: the only set, or the one whose prefix is the section's name.",
    )
    checkpoint_skip: tuple[str, ...] = Field(
        (),
        description="Submodules whose weights are not read from `checkpoint` and start untrained, such as the head of "
        "another number of classes. Needs `train`.",
    )
    train: Train | None = Field(None, description="Training budget.")

    @model_validator(mode="after")
    def _reads_a_checkpoint(self) -> Network:
        if self.checkpoint is None and (self.checkpoint_key is not None or self.checkpoint_skip):
            raise ValueError("`checkpoint_key` and `checkpoint_skip` need `checkpoint` (a file)")
        if self.checkpoint_skip and self.train is None:
            raise ValueError("`checkpoint_skip` needs `train` (a budget): the skipped weights are untrained")
        return self


class Teacher(Network):
    """The teacher. It needs `train` (a budget) or `checkpoint` (a file)."""

    floor: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Min mIoU or mAP (a fraction) on `data.val`. The run stops when the teacher is below.",
    )

    @model_validator(mode="after")
    def _has_weights(self) -> Teacher:
        if self.checkpoint is None and self.train is None:
            raise ValueError("needs `train` (a budget) or `checkpoint` (a file)")
        return self


class Student(Network):
    """The student. A trained one (`checkpoint` without `train`, `distill.methods: {}`) is deployed as it is."""


class Method(Section):
    """One distillation method: its total weight over the training steps, and its own options."""

    weight: float = Field(1.0, gt=0, description="Weight of the method beside the task loss.")
    warmup: float = Field(0.1, ge=0, le=1, description="Fraction of all steps over which the weight rises from 0.")
    schedule: Literal["constant", "decay"] = Field(
        "constant", description="Weight after the warm-up. `decay`: falls linearly to 0, right after the last step."
    )
    options: PluginOptions = Field(PluginOptions(), description="Options of the method.")

    def typed_options(self, name: str) -> Any:
        """Return the `Options` of the method, whose name is the section's key; RecipeError when they do not fit."""
        return self.options.typed("methods", name, f"distill.methods.{name}.options")

    def weight_at(self, step: int, steps: int) -> float:
        """Return the weight at one of the steps 0 ... steps - 1; a function of the step alone, as a resumed run needs.

        With W = warmup * steps it is weight * min(1, (step + 1) / W), and with `decay` the smaller of that and
        weight * (steps - step) / (steps - W).
        """
        rising = self.warmup * steps
        share = min(1.0, (step + 1) / rising) if rising > 0 else 1.0
        if self.schedule == "decay" and steps > rising:
            share = min(share, (steps - step) / (steps - rising))
        return self.weight * share


class Distill(Section):
    """Methods by name, in any combination. The baseline is the student on the same budget without methods."""

    methods: dict[str, Method] = Field(
        {"dist": Method(), "bckd": Method()},
        description="Settings of each method by its name. Default of segmenters: `dist`, `bckd`. Default of detectors and "
        "instance segmenters: `ld`, and `bckd` with boundary 1 and context 1.",
    )
    baseline: bool = Field(True, description="Train the plain student for comparison.")
    watchdog_ratio: float = Field(
        10.0, gt=0, description="Max ratio of the weighted terms to the task loss. The training stops above."
    )


class Trainer(Section):
    """Where and how Lightning runs. These keys are not in cache keys.

    They change results by rounding only. Several devices are the exception: each has the loss of its part of a
    batch, and on CPUs separate batch statistics.
    """

    accelerator: str = Field("auto", description="Accelerator, passed to Lightning.")
    devices: int | str = Field("auto", description="Devices, passed to Lightning.")
    num_nodes: int = Field(1, gt=0, description="Number of machines, passed to Lightning.")
    strategy: str = Field("auto", description="Strategy over several devices, passed to Lightning.")
    workers: int | None = Field(None, ge=0, description="Loader processes. `null`: 0 on the CPU, else 4.")
    channels_last: bool = Field(True, description="Train with the memory format channels_last.")
    compile_teacher: bool = Field(
        False, description="Compile the teacher's forward with torch.compile. Needs a C++ compiler; faster on GPUs."
    )
    teacher_cache: Path | None = Field(
        None, description="Folder that caches the teacher's outputs for all views. Needs `data.augment.views`."
    )
    loggers: tuple[Literal["csv", "tensorboard", "mlflow", "wandb"], ...] = Field(
        (),
        description="Loggers of Lightning that get the losses and scores. MLflow and W&B read their environment variables.",
    )
    log_dir: Path | None = Field(
        None, description="Folder of their files. Default `edgekd_logs` in the current folder."
    )
