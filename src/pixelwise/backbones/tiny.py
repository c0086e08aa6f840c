"""A backbone with a few thousand weights, for tests and for trying out a pipeline in seconds."""

from __future__ import annotations

from torch import Tensor, nn

from pixelwise.backbones.backbone import Backbone, DilationSchedule, run_with_taps
from pixelwise.layers import ConvNormAct

WIDTHS = (8, 16, 24, 32, 40)


class Tiny(Backbone):
    """Five 3x3 convolutions: (B, in_channels, H, W) to maps c1..c5.

    Args:
        output_stride: Stride of c5 (8, 16 or 32).
        in_channels: Number of image channels.
    """

    def __init__(self, *, output_stride: int = 16, in_channels: int = 3) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        self.channels, self.strides = {}, {}
        schedule = DilationSchedule(output_stride)
        for number, width in enumerate(WIDTHS, start=1):
            stride, dilation = schedule.step(2)
            self.stages.append(ConvNormAct(in_channels, width, stride=stride, dilation=dilation))
            self.channels[f"c{number}"] = in_channels = width
            self.strides[f"c{number}"] = schedule.stride

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        _, maps = run_with_taps(self.stages, x, {index: f"c{index + 1}" for index in range(5)})
        return maps
