"""Dilated convolutions without the kernel positions that read padding only.

At a rate of at least the map's height, the upper and lower rows of a 3x3 kernel read padding at
every output position. If the rate is also at least the map's width, only the middle position
remains, as DeepLabV3 notes (arXiv:1706.05587, section 3.3). This happens on small images: ASPP's
largest rate is 18 positions at stride 16, or 36 at stride 8.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.inference.runtimes.torch.simplify.replace_modules import replace_modules


def crop_dilated_kernels(model: nn.Module) -> nn.Module:
    """Replace dilated 3x3 convolutions that keep the map's size with a `CroppedConv2d`, in place.

    The cropping depends on the image size, so this is not for export.

    Args:
        model: Network in evaluation mode.
    """
    return replace_modules(model, _is_suitable, CroppedConv2d)


class CroppedConv2d(nn.Conv2d):
    """Compute a convolution with the kernel positions that read the map.

    Args:
        convolution: The convolution, whose parameters are shared.
    """

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


def _is_suitable(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d  # not TensorFlowConv2d, which pads differently
        and module.kernel_size == (3, 3)
        and module.stride == (1, 1)
        and max(module.dilation) > 1
        and module.padding == module.dilation
        and module.padding_mode == "zeros"
    )
