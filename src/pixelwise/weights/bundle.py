"""The bundle: one sealed file with weights and all that is needed to use them.

Its description is the model and its options, classes and palette, normalization, recipe, scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from pixelwise.data.classes import Classes
from pixelwise.data.pixel_format import RGB, PixelFormat
from pixelwise.errors import InputError
from pixelwise.models import Segmenter, create_model
from pixelwise.recipes.schema import CUSTOM_MODEL
from pixelwise.weights.bundle_header import BUNDLE_KEY, BUNDLE_REMEDY
from pixelwise.weights.normalization import Normalization
from pixelwise.weights.tensor_file import read_tensor_file, write_tensor_file

FORMAT = 1


@dataclass
class Bundle:
    """A trained network with everything needed to use, score and repeat it.

    model: the registry's name; options: what `create_model` takes besides the numbers of classes
    and channels.
    weights: the state dict, on the CPU.
    recipe: the resolved recipe; scores: of the split named in them; both plain JSON.
    pixels: what images have to hold.
    path: the file that it was loaded from, for messages.
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

    def build(self) -> Segmenter:
        """The network with these weights, in evaluation mode.

        Raises InputError where this version has no such network or the weights do not fit it.
        """
        origin = self.path or "bundle"
        if self.model == CUSTOM_MODEL:
            raise InputError(
                f"{origin}: holds the weights of a module of your own: load it with "
                "pixelwise.training.load_custom_model(path, module)"
            )
        try:
            model = create_model(
                self.model,
                num_classes=len(self.classes),
                in_channels=self.pixels.channels,
                **self.options,
            )
            model.load_state_dict(dict(self.weights))
        except InputError as error:
            raise InputError(f"{origin}: {error}") from error
        except RuntimeError as error:  # how load_state_dict lists what does not fit
            first = str(error).splitlines()[1].strip().split(":")[0]
            raise InputError(
                f"{origin}: its weights do not fit {self.model} with {self.options} ({first}): "
                "give the file as train wrote it"
            ) from error
        return model.eval()

    def save(self, path: Path) -> None:
        """Write the file whole or not at all. Raises InputError where that is impossible."""
        about = {
            "format": FORMAT,
            "model": self.model,
            "options": self.options,
            "classes": self.classes.to_json(),
            "normalization": self.normalization.to_json(),
            "pixels": self.pixels.to_json(),
            "recipe": self.recipe,
            "scores": self.scores,
        }
        write_tensor_file(path, self.weights, about, key=BUNDLE_KEY)

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Read a bundle. Raises InputError for anything that is not a whole, undamaged one."""
        remedy = BUNDLE_REMEDY
        tensors, about = read_tensor_file(path, key=BUNDLE_KEY, kind="bundle", remedy=remedy)
        try:
            if about["format"] != FORMAT:
                raise InputError(
                    f"has bundle format {about['format']}, this version reads {FORMAT}: update "
                    "pixelwise"
                )
            bundle = cls(
                model=str(about["model"]),
                options=dict(about["options"]),
                classes=Classes.from_json(about["classes"]),
                normalization=Normalization.from_json(about["normalization"]),
                weights=tensors,
                pixels=PixelFormat.from_json(about.get("pixels", RGB.to_json())),
                recipe=dict(about["recipe"]),
                scores=dict(about["scores"]),
                path=path,
            )
            if bundle.normalization.channels != bundle.pixels.channels:
                raise ValueError("a normalization of other channels than the images")
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: the bundle's description is damaged: {remedy}") from error
        return bundle
