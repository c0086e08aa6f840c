"""DeepLab v1, v2, v3, v3+: independent forward passes, published sizes, strides, training."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from networks import noise, overfit, randomize, relative_difference
from pixelwise.backbones import create_backbone
from pixelwise.errors import InputError
from pixelwise.inference.runtimes.torch.simplify import simplify
from pixelwise.layers import TensorFlowConv2d, upsample_from_pixels
from pixelwise.models import Segmenter, count_multiply_adds, count_parameters, create_model

State = dict[str, Tensor]

NARROW = 1 / 32  # width of VGG16: the same geometry with a thousandth of the arithmetic
FIELDS: dict[str, dict[str, Any]] = {
    "LargeFOV": {"hidden": 16, "width": NARROW},
    "LargeFOV MSc": {"hidden": 16, "width": NARROW, "multi_scale": True},
    **{
        f"{k}x{k} r{r}": {
            "kernel_size": k,
            "rate": r,
            "hidden": 12,
            "average_pool": False,
            "width": NARROW,
        }
        for k, r in ((7, 4), (4, 4), (4, 8))
    },
}
TORCHVISION = {
    "output_stride": 8,
    "multi_grid": False,
    "dropout": 0.5,
    "refine": True,
    "auxiliary": True,
}


# --- Independent forward passes, written from the tables of the papers.


def conv(state: State, x: Tensor, name: str, **geometry: int) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **geometry)


def norm(state: State, x: Tensor, name: str, eps: float = 1e-5) -> Tensor:
    statistics = (state[f"{name}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *statistics, eps=eps)


def unit(state: State, x: Tensor, name: str, rate: int = 1, eps: float = 1e-5) -> Tensor:
    """Convolution that keeps the size, and batch norm: `name`.0 and `name`.1."""
    padding = rate * (state[f"{name}.0.weight"].shape[2] // 2)
    groups = x.shape[1] // state[f"{name}.0.weight"].shape[1]
    x = conv(state, x, f"{name}.0", padding=padding, dilation=rate, groups=groups)
    return norm(state, x, f"{name}.1", eps)


def bilinear(x: Tensor, size: tuple[int, int], corners: bool = False) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=corners)


def substate(state: State, name: str) -> State:
    return {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}


def reference_vgg(state: State, image: Tensor, average: bool) -> tuple[list[Tensor], Tensor]:
    """The image, four pools, and pool5 (or pool5a), from the authors' prototxt files."""
    x = F.pad(image, (0, -(image.shape[3] - 1) % 8, 0, -(image.shape[2] - 1) % 8))
    maps, number = [x], 0
    for repeats, rate, stride in ((2, 1, 2), (2, 1, 2), (3, 1, 2), (3, 1, 1), (3, 2, 1)):
        for _ in range(repeats):
            name = f"features.{number}"
            x = conv(state, x, name, padding=rate, dilation=rate).relu()
            number += 2
        x = F.max_pool2d(x, 3, stride, 1, ceil_mode=True)  # Caffe's rounding makes no difference
        number += 1
        maps.append(x)
    return maps[:5], F.avg_pool2d(x, 3, 1, 1) if average else x


def reference_fc7(state: State, x: Tensor, name: str, kernel_size: int, rate: int) -> Tensor:
    padding = {(3, rate): rate, (7, 4): 12, (4, 4): 6, (4, 8): 12}[kernel_size, rate]
    x = conv(state, x, f"{name}.0", padding=padding, dilation=rate).relu()
    return conv(state, x, f"{name}.3").relu()


def from_pixels(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Position i lies on pixel 8 i: each pixel interpolates its two neighboring positions."""
    for dim, side in ((2, size[0]), (3, size[1])):
        pixels, positions = torch.arange(side), torch.arange(x.shape[dim])
        weights = (1 - (pixels[:, None] / 8 - positions).abs()).clamp(min=0)
        x = (x.transpose(dim, 3) @ weights.T).transpose(dim, 3)
    return x


def reference_v1(state: State, image: Tensor, options: dict[str, Any]) -> Tensor:
    field = options.get("kernel_size", 3), options.get("rate", 12)
    backbone, head = substate(state, "backbone"), substate(state, "head")
    maps, x = reference_vgg(backbone, image, options.get("average_pool", True))
    logits = conv(head, reference_fc7(backbone, x, "classifiers.0", *field), "score")
    if options.get("multi_scale"):
        for number, stride in enumerate((8, 4, 2, 1, 1)):
            name = f"branches.c{number}"
            x = conv(head, maps[number], f"{name}.0", stride=stride, padding=1).relu()
            logits = logits + conv(head, conv(head, x, f"{name}.3").relu(), f"{name}.6")
    return from_pixels(logits, (image.shape[2], image.shape[3]))


def reference_v2_vgg(state: State, image: Tensor, rates: tuple[int, ...]) -> Tensor:
    backbone, head = substate(state, "backbone"), substate(state, "head")
    _, x = reference_vgg(backbone, image, average=False)
    logits = torch.zeros(())
    for number, rate in enumerate(rates):
        fc7 = reference_fc7(backbone, x, f"classifiers.{number}", 3, rate)
        logits = logits + conv(head, fc7, f"scores.{number}")
    return from_pixels(logits, (image.shape[2], image.shape[3]))


def bottleneck(
    state: State, x: Tensor, name: str, stride: int, rate: int, caffe: bool = False
) -> Tensor:
    strides = (stride, 1) if caffe else (1, stride)
    y = norm(state, conv(state, x, f"{name}.conv1", stride=strides[0]), f"{name}.bn1").relu()
    y = conv(state, y, f"{name}.conv2", stride=strides[1], padding=rate, dilation=rate)
    y = norm(state, y, f"{name}.bn2").relu()
    y = norm(state, conv(state, y, f"{name}.conv3"), f"{name}.bn3")
    if f"{name}.downsample.0.weight" in state:
        x = conv(state, x, f"{name}.downsample.0", stride=stride)
        x = norm(state, x, f"{name}.downsample.1")
    return (x + y).relu()


# ResNet-50: rates of the first and of the other blocks in stages 3 and 4, by output stride. In
# torchvision the first block, whose 3x3 convolution had the stride, keeps the rate before it.
RATES_50 = {16: ((1, 1), (1, 2)), 8: ((1, 2), (2, 4))}


def reference_resnet50(
    state: State,
    x: Tensor,
    output_stride: int,
    *,
    multi_grid: tuple[int, ...] = (),
    caffe: bool = False,
) -> dict[str, Tensor]:
    x = norm(state, conv(state, x, "conv1", stride=2, padding=3), "bn1").relu()
    x = F.max_pool2d(x, 3, 2, 1, ceil_mode=caffe)
    maps = {}
    third, fourth = RATES_50[output_stride]
    stages = [(3, 1, 1, 1), (4, 2, 1, 1), (6, 2 if output_stride == 16 else 1, *third)]
    stages.append((3, 1, *fourth))
    for stage, (count, stride, first, others) in enumerate(stages, start=1):
        rates = [others if caffe else first] + (count - 1) * [others]
        if stage == 4 and multi_grid:
            rates = [others * u for u in multi_grid]
        for block, rate in enumerate(rates):
            step = 1 if block else stride
            x = bottleneck(state, x, f"layer{stage}.{block}", step, rate, caffe)
        maps[f"c{stage + 1}"] = x
    return maps


def reference_aspp(state: State, x: Tensor, stride: int, separable: bool) -> Tensor:
    branches = [unit(state, x, "branches.0").relu()]
    for number, rate in enumerate({16: (6, 12, 18), 8: (12, 24, 36)}[stride], start=1):
        y, name = x, f"branches.{number}"
        if separable:
            y = unit(state, y, f"{name}.0", rate).relu()
            y = unit(state, y, f"{name}.1").relu()
        else:
            y = unit(state, y, name, rate).relu()
        branches.append(y)
    pooled = unit(state, x.mean((2, 3), keepdim=True), "branches.4.project").relu()
    branches.append(pooled.expand_as(branches[0]))
    return unit(state, torch.cat(branches, 1), "project").relu()


def reference_decoder(
    state: State, maps: dict[str, Tensor], stride: int, sep: bool, corners: bool = False
) -> Tensor:
    detail = unit(state, maps["c2"], "detail").relu()
    context = reference_aspp(substate(state, "context"), maps["c5"], stride, sep)
    x = torch.cat([bilinear(context, (detail.shape[2], detail.shape[3]), corners), detail], 1)
    for name in ("fuse.0", "fuse.1"):
        if sep:
            x = unit(state, unit(state, x, f"{name}.0").relu(), f"{name}.1").relu()
        else:
            x = unit(state, x, name).relu()
    return conv(state, x, "classify")


def reference_xception(state: State, x: Tensor, output_stride: int) -> dict[str, Tensor]:
    """xception_65 of the authors' TensorFlow code, whose batch norm has an eps of 0.001."""

    def separable(x: Tensor, name: str, rate: int, stride: int = 1) -> Tensor:
        x = conv(
            state,
            x.relu(),
            f"{name}.1.0",
            stride=stride,
            padding=rate,
            dilation=rate,
            groups=x.shape[1],
        )
        x = norm(state, x, f"{name}.1.1", 1e-3)
        return norm(state, conv(state, x, f"{name}.2.0"), f"{name}.2.1", 1e-3)

    def module(x: Tensor, name: str, rate: int, stride: int) -> tuple[Tensor, Tensor]:
        tap = separable(separable(x, f"{name}.first", rate), f"{name}.second", rate)
        y = separable(tap, f"{name}.third", rate, stride)
        if f"{name}.shortcut.0.weight" in state:
            x = conv(state, x, f"{name}.shortcut.0", stride=stride)
            x = norm(state, x, f"{name}.shortcut.1", 1e-3)
        return x + y, tap

    x = conv(state, x, "stem.0.0", stride=2, padding=1)
    x = norm(state, x, "stem.0.1", 1e-3).relu()
    x = unit(state, x, "stem.1", eps=1e-3).relu()
    middle, last = {16: (1, 2), 8: (2, 4)}[output_stride]
    x, _ = module(x, "entry1", 1, 2)
    x, tap = module(x, "entry2", 1, 2)
    x, _ = module(x, "entry3", 1, 2 if output_stride == 16 else 1)
    for number in range(16):
        x, _ = module(x, f"middle.{number}", middle, 1)
    x, _ = module(x, "exit1", middle, 1)
    for number in range(3):
        x = unit(state, x, f"exit2.{number}.0", last, 1e-3).relu()
        x = unit(state, x, f"exit2.{number}.1", eps=1e-3).relu()
    return {"c2": tap, "c5": x}


def reference_mobilenet(
    state: State, x: Tensor, output_stride: int, tensorflow: bool
) -> dict[str, Tensor]:
    """From table 2 of arXiv:1801.04381; TensorFlow pads an even side only at its end."""
    eps = 1e-3 if tensorflow else 1e-5

    def strided(x: Tensor, name: str, stride: int, rate: int) -> Tensor:
        first = [rate if stride == 1 or not tensorflow or side % 2 else 0 for side in x.shape[2:]]
        x = F.pad(x, (first[1], rate, first[0], rate))
        groups = x.shape[1] // state[f"{name}.0.weight"].shape[1]
        x = conv(state, x, f"{name}.0", stride=stride, dilation=rate, groups=groups)
        return norm(state, x, f"{name}.1", eps).clamp(0, 6)

    x, stages, number = strided(x, "features.0", 2, 1), [], 1
    # Repeats, stride, rate of the first block and of the others, by stage.
    rows = {
        16: ((4, 2, 1, 1), (3, 1, 1, 1), (3, 1, 1, 2), (1, 1, 2, 2)),
        8: ((4, 1, 1, 2), (3, 1, 2, 2), (3, 1, 2, 4), (1, 1, 4, 4)),
    }[output_stride]
    for repeats, stride, first, others in ((1, 1, 1, 1), (2, 2, 1, 1), (3, 2, 1, 1), *rows):
        for repeat in range(repeats):
            y, name, wide = x, f"features.{number}.conv", int(number > 1)
            if wide:
                y = unit(state, y, f"{name}.0", eps=eps).clamp(0, 6)
            step, rate = (1, others) if repeat else (stride, first)
            y = strided(y, f"{name}.{wide}", step, rate)
            y = conv(state, y, f"{name}.{wide + 1}")
            y = norm(state, y, f"{name}.{wide + 2}", eps)
            x = x + y if x.shape == y.shape else y
            number += 1
        stages.append(x)
    return {"c2": stages[1], "c5": x}


@pytest.mark.parametrize("size", [(65, 97), (64, 50), (1, 35)])
@pytest.mark.parametrize("field", FIELDS)
def test_v1_matches_an_independent_forward(field: str, size: tuple[int, int]) -> None:
    model = randomize(create_model("deeplab_v1", num_classes=5, **FIELDS[field]))
    image = noise(1, 3, *size)
    with torch.no_grad():
        expected = reference_v1(model.state_dict(), image, FIELDS[field])
        assert relative_difference(model(image), expected) < 1e-5


@pytest.mark.parametrize("size", [(65, 97), (64, 50), (1, 35)])
@pytest.mark.parametrize(("aspp", "rates"), [("S", (2, 4, 8, 12)), ("L", (6, 12, 18, 24))])
def test_v2_on_vgg16_matches_an_independent_forward(
    aspp: str, rates: tuple[int, ...], size: tuple[int, int]
) -> None:
    options = {"backbone": "vgg16", "aspp": aspp, "multi_scale": False, "width": NARROW}
    model = randomize(create_model("deeplab_v2", num_classes=5, **options))
    image = noise(1, 3, *size)
    with torch.no_grad():
        expected = reference_v2_vgg(model.state_dict(), image, rates)
        assert relative_difference(model(image), expected) < 1e-5


@pytest.mark.parametrize("size", [(64, 96), (51, 70)])
@pytest.mark.parametrize("caffe", [True, False])
def test_v2_on_resnet_matches_an_independent_forward_at_three_scales(
    caffe: bool, size: tuple[int, int]
) -> None:
    model = create_model("deeplab_v2", num_classes=5, backbone="resnet50", caffe=caffe)
    state, image = randomize(model).state_dict(), noise(1, 3, *size)

    def single(image: Tensor) -> Tensor:
        x = reference_resnet50(substate(state, "backbone"), image, 8, caffe=caffe)["c5"]
        logits = torch.zeros(())
        for number, rate in enumerate((6, 12, 18, 24)):
            name = f"head.branches.{number}"
            logits = logits + conv(state, x, name, padding=rate, dilation=rate)
        return logits

    with torch.no_grad():
        one = single(image)
        smaller = [
            single(bilinear(image, (int(size[0] * scale), int(size[1] * scale))))
            for scale in (0.75, 0.5)
        ]
        same = [bilinear(logits, (one.shape[2], one.shape[3])) for logits in smaller]
        fused = torch.stack([one, *same]).amax(0)
        assert relative_difference(model(image), bilinear(fused, size)) < 1e-5
        for got, expected in zip(
            model.training_logits(image, upsample=False), [fused, one, *smaller], strict=True
        ):
            assert relative_difference(got, expected) < 1e-5
        for got, expected in zip(model.training_logits(image), [fused, one, *smaller], strict=True):
            assert relative_difference(got, bilinear(expected, size)) < 1e-5


@pytest.mark.parametrize("size", [(64, 96), (51, 70)])
@pytest.mark.parametrize(
    "options",
    [{"output_stride": 16}, {"output_stride": 8}, TORCHVISION],
    ids=["16", "8", "torchvision"],
)
def test_v3_matches_an_independent_forward(options: dict[str, Any], size: tuple[int, int]) -> None:
    model = randomize(create_model("deeplab_v3", num_classes=5, backbone="resnet50", **options))
    state, image, stride = model.state_dict(), noise(1, 3, *size), options["output_stride"]
    torchvision = "auxiliary" in options
    head = substate(state, "head")
    with torch.no_grad():
        grid = () if torchvision else (1, 2, 4)
        maps = reference_resnet50(substate(state, "backbone"), image, stride, multi_grid=grid)
        x = reference_aspp(substate(head, "context"), maps["c5"], stride, False)
        if torchvision:
            x = unit(head, x, "refine").relu()
        expected = bilinear(conv(head, x, "classify"), size)
        logits, *others = model.training_logits(image)
        assert relative_difference(logits, expected) < 1e-5
        assert len(others) == torchvision
        for other in others:
            extra = substate(state, "auxiliary")
            x = norm(extra, conv(extra, maps["c4"], "0", padding=1), "1").relu()
            expected = bilinear(conv(extra, x, "4"), size)
            assert relative_difference(other, expected) < 1e-5


@pytest.mark.parametrize(("output_stride", "rate"), [(16, 2), (8, 4)])
def test_the_cascade_matches_an_independent_forward(output_stride: int, rate: int) -> None:
    model = create_model(
        "deeplab_v3_cascade", num_classes=5, backbone="resnet50", output_stride=output_stride
    )
    state, image = randomize(model).state_dict(), noise(1, 3, 51, 70)
    with torch.no_grad():
        x = reference_resnet50(
            substate(state, "backbone"), image, output_stride, multi_grid=(1, 2, 1)
        )["c5"]
        for number, factor in ((5, 2), (6, 4), (7, 8)):
            for block, grid in enumerate((1, 2, 1)):
                name = f"head.blocks.block{number}.{block}"
                x = bottleneck(state, x, name, 1, rate * factor * grid)
        expected = bilinear(conv(state, x, "head.classify"), (51, 70))
        assert relative_difference(model(image), expected) < 1e-5


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("decoder", [True, False])
@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize("backbone", ["xception65", "resnet50", "mobilenet_v2"])
def test_v3plus_matches_an_independent_forward(
    backbone: str, output_stride: int, decoder: bool, corners: bool
) -> None:
    separable, tensorflow = backbone != "resnet50", corners and backbone == "mobilenet_v2"
    model = create_model(
        "deeplab_v3plus",
        num_classes=5,
        backbone=backbone,
        output_stride=output_stride,
        decoder=decoder,
        align_corners=corners,
        tensorflow=tensorflow,
    )
    state, image = randomize(model).state_dict(), noise(1, 3, 51, 70)
    features, head = substate(state, "backbone"), substate(state, "head")
    with torch.no_grad():
        if backbone == "xception65":
            maps = reference_xception(features, image, output_stride)
        elif backbone == "mobilenet_v2":
            maps = reference_mobilenet(features, image, output_stride, tensorflow)
        else:
            maps = reference_resnet50(features, image, output_stride, multi_grid=(1, 2, 4))
        if decoder:
            logits = reference_decoder(head, maps, output_stride, separable, corners)
        else:
            x = reference_aspp(substate(head, "context"), maps["c5"], output_stride, separable)
            logits = conv(head, x, "classify")
        assert relative_difference(model(image), bilinear(logits, (51, 70), corners)) < 1e-5


def test_mobilenet_without_aspp_and_decoder_matches_an_independent_forward() -> None:
    form = {"align_corners": True, "tensorflow": True}
    model = create_model("deeplab_v3plus", num_classes=5, decoder=False, aspp=False, **form)
    state, image = randomize(model).state_dict(), noise(1, 3, 51, 70)
    head = substate(state, "head")
    with torch.no_grad():
        x = reference_mobilenet(substate(state, "backbone"), image, 16, tensorflow=True)["c5"]
        one = unit(head, x, "context.branches.0").relu()
        mean = unit(head, x.mean((2, 3), keepdim=True), "context.branches.1.project").relu()
        x = unit(head, torch.cat([one, mean.expand_as(one)], 1), "context.project").relu()
        expected = bilinear(conv(head, x, "classify"), (51, 70), True)
        assert relative_difference(model(image), expected) < 1e-5
        assert relative_difference(simplify(model)(image), expected) < 1e-5


@pytest.mark.parametrize(("kernel_size", "stride", "rate"), [(3, 2, 1), (3, 2, 2), (4, 3, 1)])
@pytest.mark.parametrize("side", [1, 2, 6, 7, 9])
def test_tensorflow_padding_matches_its_documentation(
    side: int, kernel_size: int, stride: int, rate: int
) -> None:
    convolution = TensorFlowConv2d(2, 3, kernel_size, stride=stride, dilation=rate)
    x = noise(1, 2, side, 8)
    got = convolution(x)
    assert got.shape == (1, 3, -(-side // stride), -(-8 // stride))
    # As documented for "SAME", one side after the other.
    pads = []
    for length in (8, side):
        remainder = length % stride or stride
        total = max((kernel_size - 1) * rate + 1 - remainder, 0)
        pads += [total // 2, total - total // 2]
    expected = F.conv2d(
        F.pad(x, pads), convolution.weight, convolution.bias, stride=stride, dilation=rate
    )
    assert torch.equal(got, expected)


def test_v2_with_aligned_corners_matches_an_independent_forward() -> None:
    options = {"backbone": "resnet50", "align_corners": True}
    model = randomize(create_model("deeplab_v2", num_classes=5, **options))
    image = noise(1, 3, 65, 97)
    with torch.no_grad():
        # Sizes 8k + 1 keep this form, as in the authors' network: 321, 241 and 161.
        one, three, half = (
            model.head(model.backbone(bilinear(image, size, True)))
            for size in ((65, 97), (49, 73), (33, 49))
        )
        same = [bilinear(x, (one.shape[2], one.shape[3]), True) for x in (three, half)]
        fused = torch.stack([one, *same]).amax(0)
        assert relative_difference(model(image), bilinear(fused, (65, 97), True)) < 1e-5


def test_the_scales_of_vgg16_are_aligned() -> None:
    model = create_model("deeplab_v2", num_classes=1, backbone="vgg16", width=NARROW).eval()
    ramp = torch.linspace(0, 1, 65).view(1, 1, 65, 1).expand(1, 3, 65, 65)

    def sample(images: Tensor) -> dict[str, Tensor]:  # the pixel at the center of each position
        return {"c5": images[:, :1, ::8, ::8]}

    model.backbone.forward = sample
    model.head.forward = lambda features: features["c5"]
    for logits in model.training_logits(ramp):
        assert torch.allclose(logits, ramp[:, :1], atol=1e-6)


# --- Size


@pytest.mark.parametrize(
    ("options", "published"),
    # arXiv:1412.7062, table 2, in millions.
    [
        ({}, 20.5),
        ({"kernel_size": 7, "rate": 4, "hidden": 4096}, 134.3),
        ({"kernel_size": 4, "rate": 4, "hidden": 4096}, 65.1),
        ({"kernel_size": 4, "rate": 8, "hidden": 4096}, 65.1),
    ],
)
def test_v1_has_the_published_parameter_counts(options: dict[str, Any], published: float) -> None:
    with torch.device("meta"):
        model = create_model("deeplab_v1", num_classes=21, **options)
    assert round(count_parameters(model) / 1e6, 1) == published


def test_parameters_of_largefov_match_a_count_by_hand() -> None:
    stages = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
    stages += [(256, 512), (512, 512), (512, 512), (512, 512), (512, 512), (512, 512)]
    convolutions = sum(9 * a * b + b for a, b in stages)
    fields = 9 * 512 * 1024 + 1024 + 1024 * 1024 + 1024
    with torch.device("meta"):
        one = create_model("deeplab_v1", num_classes=21)
        four = create_model("deeplab_v2", num_classes=21, backbone="vgg16", multi_scale=False)
        branches = create_model("deeplab_v1", num_classes=21, multi_scale=True)
    score = 1024 * 21 + 21
    assert count_parameters(one) == convolutions + fields + score == 20_505_429
    assert count_parameters(four) == convolutions + 4 * (fields + score)
    # Each branch: 3x3 to 128, 1x1 to 128, scores.
    added = sum(9 * c * 128 + 128 + 128 * 128 + 128 + 128 * 21 + 21 for c in (3, 64, 128, 256, 512))
    assert count_parameters(branches) == count_parameters(one) + added


@pytest.mark.parametrize(("depth", "expected"), [(50, 42_004_074), (101, 60_996_202)])
def test_v3_has_the_parameter_counts_of_torchvision(depth: int, expected: int) -> None:
    with torch.device("meta"):
        model = create_model("deeplab_v3", num_classes=21, backbone=f"resnet{depth}", **TORCHVISION)
    assert count_parameters(model) == expected


@pytest.mark.parametrize(
    ("options", "published"),
    # arXiv:1802.02611, table 5, at 513 and output stride 16.
    [
        ({"separable": False, "decoder": False}, 68.00e9),
        ({"separable": False}, 89.76e9),
        ({}, 54.17e9),
    ],
)
def test_v3plus_on_xception_has_the_published_multiply_adds(
    options: dict[str, Any], published: float
) -> None:
    with torch.device("meta"):
        model = create_model("deeplab_v3plus", num_classes=21, backbone="xception65", **options)
        total = count_multiply_adds(model, height=513, width=513)
    # TensorFlow pads the 33x33 map for rates 6, 12 and 18 to multiples of the rate, and counts
    # 36x36 positions.
    channels = 2048 if options.get("separable", True) else 2048 * 256
    total += 3 * 9 * channels * (36**2 - 33**2)
    assert total == pytest.approx(published, rel=0.003)


def test_mobilenet_without_aspp_and_decoder_has_the_published_counts() -> None:
    with torch.device("meta"):
        model = create_model("deeplab_v3plus", num_classes=21, decoder=False, aspp=False)
        total = count_multiply_adds(model, height=513, width=513)
    # arXiv:1801.04381, table 7.
    assert round(count_parameters(model) / 1e6, 2) == 2.11
    assert total == pytest.approx(2.75e9, rel=0.01)


# --- Strides


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenet_v2", {}),
        ("mobilenet_v2", {"tensorflow": True}),
        ("xception65", {}),
        ("resnet50", {"multi_grid": (1, 2, 4)}),
        ("resnet50", {"caffe": True}),
    ],
)
def test_features_at_stride_8_contain_those_at_16(name: str, options: dict[str, Any]) -> None:
    dense = randomize(create_backbone(name, output_stride=8, **options))
    coarse: Any = create_backbone(name, output_stride=16, **options)
    coarse.load_state_dict(dense.state_dict())
    assert (dense.strides["c5"], coarse.strides["c5"]) == (8, 16)
    image = noise(1, 3, 97, 65)
    with torch.no_grad():
        one, other = dense(image)["c5"], coarse.eval()(image)["c5"]
    assert relative_difference(one[:, :, ::2, ::2], other) < 1e-5


def test_rates_of_v2_and_of_the_cascade_depend_on_the_output_stride() -> None:
    with torch.device("meta"):
        for stride, rates in ((8, [6, 12, 18, 24]), (16, [3, 6, 9, 12])):
            model = create_model("deeplab_v2", num_classes=2, output_stride=stride)
            assert [conv.dilation[0] for conv in model.head.branches] == rates
        for stride, rates in ((16, [4, 8, 16]), (8, [8, 16, 32])):
            model = create_model("deeplab_v3_cascade", num_classes=2, output_stride=stride)
            assert [block[0].conv2.dilation[0] for block in model.head.blocks] == rates


@pytest.mark.parametrize("side", [1, 9, 17, 33])
def test_upsample_from_pixels_keeps_the_values_at_the_centers(side: int) -> None:
    x = noise(2, 3, (side - 1) // 8 + 1, 3)
    upsampled = upsample_from_pixels(x, stride=8, size=(side, 17))
    assert torch.allclose(upsampled[:, :, ::8, ::8], x, atol=1e-6)
    assert torch.allclose(upsampled, from_pixels(x, (side, 17)), atol=1e-5)


SMALL: list[tuple[str, dict[str, Any]]] = [
    *(("deeplab_v1", options) for options in FIELDS.values()),
    ("deeplab_v2", {"backbone": "vgg16", "aspp": "S", "multi_scale": False, "width": NARROW}),
    ("deeplab_v2", {"backbone": "vgg16", "width": NARROW}),
    ("deeplab_v2", {"backbone": "resnet50"}),
    ("deeplab_v3", {"backbone": "tiny"}),
    ("deeplab_v3", {"backbone": "resnet50", **TORCHVISION}),
    ("deeplab_v3", {"backbone": "resnet50", "output_stride": 8}),
    ("deeplab_v3_cascade", {"backbone": "resnet50"}),
    ("deeplab_v3plus", {"backbone": "resnet50"}),
    ("deeplab_v3plus", {"backbone": "tiny", "decoder": False}),
    ("deeplab_v3plus", {"backbone": "xception65"}),
    (
        "deeplab_v3plus",
        {"decoder": False, "aspp": False, "align_corners": True, "tensorflow": True},
    ),
]


@cache
def on_meta(number: int) -> Segmenter:
    name, options = SMALL[number]
    with torch.device("meta"):
        return create_model(name, num_classes=2, **options).eval()


@settings(max_examples=25)
@given(st.sampled_from(range(len(SMALL))), st.integers(1, 600), st.integers(1, 600))
def test_output_has_the_size_of_the_image(number: int, height: int, width: int) -> None:
    model = on_meta(number)
    with torch.device("meta"), torch.no_grad():
        image = torch.zeros(1, 3, height, width)
        assert model(image).shape == (1, 2, height, width)
        for logits in model.training_logits(image):
            assert logits.shape == (1, 2, height, width)


@pytest.mark.parametrize(("name", "options"), SMALL)
def test_a_single_pixel_can_be_segmented(name: str, options: dict[str, Any]) -> None:
    model = create_model(name, num_classes=3, **options).eval()
    with torch.no_grad():
        logits = model(noise(1, 3, 1, 1))
    assert logits.shape == (1, 3, 1, 1)
    assert logits.isfinite().all()


# --- Learning


@pytest.mark.parametrize(("name", "options"), SMALL)
def test_every_parameter_gets_a_gradient(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **options)
    sum(o.square().mean() for o in model.training_logits(noise(2, 3, 65, 97))).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deeplab_v1", {"hidden": 64, "width": 1 / 8}),
        ("deeplab_v1", {"hidden": 64, "width": 1 / 8, "multi_scale": True}),
        ("deeplab_v2", {"backbone": "vgg16", "width": 1 / 16}),
        ("deeplab_v3", {"backbone": "tiny", "output_stride": 8}),
        ("deeplab_v3plus", {"backbone": "tiny"}),
    ],
)
def test_each_network_overfits_four_images(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **options)
    # Without batch norm, only dropout depends on the mode; evaluation mode turns it off.
    model.train("vgg16" not in str(options) and name != "deeplab_v1")
    assert overfit(model, rate=3e-3, steps=60) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deeplab_v2", {"backbone": "resnet50"}),
        ("deeplab_v3", {"backbone": "resnet50"}),
        ("deeplab_v3", {"backbone": "resnet50", **TORCHVISION}),
        ("deeplab_v3_cascade", {"backbone": "resnet50"}),
        ("deeplab_v3plus", {"backbone": "resnet50"}),
        ("deeplab_v3plus", {"backbone": "xception65"}),
        ("deeplab_v3plus", {"decoder": False, "aspp": False, "tensorflow": True}),
    ],
)
def test_each_large_network_overfits_four_images(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    assert overfit(create_model(name, num_classes=3, **options).train(), rate=1e-3, steps=40) > 0.9


# --- Bad input


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("deeplab_v1", {"rate": 0}, "rate 0"),
        ("deeplab_v1", {"kernel_size": 4, "rate": 3}, "kernel_size 4 and rate 3"),
        ("deeplab_v1", {"hidden": 0}, "0 channels"),
        ("deeplab_v1", {"output_stride": 8}, "output_stride"),
        ("deeplab_v2", {"aspp": "M"}, "aspp 'M': must be one of S, L"),
        (
            "deeplab_v2",
            {"backbone": "vgg16", "output_stride": 16},
            "16: must be 8 for DeepLab v2 on vgg16",
        ),
        ("deeplab_v2", {"output_stride": 32}, "32: must be 8 or 16 for DeepLab v2"),
        ("deeplab_v2", {"backbone": "resnet18"}, "ResNet-18: has no bottlenecks"),
        ("deeplab_v2", {"backbone": "tiny"}, "'tiny': must be vgg16 or a ResNet"),
        ("deeplab_v3", {"output_stride": 32}, "32: must be 8 or 16 for DeepLabV3"),
        ("deeplab_v3", {"dropout": 1.5}, "1.5: must be 0 or more and below 1"),
        ("deeplab_v3_cascade", {"backbone": "resnet18"}, "'resnet18': must be one of resnet50"),
        ("deeplab_v3_cascade", {"last_block": 8}, "8: must be 4 to 7"),
        (
            "deeplab_v3plus",
            {"backbone": "xception65", "output_stride": 4},
            r"4: must be 8 or 16 for DeepLabV3\+",
        ),
        (
            "deeplab_v3plus",
            {"backbone": "xception65", "tensorflow": True},
            "tensorflow True: .* not of xception65",
        ),
        (
            "deeplab_v3plus",
            {"backbone": "vgg16"},
            "'vgg16' is unknown: must be one of mobilenet_v2",
        ),
        ("deeplab_v3plus", {"rates": 6}, "no option 'rates': its options are backbone"),
        ("deeplab_v3plus", {"output_stride": "8"}, "output_stride = '8': must be an integer"),
        ("deeplab_v3plus", {"output_stride": True}, "output_stride = True: must be an integer"),
        ("deeplab_v3plus", {"separable": 1}, "separable = 1: must be true or false"),
        ("deeplab_v3plus", {"backbone": 50}, "backbone = 50: must be a string"),
        ("deeplab_v3", {"dropout": "half"}, "dropout = 'half': must be a number"),
        ("deeplab_v3", {"dropout": float("nan")}, "dropout nan: must be 0 or more and below 1"),
        ("deeplab_v2", {"backbone": "vgg16", "width": 0}, "width 0: must be above 0"),
        ("deeplab_v1", {"width": float("inf")}, "width inf: must be above 0"),
    ],
)
def test_invalid_options_are_rejected(name: str, options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=message):
        create_model(name, num_classes=2, **options)


def test_invalid_scales_and_multi_grids_are_rejected() -> None:
    with torch.device("meta"):
        backbone = create_backbone("tiny", output_stride=8)
        for scale in (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(InputError, match="must be numbers above 0"):
                Segmenter(backbone, nn.Identity(), scales=(0.5, scale))
        with pytest.raises(InputError, match="needs 3 unit rates"):
            create_backbone("resnet50", output_stride=8, multi_grid=(1, 2))
