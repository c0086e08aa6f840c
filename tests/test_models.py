"""Networks: the published numbers, an independent forward, sizes, gradients, strides."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from networks import randomise, relative_difference
from pixelwise.backbones import create_backbone
from pixelwise.backbones.mobilenet_v2 import MobileNetV2
from pixelwise.errors import InputError
from pixelwise.layers import ASPP, BatchNorm2d, ConvNormAct
from pixelwise.models import count_multiply_adds, count_parameters, create_model

# --- An independent forward: functional, written from the papers' tables over the state dict alone.


def conv_bn(
    state: dict[str, Tensor], x: Tensor, conv: str, norm: str, act: str = "", **kw: int
) -> Tensor:
    x = F.conv2d(x, state[f"{conv}.weight"], **kw)
    statistics = (state[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
    x = F.batch_norm(x, *statistics, eps=1e-5)
    return {"": x, "relu": F.relu(x), "relu6": x.clamp(0, 6)}[act]


# MobileNetV2 table 2, unrolled: name in torchvision, expansion, stride at output stride 32.
BLOCKS = [
    (1, 1, 1),
    *[(n, 6, 2 if n in (2, 4, 7, 14) else 1) for n in range(2, 18)],
]


def reference_mobilenet(
    state: dict[str, Tensor], x: Tensor, output_stride: int
) -> dict[int, Tensor]:
    """The output of each block, by its number in torchvision's `features`."""
    x = conv_bn(state, x, "features.0.0", "features.0.1", "relu6", stride=2, padding=1)
    maps, reached, rate = {}, 2, 1
    for number, expansion, stride in BLOCKS:
        prefix = f"features.{number}.conv."
        after = rate
        if reached * stride > output_stride:
            stride, after = 1, rate * 2
        y, part = x, 0
        if expansion > 1:
            y = conv_bn(state, y, f"{prefix}0.0", f"{prefix}0.1", "relu6")
            part = 1
        y = conv_bn(
            state,
            y,
            f"{prefix}{part}.0",
            f"{prefix}{part}.1",
            "relu6",
            stride=stride,
            padding=rate,
            dilation=rate,
            groups=y.shape[1],
        )
        y = conv_bn(state, y, f"{prefix}{part + 1}", f"{prefix}{part + 2}")
        x = x + y if stride == 1 and x.shape == y.shape else y
        reached, rate = reached * stride, after
        maps[number] = x
    return maps


def separable(state: dict[str, Tensor], x: Tensor, name: str, rate: int = 1) -> Tensor:
    x = conv_bn(
        state,
        x,
        f"{name}.0.0",
        f"{name}.0.1",
        "relu",
        padding=rate,
        dilation=rate,
        groups=x.shape[1],
    )
    return conv_bn(state, x, f"{name}.1.0", f"{name}.1.1", "relu")


def reference_deeplab_v3plus(state: dict[str, Tensor], image: Tensor, stride: int) -> Tensor:
    backbone = {k.removeprefix("backbone."): v for k, v in state.items() if k[0] == "b"}
    head = {k.removeprefix("head."): v for k, v in state.items() if k[0] == "h"}
    maps = reference_mobilenet(backbone, image, stride)
    low, high = maps[3], maps[17]
    rates = {16: (6, 12, 18), 8: (12, 24, 36)}[stride]
    branches = [conv_bn(head, high, "context.branches.0.0", "context.branches.0.1", "relu")]
    branches += [
        separable(head, high, f"context.branches.{i}", rate) for i, rate in enumerate(rates, 1)
    ]
    pooled = high.mean((2, 3), keepdim=True)
    name = "context.branches.4.project"
    pooled = conv_bn(head, pooled, f"{name}.0", f"{name}.1", "relu")
    branches.append(pooled.expand_as(branches[0]))
    x = torch.cat(branches, 1)
    x = conv_bn(head, x, "context.project.0", "context.project.1", "relu")
    low = conv_bn(head, low, "detail.0", "detail.1", "relu")
    x = F.interpolate(x, low.shape[2:], mode="bilinear", align_corners=False)
    x = torch.cat([x, low], 1)
    x = separable(head, separable(head, x, "fuse.0"), "fuse.1")
    x = F.conv2d(x, head["classify.weight"], head["classify.bias"])
    return F.interpolate(x, image.shape[2:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize("size", [(65, 97), (128, 64), (224, 224)])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_deeplab_v3plus_equals_a_plain_forward(output_stride: int, size: tuple[int, int]) -> None:
    model = randomise(create_model("deeplab_v3plus", num_classes=5, output_stride=output_stride))
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference_deeplab_v3plus(model.state_dict(), image, output_stride)
        assert relative_difference(model(image), expected) < 1e-5


def test_mobilenet_has_the_published_size() -> None:
    # torchvision's mobilenet_v2 has 3,504,872 parameters; without the 1x1 convolution to 1280
    # (320 * 1280 weights, 2 * 1280 of its norm) and the classifier (1280 * 1000 + 1000):
    assert count_parameters(MobileNetV2()) == 3_504_872 - (320 * 1280 + 2 * 1280) - 1_281_000


def test_multiply_adds_agree_with_the_published_300_million() -> None:
    # MobileNetV2 (arXiv:1801.04381, table 4): 300M at 224 for the whole classifier.
    backbone = MobileNetV2(output_stride=32)
    rest = 320 * 1280 * 7 * 7 + 1280 * 1000
    with torch.device("meta"):
        total = count_multiply_adds(MobileNetV2(output_stride=32), height=224, width=224) + rest
    assert total == pytest.approx(300e6, rel=0.01)
    assert count_multiply_adds(backbone, height=224, width=224) + rest == total


@pytest.mark.parametrize("output_stride", [8, 16])
def test_mobilenet_dilated_contains_the_strided_network(output_stride: int) -> None:
    torch.manual_seed(0)
    dense = randomise(create_backbone("mobilenet_v2", output_stride=output_stride))
    coarse = create_backbone("mobilenet_v2", output_stride=2 * output_stride).eval()
    coarse.load_state_dict(dense.state_dict())
    image = torch.randn(1, 3, 129, 97)
    with torch.no_grad():
        one, other = dense(image)["c5"], coarse(image)["c5"]
    assert relative_difference(one[:, :, ::2, ::2], other) < 1e-5


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("backbone", ["mobilenet_v2", "tiny"])
def test_logits_fit_the_image_and_every_weight_learns(backbone: str, output_stride: int) -> None:
    torch.manual_seed(0)
    model = create_model(
        "deeplab_v3plus", num_classes=3, backbone=backbone, output_stride=output_stride
    )
    logits = model(torch.randn(2, 3, 65, 97))  # odd and oblong: catches swapped or rounded sizes
    assert logits.shape == (2, 3, 65, 97)
    logits.square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([8, 16]))
def test_every_size_comes_out_at_its_own(height: int, width: int, output_stride: int) -> None:
    model = create_model(
        "deeplab_v3plus", num_classes=2, backbone="tiny", output_stride=output_stride
    ).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, height, width)).shape == (1, 2, height, width)


@pytest.mark.parametrize("size", [(1, 1), (1, 513), (33, 500), (513, 513)])
def test_the_default_network_takes_extreme_sizes(size: tuple[int, int]) -> None:
    model = create_model("deeplab_v3plus", num_classes=4).eval()
    with torch.no_grad():
        logits = model(torch.zeros(1, 3, *size))
    assert logits.shape == (1, 4, *size)
    assert logits.isfinite().all()


def test_training_survives_a_batch_of_one() -> None:
    model = create_model("deeplab_v3plus", num_classes=2, backbone="tiny").train()
    model(torch.randn(1, 3, 32, 32)).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_batch_norm_is_the_plain_one_wherever_that_works() -> None:
    torch.manual_seed(0)
    ours, plain = BatchNorm2d(3), nn.BatchNorm2d(3)
    for shape in [(1, 3, 2, 1), (2, 3, 1, 1), (2, 3, 4, 5)]:
        x = torch.randn(shape)
        assert torch.equal(ours(x), plain(x))
        assert torch.equal(ours.running_var, plain.running_var)
    with pytest.raises(ValueError, match="more than 1 value"):
        plain(torch.randn(1, 3, 1, 1))
    assert ours(torch.randn(1, 3, 1, 1)).isfinite().all()


def test_aspp_beyond_the_map_sees_its_middle_tap_only() -> None:
    # A rate larger than the map leaves the 3x3 branch its middle weight (DeepLabV3, section 3.3).
    aspp = randomise(ASPP(4, 4, rates=(9,))).eval()
    x = torch.randn(1, 4, 5, 5)
    branch = aspp.branches[1]
    middle = F.conv2d(x, branch[0].weight[:, :, 1:2, 1:2])
    assert torch.allclose(branch[0](x), middle, atol=1e-6)


def test_conv_norm_act_keeps_the_size() -> None:
    x = torch.zeros(1, 2, 7, 9)
    for kernel, dilation in [(1, 1), (3, 1), (3, 4), (5, 2)]:
        assert ConvNormAct(2, 3, kernel_size=kernel, dilation=dilation)(x).shape == (1, 3, 7, 9)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: create_model("unet", num_classes=2), "'unet'"),
        (lambda: create_model("deeplab_v3plus", num_classes=0), "num_classes 0"),
        (lambda: create_model("deeplab_v3plus", num_classes=2, output_stride=12), "12"),
        (lambda: create_model("deeplab_v3plus", num_classes=2, backbone="vit"), "'vit'"),
        (lambda: create_model("deeplab_v3plus", num_classes=2, depth=3), "depth"),
        (lambda: create_backbone("mobilenet_v2", output_stride=4), "4"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(call: object, named: str) -> None:
    with pytest.raises(InputError, match=named):
        call()  # type: ignore[operator]
