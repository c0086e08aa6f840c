"""Tiles compared to one pass over the full image, by margin: how many labels differ.

    python benchmarks/tiling.py BUNDLE IMAGE [IMAGE ...] --size 2000 3000 [--runtime openvino]

It makes two large images: a mosaic of all given images, and the first image upsampled. Margins are
fractions of the network's receptive radius. The last line evaluates tiles as separate images. Tiles
and single pass use the same runtime.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import harness
from pixelwise.data.image_files import read_image
from pixelwise.inference import Predictor
from pixelwise.inference.runtimes import TORCH
from pixelwise.inference.tiling import tiled_model
from pixelwise.inference.tiling.tile_grid import smallest_tile
from pixelwise.inference.tiling.tiled_model import TiledModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--size", type=int, nargs=2, default=(2000, 3000))
    parser.add_argument("--margins", type=float, nargs="+", default=(0, 0.25, 0.5, 0.75, 1))
    parser.add_argument("--tile", type=int, default=1280)
    parser.add_argument("--runtime", default=TORCH)
    arguments = parser.parse_args()
    device = "cpu" if arguments.runtime == TORCH else None
    runtime = Predictor.load(arguments.bundle, runtime=arguments.runtime, device=device).runtime
    height, width = arguments.size
    print(f"{harness.machine()}\n{runtime.name}, {runtime.requirements}\n")
    print(f"{'image':10} {'margin':>16} {'tile':>7} {'seconds':>8} {'labels differ':>14}")
    first = Image.fromarray(read_image(arguments.images[0]))
    for name, image in (
        ("mosaic", mosaic(arguments.images, height, width)),
        ("upsampled", np.asarray(first.resize((width, height), Image.Resampling.BICUBIC))),
    ):
        with harness.attempt(name):
            compare(runtime, name, image, arguments)
    harness.finish()


def compare(runtime: Any, name: str, image: np.ndarray, arguments: argparse.Namespace) -> None:
    """Print a line for each margin, and one for tiles as separate images."""
    started = time.perf_counter()
    one_pass = runtime.predict_labels(image)
    show(name, "one pass", "", time.perf_counter() - started, 0)
    for margin in arguments.margins:
        tiled_model.MARGIN = tiled_model.ROUNDED_MARGIN = margin
        pixels = round(margin * runtime.requirements.receptive_radius)
        least = smallest_tile(margin=pixels, step=runtime.requirements.step)
        side = max(arguments.tile, least)
        started = time.perf_counter()
        found = TiledModel(runtime, tile=side).predict_labels(image)
        seconds = time.perf_counter() - started
        differ = (found != one_pass).mean()
        show(name, f"{margin:g} ({pixels} px)", str(side), seconds, differ)
    tiled_model.DEFAULT_REQUIREMENTS = runtime.requirements
    found = TiledModel(WithoutTiling(runtime), tile=side).predict_labels(image)
    show(name, f"{margin:g}, separate", str(side), 0, (found != one_pass).mean())


class WithoutTiling:
    """The runtime without support for tiling."""

    def __init__(self, runtime: object) -> None:
        self.name, self.logits = "without tiling", runtime.logits  # type: ignore[attr-defined]


def mosaic(images: list[Path], height: int, width: int) -> np.ndarray:
    """Repeat the images row by row until the mosaic is full."""
    image = np.zeros((height, width, 3), np.uint8)
    read = [read_image(path) for path in images]
    rows, columns = read[0].shape[:2]
    number = 0
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            source = read[number % len(read)]
            target = image[top : top + rows, left : left + columns]
            target[:] = source[: target.shape[0], : target.shape[1]]
            number += 1
    return image


def show(image: str, margin: str, tile: str, seconds: float, differ: float) -> None:
    print(f"{image:10} {margin:>16} {tile:>7} {seconds:8.1f} {differ:14.4%}", flush=True)


if __name__ == "__main__":
    main()
