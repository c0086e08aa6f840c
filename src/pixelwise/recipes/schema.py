"""The recipe: every setting that decides how a network is trained. It is saved with the run.

A `Recipe` may leave values `auto`. Before the first training step they are chosen from the data and
the machine, which gives a `ResolvedRecipe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pixelwise.errors import InputError
from pixelwise.recipes.augmentation_presets import PRESETS
from pixelwise.recipes.fold import parse_fold
from pixelwise.recipes.loss_terms import SUPPORTS_LABEL_SMOOTHING, SUPPORTS_SUM, parse_terms

CUSTOM_MODEL = "custom"
"""The model name in the recipe of a run that trains a user's own `nn.Module`."""

MIN_CROP = 8
MAX_ADAMW_RATE = 0.003
OPTIMIZER_DEFAULTS: dict[str, dict[str, Any]] = {
    "adamw": {
        "learning_rate": 0.001,
        "head_multiplier": 5.0,
        "auxiliary_multiplier": 5.0,
        "weight_decay": 0.01,
        "schedule": "cosine",
    },
    "sgd": {
        "learning_rate": 0.01,
        "head_multiplier": 10.0,
        "auxiliary_multiplier": 10.0,
        "weight_decay": 1e-4,
        "schedule": "poly",
    },
}
"""The defaults that depend on the optimizer, by its name."""

ClassWeights = tuple[float, ...] | Literal["none", "median_frequency", "root_median_frequency"]
MemoryFormat = Literal["channels_last", "contiguous"]
Kernels = Literal["plain", "compiled"]
Fraction = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


DEFAULT_OPTIONS = {"stride_2_skip": True}
"""Options of the network of a recipe that does not name one."""


class ModelRecipe(_Section):
    """The network and its initial weights.

    If no name is given, the network is DeepLabV3+ with a refinement at stride 2, which is not in
    the paper. With a name, the network is as published.
    """

    name: str = Field(default="deeplab_v3plus", description="see `pixelwise models`")
    weights: str = Field(
        default="imagenet",
        description="imagenet, none, a name of `pixelwise weights list`, a file with backbone "
        "weights, or a bundle",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="options of the network, such as backbone and output_stride",
    )
    freeze_batch_norm: bool = Field(
        default=False, description="keep the statistics, scales and shifts at their initial values"
    )
    batch_norm_momentum: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="weight of a new batch in the running statistics; TensorFlow uses 1 - this",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_options(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "name" not in values:
            options = values.get("options", {})
            if isinstance(options, Mapping):
                return {**values, "options": {**DEFAULT_OPTIONS, **options}}
        return values


class DataRecipe(_Section):
    """How the dataset is read."""

    images: str = Field(
        default="",
        description="folder or pattern of the images, such as images/{id}_image.png; empty: as in "
        "data.toml of the dataset, or detected",
    )
    masks: str = Field(default="", description="the same for the masks")

    val_fraction: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="fraction of the images drawn for val if there is no val split",
    )
    group_by: str = Field(
        default="",
        description="which images a draw keeps together: a pattern on the name such as {group}_*, "
        "folder, or TABLE.csv:COLUMN; empty: each image is drawn for itself",
    )
    fold: str = Field(
        default="",
        description="NUMBER/FOLDS, such as 2/5: val is this fold of train and val together; "
        "empty: val is the val split",
    )
    channels: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="channels of the images; auto: as in the files, without alpha"
    )
    value_range: tuple[float, float] | Literal["auto"] = Field(
        default="auto",
        description="[low, high]: the image values that become 0 and 255; auto: 8-bit images are "
        "used as they are, the range of deeper ones is measured on train",
    )
    cache_mib: int = Field(default=2048, ge=0, description="memory for decoded images, in MiB")
    disk_cache_mib: int = Field(
        default=10240,
        ge=0,
        description="disk space for files of a dataset in an object store, in MiB",
    )
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        default="auto", description="number of data loading processes; 0: load in the main process"
    )

    @field_validator("fold")
    @classmethod
    def _check_fold(cls, fold: str) -> str:
        if fold:
            parse_fold(fold)
        return fold

    @model_validator(mode="after")
    def _check_value_range(self) -> DataRecipe:
        if self.value_range != "auto" and not self.value_range[0] < self.value_range[1]:
            raise ValueError(
                f"value_range {list(self.value_range)}: must be two numbers in ascending order"
            )
        return self


class AugmentationRecipe(_Section):
    """Random scale, crop, rotation, flips and changes of the pixel values.

    A preset sets several keys for a kind of images; keys that are given take precedence.
    """

    preset: Literal["none", "street", "aerial", "microscopy", "documents"] = Field(
        default="none", description="values for a kind of images; each can be overridden"
    )
    crop: tuple[int, int] | Literal["auto", "image"] = Field(
        default="auto",
        description="[height, width]; auto: the median image size, at most 512 per side; image: "
        "uncropped images in batches of one",
    )
    scale: tuple[float, float] = Field(
        default=(0.5, 2.0), description="smallest and largest factor, drawn log-uniformly"
    )
    rare_crops: Fraction = Field(
        default=0.0,
        description="probability that a crop must contain a pixel of a class that is drawn from "
        "those of the image, rare ones more often",
    )
    flip: Fraction = Field(default=0.5, description="probability of a horizontal flip")
    vertical_flip: Fraction = Field(default=0.0, description="probability of a vertical flip")
    quarter_turns: Fraction = Field(
        default=0.0, description="probability of a turn by 90, 180 or 270 degrees"
    )
    rotation: float = Field(
        default=0.0, ge=0, le=45, description="largest angle in degrees, in both directions"
    )
    brightness: float = Field(default=0.2, ge=0, lt=1, description="factor: 1 - this to 1 + this")
    contrast: float = Field(default=0.2, ge=0, lt=1, description="as brightness")
    saturation: float = Field(default=0.2, ge=0, lt=1, description="as brightness")
    hue: float = Field(
        default=0.0, ge=0, le=0.5, description="largest shift, in turns of the color circle"
    )
    gamma: float = Field(
        default=0.0, ge=0, le=4, description="exponent: 1 / (1 + this) to 1 + this"
    )
    blur: float = Field(default=0.0, ge=0, le=8, description="largest std of the blur, in pixels")
    noise: float = Field(default=0.0, ge=0, le=128, description="largest std, in units of 0..255")
    jpeg: int = Field(
        default=0,
        ge=0,
        le=95,
        description="lowest quality of a JPEG compression; 0: no compression",
    )
    cutout: Fraction = Field(
        default=0.0,
        description="largest side of an ignored square, relative to the shorter side of the crop",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("preset"), str):
            return {**PRESETS.get(values["preset"], {}), **values}
        return values

    @model_validator(mode="after")
    def _check_scale_and_crop(self) -> AugmentationRecipe:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale {[low, high]}: must be two numbers above 0 in ascending order")
        if not isinstance(self.crop, str) and min(self.crop) < MIN_CROP:
            raise ValueError(
                f"crop {list(self.crop)}: must be two sizes of at least {MIN_CROP} pixels"
            )
        return self


class OptimizerRecipe(_Section):
    """AdamW, or SGD with momentum, and a decreasing learning rate.

    Schedule `poly`: learning_rate * (1 - step / steps) ** power. Schedule `cosine`: learning_rate *
    (1 + cos(pi * step / steps)) / 2. Schedule `stages`: the run has `stages` parts of equal length,
    and each part has a tenth of the learning rate of the previous.
    """

    name: Literal["sgd", "adamw"] = Field(
        default="adamw", description="the optimizer; some defaults depend on it"
    )
    learning_rate: float = Field(
        default=0.001, gt=0, description="learning rate of the backbone; sgd: 0.01 by default"
    )
    head_multiplier: float = Field(
        default=5.0,
        gt=0,
        description="learning rate of the head, relative to the backbone; sgd: 10 by default",
    )
    auxiliary_multiplier: float = Field(
        default=5.0,
        gt=0,
        description="learning rate of an auxiliary head, relative to the backbone; sgd: 10 by "
        "default",
    )
    bias_multiplier: float = Field(
        default=1.0, gt=0, description="learning rate of biases, relative to kernels"
    )
    accumulate: int = Field(
        default=1, ge=1, description="number of batches whose gradients are averaged for an update"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum; first beta of AdamW")
    weight_decay: float = Field(
        default=0.01, ge=0, description="applied to convolution kernels; sgd: 0.0001 by default"
    )
    schedule: Literal["poly", "cosine", "stages"] = Field(
        default="cosine", description="how the rate decays; sgd: poly by default"
    )
    power: float = Field(default=0.9, ge=0, description="exponent of poly; 0: constant rate")
    stages: int = Field(default=3, ge=1, description="number of stages")
    ema_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay of the moving average of the weights, which is validated and saved in "
        "place of the weights; 0: no average",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_defaults(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("name"), str):
            return {**OPTIMIZER_DEFAULTS.get(values["name"], {}), **values}
        return values

    @model_validator(mode="after")
    def _check_rate_fits_adamw(self) -> OptimizerRecipe:
        if self.name == "adamw" and self.learning_rate > MAX_ADAMW_RATE:
            raise ValueError(
                f"name = 'adamw' with learning_rate = {self.learning_rate:g}: must be at most "
                f"{MAX_ADAMW_RATE:g}, such as 0.0003, or set optimizer.name = 'sgd'"
            )
        return self


class LossRecipe(_Section):
    """The loss, averaged over the pixels that are not ignored."""

    name: str = Field(
        default="cross_entropy+lovasz_softmax",
        description="cross_entropy, focal, ohem, dice, lovasz_softmax, boundary, or a sum such as "
        "cross_entropy+0.5*dice",
    )
    class_weights: ClassWeights | Literal["auto"] = Field(
        default="auto",
        description="auto: none, or root_median_frequency if one class covers nearly all pixels",
    )
    reduction: Literal["mean", "sum"] = Field(
        default="mean", description="over the pixels of a batch; sum: as in the Caffe code of FCN"
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="for cross_entropy and ohem"
    )
    focal_gamma: float = Field(default=2.0, ge=0, description="0: same as cross_entropy")
    ohem_threshold: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="pixels whose true class has at most this probability are hard",
    )
    ohem_kept: Fraction = Field(
        default=1 / 16, description="minimum fraction of the pixels that counts"
    )
    auxiliary_weight: float = Field(
        default=0.4,
        ge=0,
        description="weight of the loss of an auxiliary head, and of each image scale",
    )
    resolution: Literal["image", "map"] = Field(
        default="image",
        description="map: the resolution of the head's output, with labels subsampled to it, as "
        "in the Caffe code of DeepLab",
    )

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        parse_terms(name)
        return name

    @model_validator(mode="after")
    def _check_options_apply(self) -> LossRecipe:
        names = {term.name for term in parse_terms(self.name)}
        if self.reduction == "sum" and not names <= set(SUPPORTS_SUM):
            raise ValueError(
                f"reduction = 'sum' with {self.name}: only {' and '.join(SUPPORTS_SUM)} support it"
            )
        if self.label_smoothing and not names & set(SUPPORTS_LABEL_SMOOTHING):
            raise ValueError(
                f"label_smoothing with {self.name}: only {' and '.join(SUPPORTS_LABEL_SMOOTHING)} "
                "support it"
            )
        return self


class Recipe(_Section):
    """All settings of a run. Values that are `auto` are chosen before the first step."""

    epochs: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="auto: from the number of images"
    )
    minutes: float = Field(
        default=0.0,
        ge=0,
        description="time for training and validation, into which epochs, crop and backbone are "
        "fitted if they are auto; 0: no limit",
    )
    patience: int = Field(
        default=0,
        ge=0,
        description="end the run after this number of validations in a row without an improvement "
        "that exceeds the paired interval; 0: train all epochs",
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description="images per step, over all devices; auto: from the crop size, the memory and "
        "the number of images",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="random seed")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="auto: a GPU if there is one"
    )
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(
        default="32-true", description="number format of the computation; 16-mixed needs a GPU"
    )
    memory_format: MemoryFormat | Literal["auto"] = Field(
        default="auto",
        description="memory format of images and feature maps; auto: the faster one, measured",
    )
    kernels: Kernels | Literal["auto"] = Field(
        default="auto",
        description="plain: PyTorch's kernels; compiled: some by numba, on a CPU with "
        "channels_last; auto: the faster ones, measured",
    )
    validate_every: int = Field(
        default=1,
        ge=1,
        description="validate, and write the bundles, after every this many epochs and after the "
        "last",
    )
    checkpoint_minutes: float = Field(
        default=5.0,
        ge=0,
        description="minutes between checkpoints, in addition to one after each epoch",
    )
    tensorboard: bool = Field(
        default=False, description="also write RUN/tensorboard (needs TensorBoard)"
    )
    model: ModelRecipe = ModelRecipe()
    data: DataRecipe = DataRecipe()
    augmentation: AugmentationRecipe = AugmentationRecipe()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    loss: LossRecipe = LossRecipe()

    @model_validator(mode="after")
    def _check_combinations(self) -> Recipe:
        if self.kernels == "compiled" and self.memory_format == "contiguous":
            raise ValueError(
                "kernels = 'compiled' with memory_format = 'contiguous': compiled kernels need "
                "channels_last"
            )
        if self.minutes and self.epochs != "auto":
            raise ValueError(
                f"minutes = {self.minutes:g} with epochs = {self.epochs}: the minutes choose the "
                "epochs: give only one of them"
            )
        if self.augmentation.crop == "image" and self.batch_size not in ("auto", 1):
            raise ValueError(
                f"augmentation.crop = 'image' with batch_size = {self.batch_size}: uncropped "
                "images differ in size: set batch_size = 1, and optimizer.accumulate for more "
                "images per update"
            )
        return self

    def value(self, key: str) -> Any:
        """Return the value of a dotted key such as `optimizer.learning_rate`."""
        value: Any = self
        for name in key.split("."):
            value = getattr(value, name)
        return value

    def replace(self, values: Mapping[str, Any]) -> Recipe:
        """Return a copy with other values, by dotted key."""
        return Recipe.model_validate(self._dump_with(values))

    def resolve(self, values: Mapping[str, Any]) -> ResolvedRecipe:
        """Return the recipe with the chosen values in place of `auto`, by dotted key."""
        return ResolvedRecipe.model_validate(self._dump_with(values))

    def _dump_with(self, values: Mapping[str, Any]) -> dict[str, Any]:
        table = self.model_dump()
        preset = values.get("augmentation.preset")
        if isinstance(preset, str):  # only given keys take precedence, not those of this recipe
            table["augmentation"] |= PRESETS.get(preset, {})
        optimizer = values.get("optimizer.name")
        if isinstance(optimizer, str):
            table["optimizer"] |= OPTIMIZER_DEFAULTS.get(optimizer, {})
        if "model.name" in values:
            table["model"]["options"] = {}
        for key, value in values.items():
            set_value(table, key, value)
        return table

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as plain JSON."""
        return self.model_dump(mode="json")

    def flat(self) -> dict[str, Any]:
        """Return plain values by dotted key: the form of the overrides of `load_recipe`."""
        return flatten(self.to_json())

    def to_toml(self) -> str:
        """Return the recipe as TOML, which `load_recipe` reads back to an equal recipe."""
        return tomli_w.dumps(self.to_json())


class ResolvedDataRecipe(DataRecipe):
    """`DataRecipe` with the format of the images decided."""

    channels: Annotated[int, Field(ge=1)]
    value_range: tuple[float, float]


class ResolvedAugmentationRecipe(AugmentationRecipe):
    """`AugmentationRecipe` with the crop decided."""

    crop: tuple[int, int] | Literal["image"]


class ResolvedLossRecipe(LossRecipe):
    """`LossRecipe` with the class weights decided."""

    class_weights: ClassWeights


class ResolvedRecipe(Recipe):
    """A recipe in which everything that influences the result is decided.

    `device` and `data.workers` may stay `auto`: they belong to the machine on which a run is
    resumed.
    """

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    memory_format: MemoryFormat
    kernels: Kernels
    data: ResolvedDataRecipe
    augmentation: ResolvedAugmentationRecipe
    loss: ResolvedLossRecipe


MACHINE_KEYS = ("device", "data.workers")
"""The keys that may be `auto` in a `ResolvedRecipe`."""


def set_value(table: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a dotted key in nested tables.

    Raises:
        InputError: If a parent of the key is a value and not a table.
    """
    *parents, last = key.split(".")
    for parent in parents:
        inner = table.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise InputError(f"{key}: {parent} is a value, not a table: check the key")
        table = inner
    table[last] = value


def flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested tables by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
