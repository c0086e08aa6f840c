"""A backbone of a few thousand weights: for tests, and to try a pipeline out in seconds."""

from __future__ import annotations

from torch import Tensor, nn

from pixelwise.layers import ConvNormAct

WIDTHS = (8, 16, 24, 32, 40)


class Tiny(nn.Module):
    """(B, 3, H, W) to c1..c5, five 3x3 convolutions, strided until `output_stride` is reached."""

    def __init__(self, *, output_stride: int = 16, in_channels: int = 3) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        channels, reached, dilation = in_channels, 1, 1
        for number, width in enumerate(WIDTHS, start=1):
            strided = reached < output_stride
            self.stages.append(
                ConvNormAct(channels, width, stride=2 if strided else 1, dilation=dilation)
            )
            channels = width
            if strided:
                reached *= 2
            else:
                dilation *= 2
            self.channels[f"c{number}"] = width
            self.strides[f"c{number}"] = reached

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = {}
        for number, stage in enumerate(self.stages, start=1):
            x = stage(x)
            maps[f"c{number}"] = x
        return maps
