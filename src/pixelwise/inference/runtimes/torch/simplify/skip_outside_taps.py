"""Dilated convolutions without the taps that lie wholly beyond the map.

At a rate of the map's height or more, the upper and lower taps of a 3x3 kernel see padding alone,
at every position; where the width is no larger either, only the middle tap is left, as DeepLabV3
notes (arXiv:1706.05587, section 3.3). Small images meet this: ASPP's largest rate is 18 positions
of stride 16, or 36 of stride 8.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.inference.runtimes.torch.simplify.replace_modules import replace


def leave_out_taps(model: nn.Module) -> nn.Module:
    """`model`, in evaluation mode, with a `NearTaps` in place of every dilated 3x3 convolution that
    keeps the size; it is changed. Which taps are left depends on the size: not for export."""
    return replace(model, _is_dilated, NearTaps)


class NearTaps(nn.Conv2d):
    """What `convolution` makes of (B, C, H, W), by the taps that reach the map."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(
            convolution.in_channels,
            convolution.out_channels,
            convolution.kernel_size,  # type: ignore[arg-type]
            padding=convolution.padding,  # type: ignore[arg-type]
            dilation=convolution.dilation,  # type: ignore[arg-type]
            groups=convolution.groups,
            bias=convolution.bias is not None,
            device="meta",
        )
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, input: Tensor) -> Tensor:
        weight, padding = self.weight, list(self.dilation)
        for axis in (0, 1):
            if self.dilation[axis] >= input.shape[2 + axis]:
                weight, padding[axis] = weight.narrow(2 + axis, 1, 1), 0
        return F.conv2d(
            input, weight, self.bias, padding=padding, dilation=self.dilation, groups=self.groups
        )


def _is_dilated(convolution: nn.Module) -> bool:
    return (
        type(convolution) is nn.Conv2d  # TensorFlow's pads in its own way
        and convolution.kernel_size == (3, 3)
        and convolution.stride == (1, 1)
        and max(convolution.dilation) > 1
        and convolution.padding == convolution.dilation
        and convolution.padding_mode == "zeros"
    )
