"""EfficientNet-Lite against an independent forward pass, the published figures and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from networks import noise, randomize, relative_difference
from pixelwise.backbones import create_backbone
from pixelwise.errors import InputError
from pixelwise.models import count_multiply_adds, count_parameters, create_model
from pixelwise.weights.load_backbone import load_backbone
from pixelwise.weights.normalization import Normalization
from pixelwise.weights.published.fetch import find_imagenet_weights

# From the README of google/automl, efficientnet/lite: input side, parameters and multiply-adds in
# millions of the whole classifier; repeats of the seven stages.
PUBLISHED = {
    0: (224, 4.7, 407, (1, 2, 2, 3, 3, 4, 1)),
    1: (240, 5.4, 631, (1, 3, 3, 4, 4, 5, 1)),
    2: (260, 6.1, 899, (1, 3, 3, 4, 4, 5, 1)),
}
KERNELS, STRIDES = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)


def reference(state: dict[str, Tensor], image: Tensor, variant: int) -> list[Tensor]:
    """Compute the output of every stage from tensors with their published names."""

    def conv(x: Tensor, name: str, norm: str, *, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = state[f"{name}.weight"]
        pads: list[int] = []
        for side in (x.shape[3], x.shape[2]):  # TensorFlow's SAME
            total = max(0, (-(-side // stride) - 1) * stride + kernel.shape[2] - side)
            pads += [total // 2, total - total // 2]
        x = F.conv2d(F.pad(x, pads), kernel, stride=stride, groups=groups)
        statistics = [state[f"{norm}.{each}"] for each in ("running_mean", "running_var")]
        affine = [state[f"{norm}.{each}"] for each in ("weight", "bias")]
        return F.batch_norm(x, *statistics, *affine, eps=1e-3)

    x = conv(image, "_conv_stem", "_bn0", stride=2).clamp(0, 6)
    outputs, number = [], 0
    for stage, repeats in enumerate(PUBLISHED[variant][3]):
        for repeat in range(repeats):
            block, before = f"_blocks.{number}", x
            if stage > 0:
                x = conv(x, f"{block}._expand_conv", f"{block}._bn0").clamp(0, 6)
            stride = STRIDES[stage] if repeat == 0 else 1
            assert state[f"{block}._depthwise_conv.weight"].shape[2] == KERNELS[stage]
            x = conv(
                x, f"{block}._depthwise_conv", f"{block}._bn1", stride=stride, groups=x.shape[1]
            ).clamp(0, 6)
            x = conv(x, f"{block}._project_conv", f"{block}._bn2")
            x = x + before if repeat > 0 else x
            number += 1
        outputs.append(x)
    return outputs


def published_state(variant: int) -> dict[str, Tensor]:
    """Return random weights with the published names."""
    backbone = randomize(create_backbone(f"efficientnet_lite{variant}", output_stride=32))
    prefixes = sorted(backbone.published_prefixes().items(), key=lambda pair: -len(pair[0]))
    state = {}
    for name, tensor in backbone.state_dict().items():
        prefix, theirs = next(pair for pair in prefixes if name.startswith(pair[0]))
        state[theirs + name.removeprefix(prefix)] = tensor
    assert len(state) == len(backbone.state_dict())
    rest = {"_conv_head.weight": (1280, 320, 1, 1), "_bn1.bias": (1280,), "_fc.bias": (1000,)}
    return state | {name: torch.zeros(shape) for name, shape in rest.items()}


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (47, 30)])
@pytest.mark.parametrize("variant", PUBLISHED)
def test_maps_match_an_independent_forward(
    variant: int, size: tuple[int, int], tmp_path: Path
) -> None:
    state = published_state(variant)
    torch.save(state, tmp_path / "w.pth")
    backbone = create_backbone(f"efficientnet_lite{variant}", output_stride=32).eval()
    normalization = load_backbone(backbone, f"efficientnet_lite{variant}", tmp_path / "w.pth")
    gray = normalization(torch.tensor([0.0, 127, 255]).view(1, 1, 1, 3).expand(1, 3, 1, 3))
    assert gray[0, 0, 0].tolist() == pytest.approx([-127 / 128, 0, 1])
    image = noise(1, 3, *size)
    with torch.no_grad():
        maps, expected = backbone(image), reference(state, image, variant)
    for name, stage in (("c1", 0), ("c2", 1), ("c3", 2), ("c4", 4), ("c5", 6)):
        assert relative_difference(maps[name], expected[stage]) < 1e-5
        assert maps[name].shape[1] == backbone.channels[name]


@pytest.mark.parametrize("variant", PUBLISHED)
def test_parameters_and_multiply_adds_are_the_published_ones(variant: int) -> None:
    side, parameters, multiply_adds, _ = PUBLISHED[variant]
    with torch.device("meta"):
        backbone = create_backbone(f"efficientnet_lite{variant}", output_stride=32)
    c5, cells = backbone.channels["c5"], (-(-side // 32)) ** 2
    own = count_parameters(backbone) + c5 * 1280 + 2 * 1280 + 1281 * 1000
    assert own / 1e6 == pytest.approx(parameters, abs=0.06)
    own = count_multiply_adds(backbone, height=side, width=side) + cells * c5 * 1280 + 1280 * 1000
    assert own / 1e6 == pytest.approx(multiply_adds, rel=0.06)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_maps_contain_those_of_the_strided_network(output_stride: int) -> None:
    dense = randomize(create_backbone("efficientnet_lite0", output_stride=output_stride))
    coarse = create_backbone("efficientnet_lite0", output_stride=2 * output_stride).eval()
    coarse.load_state_dict(dense.state_dict())
    assert dense.strides["c5"] == output_stride
    image = noise(1, 3, 129, 97)
    with torch.no_grad():
        one, other = dense(image)["c5"], coarse(image)["c5"]
    assert relative_difference(one[:, :, ::2, ::2], other) < 1e-5


@pytest.mark.parametrize("variant", PUBLISHED)
def test_the_packaged_weights_fill_every_tensor(variant: int) -> None:
    name = f"efficientnet_lite{variant}"
    try:
        path = find_imagenet_weights(name)
    except InputError as error:
        pytest.skip(str(error))
    backbone = create_backbone(name, output_stride=16)
    for tensor in backbone.state_dict().values():
        tensor.fill_(-1)
    assert load_backbone(backbone, name, path) == Normalization((127 / 255,) * 3, (128 / 255,) * 3)
    # A published tensor is never constant.
    assert not any((tensor == -1).all() for tensor in backbone.state_dict().values())


@pytest.mark.parametrize("variant", PUBLISHED)
def test_maps_equal_those_of_timm(variant: int) -> None:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision for another PyTorch
        pytest.skip(f"timm cannot be imported: {error}")
    name = f"efficientnet_lite{variant}"
    backbone = randomize(create_backbone(name, output_stride=32))
    other = timm.create_model(f"tf_{name}", features_only=True).eval()
    tensors = backbone.state_dict().values()
    other.load_state_dict(dict(zip(other.state_dict(), tensors, strict=True)))
    image = noise(1, 3, 90, 131)
    with torch.no_grad():
        for one, expected in zip(backbone(image).values(), other(image), strict=True):
            assert relative_difference(one, expected) < 1e-6


def test_weights_of_another_variant_are_refused(tmp_path: Path) -> None:
    torch.save(published_state(0), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth: lacks _blocks\.16"):
        load_backbone(
            create_backbone("efficientnet_lite1", output_stride=16),
            "efficientnet_lite1",
            tmp_path / "w.pth",
        )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deeplab_v3plus", {}),
        ("deeplab_v3plus", {"output_stride": 8, "stride_2_skip": True}),
        ("fcn_resnet_dilated", {"output_stride": 16}),
    ],
)
def test_every_parameter_gets_a_gradient(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, backbone="efficientnet_lite0", **options)
    logits = model.training_logits(noise(2, 3, 65, 97))
    assert {each.shape for each in logits} == {(2, 3, 65, 97)}
    torch.stack([each.square().mean() for each in logits]).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
