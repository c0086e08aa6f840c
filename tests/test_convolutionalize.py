"""Dense classifiers: sliding windows where nothing pads, refusals by name, the examples."""

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

from pixelwise.backbones.vgg import STAGES
from pixelwise.errors import InputError
from pixelwise.models import Segmenter, convolutionalize, create_model, shift_and_stitch
from pixelwise.weights.imagenet import find_imagenet_weights

ROOT = Path(__file__).parent.parent
CLASSES = 5


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and running statistics that matter, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            std = (2 / module.weight[0].numel()) ** 0.5
            module.weight.data.normal_(0, std, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 2, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
    return model.eval()


def noise(*size: int, seed: int = 1) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


class Forward(nn.Module):
    """As torchvision's classifiers: parts by name, and a forward that joins them."""

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
    """As torchvision's MobileNetV2, which averages in its forward."""

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
    """VGG16 at a sixteenth of its channels. With padding it is configuration D of its paper, 7x7
    positions of a window of 224; without it is C, whose third convolutions are 1x1: 3x3 remain."""
    layers: list[nn.Module] = []
    channels = 3
    for base, repeats in STAGES:
        for number in range(repeats):
            kernel = 1 if number == 2 and not padding else 3
            layers += [nn.Conv2d(channels, base // 16, kernel, padding=padding), nn.ReLU(True)]
            channels = base // 16
        layers.append(nn.MaxPool2d(2))
    side = 7 if padding else 3
    return randomise(
        Forward(
            nn.Sequential(*layers),
            nn.AdaptiveAvgPool2d((side, side)),
            fully_connected(channels * side * side, 64),
        )
    )


def alexnet(*, padding: int, side: int) -> nn.Module:
    """AlexNet at an eighth of its channels, which leaves `side` x `side` positions of a window."""

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
    return randomise(Forward(nn.Sequential(*layers), nn.AdaptiveAvgPool2d(side), head))


def by_tiles(classifier: nn.Module, image: Tensor, *, window: int, stride: int) -> Tensor:
    """(1, classes, h, w): each window cut out and classified."""
    rows = range(0, image.shape[2] - window + 1, stride)
    columns = range(0, image.shape[3] - window + 1, stride)
    cut = [image[:, :, y : y + window, x : x + window] for y in rows for x in columns]
    scores = classifier(torch.cat(cut))
    return scores.T.reshape(1, -1, len(rows), len(columns))


# --- The map is the sliding windows


@pytest.mark.parametrize(
    ("classifier", "window"),
    [
        (vgg16(padding=0), 224),
        (alexnet(padding=0, side=1), 224),
        (alexnet(padding=0, side=3), 288),
    ],
    ids=["vgg16", "alexnet", "alexnet, larger"],
)
@torch.no_grad()
def test_36_tiles_equal_the_6x6_map_of_one_pass(classifier: nn.Module, window: int) -> None:
    image = noise(1, 3, window + 160, window + 160)
    windows = by_tiles(classifier, image, window=window, stride=32)
    scores = convolutionalize(classifier, window=window)(image)
    assert scores.shape == (1, CLASSES, 6, 6)
    assert windows.std() > 0.1
    assert (scores - windows).abs().max() < 1e-4


@torch.no_grad()
def test_padding_shows_tiles_zeros_where_the_pass_sees_the_image() -> None:
    classifier = vgg16(padding=1)
    dense = convolutionalize(classifier)
    one = noise(2, 3, 224, 224)
    assert torch.allclose(dense(one).flatten(1), classifier(one), atol=1e-5)
    # Four borders of a window within the image, two of one in its corner.
    image = noise(1, 3, 320, 320)
    windows = by_tiles(classifier, image, window=224, stride=32)
    difference = (dense(image) - windows).abs().amax(dim=1)[0] / (windows.max() - windows.min())
    corners = difference[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert difference[1:-1, 1:-1].mean() > corners.mean() > 1e-3


@torch.no_grad()
def test_an_average_over_the_map_becomes_one_over_a_tiles_positions() -> None:
    features = nn.Sequential(nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2))
    head = nn.Sequential(nn.Dropout(), nn.Linear(8, CLASSES))
    parts = [("features", features), ("pool", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten())]
    image = noise(2, 3, 52, 61)
    for classifier in (
        Averaging(features, None, head),
        Forward(features, nn.AdaptiveAvgPool2d(1), head),
        nn.Sequential(OrderedDict([*parts, ("classifier", head)])),
    ):
        randomise(classifier)
        dense = convolutionalize(classifier, window=(33, 37))
        scores = dense(image)
        assert scores.shape == (2, CLASSES, 5, 7)
        for i, j in ((0, 0), (4, 6), (2, 3)):
            window = image[:, :, 4 * i : 4 * i + 33, 4 * j : 4 * j + 37]
            assert torch.allclose(scores[:, :, i, j], classifier(window), atol=1e-5)


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])
@torch.no_grad()
def test_a_pool_to_fewer_positions_spreads_the_kernel(pool: type[nn.Module]) -> None:
    # A window of 26 leaves a map of 12, pooled to 3: kernels of 3x3 whose positions lie 4 apart.
    classifier = randomise(
        nn.Sequential(
            nn.Conv2d(1, 4, 4, stride=2), pool(3), nn.Flatten(), nn.Linear(4 * 9, CLASSES)
        )
    )
    image = noise(1, 1, 40, 50)
    dense = convolutionalize(classifier, window=26)
    windows = by_tiles(classifier, image, window=26, stride=2)
    assert torch.allclose(dense(image), windows, atol=1e-5)


@torch.no_grad()
def test_norms_and_nested_sequentials_go_along() -> None:
    relu = nn.ReLU()  # the same layer in two places
    classifier = randomise(
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


def test_a_kernel_holds_the_fully_connected_weights_by_channel_row_and_column() -> None:
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


def test_the_classifier_stays_as_it_was_and_names_stay() -> None:
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


def test_every_weight_of_the_dense_form_learns() -> None:
    dense = convolutionalize(alexnet(padding=1, side=6)).train()
    dense(noise(2, 3, 288, 256)).square().mean().backward()
    assert [n for n, p in dense.named_parameters() if p.grad is None or not p.grad.any()] == []


# --- Refusals


class Doubling(Forward):
    """Its forward does more than its parts."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


def refused() -> dict[str, tuple[nn.Module, str]]:
    conv, flat = nn.Conv2d(3, 4, 3), nn.Flatten()
    block = nn.Sequential(nn.ReLU(), nn.Linear(36, CLASSES))
    return {
        "no flatten": (
            nn.Sequential(conv, nn.Linear(3, 2)),
            r"1: a Linear that follows no flatten.*nn.Flatten",
        ),
        "no flatten, nested": (
            nn.Sequential(OrderedDict(body=conv, head=block)),
            r"head\.1: a Linear that follows no flatten",
        ),
        "values": (
            nn.Sequential(conv, flat, nn.Linear(50, CLASSES)),
            r"2: takes 50 values.* 4 x 3 x 3 = 36: give the window",
        ),
        "values of parts": (
            Forward(conv, nn.Identity(), nn.Sequential(nn.Linear(37, CLASSES))),
            r"classifier\.0: takes 37 values.* = 36",
        ),
        "uneven pool": (
            nn.Sequential(conv, nn.AdaptiveAvgPool2d(2), flat, nn.Linear(16, CLASSES)),
            r"1: pools the 3x3 map.* to 2x2.*unequal",
        ),
        "rows flattened": (
            nn.Sequential(conv, nn.Flatten(2), nn.Linear(9, CLASSES)),
            r"1: flattens \(1, 4, 3, 3\) to \(1, 4, 9\)",
        ),
        "norm before": (
            nn.Sequential(conv, flat, nn.BatchNorm1d(36), nn.Linear(36, CLASSES)),
            r"2: a BatchNorm1d before the first Linear",
        ),
        "too small": (
            nn.Sequential(nn.Conv2d(3, 4, 9), flat, nn.Linear(4, CLASSES)),
            r"Sequential: fails on a window of 5x5 .*give the window",
        ),
        "nothing to convert": (nn.Sequential(conv, flat), r"no fully connected layer"),
        "other parts": (
            nn.ModuleDict({"fc": nn.Linear(3, 2)}),
            r"ModuleDict: is no nn.Sequential and lacks .features",
        ),
        "no vector": (
            nn.Sequential(conv, flat, nn.Linear(36, 9), nn.Unflatten(1, (3, 3))),
            r"is no classifier",
        ),
        "more in forward": (
            Doubling(conv, None, nn.Sequential(nn.Linear(36, CLASSES))),
            r"Doubling: its dense form answers otherwise.*differ by",
        ),
        "the last dimension": (
            nn.Sequential(conv, flat, nn.Linear(36, CLASSES), nn.Softmax(dim=-1)),
            r"answers otherwise",
        ),
        "a norm over scores": (
            nn.Sequential(conv, flat, nn.Linear(36, CLASSES), nn.LayerNorm(CLASSES)),
            r"answers otherwise",
        ),
    }


@pytest.mark.parametrize("case", refused())
def test_what_has_no_dense_form_is_refused_with_the_layers_name(case: str) -> None:
    classifier, message = refused()[case]
    with pytest.raises(InputError, match=message) as refusal:
        convolutionalize(classifier.eval(), window=5)
    assert "\n" not in str(refusal.value)


# --- Shift and stitch


def without_padding() -> nn.Sequential:
    """Windows of 15 pixels, 4 apart."""
    return randomise(
        nn.Sequential(
            nn.Conv2d(3, 4, 5, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, CLASSES, 3)
        )
    )


@settings(max_examples=20)
@given(st.sampled_from([1, 2, 4]), st.integers(15, 40), st.integers(15, 40))
def test_stitched_passes_are_the_tiles_at_the_finer_stride(
    factor: int, height: int, width: int
) -> None:
    model = without_padding()
    image = noise(2, 3, height, width)
    step = 4 // factor
    with torch.no_grad():
        coarse, scores = model(image), shift_and_stitch(model, factor)(image)
        rows, columns = factor * coarse.shape[2], factor * coarse.shape[3]
        assert scores.shape == (2, CLASSES, rows, columns)
        zeros = F.pad(image, (0, 15, 0, 15))
        cut = zeros.unfold(2, 15, step).unfold(3, 15, step)[:, :, :rows, :columns]
        windows = model(cut.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 15, 15))
    expected = windows.reshape(2, rows, columns, CLASSES).permute(0, 3, 1, 2)
    assert torch.allclose(scores, expected, atol=1e-5)
    assert torch.allclose(scores[:, :, ::factor, ::factor], coarse, atol=1e-6)
    # As many as are said to see nothing but the image.
    inside = (height - 15) * factor // 4 + 1
    assert len(image.unfold(2, 15, step)[0, 0]) == inside <= rows


@torch.no_grad()
def test_factor_1_is_the_model_itself_and_more_tiles_fit_at_factor_8() -> None:
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


def test_stitched_passes_can_be_learned_from() -> None:
    model = without_padding()
    shift_and_stitch(model, 2)(noise(1, 3, 23, 27)).square().mean().backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


class Coarse(nn.Module):
    """A segmenter's map before it is upsampled."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, x: Tensor) -> Tensor:
        return self.segmenter.coarse(x)


def test_the_stride_is_that_of_the_model() -> None:
    assert shift_and_stitch(convolutionalize(vgg16(padding=0)), 4).stride == 8
    with torch.device("meta"):
        for name in ("fcn_resnet", "fcn_resnet_dilated"):
            segmenter = create_model(name, num_classes=2, backbone="resnet18")
            stride = {"fcn_resnet": 32, "fcn_resnet_dilated": 8}[name]
            assert shift_and_stitch(Coarse(segmenter), 4).stride == stride // 4
            assert shift_and_stitch(segmenter, 1).stride == 1


class Brightening(nn.Module):
    """What it does depends on values, which nothing without arithmetic can know."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x + 1 if x.mean().item() < 0 else x)


def test_what_cannot_be_stitched_is_refused() -> None:
    model = without_padding()
    for factor in (0, 3, 8, -1):
        with pytest.raises(InputError, match=rf"factor {factor}: .*divisors of the stride 4"):
            shift_and_stitch(model, factor)
    fixed = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1))
    with pytest.raises(InputError, match=r"Sequential: its stride was not found.*stride=PIXELS"):
        shift_and_stitch(fixed, 2)
    with pytest.raises(InputError, match="Brightening: its stride was not found"):
        shift_and_stitch(Brightening(model), 2)
    assert shift_and_stitch(Brightening(model), 2, stride=4)(noise(1, 3, 20, 20)).shape[2:] == (
        4,
        4,
    )
    flat = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())
    with pytest.raises(InputError, match="not a map: convolutionalize it first"):
        shift_and_stitch(flat, 2, stride=2)(noise(1, 3, 9, 9))


# --- Examples


def example_commands() -> list[list[str]]:
    """README's lines that run an example."""
    text = (ROOT / "README.md").read_text("utf-8")
    lines = re.findall(r"^python (examples/\S+ .*)$", text, flags=re.M)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("command", example_commands(), ids=lambda command: command[0])
def test_the_readmes_examples_draw_their_image(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        find_imagenet_weights("mobilenet_v2")
    except InputError as error:
        pytest.skip(str(error))
    script, *words = command
    Image.fromarray((noise(60, 80, 3) * 60 + 128).clamp(0, 255).byte().numpy()).save(
        tmp_path / "photo.jpg"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setattr(sys, "argv", [script, *words, "--size", "224"])
    runpy.run_path(str(ROOT / script), run_name="__main__")
    out = words[words.index("--out") + 1]
    assert f"wrote {out}" in capsys.readouterr().out
    with Image.open(tmp_path / out) as picture:
        assert picture.size == (3 * (288 + 8) - 8, 224 + 28)
    monkeypatch.setattr(sys, "argv", [script, "missing.jpg"])
    with pytest.raises(SystemExit, match=r"error: missing.jpg: is not there"):
        runpy.run_path(str(ROOT / script), run_name="__main__")


def test_the_readme_shows_both_examples() -> None:
    assert {command[0] for command in example_commands()} == {
        "examples/convolutionalize.py",
        "examples/shift_and_stitch.py",
    }
