"""Turn classifiers into networks that score every window of an image in one pass.

FCN (arXiv:1411.4038), sections 3.1 and 3.2. `convolutionalize` converts a classifier for one window
into a network that scores all windows of a larger image at once. `shift_and_stitch` runs such a
network on shifted images and interleaves the outputs, for a finer stride.

Without padding layers, the scores equal the sliding windows' scores up to floating-point rounding.
A padding layer sees zeros beyond the border of a window, but the actual image in a pass over the
whole image.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.errors import InputError
from pixelwise.layers import BatchNorm2d
from pixelwise.models.profiling import run_on_meta

# Side of the image that `_find_stride` tries, and by how many pixels it then grows: a multiple of
# every stride up to 10, of 12, ...
PROBE_SIDE, PROBE_GROWTH = 1024, 20160


def convolutionalize(
    classifier: nn.Module, *, window: int | tuple[int, int] = 224
) -> nn.Sequential:
    """Convert a classifier to its dense form.

    The first Linear, on a C x kh x kw map of a window, becomes a convolution with a kh x kw kernel
    and the same weights. Later ones become 1x1 convolutions, and BatchNorm1d becomes BatchNorm2d. A
    pool to a fixed size becomes a pool over as many positions as it covers in a window: none where
    the sizes agree, as in VGG (7x7 at 224) and AlexNet (6x6); all of them in MobileNetV2. Other
    layers that see the whole image, such as squeeze and excitation, still see the whole image.

    Args:
        classifier: An `nn.Sequential` with an `nn.Flatten` before its first `nn.Linear`, or a
            module that runs its `features`, its `avgpool` if it has one, a flatten or else the mean
            over the map, and its `classifier`, like torchvision's VGG, AlexNet and MobileNetV2. It
            is not modified.
        window: Size (height, width) in pixels of the images that it classifies, or the side of a
            square.

    Returns:
        A network in evaluation mode from images (B, 3, H, W) to scores (B, classes, h, w), with
        copied weights under the same names. Position (i, j) scores the window that starts at (i, j)
        times the stride of the network.

    Raises:
        InputError: If a Linear follows no flatten or expects another number of values than the map
            of a window has; the message names the layer. Also if the dense form gives other scores
            than the classifier, which is checked on one window of noise.

    Example:
        >>> dense = convolutionalize(torchvision.models.vgg16(), window=224)
        >>> dense(torch.zeros(1, 3, 384, 384)).shape
        torch.Size([1, 1000, 6, 6])
    """
    size = (window, window) if isinstance(window, int) else window
    class_name = type(classifier).__name__
    network = copy.deepcopy(classifier).eval()
    if not any(isinstance(module, nn.Linear) for module in network.modules()):
        raise InputError(f"{class_name}: has no Linear layer, so there is nothing to convert")
    with torch.no_grad():
        try:
            image = _noise(network, size)
            layers = _in_sequence(network, image)
            replacements = list(_replacements(layers, image))
            expected = network(image.clone())
        except RuntimeError as error:
            raise InputError(
                f"{class_name}: fails on a window of {size[0]}x{size[1]} "
                f"({_first_line(error)}): pass the window size it was trained on"
            ) from error
        for parent, key, layer in replacements:
            setattr(parent, key, layer)
        _check_same(class_name, layers, image, expected)
    return layers


def _noise(network: nn.Module, size: tuple[int, int]) -> Tensor:
    """An image of noise for the network; the global random state is not used."""
    like = next(network.parameters())
    image = torch.randn(
        (1, _input_channels(network), *size), generator=torch.Generator().manual_seed(0)
    )
    return image.to(like)


def _input_channels(network: nn.Module) -> int:
    convolutions = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    return next((m.in_channels for m in convolutions), 3)


def _in_sequence(network: nn.Module, image: Tensor) -> nn.Sequential:
    """The layers of the network as a Sequential, with the pool and flatten of its forward."""
    if _is_plain(network):
        return network
    features = getattr(network, "features", None)
    head = getattr(network, "classifier", None)
    if not isinstance(features, nn.Module) or not isinstance(head, nn.Module):
        raise InputError(
            f"{type(network).__name__}: is not an nn.Sequential and lacks .features or "
            ".classifier: put its layers into an nn.Sequential, with an nn.Flatten before the "
            "first Linear"
        )
    pool = getattr(network, "avgpool", None)
    if not isinstance(pool, nn.Module):
        # The size of the first Linear shows whether forward averages or flattens the map.
        first = next((m for m in head.modules() if isinstance(m, nn.Linear)), None)
        values = features(image.clone())[0].numel()
        averaged = first is not None and first.in_features != values
        pool = nn.AdaptiveAvgPool2d(1) if averaged else nn.Identity()
    flattens = any(isinstance(m, nn.Flatten) for m in head.modules())
    flatten = nn.Identity() if flattens else nn.Flatten()
    stages: list[tuple[str, nn.Module]] = [
        ("features", features),
        ("avgpool", pool),
        ("flatten", flatten),
        ("classifier", head),
    ]
    return nn.Sequential(OrderedDict(stages)).eval()


def _is_plain(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether the module is a Sequential with the standard forward."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _leaves(parent: nn.Module, prefix: str = "") -> Iterator[tuple[nn.Module, str, str, nn.Module]]:
    """Yield (parent, key, full name, layer) in the order of execution.

    `named_children` would skip the second use of a layer that appears twice.
    """
    for key, child in parent._modules.items():
        if child is None:
            continue
        if _is_plain(child):
            yield from _leaves(child, f"{prefix}{key}.")
        else:
            yield parent, key, f"{prefix}{key}", child


def _replacements(layers: nn.Module, x: Tensor) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Yield (parent, key, new layer) for each layer with a fixed input size; `x` is a window."""
    shape: tuple[int, ...] = ()  # (channels, height, width) of the flattened map
    spacing = (1, 1)  # distance of the flattened positions in the map before pooling
    x = x.clone()  # the first layer may modify its input
    for parent, key, name, layer in _leaves(layers):
        new: nn.Module | None = None
        if isinstance(layer, nn.Flatten):
            new = nn.Identity()
            if not shape:
                if x.ndim != 4 or layer.start_dim != 1 or layer(x).ndim != 2:
                    raise InputError(
                        f"{name}: flattens {tuple(x.shape)} to {tuple(layer(x).shape)}, but has to "
                        "flatten channels, rows and columns of a map into one dimension"
                    )
                shape = tuple(x.shape[1:])
        elif isinstance(layer, nn.Linear):
            if not shape:
                raise InputError(
                    f"{name}: this Linear follows no flatten: put an nn.Flatten before it"
                )
            new = _as_convolution(name, layer, shape, spacing)
            shape, spacing = (layer.out_features, 1, 1), (1, 1)
        elif isinstance(layer, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
            spacing = _positions_pooled(name, layer, x)
            kind = nn.AvgPool2d if isinstance(layer, nn.AdaptiveAvgPool2d) else nn.MaxPool2d
            new = nn.Identity() if spacing == (1, 1) else kind(spacing, stride=1)
        elif isinstance(layer, nn.BatchNorm1d):
            new = _as_map_norm(name, layer, shape)
        x = layer(x)
        if new is not None:
            yield parent, key, new.eval()


def _as_convolution(
    name: str, linear: nn.Linear, shape: tuple[int, ...], dilation: tuple[int, int]
) -> nn.Conv2d:
    channels, height, width = shape
    values = channels * height * width
    if linear.in_features != values:
        raise InputError(
            f"{name}: expects {linear.in_features} values, but the map of a window has "
            f"{channels} x {height} x {width} = {values}: pass the window size it was trained on"
        )
    has_bias = linear.bias is not None
    convolution = nn.Conv2d(
        channels,
        linear.out_features,
        (height, width),
        dilation=dilation,
        bias=has_bias,
        device="meta",  # saves memory and random numbers for weights that are replaced below
    )
    # Flattened values have the order of a kernel: channel, row, column.
    weight = linear.weight.detach().reshape(convolution.weight.shape)
    convolution.weight = nn.Parameter(weight, requires_grad=linear.weight.requires_grad)
    if has_bias:
        convolution.bias = linear.bias
    return convolution


def _positions_pooled(
    name: str, pool: nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d, x: Tensor
) -> tuple[int, int]:
    """How many rows and columns of `x`, the map of a window, each pooled position covers."""
    (height, width), (rows, columns) = x.shape[2:], pool(x).shape[2:]
    if height % rows or width % columns:
        raise InputError(
            f"{name}: pools the {height}x{width} map of a window to {rows}x{columns} unequal "
            "parts: pass the window size it was trained on"
        )
    return height // rows, width // columns


def _as_map_norm(name: str, norm: nn.BatchNorm1d, shape: tuple[int, ...]) -> BatchNorm2d:
    if shape[1:] != (1, 1):
        raise InputError(
            f"{name}: this BatchNorm1d before the first Linear normalizes each position of a "
            "window differently, which a layer on a map cannot do: fold it into the Linear"
        )
    new = BatchNorm2d(
        norm.num_features,
        norm.eps,
        norm.momentum,
        norm.affine,
        norm.track_running_stats,
        device="meta",
    )
    new.load_state_dict(norm.state_dict(), assign=True)
    return new


def _check_same(class_name: str, dense: nn.Module, image: Tensor, expected: object) -> None:
    """Raise InputError if the dense form gives other scores than `expected` for one window."""
    if not isinstance(expected, Tensor) or expected.ndim != 2:
        raise InputError(f"{class_name}: is not a classifier, which outputs scores (B, classes)")
    try:
        scores = dense(image.clone())
        if scores.shape != (*expected.shape, 1, 1):
            raise RuntimeError(f"the map has shape {tuple(scores.shape)}")
        difference = (scores.flatten(1) - expected).abs().max().item()
        # Tolerates TF32 and half precision; a missing layer changes the first digit.
        allowed = (0.01 if expected.dtype.itemsize >= 4 else 0.1) * expected.abs().max().item()
        if not difference <= allowed:
            raise RuntimeError(f"scores differ by {difference:.2g}")
    except RuntimeError as error:
        raise InputError(
            f"{class_name}: its dense form gives other scores on one window "
            f"({_first_line(error)}): forward() does more than run the layers, or a layer after "
            "the flatten does not work on maps: put all steps into an nn.Sequential of layers that "
            "work on single scores"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class ShiftAndStitch(nn.Module):
    """Run a model on shifted images and interleave its outputs; made by `shift_and_stitch`.

    Attributes:
        model: The model.
        factor: Number of shifts along each axis.
        stride: Stride of the output in pixels, which is also the shift.
    """

    def __init__(self, model: nn.Module, *, factor: int, stride: int) -> None:
        super().__init__()
        self.model = model
        self.factor = factor
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        extra = (self.factor - 1) * self.stride
        padded = F.pad(images, (0, extra, 0, extra))
        outputs = []
        for y in range(0, extra + 1, self.stride):
            for x in range(0, extra + 1, self.stride):
                scores = self.model(padded[:, :, y : y + height, x : x + width])
                if scores.ndim != 4:
                    raise InputError(
                        f"{type(self.model).__name__}: outputs {tuple(scores.shape)}, not a map "
                        "(B, classes, h, w): convolutionalize it first"
                    )
                outputs.append(scores)
        # (B, C, s * s, h, w): shift (y, x) fills every s-th row from y and column from x.
        return F.pixel_shuffle(torch.stack(outputs, dim=2).flatten(1, 2), self.factor)


def shift_and_stitch(model: nn.Module, factor: int, *, stride: int | None = None) -> ShiftAndStitch:
    """Make a model's stride `factor` times finer without retraining, by factor^2 passes.

    Position (i, j) of the result is the model's output at its first position for the image that
    starts at (i, j) times the new stride, f / s for a model of stride f and factor s. Each pass
    shifts the image up and left by a multiple of f / s pixels. Zeros, the mean color of a
    normalized image, fill the right and the bottom, so that all passes have one size. For windows
    of R pixels, the first floor((H - R) * s / f) + 1 rows see none of these zeros. The paper shifts
    the other way, with zeros above and to the left (section 3.2, with s = f).

    Args:
        model: From images (B, 3, H, W) to maps (B, C, h, w), such as `convolutionalize` returns. It
            is used as it is, not copied.
        factor: A divisor of the model's stride: 1 gives the model itself, the stride itself gives
            an output for every pixel.
        stride: The stride of the model in pixels. By default it is found by propagating shapes.

    Returns:
        A module from images (B, 3, H, W) to maps (B, C, factor * h, factor * w).

    Raises:
        InputError: If the factor does not divide the stride, or the stride cannot be found; and
            when the result is called, if the model does not output a map.
    """
    stride = _find_stride(model) if stride is None else stride
    if factor < 1 or stride < 1 or stride % factor:
        raise InputError(f"factor {factor}: must be a divisor of the stride {stride}")
    return ShiftAndStitch(model, factor=factor, stride=stride // factor)


def _find_stride(model: nn.Module) -> int:
    """Find the stride from how the map grows with the image, by propagating shapes."""
    sides = []
    try:
        for side in (PROBE_SIDE, PROBE_SIDE + PROBE_GROWTH):
            channels = _input_channels(model)
            scores = run_on_meta(model, height=side, width=side, in_channels=channels)
            sides.append(tuple(scores.shape[2:]))
        (rows, columns), (more_rows, more_columns) = sides
        growth = more_rows - rows
        if growth != more_columns - columns or growth < 1 or PROBE_GROWTH % growth:
            raise ValueError(f"{PROBE_GROWTH} more pixels add {growth} rows to its map")
    except (RuntimeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{type(model).__name__}: cannot find its stride ({_first_line(error)}): use a model "
            "whose map grows with the image, or pass stride=PIXELS"
        ) from error
    return int(PROBE_GROWTH // growth)
