"""Simplified networks compute the same function with less work."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim

from networks import noise
from pixelwise.backbones.vgg import VGG16
from pixelwise.errors import InputError
from pixelwise.inference.runtimes.torch.simplify import simplify
from pixelwise.inference.runtimes.torch.simplify.crop_dilated_kernels import (
    CroppedConv2d,
    crop_dilated_kernels,
)
from pixelwise.inference.runtimes.torch.simplify.fold_image_pooling import (
    SplitASPP,
    fold_image_pooling,
)
from pixelwise.inference.runtimes.torch.simplify.fold_padding_border import (
    BorderFoldedVGG16,
    fold_padding_border,
)
from pixelwise.inference.runtimes.torch.simplify.matrix_product_conv import (
    MatrixProductConv,
    use_matrix_products,
)
from pixelwise.layers import ASPP, TensorFlowConv2d
from pixelwise.models import count_multiply_adds, create_model

NARROW = 1 / 32  # of VGG16's channels: the same geometry with a thousandth of the arithmetic
ON_VGG16 = ("fcn32s", "fcn16s", "fcn8s", "fcn8s_atonce")


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight and statistic a random value, and switch to evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        std = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.2
        parameter.data.normal_(0, std, generator=generator)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.abs_().add_(0.5)
            module.running_mean.uniform_(-0.3, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model.eval()


@torch.no_grad()
def difference(plain: nn.Module, simple: nn.Module, image: Tensor) -> float:
    """Return the largest difference, relative to the range of the plain network's logits."""
    expected, logits = plain(image), simple(image)
    assert logits.shape == expected.shape
    return ((logits - expected).abs().max() / (expected.max() - expected.min())).item()


# --- FCN's padding border.


@pytest.mark.parametrize("ceil_mode", [True, False])
@pytest.mark.parametrize("name", ON_VGG16)
def test_folding_the_border_is_exact_for_every_remainder_of_the_size(
    name: str, ceil_mode: bool
) -> None:
    plain = randomize(create_model(name, num_classes=3, width=NARROW, ceil_mode=ceil_mode))
    simple = simplify(plain)
    assert isinstance(simple.backbone, BorderFoldedVGG16)
    smallest = 1 if ceil_mode else 26
    for height in range(smallest, smallest + 17):  # pool4's stride of 16, and one more
        width = smallest + (5 * height) % 17
        assert difference(plain, simple, noise(1, 3, height, width)) < 1e-5, (height, width)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 2), st.integers(0, 99))
def test_folding_the_border_is_exact_for_any_image(
    height: int, width: int, batch: int, seed: int
) -> None:
    plain = randomize(create_model("fcn8s", num_classes=3, width=NARROW), seed)
    assert difference(plain, simplify(plain), noise(batch, 3, height, width, seed=seed)) < 1e-5


def test_each_feature_map_equals_the_backbones() -> None:
    plain = randomize(create_model("fcn8s", num_classes=3, width=NARROW))
    simple = fold_padding_border(copy.deepcopy(plain))
    image = noise(1, 3, 45, 78)
    with torch.no_grad():
        expected, got = plain.backbone(image), simple.backbone(image)
    assert set(got) == {"c3", "c4", "c5"}
    for name, features in got.items():
        assert torch.allclose(features, expected[name], atol=1e-5 * expected[name].max().item()), (
            name
        )


def test_folding_the_border_saves_a_third() -> None:
    plain = create_model("fcn8s", num_classes=21, width=1 / 8).eval()
    simple = fold_padding_border(copy.deepcopy(plain))
    with torch.no_grad():
        simple(noise(1, 3, 500, 500))  # computes the border constants, which do not count
    before, after = (count_multiply_adds(m, height=500, width=500) for m in (plain, simple))
    assert after < 0.7 * before


def test_the_quantizable_form_keeps_the_padding() -> None:
    plain = create_model("fcn8s", num_classes=3, width=NARROW)
    kinds = {type(module) for module in simplify(plain, quantizable=True).modules()}
    assert VGG16 in kinds
    assert not kinds & {BorderFoldedVGG16, MatrixProductConv}


def test_an_image_too_small_for_fc6_is_still_refused() -> None:
    plain = randomize(create_model("fcn8s", num_classes=3, width=NARROW, ceil_mode=False))
    with pytest.raises(InputError, match="image of 20x40: is too small for fc6"):
        simplify(plain)(noise(1, 3, 20, 40))


def test_an_export_with_the_constants_of_some_sizes_only_is_refused() -> None:
    simple = simplify(randomize(create_model("fcn8s", num_classes=3, width=NARROW)))
    simple(noise(1, 3, 20, 40))
    with pytest.raises(ValueError, match="simplify with every_size"):
        torch.export.export(simple, (noise(1, 3, 20, 40),), strict=False)


def test_a_vgg16_with_another_padding_is_left_alone() -> None:
    model = create_model("fcn8s", num_classes=3, width=NARROW).eval()
    model.backbone = VGG16(width=NARROW, padding=50).eval()
    assert isinstance(fold_padding_border(model).backbone, VGG16)


# --- Large convolutions.


@pytest.mark.parametrize("name", ["fcn8s", "fcn_alexnet"])
def test_fc6_becomes_a_matrix_product(name: str) -> None:
    plain = randomize(create_model(name, num_classes=3, width=NARROW))
    simple = use_matrix_products(copy.deepcopy(plain))
    assert sum(isinstance(module, MatrixProductConv) for module in simple.modules()) == 1
    for size in ((1, 1), (33, 147), (64, 31)):
        assert difference(plain, simple, noise(2, 3, *size)) < 1e-5


@pytest.mark.parametrize(
    "changed", [{"padding": 1}, {"stride": 2}, {"dilation": 2}, {"groups": 2}, {"kernel_size": 3}]
)
def test_other_convolutions_are_not_replaced(changed: dict[str, int]) -> None:
    convolution = nn.Conv2d(4, 4, **{"kernel_size": 5, **changed})
    model = use_matrix_products(nn.Sequential(convolution))
    assert next(iter(model)) is convolution


# --- Image pooling.


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deeplab_v3", {"backbone": "tiny", "output_stride": 8}),
        ("deeplab_v3plus", {"backbone": "tiny"}),
        ("deeplab_v3plus", {"decoder": False, "aspp": False, "width": 0.5}),
    ],
)
def test_image_pooling_becomes_a_bias(name: str, options: dict[str, object]) -> None:
    plain = randomize(create_model(name, num_classes=3, **options))
    for simple in (fold_image_pooling(copy.deepcopy(plain)), simplify(plain)):
        kinds = [type(module) for module in simple.modules()]
        assert SplitASPP in kinds
        assert ASPP not in kinds
        for size in ((1, 1), (33, 47), (64, 31)):
            assert difference(plain, simple, noise(2, 3, *size)) < 1e-5


# --- Kernel positions outside the map.


@given(
    st.sampled_from([(2, 2), (6, 6), (18, 18), (3, 5), (1, 4)]),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([1, 4]),
    st.booleans(),
)
def test_cropping_dilated_kernels_changes_nothing(
    rates: tuple[int, int], height: int, width: int, groups: int, bias: bool
) -> None:
    plain = nn.Conv2d(
        4,
        8,
        3,
        padding=rates,
        dilation=rates,
        groups=groups,
        bias=bias,  # type: ignore[arg-type]
    )
    cropped = crop_dilated_kernels(nn.Sequential(plain))
    assert isinstance(cropped[0], CroppedConv2d)  # type: ignore[index]
    image = noise(2, 4, height, width)
    with torch.no_grad():
        torch.testing.assert_close(cropped(image), plain(image), rtol=1e-5, atol=1e-6)


def test_only_the_middle_position_is_computed_if_all_others_are_outside() -> None:
    plain = nn.Conv2d(4, 4, 3, padding=18, dilation=18)
    cropped = CroppedConv2d(plain)
    with torch.no_grad():
        plain.weight[:, :, 1, 1] = 0
        plain.weight[:, :, :, 0] = torch.nan
        assert cropped(noise(1, 4, 18, 18)).eq(plain.bias.view(1, 4, 1, 1)).all()
        assert cropped(noise(1, 4, 18, 19)).isnan().any()


def test_other_convolutions_are_not_cropped() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, stride=2),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2),
        nn.Conv2d(4, 4, 5, padding=4, dilation=2),
        TensorFlowConv2d(4, 4, 3, padding=2, dilation=2),
    )
    assert not any(isinstance(layer, CroppedConv2d) for layer in crop_dilated_kernels(model))


@pytest.mark.parametrize("name", ["deeplab_v3", "deeplab_v3plus"])
def test_small_images_have_the_plain_logits(name: str) -> None:
    plain = randomize(create_model(name, num_classes=3, backbone="tiny", output_stride=8))
    simple = simplify(plain)
    assert any(isinstance(module, CroppedConv2d) for module in simple.modules())
    for size in ((64, 64), (1, 1), (40, 150)):
        assert difference(plain, simple, noise(2, 3, *size)) < 1e-5


# --- One exported graph for all sizes.


@pytest.mark.filterwarnings("ignore")  # raised by the exporter and the converter
@pytest.mark.parametrize(
    ("name", "options", "width"),
    [
        ("fcn8s", {"width": NARROW}, 131),  # any height: both sides take three times as long
        pytest.param("fcn8s", {"width": NARROW}, None, marks=pytest.mark.slow),
        pytest.param("fcn16s", {"width": NARROW, "ceil_mode": False}, None, marks=pytest.mark.slow),
        ("deeplab_v3plus", {"backbone": "tiny"}, None),
    ],
)
def test_one_exported_graph_serves_every_size(
    name: str, options: dict[str, object], width: int | None
) -> None:
    openvino = pytest.importorskip("openvino")
    plain = randomize(create_model(name, num_classes=3, **options))
    simple = simplify(plain, every_size=True)
    dynamic = {0: None, 1: None, 2: Dim.DYNAMIC, 3: None if width else Dim.DYNAMIC}
    program = torch.export.export(
        simple, (noise(1, 3, 97, 131),), dynamic_shapes=(dynamic,), strict=False
    )
    graph = openvino.convert_model(program)
    run = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for size in ((97, 131), (26, 64), (45, 31), (80, 203), (1, 1)):
        image = noise(1, 3, size[0], width or size[1])
        if "ceil_mode" in options and min(size) < 26:
            continue
        with torch.no_grad():
            expected = plain(image)
        got = torch.from_numpy(run(image.numpy())[0])
        assert got.shape == expected.shape
        spread = expected.max() - expected.min()
        assert ((got - expected).abs().max() / spread).item() < 1e-5, size


# --- Max pools that propagate quantization.


def pools(graph: Any) -> list[str]:
    types = [node.get_type_info() for node in graph.get_ordered_ops()]
    return [info.version_id for info in types if info.name == "MaxPool"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("pool", "lowered"),
    [
        (nn.MaxPool2d(2, ceil_mode=True), True),
        (nn.MaxPool2d(3, stride=2, ceil_mode=True), True),
        (nn.MaxPool2d(3, stride=2, padding=1), True),
        (nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), False),  # windows outside the map
        (nn.MaxPool2d(2, stride=3, ceil_mode=True), False),
        (nn.MaxPool2d(2, dilation=2), False),
    ],
)
def test_max_pools_are_lowered_if_the_result_stays_the_same(pool: nn.Module, lowered: bool) -> None:
    openvino = pytest.importorskip("openvino")
    from pixelwise.exporters.openvino_format import lower_max_pools

    graph = openvino.convert_model(pool.eval(), example_input=noise(1, 2, 9, 9))
    lower_max_pools(graph)
    assert (pools(graph) == ["opset1"]) == lowered
    run = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for size in ((9, 8), (6, 7), (5, 10)):
        image = noise(1, 2, *size)
        assert torch.equal(torch.from_numpy(run(image.numpy())[0]), pool(image))


def test_simplifying_draws_no_random_numbers() -> None:
    """Validation simplifies the network during training, which must stay reproducible."""
    for name, options in (("deeplab_v3plus", {"backbone": "tiny"}), ("fcn8s", {"width": 0.02})):
        model = create_model(name, num_classes=2, **options)
        before = torch.get_rng_state()
        simplify(model)
        assert torch.equal(torch.get_rng_state(), before)
