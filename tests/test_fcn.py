"""FCN: published geometry and counts, an independent forward pass, sizes, skips, upsampling."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from networks import noise, overfit, randomize, relative_difference
from pixelwise.backbones.vgg import VGG16
from pixelwise.errors import InputError
from pixelwise.layers import Coordinates, bilinear_kernel, crop, make_upsampling
from pixelwise.models import count_parameters, create_model

ON_VGG16 = ("fcn32s", "fcn16s", "fcn8s", "fcn8s_atonce")
NARROW = 1 / 32  # width of VGG16: the same geometry with a thousandth of the arithmetic


# --- An independent forward pass, written from the net definitions of the reference code.


def bilinear(channels: int, size: int) -> Tensor:
    """The dense kernel of the reference code's surgery.py, computed value by value."""
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 == 1 else factor - 0.5
    line = [1 - abs(i - center) / factor for i in range(size)]
    kernel = torch.zeros(channels, channels, size, size)
    for i in range(size):
        for j in range(size):
            kernel[range(channels), range(channels), i, j] = line[i] * line[j]
    return kernel


def reference_fcn(
    state: dict[str, Tensor], image: Tensor, *, name: str, floor: bool = False
) -> Tensor:
    """FCN from its state dict, with the crops of the authors' prototxt files."""

    def conv(x: Tensor, layer: str, padding: int = 0) -> Tensor:
        return F.conv2d(x, state[f"{layer}.weight"], state[f"{layer}.bias"], padding=padding)

    pools, x, number = [], image, 0
    for repeats in (2, 2, 3, 3, 3):
        for _ in range(repeats):
            x = conv(x, f"backbone.features.{number}", 1 if number else 100).relu()
            number += 2
        x = F.max_pool2d(x, 2, 2, ceil_mode=not floor)
        number += 1
        pools.append(x)
    x = conv(conv(x, "backbone.classifier.0").relu(), "backbone.classifier.3").relu()
    x = conv(x, "head.score")
    classes = x.shape[1]
    four, three = (0.01, 0.0001) if name == "fcn8s_atonce" else (1, 1)
    if name != "fcn32s":
        x = F.conv_transpose2d(x, bilinear(classes, 4), stride=2)
        skip = conv(pools[3] * four, "head.skips.c4")
        x = x + skip[:, :, 5 : 5 + x.shape[2], 5 : 5 + x.shape[3]]
    if name.startswith("fcn8s"):
        x = F.conv_transpose2d(x, bilinear(classes, 4), stride=2)
        skip = conv(pools[2] * three, "head.skips.c3")
        x = x + skip[:, :, 9 : 9 + x.shape[2], 9 : 9 + x.shape[3]]
    stride, offset = {"fcn32s": (32, 19), "fcn16s": (16, 27)}.get(name, (8, 31))
    x = F.conv_transpose2d(x, bilinear(classes, 2 * stride), stride=stride)
    if floor:  # the scores may end before the image: repeat the last ones
        missing = [max(0, offset + side - x.shape[2 + i]) for i, side in enumerate(image.shape[2:])]
        x = torch.cat([x, x[:, :, -1:].expand(-1, -1, missing[0], -1)], dim=2)
        x = torch.cat([x, x[..., -1:].expand(-1, -1, -1, missing[1])], dim=3)
    return x[:, :, offset : offset + image.shape[2], offset : offset + image.shape[3]]


def reference_alexnet(state: dict[str, Tensor], image: Tensor, *, caffe: bool) -> Tensor:
    """FCN-AlexNet with the layers of voc-fcn-alexnet; torchvision's has no groups and norms."""
    convolutions = ((11, 4, 100), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))
    names = sorted({int(k.split(".")[2]) for k in state if k.startswith("backbone.features")})
    x = image
    for number, (name, (kernel, stride, padding)) in enumerate(
        zip(names, convolutions, strict=True), start=1
    ):
        weight, bias = (state[f"backbone.features.{name}.{part}"] for part in ("weight", "bias"))
        assert weight.shape[2:] == (kernel, kernel)
        groups = 2 if caffe and number in (2, 4, 5) else 1
        x = F.conv2d(x, weight, bias, stride=stride, padding=padding, groups=groups).relu()
        if number in (1, 2, 5):
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        if caffe and number in (1, 2):  # 1 + alpha / 5 times the squares of five channels
            squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
            sums = sum(squares[:, i : i + x.shape[1]] for i in range(5))
            x = x / (1 + 1e-4 / 5 * sums) ** 0.75
    for name in sorted({k.rsplit(".", 1)[0] for k in state if "classifier" in k}):
        x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"]).relu()
    x = F.conv2d(x, state["head.score.weight"], state["head.score.bias"])
    x = F.conv_transpose2d(x, bilinear(x.shape[1], 63), stride=32)
    return x[:, :, 18 : 18 + image.shape[2], 18 : 18 + image.shape[3]]


def reference_googlenet(state: dict[str, Tensor], image: Tensor) -> Tensor:
    """GoogLeNet from table 1 with torchvision's names, then scores and kernels of 63."""

    def unit(x: Tensor, name: str, **geometry: int) -> Tensor:
        x = F.conv2d(x, state[f"{name}.conv.weight"], **geometry)
        parts = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{name}.bn.{part}"] for part in parts), eps=1e-3).relu()

    def pool(x: Tensor, size: int) -> Tensor:
        return F.max_pool2d(x, size, 2, ceil_mode=True)

    x = pool(unit(image, "backbone.conv1", stride=2, padding=100), 3)
    x = pool(unit(unit(x, "backbone.conv2"), "backbone.conv3", padding=1), 3)
    for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        if block in ("4a", "5a"):
            x = pool(x, 3 if block == "4a" else 2)
        name = f"backbone.inception{block}.branch"
        x = torch.cat(
            [
                unit(x, f"{name}1"),
                unit(unit(x, f"{name}2.0"), f"{name}2.1", padding=1),
                unit(unit(x, f"{name}3.0"), f"{name}3.1", padding=1),
                unit(F.max_pool2d(x, 3, 1, 1), f"{name}4.1"),
            ],
            1,
        )
    x = F.conv2d(x, state["head.score.weight"], state["head.score.bias"])
    x = F.conv_transpose2d(x, bilinear(x.shape[1], 63), stride=32)
    return x[:, :, 106 : 106 + image.shape[2], 106 : 106 + image.shape[3]]


@pytest.mark.parametrize("size", [(64, 64), (77, 141), (1, 35)])
@pytest.mark.parametrize("backbone", ["caffenet", "alexnet"])
def test_fcn_alexnet_matches_an_independent_forward(backbone: str, size: tuple[int, int]) -> None:
    model = create_model("fcn_alexnet", num_classes=4, width=1 / 16, backbone=backbone)
    image = 20 * noise(1, 3, *size)
    with torch.no_grad():
        logits = randomize(model)(image)
        expected = reference_alexnet(model.state_dict(), image, caffe=backbone == "caffenet")
        assert relative_difference(logits, expected) < 1e-5


@pytest.mark.parametrize("size", [(64, 64), (77, 141), (1, 35)])
def test_fcn_googlenet_matches_an_independent_forward(size: tuple[int, int]) -> None:
    model = randomize(create_model("fcn_googlenet", num_classes=4))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.7, 1.3)
            module.weight.data.uniform_(0.7, 1.3)
    image = noise(1, 3, *size)
    with torch.no_grad():
        expected = reference_googlenet(model.state_dict(), image)
        assert relative_difference(model(image), expected) < 1e-5


@pytest.mark.parametrize("size", [(64, 64), (77, 141), (1, 35)])
@pytest.mark.parametrize("name", ON_VGG16)
def test_fcn_matches_an_independent_forward(name: str, size: tuple[int, int]) -> None:
    model = randomize(create_model(name, num_classes=4, width=NARROW))
    image = noise(1, 3, *size)
    with torch.no_grad():
        expected = reference_fcn(model.state_dict(), image, name=name)
        assert relative_difference(model(image), expected) < 1e-5


@pytest.mark.parametrize("size", [(500, 500), (57, 83), (26, 314)])
@pytest.mark.parametrize("name", ON_VGG16)
def test_floor_mode_has_the_true_coordinates(name: str, size: tuple[int, int]) -> None:
    """The crops are those of the reference code: rounding a pool down moves no position.

    At 500x500 the scores of FCN-32s end 7 pixels before the image does.
    """
    model = randomize(create_model(name, num_classes=3, width=NARROW, ceil_mode=False))
    image = noise(1, 3, *size)
    with torch.no_grad():
        expected = reference_fcn(model.state_dict(), image, name=name, floor=True)
        assert relative_difference(model(image), expected) < 1e-6


def test_the_smallest_image_of_floor_mode_is_26_pixels() -> None:
    model = create_model("fcn32s", num_classes=3, width=NARROW, ceil_mode=False)
    image = noise(1, 3, 500, 500)
    assert model(image[:, :, :26, :]).shape == (1, 3, 26, 500)
    with pytest.raises(InputError, match=r"25x500.*too small"):
        model(image[:, :, :25, :])


# --- Geometry


@pytest.mark.parametrize("ceil_mode", [True, False])
def test_crop_offsets_match_the_reference_code(ceil_mode: bool) -> None:
    crops = {
        name: create_model(name, num_classes=2, width=NARROW, ceil_mode=ceil_mode).head.offsets
        for name in ON_VGG16
    }
    assert crops == {
        "fcn32s": {"image": 19},
        "fcn16s": {"c4": 5, "image": 27},
        "fcn8s": {"c4": 5, "c3": 9, "image": 31},
        "fcn8s_atonce": {"c4": 5, "c3": 9, "image": 31},
    }
    for backbone in ("caffenet", "alexnet"):
        alexnet = create_model("fcn_alexnet", num_classes=2, width=1 / 16, backbone=backbone)
        assert alexnet.head.offsets == {"image": 18}


def test_crops_fit_and_are_centered_for_every_size_from_1_to_600() -> None:
    # Independent arithmetic for sizes and centers: each pool halves and rounds up; a position of
    # the map after pool n is centered 2 ** n / 2 - 1 / 2 pixels after its first pixel.
    for size in range(1, 601):
        sides = [size + 198]
        for _ in range(5):
            sides.append(math.ceil(sides[-1] / 2))
        pool3, pool4, fc7 = sides[3], sides[4], sides[5] - 6
        assert fc7 >= 1
        assert 32 * (fc7 - 1) + 64 >= 19 + size
        up2 = 2 * (fc7 - 1) + 4
        assert pool4 >= 5 + up2
        assert 16 * (up2 - 1) + 32 >= 27 + size
        up4 = 2 * (up2 - 1) + 4
        assert pool3 >= 9 + up4
        assert 8 * (up4 - 1) + 16 >= 31 + size

    def center(pools: int, position: float) -> float:
        return (2**pools - 1) / 2 - 99 + 2**pools * position

    fc7_center = center(5, 3)  # the center of the first 7x7 kernel
    assert fc7_center - 31.5 + 19 == 0  # the kernel of 64 starts 31.5 pixels before it
    up2_center = fc7_center - 16 * 1.5
    assert center(4, 5) == up2_center
    assert up2_center - 15.5 + 27 == 0
    up4_center = up2_center - 8 * 1.5
    assert center(3, 9) == up4_center
    assert up4_center - 7.5 + 31 == 0


@settings(max_examples=30)
@given(
    st.sampled_from(ON_VGG16),
    st.sampled_from(["frozen", "learned", "interpolate"]),
    st.integers(1, 600),
    st.integers(1, 600),
)
def test_output_has_the_size_of_the_image_for_vgg16(
    name: str, upsampling: str, height: int, width: int
) -> None:
    options = {"width": NARROW, "upsampling": upsampling}
    with torch.device("meta"):
        model = create_model(name, num_classes=2, **options)
        assert model(torch.zeros(1, 3, height, width)).shape == (1, 2, height, width)
        floor = create_model(name, num_classes=2, ceil_mode=False, **options)
        size = (height + 25, width + 25)  # it needs 26 pixels
        assert floor(torch.zeros(1, 3, *size)).shape == (1, 2, *size)


@settings(max_examples=20)
@given(
    st.sampled_from(["fcn_alexnet", "fcn_googlenet"]),
    st.sampled_from(["frozen", "learned"]),
    st.integers(1, 600),
    st.integers(1, 600),
)
def test_output_has_the_size_of_the_image_for_alexnet_and_googlenet(
    name: str, upsampling: str, height: int, width: int
) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=2, upsampling=upsampling)
        assert model(torch.zeros(1, 3, height, width)).shape == (1, 2, height, width)


def test_coordinates_match_the_center_of_the_receptive_field() -> None:
    # The gradient of a position's value shows which pixels it depends on.
    layers = nn.Sequential(
        nn.Conv2d(1, 1, 5, stride=2, padding=3, bias=False),
        nn.ReLU(),
        nn.AvgPool2d(3, stride=2),
        nn.Conv2d(1, 1, 3, dilation=2, bias=False),
    )
    for parameter in layers.parameters():
        nn.init.ones_(parameter)
    coordinates = Coordinates().after(layers)
    image = torch.ones(1, 1, 81, 81, requires_grad=True)
    out = layers(image)
    out[0, 0, 4, 6].backward()
    influence = image.grad[0, 0]
    rows, columns = torch.arange(81.0), torch.arange(81.0)
    assert (influence.sum(1) @ rows / influence.sum()).item() == pytest.approx(
        coordinates.scale * 4 + coordinates.offset
    )
    assert (influence.sum(0) @ columns / influence.sum()).item() == pytest.approx(
        coordinates.scale * 6 + coordinates.offset
    )


def test_maps_whose_positions_do_not_coincide_are_rejected() -> None:
    for other in (Coordinates(2, 0), Coordinates(1, -1), Coordinates(1, 0.5)):
        with pytest.raises(ValueError, match="no crop by whole positions leads"):
            Coordinates(1, 0).crop_to(other)
    with pytest.raises(ValueError, match="square kernels only"):
        Coordinates().after(nn.Conv2d(1, 1, (3, 5)))


# --- Upsampling


@pytest.mark.parametrize("stride", [2, 8, 16, 32])
def test_frozen_upsampling_interpolates_away_from_the_border(stride: int) -> None:
    x = noise(2, 3, 6, 5)
    frozen = make_upsampling("frozen", 3, kernel_size=2 * stride, stride=stride)(x)
    plain = F.interpolate(x, scale_factor=stride, mode="bilinear", align_corners=False)
    half = stride // 2
    inner = crop(frozen, offset=half, size=(stride * 6, stride * 5))
    inside = (..., slice(half, -half), slice(half, -half))
    assert torch.allclose(inner[inside], plain[inside], atol=1e-5)
    # At the border it fades, where interpolation repeats; with zeros around the map both are equal.
    assert not torch.allclose(inner, plain, atol=1e-2)
    around = F.interpolate(
        F.pad(x, (1, 1, 1, 1)), scale_factor=stride, mode="bilinear", align_corners=False
    )
    assert torch.allclose(frozen, crop(around, offset=half, size=frozen.shape[2:]), atol=1e-5)


def test_kinds_of_upsampling_differ_only_at_the_border() -> None:
    image = noise(1, 3, 400, 400)
    # The map of 400 + 198 pixels has 13 positions; the outer ones are centered at 12.5 and 396.5.
    inside = (..., slice(13, 384 + 12), slice(13, 384 + 12))
    for name in ON_VGG16:
        frozen = randomize(create_model(name, num_classes=3, width=NARROW))
        interpolated = create_model(name, num_classes=3, width=NARROW, upsampling="interpolate")
        learned = create_model(name, num_classes=3, width=NARROW, upsampling="learned")
        interpolated.load_state_dict(frozen.state_dict())
        learned.load_state_dict(frozen.state_dict(), strict=False)
        with torch.no_grad():
            logits = frozen(image)
            assert torch.allclose(learned.eval()(image), logits, atol=1e-4)
            if name == "fcn32s":  # with skips the fading extends further inward
                assert torch.allclose(interpolated.eval()(image)[inside], logits[inside], atol=1e-4)
            else:
                middle = (..., slice(100, 300), slice(100, 300))
                assert torch.allclose(interpolated.eval()(image)[middle], logits[middle], atol=1e-4)


def test_interpolation_has_the_size_of_the_convolution_and_repeats_the_border() -> None:
    x = noise(2, 3, 6, 5)
    for padding in (0, 3):
        frozen = make_upsampling("frozen", 3, kernel_size=16, stride=8, padding=padding)(x)
        found = make_upsampling("interpolate", 3, kernel_size=16, stride=8, padding=padding)(x)
        assert found.shape == frozen.shape
        inside = (..., slice(8, -8), slice(8, -8))
        assert torch.allclose(found[inside], frozen[inside], atol=1e-5)
        assert torch.allclose(found[..., 0, 0], x[..., 0, 0])
        assert torch.allclose(found[..., -1, -1], x[..., -1, -1])


@pytest.mark.parametrize("name", ON_VGG16)
def test_kinds_of_upsampling_differ_only_at_the_border_in_floor_mode(name: str) -> None:
    """At 629x571 the interpolated map is smaller than the image before its border is repeated."""
    options = {"width": NARROW, "ceil_mode": False}
    frozen = randomize(create_model(name, num_classes=3, **options))
    interpolated = create_model(name, num_classes=3, upsampling="interpolate", **options).eval()
    interpolated.load_state_dict(frozen.state_dict())
    image = noise(1, 3, 629, 571)
    middle = (..., slice(130, -130), slice(130, -130))
    with torch.no_grad():
        assert torch.allclose(interpolated(image)[middle], frozen(image)[middle], atol=1e-4)


@pytest.mark.parametrize("size", [2, 3, 4, 16, 63, 64])
def test_bilinear_kernel_matches_the_reference_code(size: int) -> None:
    assert torch.allclose(bilinear_kernel(size), bilinear(1, size)[0, 0], atol=1e-6)


def test_frozen_kernels_are_neither_trained_nor_saved() -> None:
    model = create_model("fcn8s", num_classes=3, width=NARROW)
    assert [n for n, _ in model.named_parameters() if "upsampling" in n or "doubling" in n] == []
    assert [n for n in model.state_dict() if "upsampling" in n or "doubling" in n] == []


# --- Size


def test_fcn32s_has_the_published_136_million_parameters() -> None:
    # VGG16, table 2: 138M, without fc8; plus 1x1 scores and the kernels of the upsampling.
    stages = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
    stages += [(256, 512), (512, 512), (512, 512), (512, 512), (512, 512), (512, 512)]
    convolutions = sum(9 * a * b + b for a, b in stages)
    fc6, fc7, fc8 = 49 * 512 * 4096 + 4096, 4096 * 4096 + 4096, 4096 * 1000 + 1000
    assert convolutions + fc6 + fc7 + fc8 == 138_357_544  # torchvision's vgg16
    score = 4096 * 21 + 21
    with torch.device("meta"):
        frozen = create_model("fcn32s", num_classes=21)
        learned = create_model("fcn32s", num_classes=21, upsampling="learned")
        finer = create_model("fcn8s", num_classes=21)
    assert count_parameters(frozen) == convolutions + fc6 + fc7 + score == 134_346_581
    assert count_parameters(learned) == count_parameters(frozen) + 21 * 21 * 64 * 64 == 136_152_917
    assert count_parameters(finer) == count_parameters(frozen) + (512 + 1) * 21 + (256 + 1) * 21


def test_vgg16_describes_channels_and_strides_of_its_maps() -> None:
    with torch.device("meta"):
        backbone = VGG16()
        maps = backbone(torch.zeros(1, 3, 250, 314))  # padded: 448 by 512, minus one pixel per side
    assert {name: m.shape[1] for name, m in maps.items()} == backbone.channels
    assert backbone.strides == {"c1": 2, "c2": 4, "c3": 8, "c4": 16, "c5": 32}
    for name in ("c1", "c2", "c3", "c4"):
        assert maps[name].shape[2:] == (448 / backbone.strides[name], 512 / backbone.strides[name])
    assert maps["c5"].shape[1:] == (4096, 14 - 6, 16 - 6)


# --- Learning


LEARNERS: list[tuple[str, dict[str, object]]] = [
    *(
        (name, {"width": NARROW, "upsampling": upsampling})
        for name in ON_VGG16
        for upsampling in ("frozen", "learned", "interpolate")
    ),
    ("fcn_alexnet", {"width": 1 / 16, "backbone": "caffenet"}),
    ("fcn_alexnet", {"width": 1 / 16, "backbone": "alexnet", "upsampling": "learned"}),
    ("fcn_googlenet", {}),
]


@pytest.mark.parametrize(("name", "options"), LEARNERS)
def test_every_parameter_gets_a_gradient(name: str, options: dict[str, object]) -> None:
    model = randomize(create_model(name, num_classes=3, **options))
    model(noise(1, 3, 33, 70)).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_finer_networks_start_from_the_scores_of_the_coarser_one() -> None:
    coarse = randomize(create_model("fcn32s", num_classes=4, width=NARROW))
    image = noise(1, 3, 90, 131)
    with torch.no_grad():
        scores, before = coarse.coarse_logits(image), coarse(image)
    for name, strides in (("fcn16s", (2, 16)), ("fcn8s", (2, 2, 8)), ("fcn8s_atonce", (2, 2, 8))):
        fine = create_model(name, num_classes=4, width=NARROW).eval()
        missing, unexpected = fine.load_state_dict(coarse.state_dict(), strict=False)
        assert unexpected == []
        assert all(key.startswith("head.skips.") for key in missing)
        expected = scores
        for stride in strides:
            expected = F.conv_transpose2d(expected, bilinear(4, 2 * stride), stride=stride)
        offset = {2: 27, 3: 31}[len(strides)]
        with torch.no_grad():
            logits = fine(image)
        assert torch.allclose(logits, crop(expected, offset=offset, size=(90, 131)), atol=1e-5)
        # Doubling before interpolating smooths the interpolated surface, by at most an eighth of
        # its bend in each direction and for each doubling.
        bend = 2 * scores.abs().max() + 2 * scores.abs().max()
        assert (logits - before).abs().max() < (len(strides) - 1) * 2 * bend / 8


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {"width": 1 / 16}) for name in ON_VGG16),
        ("fcn_alexnet", {"width": 1 / 8}),
        ("fcn_googlenet", {}),
    ],
)
def test_each_network_overfits_four_images(name: str, options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **options)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    steps = 12 if name == "fcn_googlenet" else 60  # batch norm speeds it up
    assert overfit(model, rate=3e-3, steps=steps, side=64) > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upsampling": "nearest"}, "upsampling 'nearest': must be one of frozen, learned, interp"),
        ({"output_stride": 8}, "model 'fcn32s' has no option 'output_stride': its options are ups"),
    ],
)
def test_invalid_options_are_rejected(options: dict[str, object], message: str) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=message):
        create_model("fcn32s", num_classes=2, **options)


def test_interpolation_rejects_kernels_of_63() -> None:
    for name in ("fcn_alexnet", "fcn_googlenet"):
        with torch.device("meta"), pytest.raises(InputError, match="63 with stride 32"):
            create_model(name, num_classes=2, upsampling="interpolate")
