"""DeepLab's fields of view from the fully connected layers of a VGG16 classifier.

DeepLab v1 subsamples fc6 and fc7 "by simple decimation" (arXiv:1412.7062, section 3.1; VGG16 with
reduced layers was published in this form): LargeFOV keeps every fourth channel and every third
position of fc6's 7x7 kernel. All fields of view of DeepLab v2 start from the same layers.
"""

from __future__ import annotations

from dataclasses import replace
from math import isqrt
from typing import cast

from torch import Tensor, nn

from pixelwise.backbones.vgg import AtrousVGG16
from pixelwise.errors import InputError
from pixelwise.weights.import_weights import ImportedWeights


def subsample_fields_of_view(imported: ImportedWeights, backbone: nn.Module) -> ImportedWeights:
    """Replace fc6 and fc7 of a file by those of each field of view, if the backbone has any.

    Their names become `classifiers.N.0` and `classifiers.N.3`, or Caffe's fc6_N and fc7_N. A file
    that has fields of view already is returned unchanged.

    Raises:
        InputError: If fc6 or fc7 is missing or cannot be subsampled to the network's size.
    """
    if not isinstance(backbone, AtrousVGG16):
        return imported
    prefix = "backbone." if imported.is_segmenter else ""
    fc6, fc7 = ("fc6", "fc7") if imported.is_caffe else (f"{prefix}classifier.{n}" for n in (0, 3))
    if f"{prefix}classifiers.0.0.weight" in imported.tensors or "fc6_1.weight" in imported.tensors:
        return imported
    names = [f"{layer}.{part}" for layer in (fc6, fc7) for part in ("weight", "bias")]
    missing = [name for name in names if name not in imported.tensors]
    if missing:
        raise InputError(
            f"{imported.path}: lacks {', '.join(missing)}, from which VGG16's fields of view "
            "start: is it for another network?"
        )
    tensors = {name: tensor for name, tensor in imported.tensors.items() if name not in names}
    for number, classifier in enumerate(backbone.classifiers):
        convolution = cast(nn.Conv2d, cast(nn.Sequential, classifier)[0])
        own = _subsample([imported.tensors[name] for name in names], convolution, imported)
        ours = field_layers(number, caffe=imported.is_caffe)
        for layer, tensor in zip((ours[0], ours[0], ours[1], ours[1]), own, strict=True):
            part = "weight" if tensor.ndim > 1 else "bias"
            tensors[f"{prefix}{layer}.{part}"] = tensor
    return replace(imported, tensors=tensors)


def field_layers(number: int, *, caffe: bool) -> tuple[str, str]:
    """Return the names of fc6 and fc7 of a field of view, counted from 0."""
    if caffe:
        return f"fc6_{number + 1}", f"fc7_{number + 1}"
    return f"classifiers.{number}.0", f"classifiers.{number}.3"


def _subsample(
    layers: list[Tensor], fc6: nn.Conv2d, imported: ImportedWeights
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return weights and biases of fc6 and fc7 in the size of the network's `fc6`."""
    weight6, bias6, weight7, bias7 = layers
    size, hidden, wanted = fc6.kernel_size[0], fc6.out_channels, bias6.numel()
    side = isqrt(weight6.numel() // max(1, wanted * fc6.in_channels))
    if weight6.numel() != wanted * fc6.in_channels * side**2 or weight7.numel() != wanted**2:
        raise InputError(
            f"{imported.path}: its fc6 and fc7 with shapes {tuple(weight6.shape)} and "
            f"{tuple(weight7.shape)} do not follow {fc6.in_channels} channels: is it for another "
            "network?"
        )
    positions = [side // 2] if size == 1 else [i * (side - 1) // (size - 1) for i in range(size)]
    if size > side or (size > 1 and (side - 1) % (size - 1)) or wanted % hidden:
        sides = [k for k in range(2, side + 1) if (side - 1) % (k - 1) == 0]
        raise InputError(
            f"{imported.path}: fc6 with {wanted} channels and a kernel of {side}x{side} cannot be "
            f"subsampled to {hidden} channels and {size}x{size}: use a kernel_size of "
            f"{', '.join(map(str, sides))} and a divisor of {wanted} as hidden, or start from "
            "random weights"
        )
    step = wanted // hidden
    kernels = weight6.reshape(wanted, fc6.in_channels, side, side)[::step]
    return (
        kernels[:, :, positions][..., positions].contiguous(),
        bias6.reshape(-1)[::step].contiguous(),
        weight7.reshape(wanted, wanted)[::step, ::step].contiguous(),
        bias7.reshape(-1)[::step].contiguous(),
    )
