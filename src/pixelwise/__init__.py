"""pixelwise: semantic segmentation that a person can train on their own images, check and ship.

    predictor = pixelwise.load("runs/mine/best.safetensors")
    result = predictor("photo.jpg")      # .mask, .probabilities, .overlay()

Importing this package is cheap: PyTorch is imported by the first call that needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelwise.errors import InputError, PixelwiseError

if TYPE_CHECKING:
    from pixelwise.inference import Predictor
    from pixelwise.training import Run

__version__ = "0.1.0"

__all__ = ["InputError", "PixelwiseError", "__version__", "load", "train"]


def load(
    path: str | Path,
    *,
    runtime: str = "auto",
    device: str | None = None,
    crf: str | Path | None = None,
) -> Predictor:
    """A predictor from a bundle or an export: call it with a path, a PIL image or a uint8
    (H, W, 3) array.

    runtime: "torch", or one that the bundle was exported for, as "openvino"; "auto" takes the
    fastest of those, measured at the first time.
    device: "cpu", "cuda", ...; None takes a GPU where there is one.
    crf: refine with a dense CRF: "v2-resnet101" or another name of pixelwise.crf.PARAMETER_SETS,
    or a file of `pixelwise tune-crf`.
    Raises InputError where the file is not a whole bundle or export, or the runtime is missing.
    """
    from pixelwise.inference import Predictor

    return Predictor.load(path, runtime=runtime, device=device, crf=crf)


def train(
    data: str | Path, *, out: str | Path, recipe: str | Path | None = None, **overrides: Any
) -> Run:
    """Train on a folder of images and masks, as `pixelwise train` does.

    overrides: recipe keys; a dotted key has its dot as two underscores:
    `pixelwise.train("photos", out="runs/mine", epochs=50, optimizer__learning_rate=0.02)`.
    Raises InputError for anything wrong with the folder, the recipe or `out`.
    """
    from pixelwise.training import load_recipe
    from pixelwise.training import train as run

    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return run(Path(data), Path(out), load_recipe(recipe, dotted))
