"""Tiles against one pass over the whole image, by margin: on how many pixels labels differ.

    python benchmarks/tiles.py BUNDLE PHOTO [PHOTO ...] --size 2000 3000 [--runtime openvino]

Of the images two images are made: all of them side by side, and the first upsampled. Margins
are parts of the network's reach; the last line has tiles that pool each for itself. Both ways are
those of one runtime.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

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
    parser.add_argument("photos", type=Path, nargs="+")
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
    first = Image.fromarray(read_image(arguments.photos[0]))
    for name, image in (
        ("mosaic", mosaic(arguments.photos, height, width)),
        ("upsampled", np.asarray(first.resize((width, height), Image.Resampling.BICUBIC))),
    ):
        started = time.perf_counter()
        whole = runtime.classify(image)
        show(name, "one pass", "", time.perf_counter() - started, 0)
        for margin in arguments.margins:
            tiled_model.MARGIN = tiled_model.ROUNDED_MARGIN = margin
            pixels = round(margin * runtime.requirements.receptive_radius)
            least = smallest_tile(margin=pixels, step=runtime.requirements.step)
            side = max(arguments.tile, least)
            started = time.perf_counter()
            found = TiledModel(runtime, tile=side).classify(image)
            seconds = time.perf_counter() - started
            differ = (found != whole).mean()
            show(name, f"{margin:g} ({pixels} px)", str(side), seconds, differ)
        tiled_model.UNKNOWN = runtime.requirements
        found = TiledModel(Alone(runtime), tile=side).classify(image)
        show(name, f"{margin:g}, alone", str(side), 0, (found != whole).mean())


class Alone:
    """The runtime without its knowledge of parts."""

    def __init__(self, runtime: object) -> None:
        self.name, self.logits = "alone", runtime.logits  # type: ignore[attr-defined]


def mosaic(photos: list[Path], height: int, width: int) -> np.ndarray:
    """The images row by row, again and again until the image is full."""
    image = np.zeros((height, width, 3), np.uint8)
    read = [read_image(path) for path in photos]
    rows, columns = read[0].shape[:2]
    number = 0
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            photo = read[number % len(read)]
            target = image[top : top + rows, left : left + columns]
            target[:] = photo[: target.shape[0], : target.shape[1]]
            number += 1
    return image


def show(image: str, margin: str, tile: str, seconds: float, differ: float) -> None:
    print(f"{image:10} {margin:>16} {tile:>7} {seconds:8.1f} {differ:14.4%}", flush=True)


if __name__ == "__main__":
    main()
