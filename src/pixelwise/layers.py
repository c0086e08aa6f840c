"""The parts that several papers share. Tensors are (B, C, H, W) float unless said otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.compiled import require_numba
from pixelwise.errors import InputError
from pixelwise.gradients import resizing
from pixelwise.passes import current_pass, whole_mean
from pixelwise.sharing import current_share, shared_batch_norm


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that survives a channel with a single value.

    A batch of one after global pooling has no variance to normalise with; PyTorch raises there in
    training. This layer uses its running statistics for such a batch, as it would at test time.
    The statistics of a batch that is shared out over processes are those of the whole batch.

    compiled: whether training takes the faster form (`use_compiled`).
    """

    compiled = False

    def forward(self, input: Tensor) -> Tensor:
        return self.activated(input, None)

    def activated(self, input: Tensor, activation: nn.Module | None) -> Tensor:
        """Normalised, then through `activation`: in one operation where it can be."""
        share = current_share() if self.training else None
        images = input.shape[0] if share is None else share.images
        single = self.training and images * input.shape[2] * input.shape[3] <= 1
        if self._takes_compiled(input) and share is None and not single:
            from pixelwise.gradients.normalising import LIMITS, normalise

            kind = None if activation is None else type(activation)
            if kind in LIMITS:
                return normalise(input, self, kind)
        if single:
            out = F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        elif share is not None:
            out = shared_batch_norm(self, input, share)
        else:
            out = super().forward(input)
        return out if activation is None else cast(Tensor, activation(out))

    def _takes_compiled(self, input: Tensor) -> bool:
        wanted = self.compiled and self.training
        return wanted and input.dtype == torch.float32 and input.device.type == "cpu"


class Dropout(nn.Dropout):
    """Dropout whose draws are those of the whole batch where it is shared out over processes: they
    have the same random state, and each takes the rows of its own images."""

    def forward(self, input: Tensor) -> Tensor:
        share = current_share() if self.training else None
        if share is None:
            return super().forward(input)
        whole = input.new_ones(share.images, *input.shape[1:])
        if input.ndim == 4 and input.is_contiguous(memory_format=torch.channels_last):
            whole = whole.contiguous(memory_format=torch.channels_last)  # drawn in this order
        return input * super().forward(whole)[share.own]


class TensorFlowConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: H x W to ceil(H / stride) x ceil(W / stride).

    Where the padding is uneven, the lower and right border have the greater part. At stride 1, and
    at stride 2 on odd sizes, this is PyTorch's even padding. `padding` is not looked at.
    """

    def forward(self, input: Tensor) -> Tensor:
        left_right_top_bottom: list[int] = []
        for side, kernel, stride, dilation in zip(
            input.shape[:1:-1],
            reversed(self.kernel_size),
            reversed(self.stride),
            reversed(self.dilation),
            strict=True,
        ):
            reach = (side - 1) // stride * stride + dilation * (kernel - 1) + 1
            padding = reach - side
            if dilation * (kernel - 1) < stride - 1:  # else it never is below 0
                padding = max(0, padding) if kernel > 1 else 0
            left_right_top_bottom += [padding // 2, padding - padding // 2]
        padded = F.pad(input, left_right_top_bottom)
        return F.conv2d(
            padded,
            self.weight,
            self.bias,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
        )


class ConvNormAct(nn.Sequential):
    """Convolution that keeps the size at stride 1, batch normalisation, ReLU.

    `activation` is any module without parameters, None for none. The convolution has no bias,
    since the normalisation's shift takes its place. `eps` is what the normalisation adds to the
    variance. `tensorflow_padding` pads as TensorFlow does, instead of evenly.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = nn.ReLU,
        eps: float = 1e-5,
        tensorflow_padding: bool = False,
    ) -> None:
        convolution = TensorFlowConv2d if tensorflow_padding else nn.Conv2d
        layers: list[nn.Module] = [
            convolution(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding=(kernel_size - 1) // 2 * dilation,
                dilation=dilation,
                groups=groups,
                bias=False,
            ),
            BatchNorm2d(out_channels, eps=eps),
        ]
        if activation is not None:
            layers.append(activation(inplace=True))
        super().__init__(*layers)

    def forward(self, input: Tensor) -> Tensor:
        convolution, norm, *rest = self
        if isinstance(norm, BatchNorm2d) and norm.compiled and self.training:
            return norm.activated(_convolve(convolution, input), rest[0] if rest else None)
        out: Tensor = super().forward(input)  # type: ignore[no-untyped-call]
        return out


def _convolve(layer: nn.Module, x: Tensor) -> Tensor:
    """By the compiled form where there is one for the layer."""
    from pixelwise.gradients.convolving import depthwise, is_dilated_depthwise

    if x.dtype == torch.float32 and x.device.type == "cpu" and is_dilated_depthwise(layer):
        return depthwise(x, cast(nn.Conv2d, layer))
    out: Tensor = layer(x)
    return out


def use_compiled(model: nn.Module, wanted: bool = True) -> None:
    """Have the training of `model` on a CPU use the operations that numba compiles, or the plain.

    Values and gradients are the same to rounding, not bit for bit. Raises InputError where numba
    is not installed.
    """
    if wanted:
        require_numba("training with kernels = 'compiled'")
    for module in model.modules():
        if isinstance(module, BatchNorm2d):
            module.compiled = wanted and _plain(module)


def _plain(norm: nn.BatchNorm2d) -> bool:
    """Whether it has all that the compiled form takes for granted."""
    return norm.affine and norm.track_running_stats and norm.momentum is not None


class SeparableConv(nn.Sequential):
    """Depthwise 3x3, pointwise 1x1, each with batch norm and ReLU (DeepLabV3+, section 3.1)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, dilation: int = 1, eps: float = 1e-5
    ) -> None:
        super().__init__(
            ConvNormAct(in_channels, in_channels, dilation=dilation, groups=in_channels, eps=eps),
            ConvNormAct(in_channels, out_channels, kernel_size=1, eps=eps),
        )


class ImagePooling(nn.Module):
    """The mean over the image, projected and spread over the map again (DeepLabV3, section 3.3)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = ConvNormAct(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.project(image_mean(x))
        return pooled.expand(-1, -1, x.shape[2], x.shape[3])


def image_mean(x: Tensor) -> Tensor:
    """The mean (B, C, 1, 1) of a map over the whole picture."""
    here = current_pass()
    return whole_mean(x) if here is None else here.mean(x)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (DeepLabV3, section 3.3): (B, C, H, W) to (B, out, H, W).

    A 1x1 branch, one 3x3 branch for each rate, of which there may be none, and image pooling,
    concatenated and projected, then dropout. `separable` makes the 3x3 branches depthwise
    separable, as DeepLabV3+ does.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        *,
        rates: tuple[int, ...],
        separable: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList([ConvNormAct(in_channels, out_channels, kernel_size=1)])
        for rate in rates:
            self.branches.append(
                SeparableConv(in_channels, out_channels, dilation=rate)
                if separable
                else ConvNormAct(in_channels, out_channels, dilation=rate)
            )
        self.branches.append(ImagePooling(in_channels, out_channels))
        self.project = ConvNormAct(out_channels * len(self.branches), out_channels, kernel_size=1)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        context = torch.cat([branch(x) for branch in self.branches], dim=1)
        out: Tensor = self.dropout(self.project(context))
        return out


def resize(x: Tensor, *, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Bilinear interpolation of (B, C, H, W) to `size` (height, width).

    align_corners: the middles of the corner positions stay where they are, as Caffe's and
    TensorFlow's DeepLab have it; else the outer borders do.
    """
    if x.shape[-2:] == size:
        return x
    here = current_pass()
    resized = None if here is None else here.resize(x, size=size, align_corners=align_corners)
    if resized is not None:
        return resized
    exact = x.dtype in (torch.float32, torch.float64)
    if x.requires_grad and torch.is_grad_enabled() and x.device.type == "cpu" and exact:
        return resizing.resize(x, size=size, align_corners=align_corners)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def enlarge_from_pixels(x: Tensor, *, stride: int, size: tuple[int, int]) -> Tensor:
    """The same to `size`, for a map whose position i lies on pixel `stride * i` and not between
    pixels: where every window is odd and padded evenly, and the image is a multiple of the stride
    and one more, which it may have been padded to. Caffe's DeepLab enlarges so (layer Interp).
    """
    height, width = (stride * (side - 1) + 1 for side in x.shape[2:])
    enlarged = resize(x, size=(height, width), align_corners=True)
    return enlarged[:, :, : size[0], : size[1]]


@dataclass(frozen=True)
class Coordinates:
    """Where the positions of a map lie in the image: position i is centred on pixel
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
            elif isinstance(layer, LearntUpsampling | FrozenUpsampling | Interpolation):
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
    """Bilinear transposed convolution, each channel for itself: nothing is learnt, none saved.

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


class LearntUpsampling(nn.ConvTranspose2d):
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
                f"with stride {stride}: choose frozen or learnt"
            )
        self.window = (kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        _, stride, padding = self.window
        enlarged = resize(x, size=(stride * x.shape[2], stride * x.shape[3]))
        return F.pad(enlarged, [stride // 2 - padding] * 4, mode="replicate")


UPSAMPLING: dict[str, type[FrozenUpsampling | LearntUpsampling | Interpolation]] = {
    "frozen": FrozenUpsampling,
    "learnt": LearntUpsampling,
    "interpolate": Interpolation,
}


def make_upsampling(
    kind: str, channels: int, *, kernel_size: int, stride: int, padding: int = 0
) -> FrozenUpsampling | LearntUpsampling | Interpolation:
    """One of UPSAMPLING by name. Raises InputError for another name."""
    if kind not in UPSAMPLING:
        raise InputError(f"upsampling {kind!r}: allowed are {', '.join(UPSAMPLING)}")
    build = UPSAMPLING[kind]
    return build(channels, kernel_size=kernel_size, stride=stride, padding=padding)
