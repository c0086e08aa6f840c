"""Less work, the same function: each simplification against the plain network."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim

from pixelwise.backbones.vgg import VGG16
from pixelwise.errors import InputError
from pixelwise.inference.runtimes.torch.simplify import simplify
from pixelwise.inference.runtimes.torch.simplify.fold_image_pooling import (
    SplitASPP,
    fold_image_pooling,
)
from pixelwise.inference.runtimes.torch.simplify.fold_padding_frame import FramedVGG16, fold_frame
from pixelwise.inference.runtimes.torch.simplify.matrix_products import (
    WindowProduct,
    multiply_large_windows,
)
from pixelwise.inference.runtimes.torch.simplify.skip_outside_taps import NearTaps, leave_out_taps
from pixelwise.layers import ASPP, TensorFlowConv2d
from pixelwise.models import count_multiply_adds, create_model

NARROW = 1 / 32  # of VGG16's channels: the geometry stays, the arithmetic is a thousandth
ON_VGG16 = ("fcn32s", "fcn16s", "fcn8s", "fcn8s_atonce")


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight and statistic a value that matters; no dropout."""
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


def noise(*size: int, seed: int = 1) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def difference(plain: nn.Module, simple: nn.Module, image: Tensor) -> float:
    """The largest difference, as a part of the plain network's range."""
    one, other = plain(image), simple(image)
    assert one.shape == other.shape
    return ((one - other).abs().max() / (one.max() - one.min())).item()


# --- FCN's frame.


@pytest.mark.parametrize("ceil_mode", [True, False])
@pytest.mark.parametrize("name", ON_VGG16)
def test_the_frame_is_exact_for_every_remainder_of_the_size(name: str, ceil_mode: bool) -> None:
    plain = randomize(create_model(name, num_classes=3, width=NARROW, ceil_mode=ceil_mode))
    simple = simplify(plain)
    assert isinstance(simple.backbone, FramedVGG16)
    smallest = 1 if ceil_mode else 26
    for height in range(smallest, smallest + 17):  # two rounds of pool4's stride of 16, and one
        width = smallest + (5 * height) % 17
        assert difference(plain, simple, noise(1, 3, height, width)) < 1e-5, (height, width)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 2), st.integers(0, 99))
def test_the_frame_is_exact_for_any_image(height: int, width: int, batch: int, seed: int) -> None:
    plain = randomize(create_model("fcn8s", num_classes=3, width=NARROW), seed)
    assert difference(plain, simplify(plain), noise(batch, 3, height, width, seed=seed)) < 1e-5


def test_each_map_of_the_frame_equals_the_backbones() -> None:
    plain = randomize(create_model("fcn8s", num_classes=3, width=NARROW))
    simple = fold_frame(copy.deepcopy(plain))
    image = noise(1, 3, 45, 78)
    with torch.no_grad():
        expected, got = plain.backbone(image), simple.backbone(image)
    assert set(got) == {"c3", "c4", "c5"}
    for name, one in got.items():
        assert torch.allclose(one, expected[name], atol=1e-5 * expected[name].max().item()), name


def test_the_frame_saves_a_third() -> None:
    plain = create_model("fcn8s", num_classes=21, width=1 / 8).eval()
    simple = fold_frame(copy.deepcopy(plain))
    with torch.no_grad():
        simple(noise(1, 3, 500, 500))  # works out the frame's constants, which is not counted
    before, after = (count_multiply_adds(each, height=500, width=500) for each in (plain, simple))
    assert after < 0.7 * before


def test_what_int8_starts_from_is_the_whole_frame() -> None:
    plain = create_model("fcn8s", num_classes=3, width=NARROW)
    kinds = {type(module) for module in simplify(plain, quantizable=True).modules()}
    assert VGG16 in kinds
    assert not kinds & {FramedVGG16, WindowProduct}


def test_an_image_too_small_for_fc6_is_still_refused() -> None:
    plain = randomize(create_model("fcn8s", num_classes=3, width=NARROW, ceil_mode=False))
    with pytest.raises(InputError, match="image of 20x40: is too small for fc6"):
        simplify(plain)(noise(1, 3, 20, 40))


def test_an_export_that_would_hold_for_some_sizes_only_is_refused() -> None:
    simple = simplify(randomize(create_model("fcn8s", num_classes=3, width=NARROW)))
    simple(noise(1, 3, 20, 40))
    with pytest.raises(ValueError, match="simplify with every_size"):
        torch.export.export(simple, (noise(1, 3, 20, 40),), strict=False)


def test_what_has_another_frame_is_left() -> None:
    model = create_model("fcn8s", num_classes=3, width=NARROW).eval()
    model.backbone = VGG16(width=NARROW, padding=50).eval()
    assert isinstance(fold_frame(model).backbone, VGG16)


# --- Large windows.


@pytest.mark.parametrize("name", ["fcn8s", "fcn_alexnet"])
def test_fc6_is_a_product(name: str) -> None:
    plain = randomize(create_model(name, num_classes=3, width=NARROW))
    alone = multiply_large_windows(copy.deepcopy(plain))
    assert sum(isinstance(module, WindowProduct) for module in alone.modules()) == 1
    for size in ((1, 1), (33, 147), (64, 31)):
        assert difference(plain, alone, noise(2, 3, *size)) < 1e-5


@pytest.mark.parametrize(
    "changed", [{"padding": 1}, {"stride": 2}, {"dilation": 2}, {"groups": 2}, {"kernel_size": 3}]
)
def test_other_convolutions_stay(changed: dict[str, int]) -> None:
    convolution = nn.Conv2d(4, 4, **{"kernel_size": 5, **changed})
    model = multiply_large_windows(nn.Sequential(convolution))
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
def test_image_pooling_is_a_bias(name: str, options: dict[str, object]) -> None:
    plain = randomize(create_model(name, num_classes=3, **options))
    for alone in (fold_image_pooling(copy.deepcopy(plain)), simplify(plain)):
        kinds = [type(module) for module in alone.modules()]
        assert SplitASPP in kinds
        assert ASPP not in kinds
        for size in ((1, 1), (33, 47), (64, 31)):
            assert difference(plain, alone, noise(2, 3, *size)) < 1e-5


# --- Taps beyond the map.


@given(
    st.sampled_from([(2, 2), (6, 6), (18, 18), (3, 5), (1, 4)]),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([1, 4]),
    st.booleans(),
)
def test_taps_beyond_the_map_add_nothing(
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
    near = leave_out_taps(nn.Sequential(plain))
    assert isinstance(near[0], NearTaps)  # type: ignore[index]
    image = noise(2, 4, height, width)
    with torch.no_grad():
        torch.testing.assert_close(near(image), plain(image), rtol=1e-5, atol=1e-6)


def test_where_all_but_the_middle_tap_lie_beyond_it_alone_is_computed() -> None:
    plain = nn.Conv2d(4, 4, 3, padding=18, dilation=18)
    near = NearTaps(plain)
    with torch.no_grad():
        plain.weight[:, :, 1, 1] = 0
        plain.weight[:, :, :, 0] = torch.nan
        assert near(noise(1, 4, 18, 18)).eq(plain.bias.view(1, 4, 1, 1)).all()
        assert near(noise(1, 4, 18, 19)).isnan().any()


def test_other_convolutions_keep_their_taps() -> None:
    kinds = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, stride=2),
        nn.Conv2d(4, 4, 3, padding=1, dilation=2),
        nn.Conv2d(4, 4, 5, padding=4, dilation=2),
        TensorFlowConv2d(4, 4, 3, padding=2, dilation=2),
    )
    assert not any(isinstance(kind, NearTaps) for kind in leave_out_taps(kinds))


@pytest.mark.parametrize("name", ["deeplab_v3", "deeplab_v3plus"])
def test_small_images_have_the_plain_logits(name: str) -> None:
    plain = randomize(create_model(name, num_classes=3, backbone="tiny", output_stride=8))
    simple = simplify(plain)
    assert any(isinstance(module, NearTaps) for module in simple.modules())
    for size in ((64, 64), (1, 1), (40, 150)):
        assert difference(plain, simple, noise(2, 3, *size)) < 1e-5


# --- For every size in one exported graph.


@pytest.mark.filterwarnings("ignore")  # of other people's export and conversion
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fcn8s", {"width": NARROW}),
        pytest.param("fcn16s", {"width": NARROW, "ceil_mode": False}, marks=pytest.mark.slow),
        ("deeplab_v3plus", {"backbone": "tiny"}),
    ],
)
def test_one_exported_graph_serves_every_size(name: str, options: dict[str, object]) -> None:
    openvino = pytest.importorskip("openvino")
    plain = randomize(create_model(name, num_classes=3, **options))
    simple = simplify(plain, every_size=True)
    free = {0: None, 1: None, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = torch.export.export(
        simple, (noise(1, 3, 97, 131),), dynamic_shapes=(free,), strict=False
    )
    graph = openvino.convert_model(program)
    run = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for size in ((97, 131), (26, 64), (45, 31), (80, 203), (1, 1)):
        image = noise(1, 3, *size)
        if "ceil_mode" in options and min(size) < 26:
            continue
        with torch.no_grad():
            expected = plain(image)
        got = torch.from_numpy(run(image.numpy())[0])
        assert got.shape == expected.shape
        spread = expected.max() - expected.min()
        assert ((got - expected).abs().max() / spread).item() < 1e-5, size


# --- Pools that quantized values pass through.


def pools(graph: Any) -> list[str]:
    kinds = [one.get_type_info() for one in graph.get_ordered_ops()]
    return [kind.version_id for kind in kinds if kind.name == "MaxPool"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("pool", "lowered"),
    [
        (nn.MaxPool2d(2, ceil_mode=True), True),
        (nn.MaxPool2d(3, stride=2, ceil_mode=True), True),
        (nn.MaxPool2d(3, stride=2, padding=1), True),
        (nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), False),  # windows beyond the map
        (nn.MaxPool2d(2, stride=3, ceil_mode=True), False),
        (nn.MaxPool2d(2, dilation=2), False),
    ],
)
def test_max_pools_are_lowered_where_they_stay_the_same(pool: nn.Module, lowered: bool) -> None:
    openvino = pytest.importorskip("openvino")
    from pixelwise.export.lowering import lower_max_pools

    graph = openvino.convert_model(pool.eval(), example_input=noise(1, 2, 9, 9))
    lower_max_pools(graph)
    assert (pools(graph) == ["opset1"]) == lowered
    run = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for size in ((9, 8), (6, 7), (5, 10)):
        image = noise(1, 2, *size)
        assert torch.equal(torch.from_numpy(run(image.numpy())[0]), pool(image))


def test_no_random_number_is_drawn() -> None:
    """Validation simplifies the network amid training, which draws on where it was."""
    for name, options in (("deeplab_v3plus", {"backbone": "tiny"}), ("fcn8s", {"width": 0.02})):
        model = create_model(name, num_classes=2, **options)
        before = torch.get_rng_state()
        simplify(model)
        assert torch.equal(torch.get_rng_state(), before)
