"""EfficientNet-Lite0, 1 and 2: EfficientNet (arXiv:1905.11946) for CPUs and 8-bit integers.

The variant by Google for edge devices: no squeeze-and-excitation, ReLU6 instead of swish, and the
stem and the first and last stage keep their size in all variants. As in MobileNetV2 the last map is
that before the classifier's 1x1 convolution to 1280 channels.

The published weights were trained with TensorFlow, with its padding and its eps.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from pixelwise.backbones.backbone import Backbone, DilationSchedule, run_with_taps
from pixelwise.backbones.mobilenet_v2 import TENSORFLOW_EPS, InvertedResidual, scale_channels
from pixelwise.layers import ConvNormAct

# (expansion, kernel size, channels, repeats, stride): table 1 of the paper.
STAGES = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)
STEM_CHANNELS = 32
TAPS = {0: "c1", 1: "c2", 2: "c3", 4: "c4", 6: "c5"}
"""The last stage at each stride of the plain network."""

VARIANTS = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}
"""Multipliers of the channels and of the repeats."""


class EfficientNetLite(Backbone):
    """EfficientNet-Lite: maps c1..c5, in variant 0 with 16, 24, 40, 112 and 320 channels.

    Strides are 2, 4, 8, 16 and 32 up to `output_stride`; further strides become dilation.

    Args:
        variant: A key of VARIANTS.
        output_stride: Stride of c5 (8, 16 or 32).
        in_channels: Number of image channels.
    """

    def __init__(self, *, variant: int = 0, output_stride: int = 16, in_channels: int = 3) -> None:
        super().__init__()
        width, depth = VARIANTS[variant]
        blocks: list[nn.Module] = [
            ConvNormAct(
                in_channels,
                STEM_CHANNELS,
                stride=2,
                activation=nn.ReLU6,
                eps=TENSORFLOW_EPS,
                tensorflow_padding=True,
            )
        ]
        self.channels, self.strides = {}, {}
        self.taps: dict[int, str] = {}
        channels = STEM_CHANNELS
        schedule = DilationSchedule(output_stride, stride=2)
        for stage, (expansion, kernel_size, base, repeats, stride) in enumerate(STAGES):
            if 0 < stage < len(STAGES) - 1:
                repeats = math.ceil(depth * repeats)
            for repeat in range(repeats):
                step, dilation = schedule.step(stride if repeat == 0 else 1)
                inputs, channels = channels, scale_channels(base, width)
                blocks.append(
                    InvertedResidual(
                        inputs,
                        channels,
                        expansion=expansion,
                        kernel_size=kernel_size,
                        stride=step,
                        dilation=dilation,
                        eps=TENSORFLOW_EPS,
                        tensorflow_padding=True,
                    )
                )
            if stage in TAPS:
                self.taps[len(blocks) - 1] = TAPS[stage]
                self.channels[TAPS[stage]] = channels
                self.strides[TAPS[stage]] = schedule.stride
        self.features = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        _, maps = run_with_taps(self.features, x, self.taps)
        return maps

    def published_prefixes(self) -> dict[str, str]:
        """Return the prefixes of the published tensors by ours, for `source_names`."""
        prefixes = {"features.0.0.": "_conv_stem.", "features.0.1.": "_bn0."}
        for number, block in enumerate(list(self.features)[1:]):
            assert isinstance(block, InvertedResidual)
            expand = number > 0  # the first block has no expansion
            layers = ["_expand_conv", "_bn0"] * expand + ["_depthwise_conv", "_bn1"]
            ours = [f"conv.{n // 2}.{n % 2}." for n in range(len(layers))]
            depth = len(block.conv)
            layers += ["_project_conv", "_bn2"]
            ours += [f"conv.{depth - 2}.", f"conv.{depth - 1}."]
            for mine, theirs in zip(ours, layers, strict=True):
                prefixes[f"features.{number + 1}.{mine}"] = f"_blocks.{number}.{theirs}."
        return prefixes
