"""Draw where an ImageNet classifier sees a class, scoring every window in one pass.

    python examples/convolutionalize.py [IMAGE] --out heat_map.png

MobileNetV2 classifies one window of 224 pixels. Its dense form scores all windows, 32 pixels apart,
for the cost of one pass over a larger image. For comparison, the windows are also cropped and
classified one row at a time.
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
from pixelwise.models import convolutionalize


def main() -> None:
    args = argument_parser("Draw where an ImageNet classifier sees a class.").parse_args()
    image = load_image(args.image, args.size)
    images = normalize(image)

    classifier = imagenet_classifier()
    dense = convolutionalize(classifier, window=WINDOW)

    with torch.inference_mode():
        started = time.perf_counter()
        scores = dense(images)[0]  # (1000, h, w)
        in_one_pass = time.perf_counter() - started

        started = time.perf_counter()
        rows = []
        for y in range(0, images.shape[2] - WINDOW + 1, STRIDE):
            columns = range(0, images.shape[3] - WINDOW + 1, STRIDE)
            crops = torch.cat([images[:, :, y : y + WINDOW, x : x + WINDOW] for x in columns])
            rows.append(classifier(crops).T)
        windows = torch.stack(rows, dim=1)  # (1000, h, w)
        window_by_window = time.perf_counter() - started

    probabilities = scores.softmax(dim=0)
    count = scores.shape[1] * scores.shape[2]
    correlation = torch.corrcoef(torch.stack([scores.flatten(), windows.flatten()]))[0, 1]
    print(f"image of {image.shape[1]}x{image.shape[0]}: {count} windows of {WINDOW}")
    print(f"window by window {window_by_window:.2f} s, in one pass {in_one_pass:.2f} s")
    # MobileNetV2 pads: at the border of a window its layers see zeros, in one pass the image.
    print(f"the scores have a correlation of {correlation:.3f}; without padding they are equal")
    for number in probabilities.amax(dim=(1, 2)).argsort(descending=True)[:5].tolist():
        print(f"  {probabilities[number].max():4.0%} {class_name(number)}")

    number = choose_class(probabilities.numpy(), args)
    maps = []
    for title, by_class in (("one pass", probabilities), ("windows", windows.softmax(dim=0))):
        heat = by_class[number].numpy()
        maps.append((f"{title}: {class_name(number)}, up to {heat.max():.0%}", heat, STRIDE))
    save_heat_maps(args.out, image, maps)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    run(main)
