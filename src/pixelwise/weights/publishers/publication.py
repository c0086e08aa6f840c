"""What has to be known of a publisher's file to fill a network of ours with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pixelwise.errors import InputError
from pixelwise.weights.import_weights import ImportedWeights
from pixelwise.weights.normalization import Normalization


@dataclass(frozen=True)
class Publication:
    """Published weights, and how they fill a network.

    publisher: for messages. model: the network of ours that it is.
    foreign: its tensors by the file's names, in PyTorch's layout and in our order of channels.
    num_classes: of its head; None where there is no head, as in a classifier.
    options: of the network, as far as they follow from the file or its publisher; `backbone` is
    one of them.
    backbones: those that `places` knows. places: the file's names by those of the network.
    behind: how names of the file begin that are not of the backbone.
    left_out: what of the file is of no use to any network, for people.
    """

    publisher: str
    model: str
    imported: ImportedWeights
    num_classes: int | None
    options: Mapping[str, Any]
    normalization: Normalization
    backbones: tuple[str, ...]
    places: Mapping[str, str]
    behind: tuple[str, ...]
    left_out: str = field(default="")

    def check(self, *, model: str | None = None, backbone: str) -> None:
        """Raise InputError where this is not for that network, or not for that backbone."""
        if model is not None and model != self.model:
            raise InputError(
                f"{self.imported.path}: {self.publisher}'s weights are known for {self.model}, not "
                f"for {model}"
            )
        if backbone not in self.backbones:
            raise InputError(
                f"{self.imported.path}: {self.publisher}'s weights are known for "
                f"{', '.join(self.backbones)}, not for {backbone}"
            )

    def places_of(self, names: Iterable[str], *, prefix: str = "") -> dict[str, str]:
        """The file's name for each of the `names` that has one; `prefix` stands before them in the
        whole network."""
        return {name: self.places[prefix + name] for name in names if prefix + name in self.places}
