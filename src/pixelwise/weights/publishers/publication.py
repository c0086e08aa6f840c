"""Describe published weights: names, options and normalization."""

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

    Attributes:
        publisher: Name of the publisher, for error messages.
        model: The network that the weights are for.
        imported: Tensors by the names in the file, in PyTorch's layout and our order of channels.
        num_classes: Number of classes of the head; None for a classifier without one.
        options: Options of the network that follow from the file or its publisher, among them
            `backbone`.
        normalization: Normalization that the weights expect.
        backbones: The backbones that `names` covers.
        names: Names in the file by the network's names.
        head_prefixes: Prefixes of the file's tensors that are not part of the backbone.
        not_weights: Contents of the file that no network uses, as text.
        form: The form of the backbone that the weights need; see `Backbone.form`.
        notes: Assumptions to report, one text per subject.
    """

    publisher: str
    model: str
    imported: ImportedWeights
    num_classes: int | None
    options: Mapping[str, Any]
    normalization: Normalization
    backbones: tuple[str, ...]
    names: Mapping[str, str]
    head_prefixes: tuple[str, ...]
    not_weights: str = ""
    form: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)

    def check(self, *, model: str | None = None, backbone: str) -> None:
        """Check that these weights are for the given network and backbone.

        Raises:
            InputError: If they are not.
        """
        supported = f"{self.imported.path}: {self.publisher} weights are supported for"
        if model is not None and model != self.model:
            raise InputError(f"{supported} {self.model}, not {model}")
        if backbone not in self.backbones:
            raise InputError(f"{supported} {', '.join(self.backbones)}, not {backbone}")

    def names_for(self, names: Iterable[str], *, prefix: str = "") -> dict[str, str]:
        """Translate a network's names to the file's names; names without a match are left out.

        Args:
            names: Names of the network, or of a part of it.
            prefix: Prefix of these names in the whole network.
        """
        return {name: self.names[prefix + name] for name in names if prefix + name in self.names}
