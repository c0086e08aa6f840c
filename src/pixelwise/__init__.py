"""pixelwise: train, check and ship semantic segmentation networks on your own images.

    import pixelwise

    run = pixelwise.train("photos", out="runs/photos")
    predictor = pixelwise.load(run.best)
    result = predictor("photo.jpg")  # .mask, .probabilities, .overlay()

The public functions and classes:

- `load`, `Predictor`, `InferenceOptions`: predict single images.
- `Client`: the same with a running `pixelwise serve`.
- `predict_folder`, `AnswerOptions`: write the masks, tables or annotations of many images.
- `predict_shards`, `merge`: the same on a cluster or in many jobs, also from object stores.
- `train`, `resume`, `evaluate`: train a network, and score it.
- `calibrate`, `tune_bias`: correct its probabilities, and favor or disfavor classes.
- `finish`, `Callback`: end a run early, and receive its events.
- `learning_curve`, `select`: whether more images would help, and which to label next.
- `cross_validate`, `label_errors`: honest scores, and the labels that are likely wrong.
- `export`: write a bundle for OpenVINO, ONNX Runtime or torch.export.
- `open_dataset`, `examine`: read a dataset, and find its faults.
- `from_datasets`, `load_custom_model`: train on your own data, and load your own module.
- `create_model`, `list_models`: the networks, as plain PyTorch modules.
- `get_weights`, `list_weights`: published weights by name.
- `InputError`, `PixelwiseError`: what they raise.

`import pixelwise` is fast: each name is imported on first use, and PyTorch only if it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from pixelwise.errors import InputError, PixelwiseError, explain_missing_packages

if TYPE_CHECKING:
    from pixelwise.api import (
        calibrate,
        cross_validate,
        evaluate,
        examine,
        export,
        finish,
        get_weights,
        label_errors,
        learning_curve,
        load,
        merge,
        open_dataset,
        predict_folder,
        predict_shards,
        resume,
        select,
        train,
        tune_bias,
    )
    from pixelwise.client import Client
    from pixelwise.data.custom_dataset import from_datasets
    from pixelwise.inference import Predictor
    from pixelwise.inference.answer_options import AnswerOptions
    from pixelwise.inference.inference_options import InferenceOptions
    from pixelwise.models import list_models
    from pixelwise.training import Callback, load_custom_model
    from pixelwise.weights.create_model import create_model
    from pixelwise.weights.published.catalog import list_weights

__version__ = "0.1.0"

__all__ = [
    "AnswerOptions",
    "Callback",
    "Client",
    "InferenceOptions",
    "InputError",
    "PixelwiseError",
    "Predictor",
    "__version__",
    "calibrate",
    "create_model",
    "cross_validate",
    "evaluate",
    "examine",
    "export",
    "finish",
    "from_datasets",
    "get_weights",
    "label_errors",
    "learning_curve",
    "list_models",
    "list_weights",
    "load",
    "load_custom_model",
    "merge",
    "open_dataset",
    "predict_folder",
    "predict_shards",
    "resume",
    "select",
    "train",
    "tune_bias",
]

# Where each name that is not imported above lives, if not in pixelwise.api.
_MODULES = {
    "AnswerOptions": "pixelwise.inference.answer_options",
    "Callback": "pixelwise.training",
    "Client": "pixelwise.client",
    "InferenceOptions": "pixelwise.inference.inference_options",
    "Predictor": "pixelwise.inference",
    "create_model": "pixelwise.weights.create_model",
    "from_datasets": "pixelwise.data.custom_dataset",
    "list_models": "pixelwise.models",
    "list_weights": "pixelwise.weights.published.catalog",
    "load_custom_model": "pixelwise.training",
}

# Hidden from type checkers, which would accept any attribute if they saw it.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'pixelwise' has no attribute {name!r}")
        with explain_missing_packages():
            value = getattr(import_module(_MODULES.get(name, "pixelwise.api")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
