"""Several networks as one, which predicts their mean probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.pixel_format import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.inference_options import InferenceOptions
from pixelwise.inference.load_model import LoadedModel, load_model
from pixelwise.inference.results import label_map, log_probabilities, softmax
from pixelwise.inference.runtimes.tile_geometry import Size
from pixelwise.inference.tiling.tiled_model import TiledModel


@dataclass
class EnsembleRuntime:
    """A `Runtime` whose logits are the logarithm of the mean probabilities of several networks.

    Args:
        networks: The networks, each of which cuts large images into tiles as it needs.
        temperatures: Divide the logits of each before the softmax, as its calibration says.
    """

    networks: Sequence[TiledModel]
    temperatures: Sequence[float]
    name: str = field(init=False)

    def __post_init__(self) -> None:
        names = dict.fromkeys(network.runtime.name for network in self.networks)
        self.name = f"{' and '.join(names)}, ensemble of {len(self.networks)}"

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        return log_probabilities(self._mean(image))

    def predict_labels(self, image: Pixels) -> NDArray[np.uint8]:
        return label_map(self._mean(image))

    def _mean(self, image: Pixels) -> NDArray[np.float32]:
        """Compute the mean probabilities (C, H, W), with those of one network in memory at once."""
        pairs = zip(self.networks, self.temperatures, strict=True)
        each = (softmax(network.logits(image) / np.float32(t)) for network, t in pairs)
        total = reduce(lambda sum_, one: np.add(sum_, one, out=sum_), each)
        total /= len(self.networks)
        return total


def load_ensemble(
    paths: Sequence[Path], options: InferenceOptions, *, image_size: Size | None = None
) -> LoadedModel:
    """Load several bundles or exports as one network.

    The values of masks and the colors are those of the first one. There is no limit by which images
    are flagged, because there are no common logits.

    Args:
        paths: Two or more bundles or exports.
        options: Of each network.
        image_size: As for `Predictor.from_options`.

    Raises:
        InputError: As for `load_model`, or if a path is given twice, or the networks have different
            classes, another order of the classes, or images of different formats.
    """
    for number, path in enumerate(paths):
        if any(_is_same(path, other) for other in paths[:number]):
            raise InputError(f"{path}: is given twice: give different networks, or this one alone")
    models = [load_model(path, options, image_size=image_size) for path in paths]
    first = models[0]
    for path, model in zip(paths[1:], models[1:], strict=True):
        names, others = first.classes.names, model.classes.names
        if names != others:
            how = "in another order" if sorted(names) == sorted(others) else "other classes"
            raise InputError(
                f"{path}: has {how} ({', '.join(others)}) than {paths[0]} ({', '.join(names)}): "
                "an ensemble needs the same classes in the same order"
            )
        if model.pixels != first.pixels:
            raise InputError(
                f"{path}: takes images of {model.pixels}, but {paths[0]} of {first.pixels}: an "
                "ensemble needs the same images"
            )
    networks = [TiledModel(model.runtime, tile=options.tile) for model in models]
    for network in networks:
        network.check_tile_side()
    calibrations = [model.calibration for model in models]
    temperatures = [1.0 if c is None else c.temperature for c in calibrations]
    identity = [f"{m.network_id} at {t:g}" for m, t in zip(models, temperatures, strict=True)]
    return replace(
        first,
        runtime=EnsembleRuntime(networks, temperatures),
        network_id=" and ".join(identity),
        calibration=None,
    )


def _is_same(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)
