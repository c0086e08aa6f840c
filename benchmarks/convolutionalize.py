"""Compare 36 windows of 224x224 with one pass over 384x384: time and difference of the scores.

    python benchmarks/convolutionalize.py

VGG16 with half its channels and random weights, on a generated street scene. Without padding it is
configuration C of its paper (arXiv:1409.1556, table 1: 16 layers, three of them 1x1), which has 3x3
positions per window for fc6; with padding it is configuration D, which has 7x7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from torch import Tensor, nn

WINDOW, STRIDE, GRID, WIDTH = 224, 32, 6, 1 / 2
SIDE = WINDOW + (GRID - 1) * STRIDE


def vgg16(*, padding: int) -> nn.Sequential:
    """Create a classifier from images (B, 3, 224, 224) to 1000 classes."""
    import torch
    from torch import nn

    from pixelwise.backbones.vgg import FC_CHANNELS, STAGES

    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = 3
    for base, repeats in STAGES:
        out_channels = round(base * WIDTH)
        for number in range(repeats):
            kernel = 1 if number == 2 and not padding else 3
            layers += [nn.Conv2d(channels, out_channels, kernel, padding=padding), nn.ReLU(True)]
            channels = out_channels
        layers.append(nn.MaxPool2d(2))
    side = 7 if padding else 3
    hidden = round(FC_CHANNELS * WIDTH)
    layers += [
        nn.AdaptiveAvgPool2d(side),
        nn.Flatten(),
        nn.Linear(channels * side * side, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(hidden, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(hidden, 1000),
    ]
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers).eval()


def scene_image() -> Tensor:
    """Return a normalized image (1, 3, 384, 384)."""
    import torch

    from pixelwise.data.scenes import generate_scene
    from pixelwise.weights.normalization import IMAGENET

    scene, _ = generate_scene(0, height=SIDE, width=SIDE)
    return IMAGENET(torch.from_numpy(scene.copy()).permute(2, 0, 1)[None])


def windows_of(image: Tensor) -> Tensor:
    """Crop the windows, row by row: (36, 3, 224, 224)."""
    crops = image.unfold(2, WINDOW, STRIDE).unfold(3, WINDOW, STRIDE)[0]
    return crops.permute(1, 2, 0, 3, 4).reshape(-1, 3, WINDOW, WINDOW)


def one_by_one() -> tuple[harness.Work, int]:
    import torch

    classifier, windows = vgg16(padding=0), windows_of(scene_image())

    def work() -> None:
        with torch.inference_mode():
            for window in windows:
                classifier(window[None])

    return work, 1


def one_batch() -> tuple[harness.Work, int]:
    import torch

    classifier, windows = vgg16(padding=0), windows_of(scene_image())

    def work() -> None:
        with torch.inference_mode():
            classifier(windows)

    return work, 1


def one_pass() -> tuple[harness.Work, int]:
    import torch

    from pixelwise.models import convolutionalize

    dense, image = convolutionalize(vgg16(padding=0), window=WINDOW), scene_image()

    def work() -> None:
        with torch.inference_mode():
            dense(image)

    return work, 1


def print_differences() -> None:
    """Print the largest difference of a score, by the position of the window."""
    import torch

    from pixelwise.models import convolutionalize

    image = scene_image()
    at_border = torch.zeros(GRID, GRID)
    at_border[[0, -1]] += 1
    at_border[:, [0, -1]] += 1
    print(
        "\nLargest difference between windows and one pass: absolute, and in % of the score range"
    )
    print(f"{'':44} {'corners':>16} {'edges':>16} {'middle':>16}")
    for padding, name in ((0, "VGG16 without padding"), (1, "VGG16 with padding")):
        classifier = vgg16(padding=padding)
        with torch.inference_mode():
            windows = classifier(windows_of(image)).reshape(GRID, GRID, -1)
            dense = convolutionalize(classifier, window=WINDOW)(image)[0].permute(1, 2, 0)
        difference = (dense - windows).abs().amax(dim=2)
        span = windows.max() - windows.min()
        largest = [difference[at_border == borders].max() for borders in (2, 1, 0)]
        print(f"{name:44} " + " ".join(f"{d:8.1e} {d / span:6.1%} " for d in largest))


if __name__ == "__main__":
    harness.main(
        f"{GRID * GRID} windows of {WINDOW} at stride {STRIDE} in {SIDE}x{SIDE}: "
        "VGG16 without padding, with half its channels",
        {
            "windows, one by one": one_by_one,
            "windows, one batch": one_batch,
            "convolutionalized, one pass": one_pass,
        },
        units=1,
        peers={},
    )
    with harness.attempt("differences"):
        print_differences()
    harness.finish()
