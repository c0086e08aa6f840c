"""Coordinates, crops and upsampling layers of FCN (arXiv:1411.4038, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.errors import InputError
from pixelwise.layers.resize import resize


@dataclass(frozen=True)
class Coordinates:
    """Where the positions of a map lie in the image.

    Position i is centered on pixel `scale * i + offset`, vertically and horizontally. FCN's
    reference code derives its crops from these numbers (Caffe's coord_map), and so does pixelwise.
    """

    scale: float = 1.0
    offset: float = 0.0

    def after(self, *layers: nn.Module) -> Coordinates:
        """Return the coordinates of the output of `layers`, applied one after the other.

        Convolutions, pools and upsampling layers with square kernels change the coordinates. An
        `nn.Sequential` is traversed. Every other layer is assumed to work position by position.
        """
        result = self
        for layer in layers:
            if isinstance(layer, nn.Sequential):
                result = result.after(*layer)
            elif isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                kernel, stride, padding, dilation = (
                    _side(getattr(layer, name, 1))
                    for name in ("kernel_size", "stride", "padding", "dilation")
                )
                shift = dilation * (kernel - 1) / 2 - padding
                result = Coordinates(result.scale * stride, result.offset + result.scale * shift)
            elif isinstance(layer, LearnedUpsampling | FrozenUpsampling | Interpolation):
                kernel, stride, padding = layer.geometry
                scale = result.scale / stride
                result = Coordinates(scale, result.offset - scale * ((kernel - 1) / 2 - padding))
        return result

    def crop_to(self, other: Coordinates) -> int:
        """Return how many positions of this map lie before the first position of another.

        Raises:
            ValueError: If the positions of the two maps do not coincide.
        """
        crop = (other.offset - self.offset) / self.scale
        if self.scale != other.scale or crop < 0 or crop != int(crop):
            raise ValueError(f"no crop by whole positions leads from {self} to {other}")
        return int(crop)


def _side(value: int | tuple[int, ...]) -> int:
    if isinstance(value, int):
        return value
    if len(set(value)) != 1:
        raise ValueError(f"kernel {value}: coordinates are defined for square kernels only")
    return value[0]


def crop(x: Tensor, *, offset: int, size: tuple[int, int]) -> Tensor:
    """Crop (B, C, H, W) to `size` (height, width), from row and column `offset` on."""
    return x[:, :, offset : offset + size[0], offset : offset + size[1]]


def bilinear_kernel(size: int) -> Tensor:
    """Return the (size, size) kernel of a bilinear transposed convolution.

    Its stride is (size + 1) // 2: a kernel of 64, or 63, has stride 32, as in FCN's reference code.
    """
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 else factor - 0.5
    line = 1 - (torch.arange(size, dtype=torch.float64) - center).abs() / factor
    return torch.outer(line, line).float()


class FrozenUpsampling(nn.Module):
    """Bilinear transposed convolution of each channel, with a fixed kernel that is not saved.

    Beyond the border of the map it sees zeros, so values fade out over the last `stride / 2`
    pixels.

    Args:
        channels: Number of channels.
        kernel_size: Side of the kernel.
        stride: Upsampling factor.
        padding: Number of rows and columns cropped on each side.
    """

    kernel: Tensor

    def __init__(self, channels: int, *, kernel_size: int, stride: int, padding: int = 0) -> None:
        super().__init__()
        self.geometry = (kernel_size, stride, padding)
        kernel = bilinear_kernel(kernel_size).expand(channels, 1, kernel_size, kernel_size)
        self.register_buffer("kernel", kernel.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        _, stride, padding = self.geometry
        return F.conv_transpose2d(
            x, self.kernel, stride=stride, padding=padding, groups=len(self.kernel)
        )


class LearnedUpsampling(nn.ConvTranspose2d):
    """Transposed convolution without bias, initialized to bilinear upsampling of each channel.

    For the arguments see `FrozenUpsampling`.
    """

    def __init__(self, channels: int, *, kernel_size: int, stride: int, padding: int = 0) -> None:
        super().__init__(
            channels, channels, kernel_size, stride=stride, padding=padding, bias=False
        )
        self.geometry = (kernel_size, stride, padding)

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.zero_()
            self.weight[range(self.in_channels), range(self.out_channels)] = bilinear_kernel(
                self.kernel_size[0]
            ).to(self.weight)


class Interpolation(nn.Module):
    """Bilinear interpolation, which repeats the border, in place of a transposed convolution.

    The output has the size of a transposed convolution with a kernel of twice the stride, and the
    same values away from the border. Any other kernel would place its positions between the
    interpolated ones.

    For the arguments see `FrozenUpsampling`.

    Raises:
        InputError: If `kernel_size` is not twice the stride.
    """

    def __init__(self, channels: int, *, kernel_size: int, stride: int, padding: int = 0) -> None:
        super().__init__()
        if kernel_size != 2 * stride:
            raise InputError(
                f"upsampling 'interpolate': replaces kernels of twice the stride only, not "
                f"{kernel_size} with stride {stride}: use frozen or learned"
            )
        self.geometry = (kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        _, stride, padding = self.geometry
        upsampled = resize(x, size=(stride * x.shape[2], stride * x.shape[3]))
        return F.pad(upsampled, [stride // 2 - padding] * 4, mode="replicate")


UPSAMPLING: dict[str, type[FrozenUpsampling | LearnedUpsampling | Interpolation]] = {
    "frozen": FrozenUpsampling,
    "learned": LearnedUpsampling,
    "interpolate": Interpolation,
}


def make_upsampling(
    kind: str, channels: int, *, kernel_size: int, stride: int, padding: int = 0
) -> FrozenUpsampling | LearnedUpsampling | Interpolation:
    """Create the upsampling layer named `kind`, a key of UPSAMPLING.

    Raises:
        InputError: If there is no such layer, or it does not support the kernel.
    """
    if kind not in UPSAMPLING:
        raise InputError(f"upsampling {kind!r}: must be one of {', '.join(UPSAMPLING)}")
    build = UPSAMPLING[kind]
    return build(channels, kernel_size=kernel_size, stride=stride, padding=padding)
