"""The recipe: everything that decides how a network is trained, checked and saved with the run."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pixelwise.errors import InputError
from pixelwise.recipes.loss_terms import SMOOTHED, SUMMED, parse_terms


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelRecipe(_Part):
    """Which network, and what it starts from."""

    name: str = "deeplab_v3plus"
    weights: str = Field(
        default="imagenet",
        description="imagenet, none, a file of weights for the backbone, or a bundle",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="the network's own, such as backbone, output_stride"
    )
    freeze_batch_norm: bool = Field(
        default=False, description="statistics, scales and shifts stay as they start"
    )
    batch_norm_momentum: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="share of a batch in the running statistics; TensorFlow counts the rest",
    )


class DataRecipe(_Part):
    """How the folder is read."""

    val_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="drawn where there is no val split"
    )
    channels: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="of the images; auto: as the files have it, opacity left out"
    )
    value_range: tuple[float, float] | Literal["auto"] = Field(
        default="auto",
        description="[low, high]: the values of images that become 0 and 255; auto: of 8 bits as "
        "they are, of deeper ones found over train",
    )
    cache_mib: int = Field(default=2048, ge=0, description="memory for decoded images")
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        default="auto", description="loading processes; 0: none"
    )

    @model_validator(mode="after")
    def _rising(self) -> DataRecipe:
        if self.value_range != "auto" and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"value_range {list(self.value_range)}: two numbers in rising order")
        return self


class AugmentationRecipe(_Part):
    """Random scale, crop, flip and color."""

    crop: tuple[int, int] | Literal["auto", "image"] = Field(
        default="auto",
        description="[height, width]; auto: by the plan, the images' usual size, 512 a side at "
        "most; image: each image whole, in batches of one",
    )
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = Field(default=0.5, ge=0, le=1)
    brightness: float = Field(default=0.2, ge=0, lt=1)
    contrast: float = Field(default=0.2, ge=0, lt=1)
    saturation: float = Field(default=0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _in_order(self) -> AugmentationRecipe:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale {[low, high]}: two numbers above 0 in rising order")
        if not isinstance(self.crop, str) and min(self.crop) < 1:
            raise ValueError(f"crop {list(self.crop)}: two sizes in pixels from 1")
        return self


class OptimizerRecipe(_Part):
    """SGD, with a rate that falls step by step.

    poly: rate = learning_rate * (1 - step / steps) ** power. stages: the run has that many equal
    parts, and after each the rate falls to a tenth.
    """

    learning_rate: float = Field(default=0.01, gt=0)
    head_multiplier: float = Field(
        default=10.0, gt=0, description="rate of the head over the backbone's"
    )
    auxiliary_multiplier: float = Field(
        default=10.0, gt=0, description="rate of an auxiliary head over the backbone's"
    )
    bias_multiplier: float = Field(
        default=1.0, gt=0, description="rate of convolutions' biases over their kernels'"
    )
    accumulate: int = Field(
        default=1, ge=1, description="batches whose gradients are averaged for one step"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0, description="of convolution weights")
    schedule: Literal["poly", "stages"] = "poly"
    power: float = Field(default=0.9, ge=0, description="of schedule poly; 0: a fixed rate")
    stages: int = Field(default=3, ge=1, description="of schedule stages")
    ema_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="of the moving average of the weights, which is scored and kept; 0: none",
    )


class LossRecipe(_Part):
    """What is minimized over the pixels that are not ignored.

    name: one of the losses in `training.losses.registry`, or a sum of some with factors.
    """

    name: str = Field(
        default="cross_entropy",
        description="cross_entropy, focal, ohem, dice, lovasz_softmax, boundary, or a sum of some, "
        "as cross_entropy+0.5*dice",
    )
    class_weights: (
        tuple[float, ...] | Literal["auto", "none", "median_frequency", "root_median_frequency"]
    ) = Field(
        default="auto",
        description="auto: by the plan, none, or root_median_frequency where one class has nearly "
        "all pixels",
    )
    reduction: Literal["mean", "sum"] = Field(
        default="mean", description="over the pixels of a batch; sum: as Caffe's FCN"
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="of cross_entropy and ohem")
    focal_gamma: float = Field(default=2.0, ge=0, description="0: as cross_entropy")
    ohem_threshold: float = Field(
        default=0.7, gt=0, le=1, description="probability of the true class up to which it is hard"
    )
    ohem_kept: float = Field(
        default=1 / 16, ge=0, le=1, description="part of the pixels that counts at least"
    )
    auxiliary_weight: float = Field(
        default=0.4,
        ge=0,
        description="of the loss of an auxiliary head, and at each single scale of several",
    )
    resolution: Literal["image", "map"] = Field(
        default="image",
        description="map: at the head's own size, with labels shrunk to it, as Caffe's DeepLab",
    )

    @field_validator("name")
    @classmethod
    def _names_losses(cls, name: str) -> str:
        parse_terms(name)
        return name

    @model_validator(mode="after")
    def _settings_apply(self) -> LossRecipe:
        names = {term.name for term in parse_terms(self.name)}
        if self.reduction == "sum" and not names <= set(SUMMED):
            raise ValueError(
                f"reduction = 'sum' with {self.name}: is for {' and '.join(SUMMED)} alone"
            )
        if self.label_smoothing and not names & set(SMOOTHED):
            raise ValueError(
                f"label_smoothing with {self.name}: is for {' and '.join(SMOOTHED)} alone"
            )
        return self


class Recipe(_Part):
    """All of it. Unknown keys are refused; what is `auto` is decided before the first step."""

    epochs: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="auto: by the plan, from the number of images"
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="auto: by the plan, from the crop, the memory, the images"
    )
    seed: int = Field(default=0, ge=0, lt=2**32)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    memory_format: Literal["auto", "channels_last", "contiguous"] = Field(
        default="auto",
        description="memory order of the maps; auto: the faster one, by a measurement",
    )
    kernels: Literal["auto", "plain", "compiled"] = Field(
        default="auto",
        description="plain: PyTorch's own; compiled: some by numba, on a CPU with channels_last; "
        "auto: the faster ones, by a measurement",
    )
    checkpoint_minutes: float = Field(
        default=5.0, ge=0, description="between checkpoints, besides those at an epoch's end"
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
    def _kernels_fit_the_layout(self) -> Recipe:
        if self.kernels == "compiled" and self.memory_format == "contiguous":
            raise ValueError(
                "kernels = 'compiled' with memory_format = 'contiguous': they are for channels_last"
            )
        return self

    @model_validator(mode="after")
    def _images_fit_a_batch(self) -> Recipe:
        if self.augmentation.crop == "image" and self.batch_size not in ("auto", 1):
            raise ValueError(
                f"augmentation.crop = 'image' with batch_size = {self.batch_size}: whole images "
                "differ in size: set batch_size = 1, and optimizer.accumulate for more a step"
            )
        return self

    def value(self, dotted: str) -> Any:
        """The value of a key such as `optimizer.learning_rate`."""
        found: Any = self
        for name in dotted.split("."):
            found = getattr(found, name)
        return found

    def resolved(self, choices: Mapping[str, Any]) -> Recipe:
        """The recipe with what `auto` turned out to be, so that a run can be repeated exactly."""
        values = self.model_dump()
        for key, value in choices.items():
            _set(values, key, value)
        return Recipe.model_validate(values)

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def flat(self) -> dict[str, Any]:
        """Plain values by dotted key, as `load_recipe` takes them for overrides."""
        return _flat(self.to_json())

    def to_toml(self) -> str:
        """The recipe as a file that `load_recipe` reads back to an equal one."""
        return tomli_w.dumps(self.to_json())


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def settled(value: int | Literal["auto"]) -> int:
    """A number of a recipe that was planned."""
    assert value != "auto", "the recipe has to be planned first"
    return value


def load_recipe(
    source: Path | str | None = None, overrides: dict[str, Any] | None = None
) -> Recipe:
    """The default recipe, or one from a TOML file or a shipped name, with overrides on top.

    source: the name of a recipe in pixelwise/recipes, or a path to a .toml file.
    overrides: by dotted key, `{"optimizer.learning_rate": 0.02}`; later ones win.

    Raises InputError, a line for each fault, for an unknown key or a value that is not allowed.
    """
    values: dict[str, Any] = {}
    origin = "recipe"
    if source is not None:
        origin, text = _read(source)
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{origin}: is not TOML ({error}): correct the line") from error
    for key, value in (overrides or {}).items():
        _set(values, key, value)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise InputError(*_explain(origin, error)) from error


def load_recipe_of(saved: dict[str, Any]) -> Recipe:
    """The recipe that a bundle holds; the default one where it holds none."""
    try:
        return Recipe.model_validate(saved)
    except ValidationError:  # by another version, or by hand: only its defaults are of use
        return Recipe()


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with pixelwise."""
    folder = resources.files("pixelwise") / "recipes"
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def parse_override(text: str) -> tuple[str, Any]:
    """`optimizer.learning_rate=0.02` to the key and its value; TOML values, else a plain string.

    Raises InputError where there is no `=`.
    """
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise InputError(f"{text!r}: write KEY=VALUE, as optimizer.learning_rate=0.02")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _read(source: Path | str) -> tuple[str, str]:
    # A name wins over a file or folder that happens to be called the same; ./NAME is the file.
    if str(source) in shipped_recipes():
        shipped = resources.files("pixelwise") / "recipes" / f"{source}.toml"
        return str(source), shipped.read_text(encoding="utf-8")
    path = Path(source)
    if path.suffix != ".toml" and not path.is_file():
        raise InputError(
            f"recipe {str(source)!r}: is no file and not among those shipped: "
            f"{', '.join(shipped_recipes())}"
        )
    try:
        return str(path), path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    table = values
    for parent in parents:
        inner = table.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise InputError(f"{dotted}: {parent} is a value, not a table: check the key")
        table = inner
    table[last] = value


def _explain(origin: str, error: ValidationError) -> list[str]:
    """One line for each key; where several forms are allowed pydantic has a fault for each."""
    lines: dict[str, list[str]] = {}
    for fault in error.errors():
        # Behind the fields pydantic names the branch of a union that it tried, and places in it.
        table: Any = Recipe
        parts = []
        for part in fault["loc"]:
            parts.append(str(part))
            fields = getattr(table, "model_fields", {})
            if part not in fields or not hasattr(fields[part].annotation, "model_fields"):
                break
            table = fields[part].annotation
        key = ".".join(parts)
        if fault["type"] == "extra_forbidden":
            lines[f"unknown key {key!r}"] = [f"allowed are {', '.join(table.model_fields)}"]
            continue
        text = fault["msg"].removeprefix("Value error, ")
        shown = f"{key} = {fault['input']!r}" if fault["type"] != "value_error" else key
        lines.setdefault(shown, []).append(text[0].lower() + text[1:])
    return [f"{origin}: {shown}: {', or '.join(texts)}" for shown, texts in lines.items()]
