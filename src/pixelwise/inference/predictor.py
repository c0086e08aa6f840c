"""The one way from a photograph to a mask: commands, scoring and training's checks all use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pixelwise.checkpoints import Bundle, Normalisation
from pixelwise.crf import CRFParameters, dense_crf, find_parameters, require_numba
from pixelwise.data.classes import Classes
from pixelwise.data.images import read_image, upright
from pixelwise.errors import InputError
from pixelwise.inference.fusion import fold_batch_norm
from pixelwise.inference.result import Prediction

ImageLike = str | Path | Image.Image | NDArray[np.uint8]


class Predictor:
    """Masks from photographs, with all that a bundle knows applied: `Predictor.load(path)(image)`.

    device: any PyTorch device. On a CPU the network runs in channels_last order with batch
    normalisation folded in, which changes logits by rounding only.
    crf: parameters of a dense CRF, the name of a paper's set or a file of `pixelwise tune-crf`;
    every result is then the refined one. Raises InputError where numba is not installed.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        classes: Classes,
        normalisation: Normalisation,
        *,
        device: str | torch.device = "cpu",
        bundle: Bundle | None = None,
        crf: CRFParameters | str | Path | None = None,
    ) -> None:
        self.classes = classes
        self.normalisation = normalisation
        self.device = torch.device(device)
        self.bundle = bundle
        self.crf = None if crf is None else find_parameters(crf)
        if self.crf is not None:
            require_numba()
        folded = fold_batch_norm(model)
        self.model = folded.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | torch.device | None = None,
        crf: CRFParameters | str | Path | None = None,
    ) -> Predictor:
        """A predictor from a bundle. Raises InputError where the file is not a whole bundle.

        device: None takes a GPU where there is one.
        """
        if crf is not None:  # its faults are told before the bundle is read
            crf = find_parameters(crf)
            require_numba()
        chosen = find_device(device)
        bundle = Bundle.load(Path(path))
        return cls(
            bundle.build(),
            bundle.classes,
            bundle.normalisation,
            device=chosen,
            bundle=bundle,
            crf=crf,
        )

    def __call__(self, image: ImageLike) -> Prediction:
        """Predict one image of any size: a path, a PIL image, or uint8 RGB (H, W, 3).

        Raises InputError for a file that is no picture, or an array of another type or shape.
        """
        pixels = as_rgb(image)
        logits = self.scores(pixels)
        index = logits.argmax(dim=0).to(torch.uint8)
        return Prediction(pixels, index.cpu().numpy(), self.classes, logits.cpu().numpy())

    @torch.inference_mode()
    def logits(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """(H, W, 3) uint8 RGB to the network's (C, H, W) float32 logits, on its device."""
        # A view of H x W x C as C x H x W is channels_last already: nothing is copied or reordered.
        batch = torch.from_numpy(np.array(image)).to(self.device).permute(2, 0, 1)[None]
        out: torch.Tensor = self.model(self.normalisation(batch))[0].float()
        return out

    def scores(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """The logits, (C, H, W) float32; with a CRF the logarithms of its probabilities."""
        logits = self.logits(image)
        if self.crf is None:
            return logits
        refined = dense_crf(image, logits.softmax(dim=0).cpu().numpy(), self.crf)
        smallest = np.finfo(np.float32).tiny  # keeps the logarithm of 0 finite
        return torch.from_numpy(np.log(np.maximum(refined, smallest)))

    def classify(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB to (H, W) class indices: a call without what only a person needs."""
        return self.scores(image).argmax(dim=0).to(torch.uint8).cpu().numpy()

    def stream(self, images: Iterable[ImageLike]) -> Iterator[Prediction]:
        """Predictions one after the other, in order; one image is in memory at a time."""
        return (self(image) for image in images)


def find_device(name: str | torch.device | None) -> torch.device:
    """The device of that name, a GPU where there is one for None. Raises InputError if unusable."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {str(name)!r}: cannot be used here ({reason}): try cpu"
        ) from error
    return device


def as_rgb(image: ImageLike) -> NDArray[np.uint8]:
    """Whatever a person has in hand as uint8 RGB (H, W, 3), upright. Raises InputError."""
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return np.asarray(upright(image).convert("RGB"))
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or 0 in image.shape
    ):
        shape = getattr(image, "shape", None)
        raise InputError(
            f"image of type {type(image).__name__}, {getattr(image, 'dtype', 'no dtype')}, shape "
            f"{shape}: give a path, a PIL image or a uint8 array of shape (H, W, 3) in RGB"
        )
    return image
