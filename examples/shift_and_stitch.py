"""Draw a finer heat map with the same classifier, from interleaved passes over shifted images.

    python examples/shift_and_stitch.py [IMAGE] --out heat_map.png --factor 4

The dense form of MobileNetV2 has a score every 32 pixels. With factor 4 it runs 16 times, on the
image shifted by 8 pixels each time, and has a score every 8 pixels.
"""

from __future__ import annotations

import time

import torch

from heat_map import (
    STRIDE,
    WINDOW,
    argument_parser,
    choose_class,
    class_name,
    imagenet_classifier,
    load_image,
    normalize,
    run,
    save_heat_maps,
)
from pixelwise.models import convolutionalize, shift_and_stitch


def main() -> None:
    parser = argument_parser("Draw where an ImageNet classifier sees a class, at a finer stride.")
    parser.add_argument("--factor", type=int, default=4, help="divides the stride: 1, 2, 4, ... 32")
    args = parser.parse_args()
    image = load_image(args.image, args.size)
    images = normalize(image)

    dense = convolutionalize(imagenet_classifier(), window=WINDOW)
    finer = shift_and_stitch(dense, args.factor)

    maps = []
    with torch.inference_mode():
        for model, stride in ((dense, STRIDE), (finer, finer.stride)):
            started = time.perf_counter()
            probabilities = model(images)[0].softmax(dim=0).numpy()
            seconds = time.perf_counter() - started
            # Windows at further positions extend beyond the image.
            rows, columns = ((side - WINDOW) // stride + 1 for side in image.shape[:2])
            probabilities = probabilities[:, :rows, :columns]
            print(f"stride {stride}: {rows}x{columns} windows in {seconds:.2f} s")
            args.number = choose_class(probabilities, args)  # the same class for both
            heat = probabilities[args.number]
            title = f"stride {stride}: {class_name(args.number)}, up to {heat.max():.0%}"
            maps.append((title, heat, stride))
    save_heat_maps(args.out, image, maps)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    run(main)
