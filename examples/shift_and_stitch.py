"""A finer heat map from the same classifier: shifted passes, interlaced.

    python examples/shift_and_stitch.py [IMAGE] --out heat_map.png --factor 4

The dense form of MobileNetV2 answers every 32 pixels. With factor 4 it runs 16 times, on the
image moved by 8 pixels each time, and answers every 8 pixels.
"""

from __future__ import annotations

import time

import torch

from heat_map import (
    STRIDE,
    WINDOW,
    arguments,
    chosen,
    imagenet_classifier,
    name_of,
    normalized,
    prepared,
    run,
    save,
)
from pixelwise.models import convolutionalize, shift_and_stitch


def main() -> None:
    parser = arguments("Draw where an ImageNet classifier sees a class, at a finer stride.")
    parser.add_argument("--factor", type=int, default=4, help="of the stride: 1, 2, 4, ... 32")
    given = parser.parse_args()
    picture = prepared(given.image, given.size)
    images = normalized(picture)

    dense = convolutionalize(imagenet_classifier(), window=WINDOW)
    finer = shift_and_stitch(dense, given.factor)

    maps = []
    with torch.inference_mode():
        for model, stride in ((dense, STRIDE), (finer, finer.stride)):
            started = time.perf_counter()
            probabilities = model(images)[0].softmax(dim=0).numpy()
            seconds = time.perf_counter() - started
            # Positions beyond these look at windows that reach out of the image.
            rows, columns = ((side - WINDOW) // stride + 1 for side in picture.shape[:2])
            probabilities = probabilities[:, :rows, :columns]
            print(f"stride {stride}: {rows}x{columns} windows in {seconds:.2f} s")
            given.number = chosen(probabilities, given)  # the same for both
            heat = probabilities[given.number]
            title = f"stride {stride}: {name_of(given.number)}, up to {heat.max():.0%}"
            maps.append((title, heat, stride))
    save(given.out, picture, maps)
    print(f"wrote {given.out}")


if __name__ == "__main__":
    run(main)
