"""Classifiers that look everywhere at once (FCN, arXiv:1411.4038, sections 3.1 and 3.2).

`convolutionalize` makes of a classifier for one window a network that answers for all windows of a
larger image in one pass. `shift_and_stitch` runs such a network on shifted images and interlaces
what it says, for a finer stride than its own.

Where no layer pads, the answers are those of the sliding windows, to rounding. A layer that pads
shows a window zeros beyond its border, where the pass over the whole image sees what is there.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pixelwise.errors import InputError
from pixelwise.layers import BatchNorm2d

PROBE = (1024, 20160)  # pixels, and more of them: a multiple of every stride up to 10, of 12, ...


def convolutionalize(
    classifier: nn.Module, *, window: int | tuple[int, int] = 224
) -> nn.Sequential:
    """The classifier's dense form: (B, 3, H, W) images to (B, classes, h, w) scores, position
    (i, j) being the answer to the window that begins at (i, j) times the network's stride.

    classifier: an nn.Sequential with an nn.Flatten before its first nn.Linear, or a module that
    runs its `features`, its `avgpool` if it has one, a flatten or else the mean over the map, and
    its `classifier`: torchvision's VGG, AlexNet, MobileNetV2 and their like. It is not changed:
    weights are copied, under the same names. The result is in evaluation mode.
    window: (height, width) in pixels of the images that it classifies, or the side of a square.

    The first Linear, on a map of C x kh x kw in one window, becomes a convolution with a kernel of
    kh x kw and the same weights; later ones become 1x1, BatchNorm1d becomes BatchNorm2d. A pool to
    a fixed size becomes one over as many positions as it pools in a window: none where the sizes
    agree, as in VGG (7x7 at 224) and AlexNet (6x6); all of them in MobileNetV2. What else sees the
    whole image inside the network, as squeeze and excitation does, still sees the whole image.

    Raises InputError, with the layer's name, where a Linear follows no flatten or takes another
    number of values than a window's map has; and where the dense form answers otherwise than the
    classifier, which is tried on one window of noise.
    """
    size = (window, window) if isinstance(window, int) else window
    kind = type(classifier).__name__
    network = copy.deepcopy(classifier).eval()
    if not any(isinstance(module, nn.Linear) for module in network.modules()):
        raise InputError(f"{kind}: has no fully connected layer (Linear): nothing to convert")
    with torch.no_grad():
        try:
            image = _noise(network, size)
            layers = _in_sequence(network, image)
            replacements = list(_replacements(layers, image))
            expected = network(image.clone())
        except RuntimeError as error:
            raise InputError(
                f"{kind}: fails on a window of {size[0]}x{size[1]} ({_first_line(error)}): give "
                "the window that it was trained on"
            ) from error
        for parent, key, layer in replacements:
            setattr(parent, key, layer)
        _check_same(kind, layers, image, expected)
    return layers


def _noise(network: nn.Module, size: tuple[int, int]) -> Tensor:
    """One image that the network takes, from a generator of its own."""
    like = next(network.parameters())
    image = torch.randn(
        (1, _input_channels(network), *size), generator=torch.Generator().manual_seed(0)
    )
    return image.to(like)


def _input_channels(network: nn.Module) -> int:
    convolutions = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    return next((m.in_channels for m in convolutions), 3)


def _in_sequence(network: nn.Module, image: Tensor) -> nn.Sequential:
    """The network's own layers as a Sequential, with what its forward does between them."""
    if _is_plain(network):
        return network
    features = getattr(network, "features", None)
    head = getattr(network, "classifier", None)
    if not isinstance(features, nn.Module) or not isinstance(head, nn.Module):
        raise InputError(
            f"{type(network).__name__}: is no nn.Sequential and lacks .features or .classifier: "
            "put its layers into an nn.Sequential, with an nn.Flatten before the first Linear"
        )
    pool = getattr(network, "avgpool", None)
    if not isinstance(pool, nn.Module):
        # What forward does instead shows in how many values the first Linear takes.
        first = next((m for m in head.modules() if isinstance(m, nn.Linear)), None)
        values = features(image.clone())[0].numel()
        averaged = first is not None and first.in_features != values
        pool = nn.AdaptiveAvgPool2d(1) if averaged else nn.Identity()
    flattens = any(isinstance(m, nn.Flatten) for m in head.modules())
    flatten = nn.Identity() if flattens else nn.Flatten()
    parts: list[tuple[str, nn.Module]] = [
        ("features", features),
        ("avgpool", pool),
        ("flatten", flatten),
        ("classifier", head),
    ]
    return nn.Sequential(OrderedDict(parts)).eval()


def _is_plain(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether it runs its children one after the other and does nothing else."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _leaves(parent: nn.Module, prefix: str = "") -> Iterator[tuple[nn.Module, str, str, nn.Module]]:
    """Parent, key in it, full name and layer, in the order in which they run.

    Not `named_children`: it leaves out a layer that stands in two places.
    """
    for key, child in parent._modules.items():
        if child is None:
            continue
        if _is_plain(child):
            yield from _leaves(child, f"{prefix}{key}.")
        else:
            yield parent, key, f"{prefix}{key}", child


def _replacements(layers: nn.Module, x: Tensor) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Parent, key and new layer for each layer that works at one size only; `x` is a window."""
    shape: tuple[int, ...] = ()  # of what was flattened: channels, height, width
    apart = (1, 1)  # how many positions of the unpooled map lie between those that were flattened
    x = x.clone()  # the first layer may work in place
    for parent, key, name, layer in _leaves(layers):
        new: nn.Module | None = None
        if isinstance(layer, nn.Flatten):
            new = nn.Identity()
            if not shape:
                if x.ndim != 4 or layer.start_dim != 1 or layer(x).ndim != 2:
                    raise InputError(
                        f"{name}: flattens {tuple(x.shape)} to {tuple(layer(x).shape)}: channels, "
                        "rows and columns of a map have to become one dimension"
                    )
                shape = tuple(x.shape[1:])
        elif isinstance(layer, nn.Linear):
            if not shape:
                raise InputError(
                    f"{name}: a Linear that follows no flatten: put an nn.Flatten before it"
                )
            new = _as_convolution(name, layer, shape, apart)
            shape, apart = (layer.out_features, 1, 1), (1, 1)
        elif isinstance(layer, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
            apart = _positions_pooled(name, layer, x)
            kind = nn.AvgPool2d if isinstance(layer, nn.AdaptiveAvgPool2d) else nn.MaxPool2d
            new = nn.Identity() if apart == (1, 1) else kind(apart, stride=1)
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
            f"{name}: takes {linear.in_features} values, but the map of a window has "
            f"{channels} x {height} x {width} = {values}: give the window that it was trained on"
        )
    biased = linear.bias is not None
    convolution = nn.Conv2d(
        channels,
        linear.out_features,
        (height, width),
        dilation=dilation,
        bias=biased,
        device="meta",  # no memory and no random numbers for weights that are not kept
    )
    # Flattening orders values by channel, row and column, as a kernel does.
    weight = linear.weight.detach().reshape(convolution.weight.shape)
    convolution.weight = nn.Parameter(weight, requires_grad=linear.weight.requires_grad)
    if biased:
        convolution.bias = linear.bias
    return convolution


def _positions_pooled(
    name: str, pool: nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d, x: Tensor
) -> tuple[int, int]:
    """How many rows and columns of the map `x` (of a window) one pooled position covers."""
    (height, width), (rows, columns) = x.shape[2:], pool(x).shape[2:]
    if height % rows or width % columns:
        raise InputError(
            f"{name}: pools the {height}x{width} map of a window to {rows}x{columns}, in unequal "
            "parts: give the window that it was trained on"
        )
    return height // rows, width // columns


def _as_map_norm(name: str, norm: nn.BatchNorm1d, shape: tuple[int, ...]) -> BatchNorm2d:
    if shape[1:] != (1, 1):
        raise InputError(
            f"{name}: a BatchNorm1d before the first Linear treats each position of a window "
            "differently, which no layer on a map does: fold it into the Linear"
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


def _check_same(kind: str, dense: nn.Module, image: Tensor, expected: object) -> None:
    """Raise InputError unless both give the same scores for one window."""
    if not isinstance(expected, Tensor) or expected.ndim != 2:
        raise InputError(f"{kind}: is no classifier: one gives scores of (B, classes)")
    try:
        scores = dense(image.clone())
        if scores.shape != (*expected.shape, 1, 1):
            raise RuntimeError(f"a map of {tuple(scores.shape)}")
        difference = (scores.flatten(1) - expected).abs().max().item()
        # Room for TF32 and for half precision; a layer left out shows in the first digit.
        allowed = (0.01 if expected.dtype.itemsize >= 4 else 0.1) * expected.abs().max().item()
        if not difference <= allowed:
            raise RuntimeError(f"scores differ by {difference:.2g}")
    except RuntimeError as error:
        raise InputError(
            f"{kind}: its dense form answers otherwise on one window ({_first_line(error)}): "
            "forward() does more than its layers, or one behind the flatten does not fit a map: "
            "put into an nn.Sequential what is run, with layers that work on single scores"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class ShiftAndStitch(nn.Module):
    """See `shift_and_stitch`, which makes it. `stride`: in pixels, of what comes out."""

    def __init__(self, model: nn.Module, *, factor: int, stride: int) -> None:
        super().__init__()
        self.model = model
        self.factor = factor
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        beyond = (self.factor - 1) * self.stride
        padded = F.pad(images, (0, beyond, 0, beyond))
        passes = []
        for y in range(0, beyond + 1, self.stride):
            for x in range(0, beyond + 1, self.stride):
                scores = self.model(padded[:, :, y : y + height, x : x + width])
                if scores.ndim != 4:
                    raise InputError(
                        f"{type(self.model).__name__}: gives {tuple(scores.shape)}, not a map: "
                        "convolutionalize it first"
                    )
                passes.append(scores)
        # (B, C, s * s, h, w): pass (y, x) belongs into every s-th row from y, column from x.
        return F.pixel_shuffle(torch.stack(passes, dim=2).flatten(1, 2), self.factor)


def shift_and_stitch(model: nn.Module, factor: int, *, stride: int | None = None) -> ShiftAndStitch:
    """The model at a `factor` times finer stride, without retraining: factor^2 passes, interlaced.

    model: (B, 3, H, W) images to (B, C, h, w) maps of stride f pixels, as `convolutionalize` makes.
    It is kept, not copied. factor: a divisor s of f; 1 is the model itself, f is every pixel.
    stride: f, for a model whose own cannot be found out, which is tried without arithmetic.

    The result maps (B, 3, H, W) to (B, C, s * h, s * w): position (i, j) is what the model says at
    its first position of the image that begins at (i, j) times f / s. Each pass sees the image
    moved up and left by a multiple of f / s pixels. To the right and below zeros follow, the mean
    color of a normalized image, so that all passes have one size; of windows of R pixels the first
    floor((H - R) * s / f) + 1 rows see none of them. The paper shifts the other way, its zeros
    above and to the left. (Section 3.2, with s = f.)

    Raises InputError for a factor that does not divide the stride, a model whose stride is not
    found, and, when it is called, a model that gives no map.
    """
    stride = _find_stride(model) if stride is None else stride
    if factor < 1 or stride < 1 or stride % factor:
        raise InputError(f"factor {factor}: allowed are the divisors of the stride {stride}")
    return ShiftAndStitch(model, factor=factor, stride=stride // factor)


def _find_stride(model: nn.Module) -> int:
    """Pixels from one position of the model's map to the next: how its size grows with the image's.

    On the meta device, where shapes are worked out and nothing else.
    """
    size, more = PROBE
    tensors = {
        name: tensor.to("meta")
        for name, tensor in chain(model.named_parameters(), model.named_buffers())
    }
    sides = []
    try:
        for side in (size, size + more):
            image = torch.empty(1, _input_channels(model), side, side, device="meta")
            with torch.no_grad():
                sides.append(tuple(functional_call(model, tensors, (image,)).shape[2:]))
        (rows, columns), (more_rows, more_columns) = sides
        grown = more_rows - rows
        if grown != more_columns - columns or grown < 1 or more % grown:
            raise ValueError(f"from {size} to {size + more} pixels its map grows by {grown} rows")
    except (RuntimeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{type(model).__name__}: its stride was not found ({_first_line(error)}): give a "
            "model whose map grows with the image, or stride=PIXELS"
        ) from error
    return int(more // grown)
