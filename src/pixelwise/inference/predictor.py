"""The one way from an image to a mask: commands, scoring and training's checks all use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.crf import CRFParameters, dense_crf, find_parameters
from pixelwise.data.classes import Classes
from pixelwise.data.image_decoding import upright
from pixelwise.data.image_files import read_raw
from pixelwise.data.pixel_format import RGB, PixelFormat, Pixels, as_shown
from pixelwise.errors import InputError
from pixelwise.inference.load_model import AUTO, open_network
from pixelwise.inference.results import Prediction, Segmentation, softmax
from pixelwise.inference.runtimes import Runtime
from pixelwise.inference.tiling.tiled_model import TiledModel, check_tile
from pixelwise.inference.tta import TTA, as_scales
from pixelwise.ops.numba_support import require_numba

if TYPE_CHECKING:
    from torch import nn

    from pixelwise.weights.normalization import Normalization

ImageLike = str | Path | Image.Image | NDArray[Any]


class Predictor:
    """Masks from images, with all that a bundle knows applied: `Predictor.load(path)(image)`.

    runtime: what runs the network; network_id: tells it from others, where it comes from files.
    recipe: what the network was trained with, as plain JSON.
    pixels: what images have to hold.
    crf: parameters of a dense CRF, the name of a paper's set or a file of `pixelwise tune-crf`;
    every result is then the refined one. tile: of images that are too large for one pass, see
    `TiledModel`. scales, flip: several looks at each image, see `Ensemble`.
    Raises InputError for a wrong one of these, and where a CRF is asked for without numba.
    """

    def __init__(
        self,
        runtime: Runtime,
        classes: Classes,
        *,
        recipe: dict[str, Any] | None = None,
        pixels: PixelFormat = RGB,
        crf: CRFParameters | str | Path | None = None,
        tile: int | str = "auto",
        scales: Sequence[float] = (),
        flip: bool = False,
        network_id: str = "",
    ) -> None:
        self.runtime = runtime
        self.network_id = network_id
        self.network = TiledModel(runtime, tile=tile)
        self.tta = TTA(as_scales(scales), flip)
        self.classes = classes
        self.recipe = recipe or {}
        self.pixels = pixels
        self.crf = _checked(crf)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        runtime: str = AUTO,
        device: str | None = None,
        crf: CRFParameters | str | Path | None = None,
        tile: int | str = "auto",
        scales: Sequence[float] = (),
        flip: bool = False,
        parts: bool = False,
    ) -> Predictor:
        """A predictor from a bundle or an export.

        runtime: "torch", or one that the bundle has been exported for, as "openvino"; "auto" takes
        the fastest of those, measured at the first time.
        device: of PyTorch, which then is the runtime; None takes a GPU where there is one.
        parts: "auto" chooses among those whose tiles agree with one pass, where there are any.
        The others: as for the class.
        Raises InputError where the file is not a whole bundle or export, or the runtime is not to
        be had.
        """
        crf = _checked(crf)  # faults are told before the bundle is read
        check_tile(tile)
        TTA(as_scales(scales), flip)
        opened = open_network(Path(path), runtime=runtime, device=device, parts=parts)
        return cls(
            opened.runtime,
            opened.classes,
            recipe=opened.recipe,
            pixels=opened.pixels,
            crf=crf,
            tile=tile,
            scales=scales,
            flip=flip,
            network_id=opened.network_id,
        )

    @classmethod
    def of(
        cls,
        model: nn.Module,
        classes: Classes,
        normalization: Normalization,
        *,
        pixels: PixelFormat = RGB,
        device: Any = "cpu",
    ) -> Predictor:
        """A predictor around a network in memory, run by PyTorch. device: any of PyTorch's."""
        from pixelwise.inference.runtimes.torch.torch_runtime import TorchRuntime

        return cls(TorchRuntime(model, normalization, device=device), classes, pixels=pixels)

    def __call__(self, image: ImageLike) -> Prediction:
        """Predict one image of any size: a path, a PIL image, or uint8 RGB (H, W, 3).

        Where the network was trained on deeper images or other channels, the array is (H, W, C)
        of the numbers that such files hold.
        Raises InputError for a file that is no image, or an array of another type or shape.
        """
        return self.predict_prepared(self.prepare(image))

    def segment(self, image: ImageLike) -> Segmentation:
        """The mask alone, without the probabilities: what takes least. Raises as a call does."""
        return self.segment_prepared(self.prepare(image))

    def prepare(self, image: ImageLike) -> Pixels:
        """(H, W, C) in units of 0..255 from whatever a call takes. Raises as a call does."""
        return as_pixels(image, self.pixels)

    def predict_prepared(self, image: Pixels) -> Prediction:
        """What a call gives, of an image as `prepare` and a data set give it."""
        logits = self.scores(image)
        return Prediction(image, _largest(logits), self.classes, logits)

    def segment_prepared(self, image: Pixels) -> Segmentation:
        """What `segment` gives, likewise."""
        return Segmentation(image, self.classify(image), self.classes)

    @property
    def concurrency(self) -> int:
        """How many calls of `segment_concurrently` are worth running at the same time."""
        return self.network.concurrency if self._labels_alone else 1

    def segment_concurrently(self, image: Pixels) -> Segmentation:
        """What `segment_prepared` gives, from up to `concurrency` threads: more images a second,
        each of which takes longer."""
        if not self._labels_alone:
            return self.segment_prepared(image)
        return Segmentation(image, self.network.classify_concurrently(image), self.classes)

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """(H, W, C) in units of 0..255 to the network's own (C, H, W) float32 logits, by tiles
        where the image is too large for one pass; of several looks the logarithms of their mean
        probabilities."""
        if self.tta.single:
            return self.network.logits(image)
        return _logarithms(self.tta.probabilities(image, self.network.logits))

    def scores(self, image: Pixels) -> NDArray[np.float32]:
        """The logits, (C, H, W) float32; with a CRF the logarithms of its probabilities."""
        logits = self.logits(image)
        if self.crf is None:
            return logits
        return _logarithms(dense_crf(as_shown(image), softmax(logits), self.crf))

    def classify(self, image: Pixels) -> NDArray[np.uint8]:
        """(H, W, C) in units of 0..255 to (H, W) class indices, and nothing else."""
        if self._labels_alone:
            return self.network.classify(image)
        return _largest(self.scores(image))

    @property
    def _labels_alone(self) -> bool:
        """Whether the network's labels are the result: no scores are needed on the way."""
        return self.crf is None and self.tta.single

    def stream(self, images: Iterable[ImageLike]) -> Iterator[Prediction]:
        """Predictions one after the other, in order; one image is in memory at a time."""
        return (self(image) for image in images)


def _checked(crf: CRFParameters | str | Path | None) -> CRFParameters | None:
    """The CRF's parameters. Raises InputError for unknown ones and where numba is missing."""
    if crf is None:
        return None
    parameters = find_parameters(crf)
    require_numba("the dense CRF")
    return parameters


def _logarithms(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    smallest = np.finfo(np.float32).tiny  # keeps the logarithm of 0 finite
    return np.log(np.maximum(probabilities, smallest))


def _largest(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    index: NDArray[np.uint8] = logits.argmax(axis=0).astype(np.uint8)
    return index


def as_pixels(image: ImageLike, pixels: PixelFormat = RGB) -> Pixels:
    """Whatever a person has in hand, (H, W, C) in units of 0..255, upright. Raises InputError."""
    remedy = "" if pixels == RGB else "give images like those that the network was trained on"
    if isinstance(image, str | Path):
        path = Path(image)
        return pixels.scale(pixels.select(read_raw(path), path, remedy=remedy))
    if isinstance(image, Image.Image):
        if pixels != RGB:
            raise InputError(
                f"image of type Image, mode {image.mode}: the network was trained on {pixels}: "
                "give a path or an array"
            )
        return np.asarray(upright(image).convert("RGB"))
    if (
        not isinstance(image, np.ndarray)
        or str(image.dtype) != pixels.dtype
        or image.ndim != 3
        or image.shape[2] != pixels.channels
        or 0 in image.shape
    ):
        shape = getattr(image, "shape", None)
        colors = " in RGB" if pixels.channels == 3 else ""
        raise InputError(
            f"image of type {type(image).__name__}, {getattr(image, 'dtype', 'no dtype')}, shape "
            f"{shape}: give a path, a PIL image or a {pixels.dtype} array of shape (H, W, "
            f"{pixels.channels}){colors}"
        )
    if image.dtype == np.float32 and not np.isfinite(image).all():
        raise InputError("image holds values that are not finite: fill them with a number")
    return pixels.scale(image)
