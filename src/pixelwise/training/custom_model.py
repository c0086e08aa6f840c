"""Train and use your own `nn.Module`.

The module maps normalized images (B, C, H, W) to logits (B, num_classes, h, w) at any resolution;
they are resized to the image. Losses, validation, checkpoints and exact resuming work as for the
networks of pixelwise. In a run with several processes, the module needs
`pixelwise.layers.BatchNorm2d` and should use `pixelwise.layers.Dropout`, which treat the shards of
a batch as one batch.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from pixelwise.backbones.timm_backbone import TimmBackbone
from pixelwise.data.classes import Classes
from pixelwise.data.pixel_format import RGB, PixelFormat
from pixelwise.errors import InputError
from pixelwise.inference import InferenceOptions, Predictor
from pixelwise.inference.runtimes.forking import ProcessLock
from pixelwise.inference.runtimes.torch.torch_runtime import TorchRuntime, find_device
from pixelwise.layers import resize
from pixelwise.recipes.schema import ModelRecipe
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.normalization import Normalization


class CustomSegmenter(nn.Module):
    """Give a user's module the interface that training needs of a `Segmenter`."""

    def __init__(self, module: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.module = module
        self.num_classes = num_classes

    def forward(self, images: Tensor) -> Tensor:
        return self.training_logits(images)[0]

    def training_logits(self, images: Tensor, *, upsample: bool = True) -> tuple[Tensor]:
        logits = self.module(images)
        shape = tuple(getattr(logits, "shape", ()))
        if len(shape) != 4 or shape[:2] != (len(images), self.num_classes):
            raise InputError(
                f"model {type(self.module).__name__}: returned {type(logits).__name__} {shape} for "
                f"images {tuple(images.shape)}: return logits (B, {self.num_classes}, h, w)"
            )
        size = (images.shape[2], images.shape[3])
        return (resize(logits, size=size) if upsample else logits,)


def check_batch_norm(module: nn.Module | None, world_size: int) -> None:
    """Raise InputError if a module would normalize each shard of a batch separately."""
    if module is None or world_size == 1:
        return
    if any(type(layer) is nn.BatchNorm2d for layer in module.modules()):
        raise InputError(
            f"model {type(module).__name__}: nn.BatchNorm2d sees only the images of its own "
            "process: use pixelwise.layers.BatchNorm2d, or a single process"
        )


def check_timm_norm(recipe: ModelRecipe, model: nn.Module, world_size: int) -> None:
    """Raise InputError if a backbone of timm would normalize each shard of a batch separately."""
    backbone = getattr(model, "backbone", None)
    if world_size == 1 or recipe.freeze_batch_norm or not isinstance(backbone, TimmBackbone):
        return
    if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in backbone.modules()):
        raise InputError(
            f"backbone 'timm/{backbone.name}': its batch normalization sees only the images of its "
            "own process: use a single process, or --set model.freeze_batch_norm=true"
        )


class CustomRuntime(TorchRuntime):
    """Run a user's module for prediction, without the simplifications of `TorchRuntime`."""

    def __init__(
        self, model: CustomSegmenter, normalization: Normalization, device: torch.device
    ) -> None:
        self.model = model.to(device).eval()
        self.normalization, self.device = normalization, device
        self._one_at_a_time = ProcessLock()


def make_predictor(
    model: nn.Module,
    classes: Classes,
    normalization: Normalization,
    *,
    pixels: PixelFormat = RGB,
    device: torch.device,
) -> Predictor:
    """Return a predictor for a network in memory; a custom one sees each image in one pass."""
    if isinstance(model, CustomSegmenter):
        runtime = CustomRuntime(model, normalization, device)
        options = InferenceOptions(tile="none")
        return Predictor(runtime, classes, options=options, pixels=pixels)
    return Predictor.from_model(model, classes, normalization, pixels=pixels, device=device)


def load_custom_model(
    path: str | Path, module: nn.Module, *, device: str | None = None
) -> Predictor:
    """Load the bundle of a run that trained your own module.

    Args:
        path: The bundle.
        module: The module that was trained; its weights are replaced.
        device: A PyTorch device. None: a GPU if there is one.

    Raises:
        InputError: If the file is not a bundle, or its weights do not fit the module.
    """
    bundle = Bundle.load(Path(path))
    load_module_weights(module, dict(bundle.weights), origin=path)
    return make_predictor(
        CustomSegmenter(module, len(bundle.classes)),
        bundle.classes,
        bundle.normalization,
        pixels=bundle.pixels,
        device=find_device(device),
    )


def load_module_weights(
    module: nn.Module, weights: dict[str, Tensor], *, origin: str | Path
) -> None:
    """Load weights into a module. Raises InputError if they do not fit."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:  # load_state_dict lists the mismatches from its second line
        first = str(error).splitlines()[1].strip()
        name = type(getattr(module, "module", module)).__name__
        raise InputError(
            f"{origin}: the weights do not fit {name} ({first}): pass the module that was trained"
        ) from error
