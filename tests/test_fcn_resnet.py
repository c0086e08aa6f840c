"""FCN on ResNet: an independent forward pass, published sizes, dilation, both heads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from networks import overfit, randomize, relative_difference
from pixelwise.backbones import create_backbone
from pixelwise.errors import InputError
from pixelwise.models import count_multiply_adds, count_parameters, create_model

DEPTHS = (18, 34, 50, 101, 152)


# --- An independent forward pass, written from table 1 of the paper.


def conv_bn(state: dict[str, Tensor], x: Tensor, conv: str, norm: str, **geometry: int) -> Tensor:
    x = F.conv2d(x, state[f"{conv}.weight"], **geometry)
    statistics = (state[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *statistics, eps=1e-5)


def reference_resnet(
    state: dict[str, Tensor], x: Tensor, depth: int, output_stride: int
) -> dict[str, Tensor]:
    counts = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}[depth]
    x = conv_bn(state, x, "conv1", "bn1", stride=2, padding=3).relu()
    maps = {"c1": x}
    x = F.max_pool2d(x, 3, 2, 1)
    reached, rate = 4, 1
    for stage, count in enumerate(counts, start=1):
        for block in range(count):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            own_rate = rate
            if reached * stride > output_stride:
                stride, rate = 1, 2 * rate
            reached *= stride
            y = x
            kernels = {
                18: [(3, stride, own_rate), (3, 1, rate)],
                34: [(3, stride, own_rate), (3, 1, rate)],
                50: [(1, 1, 1), (3, stride, own_rate), (1, 1, 1)],
            }[depth]
            for number, (kernel, step, dilation) in enumerate(kernels, start=1):
                y = conv_bn(
                    state,
                    y,
                    f"{name}.conv{number}",
                    f"{name}.bn{number}",
                    stride=step,
                    padding=dilation if kernel == 3 else 0,
                    dilation=dilation,
                )
                y = y.relu() if number < len(kernels) else y
            if f"{name}.downsample.0.weight" in state:
                shortcut = f"{name}.downsample"
                x = conv_bn(state, x, f"{shortcut}.0", f"{shortcut}.1", stride=stride)
            x = (x + y).relu()
        maps[f"c{stage + 1}"] = x
    return maps


def substate(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}


def reference_head(state: dict[str, Tensor], x: Tensor, size: tuple[int, int]) -> Tensor:
    x = conv_bn(state, x, "0", "1", padding=1).relu()
    x = F.conv2d(x, state["4.weight"], state["4.bias"])
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("size", [(64, 64), (75, 97)])
@pytest.mark.parametrize("depth", [18, 50])
def test_fcn_resnet_dilated_matches_an_independent_forward(
    depth: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    model = create_model("fcn_resnet_dilated", num_classes=5, backbone=f"resnet{depth}")
    model = randomize(model)
    state, image = model.state_dict(), torch.randn(1, 3, *size)
    with torch.no_grad():
        maps = reference_resnet(substate(state, "backbone"), image, depth, 8)
        logits, auxiliary = model.training_logits(image)
        expected = reference_head(substate(state, "head"), maps["c5"], size)
        assert relative_difference(logits, expected) < 1e-5
        assert torch.equal(model(image), logits)
        expected = reference_head(substate(state, "auxiliary"), maps["c4"], size)
        assert relative_difference(auxiliary, expected) < 1e-5


@pytest.mark.parametrize("size", [(64, 96), (75, 97)])
@pytest.mark.parametrize("depth", [18, 34])
def test_fcn_resnet_matches_an_independent_forward(depth: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = create_model("fcn_resnet", num_classes=5, backbone=f"resnet{depth}")
    kernel = model.head.upsampling.weight
    line = 1 - (torch.arange(64) - 31.5).abs() / 32
    assert torch.allclose(kernel[2, 2], line[:, None] * line[None], atol=1e-6)
    assert not kernel[2, 3].any()
    randomize(model)  # including the kernel, as after training
    state, image = model.state_dict(), torch.randn(1, 3, *size)
    with torch.no_grad():
        x = reference_resnet(substate(state, "backbone"), image, depth, 32)["c5"]
        x = F.conv2d(x, state["head.score.weight"], state["head.score.bias"])
        x = F.conv_transpose2d(x, kernel, stride=32, padding=16)
        if size == (64, 96):
            assert x.shape[2:] == size
        assert relative_difference(model(image), x[:, :, : size[0], : size[1]]) < 1e-5


# --- Size


@pytest.mark.parametrize(
    ("depth", "parameters", "multiply_adds"),
    # torchvision's complete classifiers, at 224.
    [
        (18, 11_689_512, 1.814e9),
        (34, 21_797_672, 3.664e9),
        (50, 25_557_032, 4.089e9),
        (101, 44_549_160, 7.801e9),
        (152, 60_192_808, 11.514e9),
    ],
)
def test_resnets_have_the_published_sizes(
    depth: int, parameters: int, multiply_adds: float
) -> None:
    with torch.device("meta"):
        backbone = create_backbone(f"resnet{depth}", output_stride=32)
        features = backbone.channels["c5"]
        assert count_parameters(backbone) + 1000 * features + 1000 == parameters
        total = count_multiply_adds(backbone, height=224, width=224) + 1000 * features
    assert total == pytest.approx(multiply_adds, rel=1e-3)


def test_dilated_networks_have_the_parameter_counts_of_torchvision() -> None:
    for depth, expected in ((50, 35_322_218), (101, 54_314_346)):
        with torch.device("meta"):
            model = create_model("fcn_resnet_dilated", num_classes=21, backbone=f"resnet{depth}")
        assert count_parameters(model) == expected


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("depth", [18, 50])
def test_dilated_resnet_contains_the_maps_of_the_strided_one(
    depth: int, output_stride: int
) -> None:
    torch.manual_seed(0)
    dense = randomize(create_backbone(f"resnet{depth}", output_stride=output_stride))
    coarse = create_backbone(f"resnet{depth}", output_stride=2 * output_stride).eval()
    coarse.load_state_dict(dense.state_dict())
    image = torch.randn(1, 3, 97, 65)
    with torch.no_grad():
        one, other = dense(image)["c5"], coarse(image)["c5"]
    assert relative_difference(one[:, :, ::2, ::2], other) < 1e-5


@settings(max_examples=20)
@given(
    st.sampled_from(["fcn_resnet", "fcn_resnet_dilated"]), st.integers(1, 600), st.integers(1, 600)
)
def test_output_has_the_size_of_the_image(name: str, height: int, width: int) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=2, backbone="resnet18").eval()
        assert model(torch.zeros(1, 3, height, width)).shape == (1, 2, height, width)


# --- Learning


@pytest.mark.parametrize("upsampling", ["learned", "frozen", "interpolate"])
def test_every_parameter_of_fcn_resnet_gets_a_gradient(upsampling: str) -> None:
    torch.manual_seed(0)
    model = create_model("fcn_resnet", num_classes=3, backbone="resnet18", upsampling=upsampling)
    model(torch.randn(2, 3, 65, 97)).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_every_parameter_of_fcn_resnet_dilated_gets_a_gradient_from_both_heads() -> None:
    torch.manual_seed(0)
    model = create_model("fcn_resnet_dilated", num_classes=3, backbone="resnet18")
    sum(o.square().mean() for o in model.training_logits(torch.randn(2, 3, 65, 97))).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    without = create_model(
        "fcn_resnet_dilated", num_classes=3, backbone="resnet18", auxiliary=False
    )
    assert len(without.training_logits(torch.randn(2, 3, 33, 33))) == 1


@pytest.mark.parametrize("name", ["fcn_resnet", "fcn_resnet_dilated"])
def test_each_network_overfits_four_images(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, backbone="resnet18").train()
    steps, side = (24, 48) if name == "fcn_resnet_dilated" else (40, 64)
    assert overfit(model, rate=1e-3, steps=steps, side=side) > 0.9


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fcn_resnet", {"backbone": "tiny"}, "backbone 'tiny': must be a ResNet"),
        ("fcn_resnet", {"backbone": "resnet19"}, "backbone 'resnet19' is unknown: must be one of"),
        ("fcn_resnet", {"output_stride": 8}, "'fcn_resnet' has no option 'output_stride'"),
        ("fcn_resnet_dilated", {"output_stride": 4}, "output_stride 4: must be one of 8, 16, 32"),
    ],
)
def test_invalid_options_are_rejected(name: str, options: dict[str, object], message: str) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=message):
        create_model(name, num_classes=2, **options)
