"""The bundle: one file with the weights of a network and everything needed to use them.

Besides the weights it describes the model and its options, classes and palette, normalization,
image format, recipe and scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixelwise.data.classes import Classes, listed
from pixelwise.data.pixel_format import RGB, PixelFormat
from pixelwise.errors import InputError
from pixelwise.models import Segmenter, create_model
from pixelwise.recipes.schema import CUSTOM_MODEL
from pixelwise.weights.bundle_header import BUNDLE_KEY, BUNDLE_REMEDY
from pixelwise.weights.normalization import Normalization
from pixelwise.weights.published.catalog import find_bundle
from pixelwise.weights.tensor_file import read_tensor_file, write_tensor_file

FORMAT = 1
# Keys that pixelwise 0.1 wrote in British spelling, and what they are called now.
RENAMED_KEYS = {
    "normalisation": "normalization",
    "colours": "colors",
    "ignore_colour": "ignore_color",
}


@dataclass(repr=False)
class Bundle:
    """A trained network with everything needed to use, score and reproduce it.

    Attributes:
        model: Name of the network; see `list_models`.
        options: Options of `create_model`, without the numbers of classes and channels.
        classes: Names, colors and mask values of the classes.
        normalization: How images are normalized for the network.
        weights: State dict of the network, on the CPU.
        recipe: The resolved recipe of the training run, as plain JSON.
        scores: Scores on the split that they name, as plain JSON.
        pixels: Format of the images.
        path: File that the bundle was loaded from, for error messages.

    Example:
        >>> bundle = Bundle.load(Path("runs/mine/best.safetensors"))
        >>> model = bundle.build()
    """

    model: str
    options: dict[str, Any]
    classes: Classes
    normalization: Normalization
    weights: Mapping[str, Tensor]
    recipe: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    pixels: PixelFormat = RGB
    path: Path | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        options = "".join(f", {key}={value!r}" for key, value in self.options.items())
        score = self.scores.get("mean_iou")
        lines = [
            f"Bundle({self.model}{options})",
            f"  classes: {len(self.classes)} ({listed(self.classes.names, most=5)})",
            f"  images: {self.pixels}",
            f"  weights: {len(self.weights)} tensors",
        ]
        if score is not None:
            lines.append(f"  mean IoU: {score:.2%} on {self.scores.get('split', 'unknown split')}")
        return "\n".join(lines)

    def build(self) -> Segmenter:
        """Create the network with these weights, in evaluation mode.

        Raises:
            InputError: If this version has no such network, or the weights do not fit it.
        """
        origin = self.path or "bundle"
        if self.model == CUSTOM_MODEL:
            raise InputError(
                f"{origin}: holds the weights of a custom module: load it with "
                "pixelwise.load_custom_model(path, module)"
            )
        try:
            with torch.device("cpu"):  # the program's default may be "meta", which drops weights
                model = create_model(
                    self.model,
                    num_classes=len(self.classes),
                    in_channels=self.pixels.channels,
                    **self.options,
                )
            model.load_state_dict(dict(self.weights))
        except InputError as error:
            raise InputError(f"{origin}: {error}") from error
        except RuntimeError as error:  # load_state_dict lists all mismatches in one message
            first = str(error).splitlines()[1].strip().split(":")[0]
            raise InputError(
                f"{origin}: its weights do not fit {self.model} with options {self.options} "
                f"({first}): use the file that training wrote, unchanged"
            ) from error
        return model.eval()

    def save(self, path: Path) -> None:
        """Write the bundle atomically.

        Raises:
            InputError: If the file cannot be written.
        """
        description = {
            "format": FORMAT,
            "model": self.model,
            "options": self.options,
            "classes": self.classes.to_json(),
            "normalization": self.normalization.to_json(),
            "pixels": self.pixels.to_json(),
            "recipe": self.recipe,
            "scores": self.scores,
        }
        write_tensor_file(path, self.weights, description, key=BUNDLE_KEY)

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Read a bundle and verify its checksum. It can be a bundle of pixelwise 0.1.

        The path can also be the name of published weights that have been fetched.

        Raises:
            InputError: If the file is not a complete, undamaged bundle.
        """
        path, remedy = find_bundle(path), BUNDLE_REMEDY
        tensors, description = read_tensor_file(path, key=BUNDLE_KEY, kind="bundle", remedy=remedy)
        try:
            if description["format"] != FORMAT:
                raise InputError(
                    f"has bundle format {description['format']}, but this version reads {FORMAT}: "
                    "update pixelwise"
                )
            description = _rename_keys(description)
            bundle = cls(
                model=str(description["model"]),
                options=dict(description["options"]),
                classes=Classes.from_json(_rename_keys(description["classes"])),
                normalization=Normalization.from_json(description["normalization"]),
                weights=tensors,
                pixels=PixelFormat.from_json(description.get("pixels", RGB.to_json())),
                recipe=dict(description["recipe"]),
                scores=dict(description["scores"]),
                path=path,
            )
            if bundle.normalization.channels != bundle.pixels.channels:
                raise ValueError("normalization and images differ in their number of channels")
            for name, weight in tensors.items():
                if weight.is_floating_point() and weight.isnan().any():
                    raise InputError(
                        f"{name} holds values that are no numbers, so it predicts nothing: use "
                        "the bundle of an earlier epoch, or train again"
                    )
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: the bundle's description is damaged: {remedy}") from error
        return bundle


def _rename_keys(data: Mapping[str, Any]) -> dict[str, Any]:
    return {RENAMED_KEYS.get(key, key): value for key, value in data.items()}
