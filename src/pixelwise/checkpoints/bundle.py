"""The bundle: one safetensors file with weights and all that is needed to use them.

The header's metadata holds one entry: a line with the SHA-256 of all that follows and of the
tensors, and a JSON text (the model and its options, classes and palette, normalisation, recipe,
scores). One and not two, since safetensors writes several in any order, and equal bundles are to be
equal files. Nothing in the file can run code. safetensors notices a file that is cut off, but a
flipped bit loads in silence: hence the hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pixelwise.checkpoints.normalisation import Normalisation
from pixelwise.data.classes import Classes
from pixelwise.errors import InputError
from pixelwise.files import atomic
from pixelwise.models import Segmenter, create_model

FORMAT = 1
KEY = "pixelwise"


@dataclass
class Bundle:
    """A trained network with everything needed to use, score and repeat it.

    model: the registry's name; options: what `create_model` takes besides num_classes.
    weights: the state dict, on the CPU.
    recipe: the resolved recipe; scores: of the split named in them; both plain JSON.
    path: the file that it was loaded from, for messages.
    """

    model: str
    options: dict[str, Any]
    classes: Classes
    normalisation: Normalisation
    weights: Mapping[str, Tensor]
    recipe: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    path: Path | None = field(default=None, compare=False)

    def build(self) -> Segmenter:
        """The network with these weights, in evaluation mode.

        Raises InputError where this version has no such network or the weights do not fit it.
        """
        origin = self.path or "bundle"
        try:
            model = create_model(self.model, num_classes=len(self.classes), **self.options)
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
        tensors = {
            name: tensor.detach().cpu().contiguous() for name, tensor in self.weights.items()
        }
        about = {
            "format": FORMAT,
            "model": self.model,
            "options": self.options,
            "classes": self.classes.to_json(),
            "normalisation": self.normalisation.to_json(),
            "recipe": self.recipe,
            "scores": self.scores,
        }
        text = json.dumps(about, allow_nan=False)
        metadata = {KEY: f"{_digest(text, tensors)}\n{text}"}
        with atomic(path) as side:
            try:
                save_file(tensors, side, metadata=metadata)
            except SafetensorError as error:  # how it reports a full disk
                raise OSError(str(error)) from error

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Read a bundle. Raises InputError for anything that is not a whole, undamaged one."""
        remedy = "give the best.safetensors or last.safetensors of a run"
        if path.is_dir():
            raise InputError(f"{path}: is a folder, not a bundle: {remedy}")
        if not path.exists():
            raise InputError(f"{path}: is not there: {remedy}")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: is empty (0 bytes): {remedy}")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if KEY not in metadata:
                    raise InputError(
                        f"{path}: is a safetensors file but not a pixelwise bundle: {remedy}"
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{path}: is not a bundle, or is cut off or damaged ({error}): {remedy}"
            ) from error
        digest, _, text = metadata[KEY].partition("\n")
        if digest != _digest(text, tensors):
            raise InputError(f"{path}: is damaged (its SHA-256 differs): {remedy}")
        try:
            about = json.loads(text)
            if about["format"] != FORMAT:
                raise InputError(
                    f"has bundle format {about['format']}, this version reads {FORMAT}: update "
                    "pixelwise"
                )
            bundle = cls(
                model=str(about["model"]),
                options=dict(about["options"]),
                classes=Classes.from_json(about["classes"]),
                normalisation=Normalisation.from_json(about["normalisation"]),
                weights=tensors,
                recipe=dict(about["recipe"]),
                scores=dict(about["scores"]),
                path=path,
            )
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: the bundle's description is damaged: {remedy}") from error
        return bundle


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the description and each tensor's name, type, shape and bytes, by name."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
