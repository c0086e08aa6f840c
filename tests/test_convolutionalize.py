"""Convolutionalized classifiers: equality with sliding windows, rejections, the examples."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from networks import noise, randomize
from pixelwise.backbones.vgg import STAGES
from pixelwise.errors import InputError
from pixelwise.models import Segmenter, convolutionalize, create_model, shift_and_stitch
from pixelwise.weights.published.fetch import find_imagenet_weights

ROOT = Path(__file__).parent.parent
CLASSES = 5


class Forward(nn.Module):
    """Like torchvision's classifiers: named modules, and a forward that runs them in order."""

    def __init__(
        self, features: nn.Module, avgpool: nn.Module | None, classifier: nn.Module
    ) -> None:
        super().__init__()
        self.features = features
        if avgpool is not None:
            self.avgpool = avgpool
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        if hasattr(self, "avgpool"):
            x = self.avgpool(x)
        return self.classifier(x.flatten(1))


class Averaging(Forward):
    """Like torchvision's MobileNetV2, which averages in its forward."""

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean(dim=(2, 3)))


def fully_connected(values: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(values, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(hidden, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(hidden, CLASSES),
    )


def vgg16(*, padding: int) -> nn.Module:
    """VGG16 with a sixteenth of its channels.

    With padding it is configuration D of its paper, which has 7x7 positions for a window of 224.
    Without padding it is configuration C, whose third convolutions are 1x1, so that 3x3 positions
    remain.
    """
    layers: list[nn.Module] = []
    channels = 3
    for base, repeats in STAGES:
        for number in range(repeats):
            kernel = 1 if number == 2 and not padding else 3
            layers += [nn.Conv2d(channels, base // 16, kernel, padding=padding), nn.ReLU(True)]
            channels = base // 16
        layers.append(nn.MaxPool2d(2))
    side = 7 if padding else 3
    return randomize(
        Forward(
            nn.Sequential(*layers),
            nn.AdaptiveAvgPool2d((side, side)),
            fully_connected(channels * side * side, 64),
        )
    )


def alexnet(*, padding: int, side: int) -> nn.Module:
    """AlexNet with an eighth of its channels and `side` x `side` positions per window."""

    def unit(*size: int, stride: int = 1, pad: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(*size, stride=stride, padding=pad * padding), nn.ReLU(True)]

    layers = [
        *unit(3, 8, 11, stride=4, pad=2),
        nn.MaxPool2d(3, 2),
        *unit(8, 24, 5, pad=2),
        nn.MaxPool2d(3, 2),
        *unit(24, 48, 3),
        *unit(48, 32, 3),
        *unit(32, 32, 3),
        nn.MaxPool2d(3, 2),
    ]
    head = nn.Sequential(nn.Dropout(), *fully_connected(32 * side * side, 64))
    return randomize(Forward(nn.Sequential(*layers), nn.AdaptiveAvgPool2d(side), head))


def classify_windows(classifier: nn.Module, image: Tensor, *, window: int, stride: int) -> Tensor:
    """Crop and classify each window: (1, classes, h, w)."""
    rows = range(0, image.shape[2] - window + 1, stride)
    columns = range(0, image.shape[3] - window + 1, stride)
    crops = [image[:, :, y : y + window, x : x + window] for y in rows for x in columns]
    scores = classifier(torch.cat(crops))
    return scores.T.reshape(1, -1, len(rows), len(columns))


# --- Equality with sliding windows


@pytest.mark.parametrize(
    ("classifier", "window"),
    [(vgg16(padding=0), 224), (alexnet(padding=0, side=1), 224), (alexnet(padding=0, side=3), 288)],
    ids=["vgg16", "alexnet", "alexnet, larger"],
)
@torch.no_grad()
def test_36_windows_equal_the_6x6_map_of_one_pass(classifier: nn.Module, window: int) -> None:
    image = noise(1, 3, window + 160, window + 160)
    windows = classify_windows(classifier, image, window=window, stride=32)
    scores = convolutionalize(classifier, window=window)(image)
    assert scores.shape == (1, CLASSES, 6, 6)
    assert windows.std() > 0.1
    assert (scores - windows).abs().max() < 1e-4


@torch.no_grad()
def test_padding_changes_windows_inside_the_image_most() -> None:
    classifier = vgg16(padding=1)
    dense = convolutionalize(classifier)
    one = noise(2, 3, 224, 224)
    assert torch.allclose(dense(one).flatten(1), classifier(one), atol=1e-5)
    # Inside the image padding affects all four borders of a window, in a corner only two.
    image = noise(1, 3, 320, 320)
    windows = classify_windows(classifier, image, window=224, stride=32)
    difference = (dense(image) - windows).abs().amax(dim=1)[0] / (windows.max() - windows.min())
    corners = difference[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert difference[1:-1, 1:-1].mean() > corners.mean() > 1e-3


@torch.no_grad()
def test_global_average_pooling_becomes_a_pool_over_the_positions_of_a_window() -> None:
    features = nn.Sequential(nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2))
    head = nn.Sequential(nn.Dropout(), nn.Linear(8, CLASSES))
    stages = [("features", features), ("pool", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten())]
    image = noise(2, 3, 52, 61)
    for classifier in (
        Averaging(features, None, head),
        Forward(features, nn.AdaptiveAvgPool2d(1), head),
        nn.Sequential(OrderedDict([*stages, ("classifier", head)])),
    ):
        randomize(classifier)
        dense = convolutionalize(classifier, window=(33, 37))
        scores = dense(image)
        assert scores.shape == (2, CLASSES, 5, 7)
        for i, j in ((0, 0), (4, 6), (2, 3)):
            window = image[:, :, 4 * i : 4 * i + 33, 4 * j : 4 * j + 37]
            assert torch.allclose(scores[:, :, i, j], classifier(window), atol=1e-5)


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])
@torch.no_grad()
def test_pooling_to_fewer_positions_dilates_the_kernel(pool: type[nn.Module]) -> None:
    # A window of 26 has a 12x12 map, pooled to 3x3: kernels of 3x3 with dilation 4.
    classifier = randomize(
        nn.Sequential(
            nn.Conv2d(1, 4, 4, stride=2), pool(3), nn.Flatten(), nn.Linear(4 * 9, CLASSES)
        )
    )
    image = noise(1, 1, 40, 50)
    dense = convolutionalize(classifier, window=26)
    windows = classify_windows(classifier, image, window=26, stride=2)
    assert torch.allclose(dense(image), windows, atol=1e-5)


@torch.no_grad()
def test_norms_and_nested_sequentials_are_converted() -> None:
    relu = nn.ReLU()  # used in two places
    classifier = randomize(
        nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 4, 3, stride=3), relu),
            nn.Flatten(),
            nn.Sequential(
                nn.Dropout(), nn.Linear(4 * 12, 9, bias=True), nn.BatchNorm1d(9), relu, nn.Dropout()
            ),
            nn.Linear(9, CLASSES),
            nn.Softmax(dim=1),
        )
    )
    image = noise(2, 3, 21, 21)
    scores = convolutionalize(classifier, window=(9, 12))(image)
    assert scores.shape == (2, CLASSES, 5, 4)
    window = image[:, :, 6:15, 9:21]
    assert torch.allclose(scores[:, :, 2, 3], classifier(window), atol=1e-6)


# --- Weights


def test_kernel_has_the_linear_weights_in_the_order_channel_row_column() -> None:
    linear = nn.Linear(12, 1, bias=False)
    linear.weight.data = torch.arange(12.0).reshape(1, 12)
    classifier = nn.Sequential(nn.Identity(), nn.Flatten(), linear)
    dense = convolutionalize(classifier, window=(2, 2))
    kernel = torch.tensor([[[0.0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [10, 11]]])
    assert torch.equal(dense[2].weight, kernel[None])
    assert dense[2].bias is None
    image = torch.zeros(1, 3, 3, 4)
    image[0, 1, 2, 3] = 1  # channel 1, the last row and column of the last window
    expected = torch.zeros(2, 3)
    expected[1, 2] = 7
    assert torch.equal(dense(image)[0, 0], expected)


def test_the_classifier_is_not_modified_and_names_are_kept() -> None:
    classifier = vgg16(padding=1).train()
    before = {key: tensor.clone() for key, tensor in classifier.state_dict().items()}
    state = torch.get_rng_state()
    dense = convolutionalize(classifier)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(dense.state_dict()) == list(before)
    assert dense.state_dict()["classifier.0.weight"].shape == (64, 32, 7, 7)
    assert dense.state_dict()["classifier.6.weight"].shape == (CLASSES, 64, 1, 1)
    for parameter in dense.parameters():
        parameter.data.add_(1)
    assert isinstance(classifier.classifier[0], nn.Linear)
    assert classifier.training
    assert not dense.training
    for key, tensor in classifier.state_dict().items():
        assert torch.equal(tensor, before[key]), key


def test_every_parameter_of_the_dense_form_gets_a_gradient() -> None:
    dense = convolutionalize(alexnet(padding=1, side=6)).train()
    dense(noise(2, 3, 288, 256)).square().mean().backward()
    assert [n for n, p in dense.named_parameters() if p.grad is None or not p.grad.any()] == []


# --- Rejections


class Doubling(Forward):
    """Its forward does more than run its modules."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


def rejected_classifiers() -> dict[str, tuple[nn.Module, str]]:
    conv, flat = nn.Conv2d(3, 4, 3), nn.Flatten()
    block = nn.Sequential(nn.ReLU(), nn.Linear(36, CLASSES))
    return {
        "no flatten": (
            nn.Sequential(conv, nn.Linear(3, 2)),
            r"1: this Linear follows no flatten: put an nn.Flatten before it",
        ),
        "no flatten, nested": (
            nn.Sequential(OrderedDict(body=conv, head=block)),
            r"head\.1: this Linear follows no flatten",
        ),
        "values": (
            nn.Sequential(conv, flat, nn.Linear(50, CLASSES)),
            r"2: expects 50 values.* 4 x 3 x 3 = 36: pass the window size",
        ),
        "values, named modules": (
            Forward(conv, nn.Identity(), nn.Sequential(nn.Linear(37, CLASSES))),
            r"classifier\.0: expects 37 values.* = 36",
        ),
        "uneven pool": (
            nn.Sequential(conv, nn.AdaptiveAvgPool2d(2), flat, nn.Linear(16, CLASSES)),
            r"1: pools the 3x3 map.* to 2x2 unequal parts",
        ),
        "rows flattened": (
            nn.Sequential(conv, nn.Flatten(2), nn.Linear(9, CLASSES)),
            r"1: flattens \(1, 4, 3, 3\) to \(1, 4, 9\)",
        ),
        "norm before": (
            nn.Sequential(conv, flat, nn.BatchNorm1d(36), nn.Linear(36, CLASSES)),
            r"2: this BatchNorm1d before the first Linear normalizes each position",
        ),
        "too small": (
            nn.Sequential(nn.Conv2d(3, 4, 9), flat, nn.Linear(4, CLASSES)),
            r"Sequential: fails on a window of 5x5 .*pass the window size",
        ),
        "nothing to convert": (nn.Sequential(conv, flat), r"Sequential: has no Linear layer"),
        "no classifier attribute": (
            nn.ModuleDict({"fc": nn.Linear(3, 2)}),
            r"ModuleDict: is not an nn.Sequential and lacks .features",
        ),
        "no vector": (
            nn.Sequential(conv, flat, nn.Linear(36, 9), nn.Unflatten(1, (3, 3))),
            r"is not a classifier",
        ),
        "more in forward": (
            Doubling(conv, None, nn.Sequential(nn.Linear(36, CLASSES))),
            r"Doubling: its dense form gives other scores.*scores differ by",
        ),
        "the last dimension": (
            nn.Sequential(conv, flat, nn.Linear(36, CLASSES), nn.Softmax(dim=-1)),
            r"its dense form gives other scores",
        ),
        "norm over scores": (
            nn.Sequential(conv, flat, nn.Linear(36, CLASSES), nn.LayerNorm(CLASSES)),
            r"its dense form gives other scores",
        ),
    }


@pytest.mark.parametrize("case", rejected_classifiers())
def test_classifiers_without_a_dense_form_are_rejected(case: str) -> None:
    classifier, message = rejected_classifiers()[case]
    with pytest.raises(InputError, match=message) as raised:
        convolutionalize(classifier.eval(), window=5)
    assert "\n" not in str(raised.value)


# --- Shift and stitch


def without_padding() -> nn.Sequential:
    """A network for windows of 15 pixels with stride 4."""
    return randomize(
        nn.Sequential(
            nn.Conv2d(3, 4, 5, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, CLASSES, 3)
        )
    )


@settings(max_examples=20)
@given(st.sampled_from([1, 2, 4]), st.integers(15, 40), st.integers(15, 40))
def test_shift_and_stitch_equals_windows_at_the_finer_stride(
    factor: int, height: int, width: int
) -> None:
    model = without_padding()
    image = noise(2, 3, height, width)
    step = 4 // factor
    with torch.no_grad():
        coarse, scores = model(image), shift_and_stitch(model, factor)(image)
        rows, columns = factor * coarse.shape[2], factor * coarse.shape[3]
        assert scores.shape == (2, CLASSES, rows, columns)
        padded = F.pad(image, (0, 15, 0, 15))
        crops = padded.unfold(2, 15, step).unfold(3, 15, step)[:, :, :rows, :columns]
        windows = model(crops.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 15, 15))
    expected = windows.reshape(2, rows, columns, CLASSES).permute(0, 3, 1, 2)
    assert torch.allclose(scores, expected, atol=1e-5)
    assert torch.allclose(scores[:, :, ::factor, ::factor], coarse, atol=1e-6)
    # The documented number of rows that see only the image.
    inside = (height - 15) * factor // 4 + 1
    assert len(image.unfold(2, 15, step)[0, 0]) == inside <= rows


@torch.no_grad()
def test_factor_1_is_the_model_itself_and_factor_8_has_stride_4() -> None:
    classifier = alexnet(padding=0, side=1)
    dense = convolutionalize(classifier)
    image = noise(1, 3, 224, 256)
    assert torch.equal(shift_and_stitch(dense, 1)(image), dense(image))
    finer = shift_and_stitch(dense, 8)
    assert finer.stride == 4
    scores = finer(image)
    assert scores.shape == (1, CLASSES, 8, 16)
    for x in (0, 12, 32):  # in pixels
        window = classifier(image[:, :, :, x : x + 224])
        assert torch.allclose(scores[:, :, 0, x // 4], window, atol=1e-5)


def test_gradients_flow_through_shift_and_stitch() -> None:
    model = without_padding()
    shift_and_stitch(model, 2)(noise(1, 3, 23, 27)).square().mean().backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


class Coarse(nn.Module):
    """The logits of a segmenter before upsampling."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, x: Tensor) -> Tensor:
        return self.segmenter.coarse_logits(x)


def test_the_stride_of_the_model_is_found() -> None:
    assert shift_and_stitch(convolutionalize(vgg16(padding=0)), 4).stride == 8
    with torch.device("meta"):
        for name in ("fcn_resnet", "fcn_resnet_dilated"):
            segmenter = create_model(name, num_classes=2, backbone="resnet18")
            stride = {"fcn_resnet": 32, "fcn_resnet_dilated": 8}[name]
            assert shift_and_stitch(Coarse(segmenter), 4).stride == stride // 4
            assert shift_and_stitch(segmenter, 1).stride == 1


class Brightening(nn.Module):
    """Depends on values, so its shapes cannot be propagated on the meta device."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x + 1 if x.mean().item() < 0 else x)


def test_models_that_cannot_be_stitched_are_rejected() -> None:
    model = without_padding()
    for factor in (0, 3, 8, -1):
        with pytest.raises(
            InputError, match=rf"factor {factor}: must be a divisor of the stride 4"
        ):
            shift_and_stitch(model, factor)
    fixed = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1))
    with pytest.raises(InputError, match=r"Sequential: cannot find its stride.*stride=PIXELS"):
        shift_and_stitch(fixed, 2)
    with pytest.raises(InputError, match="Brightening: cannot find its stride"):
        shift_and_stitch(Brightening(model), 2)
    assert shift_and_stitch(Brightening(model), 2, stride=4)(noise(1, 3, 20, 20)).shape[2:] == (
        4,
        4,
    )
    flat = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())
    with pytest.raises(
        InputError, match=r"not a map \(B, classes, h, w\): convolutionalize it first"
    ):
        shift_and_stitch(flat, 2, stride=2)(noise(1, 3, 9, 9))


# --- Examples


def example_commands() -> list[list[str]]:
    """Return the lines of docs/networks.md that run an example."""
    text = (ROOT / "docs" / "networks.md").read_text("utf-8")
    lines = re.findall(r"^python (examples/\S+ .*)$", text, flags=re.M)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("command", example_commands(), ids=lambda command: command[0])
def test_documented_examples_draw_their_image(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        find_imagenet_weights("mobilenet_v2")
    except InputError as error:
        pytest.skip(str(error))
    script, *arguments = command
    Image.fromarray((noise(60, 80, 3) * 60 + 128).clamp(0, 255).byte().numpy()).save(
        tmp_path / "photo.jpg"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setattr(sys, "argv", [script, *arguments, "--size", "224"])
    runpy.run_path(str(ROOT / script), run_name="__main__")
    out = arguments[arguments.index("--out") + 1]
    assert f"wrote {out}" in capsys.readouterr().out
    with Image.open(tmp_path / out) as image:
        assert image.size == (3 * (288 + 8) - 8, 224 + 28)
    monkeypatch.setattr(sys, "argv", [script, "missing.jpg"])
    with pytest.raises(SystemExit, match=r"error: missing.jpg: does not exist"):
        runpy.run_path(str(ROOT / script), run_name="__main__")


def test_the_documentation_shows_both_examples() -> None:
    assert {command[0] for command in example_commands()} == {
        "examples/convolutionalize.py",
        "examples/shift_and_stitch.py",
    }
