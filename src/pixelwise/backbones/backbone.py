"""The interface of all backbones, and what several of them share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from torch import Tensor, nn


class Backbone(nn.Module):
    """Base class of all feature extractors: an image in, a dict of feature maps out.

    Maps are named by resolution: "c1" has stride 2, "c5" the output stride. Every backbone has c5;
    those with more maps offer them to decoders and auxiliary heads.

    Attributes:
        channels: Number of channels of each map, by name.
        strides: Pixels from one position of the map to the next, by name.
        form: Which of several networks with the same tensors this is: "torchvision", or the name of
            the option that makes it another, such as "caffe". Weights of another form load, but
            give other features. Empty if there is only one form.
        auxiliary_map: Name of the map for an auxiliary head.
    """

    channels: dict[str, int]
    strides: dict[str, int]
    form: str = ""
    auxiliary_map: str = "c4"

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Extract features.

        Args:
            x: Normalized images (B, in_channels, H, W).

        Returns:
            Maps (B, channels[name], h, w) by name, with h and w about H and W over strides[name].
        """
        raise NotImplementedError


class DilationSchedule:
    """Trades strides for dilation once a network has reached its output stride.

    A layer that would exceed the output stride gets stride 1, and the layers after it are dilated
    by its former stride (DeepLab, arXiv:1412.7062, section 3.1). The layer itself keeps the
    dilation so far, so the dilated maps contain the strided network's maps at every other
    position.

    Attributes:
        stride: Stride reached so far, in pixels.
        dilation: Dilation of the next layer.
    """

    def __init__(self, output_stride: int, *, stride: int = 1) -> None:
        self.output_stride = output_stride
        self.stride = stride
        self.dilation = 1

    def step(self, stride: int) -> tuple[int, int]:
        """Return the stride and the dilation of a layer that has `stride` in the plain network."""
        dilation = self.dilation
        if self.stride * stride > self.output_stride:
            self.dilation *= stride
            stride = 1
        self.stride *= stride
        return stride, dilation


def run_with_taps(
    layers: Iterable[nn.Module], x: Tensor, taps: Mapping[int, str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run layers in sequence.

    Args:
        layers: The layers.
        x: Input of the first layer.
        taps: Names of the outputs to keep, by the index of their layer.

    Returns:
        The output of the last layer, and the outputs to keep by name.
    """
    maps = {}
    for index, layer in enumerate(layers):
        x = layer(x)
        if index in taps:
            maps[taps[index]] = x
    return x, maps


def initialize_convolutions(
    module: nn.Module, *, mode: Literal["fan_in", "fan_out"] = "fan_in"
) -> None:
    """Give all convolutions weights for ReLU networks (arXiv:1502.01852) and zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
