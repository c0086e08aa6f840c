"""The path from an image to a mask that commands, evaluation and training all use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf import CRFParameters, dense_crf, find_parameters
from pixelwise.data.classes import Classes
from pixelwise.data.pixel_format import RGB, PixelFormat, Pixels, as_shown
from pixelwise.errors import InputError
from pixelwise.inference.ensemble import load_ensemble
from pixelwise.inference.inference_options import AUTO, InferenceOptions
from pixelwise.inference.input_image import ImageLike, as_pixels
from pixelwise.inference.load_model import load_model
from pixelwise.inference.results import (
    Prediction,
    Segmentation,
    label_map,
    log_probabilities,
    softmax,
)
from pixelwise.inference.runtimes import Runtime, supports_tiling
from pixelwise.inference.tiling.tiled_model import NONE, TiledModel

if TYPE_CHECKING:
    from torch import nn

    from pixelwise.weights.normalization import Normalization
    from pixelwise.weights.stored_calibration import StoredCalibration


class Predictor:
    """Predicts masks with a trained network: `Predictor.load(path)(image)`.

    Threads may share a predictor. It can be pickled and copied, and used in a forked process.

    Args:
        runtime: What runs the network.
        classes: The classes that the network distinguishes.
        options: CRF, tiling and TTA. Its `runtime` and `device` are ignored: they were applied
            when `runtime` was created.
        recipe: The recipe that the network was trained with, as plain JSON.
        pixels: The number of channels, data type and value range that images must have.
        network_id: Identifies the weights and the device, so that an interrupted run is only
            resumed with the same network; "" for a network that does not come from a file.
        calibration: How probabilities follow from the logits, as found by `pixelwise calibrate`.
    """

    def __init__(
        self,
        runtime: Runtime,
        classes: Classes,
        *,
        options: InferenceOptions | None = None,
        recipe: dict[str, Any] | None = None,
        pixels: PixelFormat = RGB,
        network_id: str = "",
        calibration: StoredCalibration | None = None,
    ) -> None:
        self.runtime = runtime
        self.classes = classes
        self.options = options or InferenceOptions()
        self.recipe = recipe or {}
        self.pixels = pixels
        self.network_id = network_id
        self.calibration = calibration
        self.network = TiledModel(runtime, tile=self.options.tile)
        self.tta = self.options.tta
        self.path = ""
        if self.options.value_range is not None and not pixels.is_bytes:
            raise InputError(
                f"value range {list(self.options.value_range)}: the network was trained on "
                f"{pixels} and has its own range: omit it"
            )
        crf = self.options.crf
        self.crf = None if crf is None else find_parameters(crf)

    @classmethod
    def load(
        cls,
        path: str | Path | Sequence[str | Path],
        *,
        runtime: str = AUTO,
        device: str | None = None,
        crf: CRFParameters | str | Path | None = None,
        tile: int | str = AUTO,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        value_range: tuple[float, float] | None = None,
        image_size: tuple[int, int] | None = None,
    ) -> Predictor:
        """Load a predictor from a bundle or an export.

        For arguments and errors see `pixelwise.load`, and `InferenceOptions` for their ranges.
        """
        options = InferenceOptions(runtime, device, crf, tile, scales, flip, value_range)
        return cls.from_options(path, options, image_size=image_size)

    @classmethod
    def from_options(
        cls,
        path: str | Path | Sequence[str | Path],
        options: InferenceOptions,
        *,
        prefer_tiling: bool = False,
        image_size: tuple[int, int] | None = None,
    ) -> Predictor:
        """Load a predictor like `load`, with the options in one object.

        Args:
            path: A bundle, an export, or several of these.
            options: All options of prediction.
            prefer_tiling: With runtime "auto", choose among the runtimes whose tiles match a
                single pass, if there are any.
            image_size: Usual height and width of the images, for which the runtime "auto" finds
                the fastest one. Defaults to 360x480.

        Raises:
            InputError: As for `load`.
        """
        paths = [Path(each) for each in ([path] if isinstance(path, str | Path) else path)]
        if len(paths) > 1:
            if prefer_tiling:
                raise InputError(f"{paths[1]}: tiles of an image need a single network: omit it")
            model = load_ensemble(paths, options, image_size=image_size)
        elif paths:
            model = load_model(
                paths[0], options, prefer_tiling=prefer_tiling, image_size=image_size
            )
        else:
            raise InputError("no network: give a bundle or an export")
        predictor = cls(**vars(model), options=options)
        predictor.path = str(paths[0])
        if len(paths) > 1:  # each network has its own tiles
            predictor.network = TiledModel(model.runtime, tile=NONE)
        predictor.network.check_tile_side()
        return predictor

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        classes: Classes,
        normalization: Normalization,
        *,
        pixels: PixelFormat = RGB,
        device: Any = "cpu",
        options: InferenceOptions | None = None,
    ) -> Predictor:
        """Make a predictor from a network in memory, run by PyTorch.

        Args:
            model: Maps (B, C, H, W) to logits (B, classes, H, W).
            classes: The classes of the logits, in this order.
            normalization: Mean and std that the network expects.
            pixels: The format of the images.
            device: A `torch.device` or its name.
            options: CRF, tiling and TTA.
        """
        from pixelwise.inference.runtimes.torch.torch_runtime import TorchRuntime

        runtime = TorchRuntime(model, normalization, device=device)
        return cls(runtime, classes, pixels=pixels, options=options)

    def __repr__(self) -> str:
        name, count = self.runtime.name, len(self.classes)
        images = "RGB, 8 bits" if self.pixels == RGB else self.pixels
        return f"Predictor(runtime={name!r}, {count} classes, {images}, {self.options})"

    def __call__(self, image: ImageLike) -> Prediction:
        """Predict one image of any size.

        Args:
            image: A path, a PIL image, or a uint8 RGB array (H, W, 3). For a network that was
                trained on other channels or data types, an array (H, W, C) of the values that
                such files hold. The result does not share its memory.

        Returns:
            The mask with its probabilities.

        Raises:
            InputError: If a file is not an image, or an array has another type or shape.
        """
        return self.predict_prepared(self.prepare(image))

    def segment(self, image: ImageLike) -> Segmentation:
        """Predict the mask alone, which is faster and takes less memory than a call.

        Raises:
            InputError: As for a call.
        """
        return self.segment_prepared(self.prepare(image))

    def prepare(self, image: ImageLike) -> Pixels:
        """Read or convert an image to (H, W, C) in units of 0..255.

        Raises:
            InputError: As for a call.
        """
        return as_pixels(image, self.pixels, value_range=self.options.value_range, bundle=self.path)

    def predict_prepared(self, image: Pixels) -> Prediction:
        """Predict an image from `prepare` or from a dataset."""
        logits = self.refined_logits(image)
        result = Prediction(image, label_map(logits), self.classes, logits)
        if self.calibration is not None:
            result.temperature = self.calibration.temperature
            if self._skip_logits:  # otherwise these are not the logits of the network
                result.lowest_familiarity = self.calibration.lowest_familiarity
        return result

    def segment_prepared(self, image: Pixels) -> Segmentation:
        """Segment an image from `prepare` or from a dataset."""
        return Segmentation(image, self.predict_labels(image), self.classes)

    @property
    def concurrency(self) -> int:
        """The number of threads that should call `segment_concurrently`."""
        return self.network.concurrency if self._skip_logits else 1

    def segment_concurrently(self, image: Pixels) -> Segmentation:
        """Do the same as `segment_prepared`, from up to `concurrency` threads at once.

        This raises the throughput; each image takes longer.
        """
        if not self._skip_logits:
            return self.segment_prepared(image)
        return Segmentation(image, self.network.predict_labels_concurrently(image), self.classes)

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """Compute the logits of an image (H, W, C) in units of 0..255.

        Returns:
            The output of the network, (classes, H, W) float32, computed in tiles if the image is
            too large for one pass. With TTA, the logarithm of the mean probabilities.
        """
        if self.tta.single:
            return self.network.logits(image)
        return log_probabilities(self.tta.probabilities(image, self.network.logits))

    def refined_logits(self, image: Pixels) -> NDArray[np.float32]:
        """Compute the logits (classes, H, W); with a CRF, the logarithm of its probabilities."""
        logits = self.logits(image)
        if self.crf is None:
            return logits
        return log_probabilities(dense_crf(as_shown(image), softmax(logits), self.crf))

    def predict_labels(self, image: Pixels) -> NDArray[np.uint8]:
        """Compute the class indices (H, W) of an image (H, W, C) in units of 0..255."""
        if self._skip_logits:
            return self.network.predict_labels(image)
        return label_map(self.refined_logits(image))

    def stream(self, images: Iterable[ImageLike]) -> Iterator[Prediction]:
        """Predict images in order, with one image in memory at a time."""
        return (self(image) for image in images)

    def to_json(self) -> dict[str, Any]:
        """Return every setting that affects the masks as plain JSON."""
        options = self.options.to_json()
        del options["device"]  # `network_id` contains the resolved device
        return options | {
            "runtime": self.runtime.name,
            "supports_tiling": supports_tiling(self.runtime),
            "network": self.network_id,
        }

    @property
    def _skip_logits(self) -> bool:
        """Whether the labels of the network are the result, without a CRF or TTA."""
        return self.crf is None and self.tta.single
