"""Networks: published numbers, an independent forward pass, sizes, gradients, the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from networks import noise, randomize, relative_difference
from pixelwise.backbones import BACKBONES, Backbone, create_backbone
from pixelwise.backbones.mobilenet_v2 import MobileNetV2
from pixelwise.errors import InputError
from pixelwise.layers import ASPP, BatchNorm2d, ConvNormAct
from pixelwise.models import (
    MODELS,
    backbone_name,
    count_multiply_adds,
    count_parameters,
    create_model,
    list_models,
)
from pixelwise.weights.create_model import create_model as create_model_with_weights
from pixelwise.weights.import_weights import read_state_dict
from pixelwise.weights.published.fetch import find_imagenet_weights

# --- An independent forward pass, written from the tables of the papers.


def conv_bn(
    state: dict[str, Tensor], x: Tensor, conv: str, norm: str, act: str = "", **kw: int
) -> Tensor:
    x = F.conv2d(x, state[f"{conv}.weight"], **kw)
    statistics = (state[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
    x = F.batch_norm(x, *statistics, eps=1e-5)
    return {"": x, "relu": F.relu(x), "relu6": x.clamp(0, 6)}[act]


# Table 2 of MobileNetV2, unrolled: index in torchvision, expansion, stride at output stride 32.
BLOCKS = [(1, 1, 1), *[(n, 6, 2 if n in (2, 4, 7, 14) else 1) for n in range(2, 18)]]


def reference_mobilenet(
    state: dict[str, Tensor], x: Tensor, output_stride: int
) -> dict[int, Tensor]:
    """The output of each block, by its index in torchvision's `features`."""
    x = conv_bn(state, x, "features.0.0", "features.0.1", "relu6", stride=2, padding=1)
    maps, reached, rate = {}, 2, 1
    for number, expansion, stride in BLOCKS:
        prefix = f"features.{number}.conv."
        after = rate
        if reached * stride > output_stride:
            stride, after = 1, rate * 2
        y, first = x, 0
        if expansion > 1:
            y = conv_bn(state, y, f"{prefix}0.0", f"{prefix}0.1", "relu6")
            first = 1
        y = conv_bn(
            state,
            y,
            f"{prefix}{first}.0",
            f"{prefix}{first}.1",
            "relu6",
            stride=stride,
            padding=rate,
            dilation=rate,
            groups=y.shape[1],
        )
        y = conv_bn(state, y, f"{prefix}{first + 1}", f"{prefix}{first + 2}")
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
def test_deeplab_v3plus_matches_an_independent_forward(
    output_stride: int, size: tuple[int, int]
) -> None:
    model = randomize(create_model("deeplab_v3plus", num_classes=5, output_stride=output_stride))
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference_deeplab_v3plus(model.state_dict(), image, output_stride)
        assert relative_difference(model(image), expected) < 1e-5


def test_mobilenet_has_the_published_parameter_count() -> None:
    # torchvision's mobilenet_v2 has 3,504,872 parameters, including the 1x1 convolution to 1280
    # (320 * 1280 weights, 2 * 1280 of its norm) and the classifier (1280 * 1000 + 1000).
    assert count_parameters(MobileNetV2()) == 3_504_872 - (320 * 1280 + 2 * 1280) - 1_281_000


def test_multiply_adds_match_the_published_300_million() -> None:
    # MobileNetV2 (arXiv:1801.04381, table 4): 300M at 224 for the complete classifier.
    backbone = MobileNetV2(output_stride=32)
    rest = 320 * 1280 * 7 * 7 + 1280 * 1000
    with torch.device("meta"):
        total = count_multiply_adds(MobileNetV2(output_stride=32), height=224, width=224) + rest
    assert total == pytest.approx(300e6, rel=0.01)
    assert count_multiply_adds(backbone, height=224, width=224) + rest == total


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_mobilenet_contains_the_maps_of_the_strided_one(output_stride: int) -> None:
    torch.manual_seed(0)
    dense = randomize(create_backbone("mobilenet_v2", output_stride=output_stride))
    coarse = create_backbone("mobilenet_v2", output_stride=2 * output_stride).eval()
    coarse.load_state_dict(dense.state_dict())
    image = torch.randn(1, 3, 129, 97)
    with torch.no_grad():
        one, other = dense(image)["c5"], coarse(image)["c5"]
    assert relative_difference(one[:, :, ::2, ::2], other) < 1e-5


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("backbone", ["mobilenet_v2", "tiny"])
def test_logits_match_the_image_size_and_every_parameter_gets_a_gradient(
    backbone: str, output_stride: int
) -> None:
    torch.manual_seed(0)
    model = create_model(
        "deeplab_v3plus", num_classes=3, backbone=backbone, output_stride=output_stride
    )
    logits = model(torch.randn(2, 3, 65, 97))  # odd, not square: catches swapped or rounded sizes
    assert logits.shape == (2, 3, 65, 97)
    logits.square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("scale", [0.5, 1.25, 2.0])
@pytest.mark.parametrize("size", [(48, 64), (33, 65)])
def test_an_input_scale_resizes_the_image_and_the_logits(
    scale: float, size: tuple[int, int]
) -> None:
    options: dict[str, Any] = {"num_classes": 3, "backbone": "tiny"}
    plain = randomize(create_model("deeplab_v3plus", **options))
    scaled = create_model("deeplab_v3plus", **options, input_scale=scale).eval()
    scaled.load_state_dict(plain.state_dict())
    image = noise(1, 3, *size)
    inner = (int(size[0] * scale), int(size[1] * scale))
    with torch.no_grad():
        coarse = plain.coarse_logits(F.interpolate(image, inner, mode="bilinear"))
        expected = F.interpolate(coarse, size, mode="bilinear")
        assert relative_difference(scaled(image), expected) < 1e-5
        assert relative_difference(scaled.training_logits(image)[0], expected) < 1e-5
        (small,) = scaled.training_logits(image, upsample=False)
    assert relative_difference(small, coarse) < 1e-5


def test_the_stride_2_skip_matches_an_independent_forward() -> None:
    model = randomize(
        create_model("deeplab_v3plus", num_classes=3, backbone="tiny", stride_2_skip=True)
    )
    image, state = noise(1, 3, 66, 97), model.state_dict()

    def block(x: Tensor, name: str, **options: int) -> Tensor:
        name = f"head.refine.{name}"
        return conv_bn(state, x, f"{name}.0", f"{name}.1", "relu", **options)

    with torch.no_grad():
        features = model.backbone(image)
        head: Any = model.head
        detail = head.detail(features["c2"])
        context = F.interpolate(head.context(features["c5"]), detail.shape[2:], mode="bilinear")
        fused = head.fuse(torch.cat([context, detail], dim=1))
        coarse = F.interpolate(block(fused, "reduce"), features["c1"].shape[2:], mode="bilinear")
        both = torch.cat([coarse, block(features["c1"], "detail")], dim=1)
        assert both.shape[1] == 64
        refined = block(block(both, "fuse.0", groups=64, padding=1), "fuse.1")
        expected = F.conv2d(refined, state["head.classify.weight"], state["head.classify.bias"])
        assert expected.shape[2:] == (33, 49)
        assert relative_difference(model.coarse_logits(image), expected) < 1e-5


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([8, 16]))
def test_output_has_the_size_of_the_image(height: int, width: int, output_stride: int) -> None:
    model = create_model(
        "deeplab_v3plus", num_classes=2, backbone="tiny", output_stride=output_stride
    ).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, height, width)).shape == (1, 2, height, width)


@pytest.mark.parametrize("size", [(1, 1), (1, 513), (33, 500), (513, 513)])
def test_default_network_accepts_extreme_sizes(size: tuple[int, int]) -> None:
    model = create_model("deeplab_v3plus", num_classes=4).eval()
    with torch.no_grad():
        logits = model(torch.zeros(1, 3, *size))
    assert logits.shape == (1, 4, *size)
    assert logits.isfinite().all()


def test_training_works_with_a_batch_of_one() -> None:
    model = create_model("deeplab_v3plus", num_classes=2, backbone="tiny").train()
    model(torch.randn(1, 3, 32, 32)).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_batch_norm_equals_pytorchs_wherever_that_works() -> None:
    torch.manual_seed(0)
    ours, plain = BatchNorm2d(3), nn.BatchNorm2d(3)
    for shape in [(1, 3, 2, 1), (2, 3, 1, 1), (2, 3, 4, 5)]:
        x = torch.randn(shape)
        assert torch.equal(ours(x), plain(x))
        assert torch.equal(ours.running_var, plain.running_var)
    with pytest.raises(ValueError, match="more than 1 value"):
        plain(torch.randn(1, 3, 1, 1))
    assert ours(torch.randn(1, 3, 1, 1)).isfinite().all()


def test_aspp_rate_beyond_the_map_uses_only_the_center_weight() -> None:
    # With a rate above the map size only the center weight of the 3x3 branch sees the map
    # (DeepLabV3, section 3.3).
    aspp = randomize(ASPP(4, 4, rates=(9,))).eval()
    x = torch.randn(1, 4, 5, 5)
    branch = aspp.branches[1]
    center = F.conv2d(x, branch[0].weight[:, :, 1:2, 1:2])
    assert torch.allclose(branch[0](x), center, atol=1e-6)


def test_conv_norm_act_keeps_the_size() -> None:
    x = torch.zeros(1, 2, 7, 9)
    for kernel, dilation in [(1, 1), (3, 1), (3, 4), (5, 2)]:
        assert ConvNormAct(2, 3, kernel_size=kernel, dilation=dilation)(x).shape == (1, 3, 7, 9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: create_model("unet", num_classes=2),
            "model 'unet' is unknown: must be one of fcn",
        ),
        (
            lambda: create_model("deeplabv3plus", num_classes=2),
            r"model 'deeplabv3plus' is unknown \(did you mean deeplab_v3plus or .*\): must be",
        ),
        (lambda: create_model("deeplab_v3plus", num_classes=0), "num_classes 0: must be 1 to 255"),
        (
            lambda: create_model("deeplab_v3plus", num_classes=2, output_stride=12),
            "output_stride 12: must be 8 or 16",
        ),
        (
            lambda: create_model("deeplab_v3plus", num_classes=2, backbone="vit"),
            "backbone 'vit' is unknown: must be one of mobilenet_v2",
        ),
        (
            lambda: create_model("deeplab_v3plus", num_classes=2, outputstride=8),
            r"no option 'outputstride' \(did you mean output_stride\?\): its options are backbone",
        ),
        (
            lambda: create_backbone("mobilenet_v2", output_stride=4),
            "output_stride 4: must be one of 8, 16, 32",
        ),
        (
            lambda: create_model("deeplab_v3plus", num_classes=2, input_scale=5.0),
            "input_scale 5: must be from 0.25 to 4",
        ),
        (
            lambda: create_model(
                "deeplab_v3plus", num_classes=2, decoder=False, stride_2_skip=True
            ),
            "stride_2_skip: is a part of the decoder",
        ),
    ],
)
def test_invalid_arguments_are_rejected(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]


def test_networks_are_listed_by_pattern() -> None:
    assert list_models() == list(MODELS)
    assert list_models("deeplab_v3*") == ["deeplab_v3", "deeplab_v3_cascade", "deeplab_v3plus"]
    assert list_models("unet*") == []


def test_every_listed_variant_has_valid_options() -> None:
    for name, entry in MODELS.items():
        for variant in entry.variants:
            with torch.device("meta"):
                create_model(name, num_classes=2, **variant.options)
            assert backbone_name(name, variant.options) == variant.backbone


def test_option_types_come_from_the_signature() -> None:
    types = MODELS["deeplab_v3plus"].option_types()
    assert types["separable"] == (bool, type(None))
    assert types["width"] == (float,)
    assert set(MODELS["fcn8s"].option_types()) == {"upsampling", "ceil_mode", "width"}
    create_model("deeplab_v3plus", num_classes=2, width=1, separable=None)


def test_backbones_are_modules_with_described_maps() -> None:
    for name in BACKBONES:
        with torch.device("meta"):
            backbone = create_backbone(name, output_stride=8)
            maps = backbone(torch.zeros(1, 3, 64, 96))
        assert isinstance(backbone, Backbone)
        assert {key: m.shape[1] for key, m in maps.items()} == backbone.channels
        for key, m in maps.items():
            stride = backbone.strides[key]
            assert m.shape[2:] == (64 / stride, 96 / stride)


def test_create_model_loads_weights_into_the_backbone(tmp_path: Path) -> None:
    source = MobileNetV2(width=0.25)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    options = {"backbone": "mobilenet_v2", "width": 0.25}
    for channels in (3, 5):
        model = create_model_with_weights(
            "deeplab_v3plus",
            num_classes=4,
            in_channels=channels,
            weights=tmp_path / "w.pth",
            **options,
        )
        assert model.eval()(torch.zeros(2, channels, 33, 33)).shape == (2, 4, 33, 33)
        first, *others = model.backbone.state_dict().items()
        assert torch.equal(first[1][:, :3], source.state_dict()[first[0]])
        for key, tensor in others:
            assert torch.equal(tensor, source.state_dict()[key]), key


def test_create_model_without_weights_is_random(tmp_path: Path) -> None:
    models = []
    for weights in (None, "none"):
        torch.manual_seed(0)
        models.append(
            create_model_with_weights(
                "deeplab_v3plus", num_classes=2, backbone="tiny", weights=weights
            )
        )
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(InputError, match="no ImageNet weights are known for it"):
        create_model_with_weights(
            "deeplab_v3plus", num_classes=2, backbone="tiny", weights="imagenet"
        )
    with pytest.raises(InputError, match=r"absent\.pth: cannot be read"):
        create_model_with_weights(
            "deeplab_v3plus", num_classes=2, backbone="tiny", weights=tmp_path / "absent.pth"
        )


def test_create_model_finds_imagenet_weights() -> None:
    try:
        path = find_imagenet_weights("mobilenet_v2")
    except InputError as error:
        pytest.skip(str(error))
    model = create_model_with_weights("deeplab_v3plus", num_classes=2, weights="imagenet")
    published = read_state_dict(path)
    for key, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, published[key].reshape(tensor.shape)), key
