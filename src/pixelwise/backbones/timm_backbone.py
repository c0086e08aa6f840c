"""Backbones of timm by name: `timm/convnext_tiny`, or any other whose features can be extracted."""

from __future__ import annotations

import re
import sys
from collections import Counter
from difflib import get_close_matches
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.backbones.backbone import Backbone
from pixelwise.errors import InputError, MissingPackageError
from pixelwise.layers import crop
from pixelwise.layers.conv import TensorFlowConv2d, pad_same

PREFIX = "timm/"
MAPS = ("c1", "c2", "c3", "c4", "c5")
PROBE = (65, 97)  # odd, so that maps whose sizes are rounded down are noticed
FIXED_SIZE = "it takes images of one size only, or has maps of another layout"
MAX_SIMILAR = 200
MAX_PER_FAMILY = 2
FALLBACK = "convnext_tiny"


def is_timm(name: str) -> bool:
    """Return whether the name of a backbone is one of timm's."""
    return name.startswith(PREFIX)


def import_timm(purpose: str) -> Any:
    """Import timm.

    Raises:
        MissingPackageError: If it is not installed.
        InputError: If it cannot be imported, since torchvision does not fit PyTorch.
    """
    try:
        _import_torchvision()
        import timm
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{purpose}: needs {error.name}, which is not installed: `pip install "
            "'pixelwise[timm]'`"
        ) from error
    except (RuntimeError, OSError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{purpose}: timm cannot be imported ({reason}): install the torchvision that belongs "
            f"to PyTorch {torch.__version__}, from the same index"
        ) from error
    return timm


_operators: list[Any] = []
"""Declarations of torchvision's operators, which last as long as these objects."""


def _import_torchvision() -> None:
    """Import torchvision, also if it was built for another build of PyTorch.

    PyPI has torchvision for CUDA only. Beside a PyTorch for CPUs its operators are missing, and it
    fails to import since it describes them. timm does not use them, so that it is enough to declare
    their names.
    """
    while True:
        try:
            import torchvision  # noqa: F401
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            library: Any = torch.library
            _operators.append(library.Library("torchvision", "FRAGMENT"))
            _operators[-1].define(f"{missing[1]}(Tensor x) -> Tensor")
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]
        else:
            return


class _SameAvgPool2d(nn.AvgPool2d):
    """timm's AvgPool2dSame in a form that can be exported."""

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = cast(tuple[int, int], self.kernel_size), cast(tuple[int, int], self.stride)
        padded = pad_same(input, kernel, stride)
        return F.avg_pool2d(padded, kernel, stride, 0, self.ceil_mode, self.count_include_pad)


_EXPORTABLE = {"Conv2dSame": TensorFlowConv2d, "AvgPool2dSame": _SameAvgPool2d}
"""Equivalents of timm's layers that compute their padding in a way that runtimes cannot convert."""


class TimmBackbone(Backbone):
    """A model of timm without its classifier: images to maps c5, c4, ... from its last stages.

    Images are padded at the bottom and the right if the model needs sides of a multiple of its
    stride, or would round the sides of its maps down; the maps are then cropped, so that they cover
    the image.

    Args:
        name: Name in timm, with or without the tag of pretrained weights.
        output_stride: Stride of c5. Not all models support all of 8, 16 and 32.
        in_channels: Number of image channels.

    Raises:
        InputError: If there is no such model, or it has no features, images of any size or maps of
            this stride; the message names the nearest model that has.
        MissingPackageError: If timm is not installed.
    """

    def __init__(self, name: str, *, output_stride: int = 32, in_channels: int = 3) -> None:
        super().__init__()
        label = f"backbone {PREFIX + name!r}"
        timm = import_timm(label)
        _check_name(timm, name, label)
        self.name, self.output_stride = name, output_stride
        try:
            self.model = create_features(timm, name, output_stride, in_channels)
        except UnsupportedModelError as error:
            nearest = _find_nearest(timm, name.partition(".")[0], output_stride)
            raise InputError(
                f"{label}: {error}: the nearest that can be used is {PREFIX}{nearest}"
            ) from error
        info: Any = self.model.feature_info
        for layer in self.model.modules():
            if equivalent := _EXPORTABLE.get(type(layer).__name__):
                layer.__class__ = equivalent
        channels, strides = info.channels(), info.reduction()
        self.kept = min(len(MAPS), len(channels))
        names = MAPS[-self.kept :]
        self.channels = dict(zip(names, channels[-self.kept :], strict=True))
        self.strides = dict(zip(names, strides[-self.kept :], strict=True))
        self.padding = _find_padding(self.model, max(self.strides.values()), in_channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        height, width = x.shape[2:]
        if self.padding > 1:
            bottom, right = (_round_up(side, self.padding) - side for side in (height, width))
            x = F.pad(x, (0, right, 0, bottom))
        maps = dict(zip(self.strides, self.model(x)[-self.kept :], strict=True))
        if self.padding > 1:
            for name, stride in self.strides.items():
                size = (_round_up(height, stride) // stride, _round_up(width, stride) // stride)
                maps[name] = crop(maps[name], offset=0, size=size)
        return maps


def _round_up(side: int, multiple: int) -> int:
    """Round up without comparisons, because `side` may be symbolic during export."""
    return (side + multiple - 1) // multiple * multiple


def _check_name(timm: Any, name: str, label: str) -> None:
    """Raise InputError if timm has no such model, or no such weights of it."""
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        similar = get_close_matches(base, timm.list_models())
        hint = f" (did you mean {' or '.join(PREFIX + n for n in similar)}?)" if similar else ""
        raise InputError(
            f"{label}: timm {timm.__version__} has no such model{hint}: "
            "`timm.list_models()` lists all"
        )
    tags = [
        n.partition(".")[2]
        for n in timm.list_models(f"{base}*", pretrained=True)
        if n.partition(".")[0] == base
    ]
    if tag and tag not in tags:
        raise InputError(
            f"{label}: {base} has no weights {tag!r}: choose one of {', '.join(tags) or 'none'}"
        )


class UnsupportedModelError(Exception):
    """A model of timm cannot be used as a backbone."""


def create_features(
    timm: Any, name: str, output_stride: int, in_channels: int, **options: Any
) -> nn.Module:
    """Create a model of timm that returns the maps of its stages, with this stride of the last.

    Raises:
        UnsupportedModelError: If that is not possible.
    """
    options = {"features_only": True, "in_chans": in_channels, **options}
    strided = {"output_stride": output_stride} if output_stride != 32 else {}
    reasons: list[str] = []
    # Transformers have a fixed stride, and accept images of any size on request.
    for extra in (strided, {}, {"dynamic_img_size": True}):
        try:
            model = cast(nn.Module, timm.create_model(name, **options, **extra))
            strides = model.feature_info.reduction()  # type: ignore[operator, union-attr]
        except Exception as error:  # each of timm's models refuses in its own way
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            reasons.append(text)
            continue
        if strides[-1] != output_stride:
            reasons.append(f"its output stride is {strides[-1]}, not {output_stride}")
            continue
        try:
            _find_padding(model, max(strides), in_channels)
        except UnsupportedModelError as error:
            reasons.append(str(error))
            continue
        return model
    known = (reason for reason in reasons if reason.startswith(("its output", FIXED_SIZE)))
    raise UnsupportedModelError(next(known, reasons[0]))


def _find_padding(model: nn.Module, stride: int, in_channels: int) -> int:
    """Return 1 if images of any size give maps that cover them, else the stride to pad to.

    Raises:
        UnsupportedModelError: If padded images do not give maps of the stated sizes, either.
    """
    strides = model.feature_info.reduction()  # type: ignore[operator, union-attr]
    if _map_sizes(model, PROBE, in_channels) == [
        tuple(-(-side // each) for side in PROBE) for each in strides
    ]:
        return 1
    padded = tuple(-(-side // stride) * stride for side in PROBE)
    if _map_sizes(model, padded, in_channels) == [
        tuple(side // each for side in padded) for each in strides
    ]:
        return stride
    raise UnsupportedModelError(FIXED_SIZE)


def _map_sizes(
    model: nn.Module, size: tuple[int, ...], in_channels: int
) -> list[tuple[int, ...]] | None:
    """The sizes of the maps of an image, without computing them; None if the model refuses it."""
    training = model.training
    try:
        weights = {
            name: torch.empty_like(tensor, device="meta")
            for name, tensor in (*model.named_parameters(), *model.named_buffers())
        }
        image = torch.empty(1, in_channels, *size, device="meta")
        with torch.no_grad():
            maps = torch.func.functional_call(model.eval(), weights, (image,))
    except Exception:  # each of timm's models refuses in its own way
        return None
    finally:
        model.train(training)
    channels = model.feature_info.channels()  # type: ignore[operator, union-attr]
    if [feature.shape[1] for feature in maps] != list(channels):
        return None
    return [tuple(feature.shape[2:]) for feature in maps]


def _find_nearest(timm: Any, name: str, output_stride: int) -> str:
    """Return the model with the most similar name that can be used."""
    others = [other for other in timm.list_models() if other != name]
    tried: Counter[str] = Counter()
    for other in get_close_matches(name, others, n=MAX_SIMILAR, cutoff=0):
        family = timm.model_entrypoint(other).__module__
        tried[family] += 1
        if tried[family] > MAX_PER_FAMILY:
            continue
        try:
            with torch.device("meta"):
                create_features(timm, other, output_stride, 3)
        except UnsupportedModelError:
            continue
        return str(other)
    return FALLBACK
