"""Faster training operations have the values and gradients of PyTorch's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import inf

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pixelwise.layers import BatchNorm2d, ConvNormAct, use_compiled
from pixelwise.models import create_model
from pixelwise.ops import resize_gradient

numba = pytest.importorskip("numba")

from pixelwise.ops.depthwise_conv import depthwise, is_slow_depthwise  # noqa: E402
from pixelwise.ops.fused_batch_norm import normalize  # noqa: E402

TOLERANCE = 1e-5


def feature_map(*shape: int, seed: int = 0, mean: float = 0.0) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + mean
    return x.contiguous(memory_format=torch.channels_last)


def relative_error(value: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over that of the expected value."""
    value, expected = value.detach().double(), expected.detach().double()
    return float((value - expected).norm() / expected.norm().clamp(min=1e-30))


def gradients(
    function: Callable[..., Tensor], *leaves: Tensor, grad_output: Tensor
) -> list[Tensor]:
    """Return the value of a function and the gradients of its arguments."""
    leaves = tuple(leaf.detach().clone().requires_grad_() for leaf in leaves)
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad_output.to(out))]


# --- Resizing

sides = st.integers(1, 12)


@given(sides, sides, st.integers(1, 40), st.integers(1, 40), st.booleans(), st.booleans())
@example(3, 4, 3, 4, True, False)
def test_resize_has_the_gradient_of_interpolation(
    height: int, width: int, rows: int, columns: int, align_corners: bool, channels_last: bool
) -> None:
    x = torch.randn(2, 5, height, width, dtype=torch.float64)
    grad_output = torch.randn(2, 7, rows, columns, dtype=torch.float64)
    if channels_last:
        grad_output = grad_output.contiguous(memory_format=torch.channels_last)
    grad_output = grad_output[:, 1:6]  # channels of a larger map, as after a concatenation
    size = (rows, columns)

    def plain(x: Tensor) -> Tensor:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)

    def ours(x: Tensor) -> Tensor:
        return resize_gradient.resize(x, size=size, align_corners=align_corners)

    for found, expected in zip(
        gradients(ours, x, grad_output=grad_output),
        gradients(plain, x, grad_output=grad_output),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


# --- Batch normalization and activation

LIMITS = {None: (-inf, inf), nn.ReLU: (0.0, inf), nn.ReLU6: (0.0, 6.0)}


@settings(deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([1, 3, 16, 24, 63, 64, 96, 200]),
    st.integers(3, 40),
    st.integers(7, 40),
    st.sampled_from(list(LIMITS)),
)
def test_fused_batch_norm_has_pytorchs_values_and_gradients(
    batch: int, channels: int, height: int, width: int, activation: type[nn.Module] | None
) -> None:
    norm = BatchNorm2d(channels)
    nn.init.normal_(norm.weight, 2.0, 1.0)
    nn.init.normal_(norm.bias, 2.0)
    x, grad_output = (
        feature_map(batch, channels, height, width),
        feature_map(batch, channels, height, width, seed=1),
    )
    leaf = x.clone().requires_grad_()
    out = normalize(leaf, norm, activation)
    found = torch.autograd.grad(out, (leaf, norm.weight, norm.bias), grad_output)

    def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=norm.eps)

    low, high = LIMITS[activation]
    precise = [each.detach().double() for each in (x, norm.weight, norm.bias)]
    value = plain(*precise).clamp(low, high)
    assert relative_error(out, value) < TOLERANCE
    # Clamp the gradient by our value: rounding decides on which side of a limit a value is.
    through = torch.where((out > low) & (out < high), grad_output, 0)
    _, *expected = gradients(plain, *precise, grad_output=through)
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other) < 2 * TOLERANCE or other.norm() < 1e-3


@pytest.mark.parametrize("mean", [0.0, 30.0, -1000.0])
def test_running_statistics_equal_pytorchs_also_for_large_means(mean: float) -> None:
    norm = BatchNorm2d(24, momentum=0.3)
    plain = nn.BatchNorm2d(24, momentum=0.3).double()
    for seed in range(3):
        x = feature_map(2, 24, 31, 17, seed=seed, mean=mean)
        normalize(x, norm, None)
        plain(x.double())
    for name, expected in plain.state_dict().items():
        assert relative_error(getattr(norm, name), expected) < TOLERANCE, name


def test_non_finite_values_propagate() -> None:
    """Otherwise a run whose loss is not finite would continue."""
    for bad in (torch.nan, torch.inf):
        x = feature_map(2, 32, 9, 9)
        x[1, 3, 2, 2] = bad
        out = normalize(x, BatchNorm2d(32), nn.ReLU6)
        assert not out[:, 3].isfinite().any()
        assert out[:, :3].isfinite().all()


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x, grad_output = feature_map(3, 48, 30, 41), feature_map(3, 48, 30, 41, seed=1)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            norm = BatchNorm2d(48)
            leaf = x.clone().requires_grad_()
            out = normalize(leaf, norm, nn.ReLU)
            found.append(
                [out, *torch.autograd.grad(out, (leaf, norm.weight, norm.bias), grad_output)]
            )
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))


# --- Depthwise convolutions


@settings(deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([1, 16, 63, 64, 130]),
    sides,
    sides,
    st.integers(1, 14),
    st.sampled_from([3, 5]),
)
def test_slow_depthwise_convolutions_have_pytorchs_gradients(
    batch: int, channels: int, height: int, width: int, rate: int, side: int
) -> None:
    assume(rate > 1 or side > 3)
    padding = side // 2 * rate
    layer = nn.Conv2d(
        channels, channels, side, padding=padding, dilation=rate, groups=channels, bias=False
    )
    assert is_slow_depthwise(layer)
    x, grad_output = (
        feature_map(batch, channels, height, width),
        feature_map(batch, channels, height, width, seed=1),
    )
    leaf = x.clone().requires_grad_()
    out = depthwise(leaf, layer)
    found = [out, *torch.autograd.grad(out, (leaf, layer.weight), grad_output)]
    expected = gradients(
        lambda x, weight: F.conv2d(
            x.double(), weight.double(), padding=padding, dilation=rate, groups=channels
        ),
        x,
        layer.weight,
        grad_output=grad_output,
    )
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other) < TOLERANCE


def test_other_convolutions_are_not_replaced() -> None:
    kinds = [
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4, bias=False),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, stride=2, bias=False),
        nn.Conv2d(8, 8, 3, padding=1, dilation=2, groups=8, bias=False),
        nn.Conv2d(8, 16, 3, padding=2, dilation=2, groups=8, bias=False),
        nn.Conv2d(8, 8, 5, padding=2, dilation=2, groups=8, bias=False),
    ]
    assert [is_slow_depthwise(kind) for kind in kinds] == [False] * len(kinds)


# --- Networks


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deeplab_v3plus", {"width": 0.5}),
        ("deeplab_v3plus", {"backbone": "tiny", "output_stride": 8}),
        ("fcn_resnet", {"backbone": "resnet18"}),
    ],
)
def test_gradients_of_a_network_are_the_same_with_compiled_kernels(
    name: str, options: dict[str, object]
) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, **options).train()
    model.to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    fast, precise = copy.deepcopy(model), copy.deepcopy(model).double()
    use_compiled(fast)
    images, labels = feature_map(6, 3, 97, 65), torch.randint(5, (6, 97, 65))
    found = []
    for network in (model, fast, precise):
        logits = network(images.to(next(network.parameters()).dtype))
        F.cross_entropy(logits, labels).backward()
        found.append(torch.cat([p.grad.double().flatten() for p in network.parameters()]))
    plain, ours, exact = found
    # Random networks amplify rounding: our error is as small as PyTorch's own.
    assert relative_error(ours, exact) < 2 * relative_error(plain, exact) + TOLERANCE
    for (key, one), other in zip(
        fast.state_dict().items(), precise.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one.to(other.dtype), other, rtol=1e-3, atol=1e-3, msg=key)


def test_compiled_kernels_run_in_training_only_and_can_be_disabled() -> None:
    block = ConvNormAct(8, 8, dilation=2, groups=8).train()
    x = feature_map(2, 8, 11, 11)
    plain = copy.deepcopy(block).eval()(x)
    use_compiled(block)
    assert block(x).grad_fn.name() != plain.grad_fn.name()  # type: ignore[union-attr]
    restored = copy.deepcopy(block)
    restored.load_state_dict(ConvNormAct(8, 8, dilation=2, groups=8).state_dict())
    assert torch.equal(restored.eval()(x), ConvNormAct.forward(restored, x))
    use_compiled(block, False)
    assert "Normalize" not in block(x).grad_fn.name()  # type: ignore[union-attr]


def test_a_single_value_per_channel_is_normalized_by_the_running_statistics() -> None:
    norm = BatchNorm2d(8).train()
    use_compiled(norm)
    x = feature_map(1, 8, 1, 1)
    assert torch.equal(norm(x), copy.deepcopy(norm).eval()(x))
