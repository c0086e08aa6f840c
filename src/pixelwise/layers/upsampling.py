"""FCN's coordinates, crops and upsampling layers (arXiv:1411.4038, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.errors import InputError
from pixelwise.layers.resize import resize


@dataclass(frozen=True)
class Coordinates:
    """Where the positions of a map lie in the image: position i is centered on pixel
    `scale * i + offset`, in both directions.

    FCN's reference code derives its crops from these (Caffe's coord_map) and so does this package.
    """

    scale: float = 1.0
    offset: float = 0.0

    def after(self, *layers: nn.Module) -> Coordinates:
        """The coordinates of what `layers`, one after the other, make of a map that has these.

        Convolutions, pools and upsampling with square windows count; a Sequential is walked
        through; every other layer is taken for one that works position by position.
        """
        here = self
        for layer in layers:
            if isinstance(layer, nn.Sequential):
                here = here.after(*layer)
            elif isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                kernel, stride, padding, dilation = (
                    _side(getattr(layer, name, 1))
                    for name in ("kernel_size", "stride", "padding", "dilation")
                )
                shift = dilation * (kernel - 1) / 2 - padding
                here = Coordinates(here.scale * stride, here.offset + here.scale * shift)
            elif isinstance(layer, LearnedUpsampling | FrozenUpsampling | Interpolation):
                kernel, stride, padding = layer.window
                scale = here.scale / stride
                here = Coordinates(scale, here.offset - scale * ((kernel - 1) / 2 - padding))
        return here

    def crop_to(self, other: Coordinates) -> int:
        """How many positions of a map with these lie before the first of one with `other`.

        Raises ValueError where the two do not meet position by position.
        """
        crop = (other.offset - self.offset) / self.scale
        if self.scale != other.scale or crop < 0 or crop != int(crop):
            raise ValueError(f"no whole crop leads from {self} to {other}")
        return int(crop)


def _side(value: int | tuple[int, ...]) -> int:
    if isinstance(value, int):
        return value
    if len(set(value)) != 1:
        raise ValueError(f"window {value}: coordinates are kept for square windows")
    return value[0]


def crop(x: Tensor, *, offset: int | None, size: tuple[int, int]) -> Tensor:
    """The window of `size` (height, width) from row and column `offset` on; None: the middle."""
    top, left = (
        (have - want) // 2 if offset is None else offset
        for have, want in zip(x.shape[2:], size, strict=True)
    )
    return x[:, :, top : top + size[0], left : left + size[1]]


def bilinear_kernel(size: int) -> Tensor:
    """The (size, size) kernel that interpolates in a transposed convolution of stride
    (size + 1) // 2, as FCN's reference code fills it: 64 for stride 32, or 63."""
    factor = (size + 1) // 2
    middle = factor - 1 if size % 2 else factor - 0.5
    line = 1 - (torch.arange(size, dtype=torch.float64) - middle).abs() / factor
    return torch.outer(line, line).float()


class FrozenUpsampling(nn.Module):
    """Bilinear transposed convolution, each channel for itself: nothing is learned, none saved.

    Beyond the map's border it sees zeros, so values fade out over the last `stride / 2` pixels.
    """

    kernel: Tensor

    def __init__(self, channels: int, *, kernel_size: int, stride: int, padding: int = 0) -> None:
        super().__init__()
        self.window = (kernel_size, stride, padding)
        kernel = bilinear_kernel(kernel_size).expand(channels, 1, kernel_size, kernel_size)
        self.register_buffer("kernel", kernel.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        _, stride, padding = self.window
        return F.conv_transpose2d(
            x, self.kernel, stride=stride, padding=padding, groups=len(self.kernel)
        )


class LearnedUpsampling(nn.ConvTranspose2d):
    """Transposed convolution without bias that starts bilinear, each channel for itself."""

    def __init__(self, channels: int, *, kernel_size: int, stride: int, padding: int = 0) -> None:
        super().__init__(
            channels, channels, kernel_size, stride=stride, padding=padding, bias=False
        )
        self.window = (kernel_size, stride, padding)

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.zero_()
            self.weight[range(self.in_channels), range(self.out_channels)] = bilinear_kernel(
                self.kernel_size[0]
            ).to(self.weight)


class Interpolation(nn.Module):
    """Bilinear interpolation, which repeats the map's border, in place of a transposed convolution.

    Away from the border it is the one with a kernel of twice the stride, and as large as that;
    another kernel lays its positions between the interpolated ones and is refused.
    """

    def __init__(self, channels: int, *, kernel_size: int, stride: int, padding: int = 0) -> None:
        super().__init__()
        if kernel_size != 2 * stride:
            raise InputError(
                f"upsampling 'interpolate': meets kernels of twice the stride, not {kernel_size} "
                f"with stride {stride}: choose frozen or learned"
            )
        self.window = (kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        _, stride, padding = self.window
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
    """One of UPSAMPLING by name. Raises InputError for another name."""
    if kind not in UPSAMPLING:
        raise InputError(f"upsampling {kind!r}: allowed are {', '.join(UPSAMPLING)}")
    build = UPSAMPLING[kind]
    return build(channels, kernel_size=kernel_size, stride=stride, padding=padding)
