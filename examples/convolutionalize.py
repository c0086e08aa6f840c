"""Where in an image is it? An ImageNet classifier asked about every window, in one pass.

    python examples/convolutionalize.py [IMAGE] --out heat_map.png

MobileNetV2 answers for one window of 224 pixels. Its dense form answers for all of them, 32 pixels
apart, at the cost of one larger image. The windows are also cut out and run, to compare.
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
from pixelwise.models import convolutionalize


def main() -> None:
    given = arguments("Draw where an ImageNet classifier sees a class.").parse_args()
    picture = prepared(given.image, given.size)
    images = normalized(picture)

    classifier = imagenet_classifier()
    dense = convolutionalize(classifier, window=WINDOW)

    with torch.inference_mode():
        started = time.perf_counter()
        scores = dense(images)[0]  # (1000, h, w)
        in_one_pass = time.perf_counter() - started

        started = time.perf_counter()
        rows = []
        for y in range(0, images.shape[2] - WINDOW + 1, STRIDE):
            left = range(0, images.shape[3] - WINDOW + 1, STRIDE)
            cut = torch.cat([images[:, :, y : y + WINDOW, x : x + WINDOW] for x in left])
            rows.append(classifier(cut).T)
        windows = torch.stack(rows, dim=1)  # (1000, h, w)
        by_tiles = time.perf_counter() - started

    probabilities = scores.softmax(dim=0)
    count = scores.shape[1] * scores.shape[2]
    alike = torch.corrcoef(torch.stack([scores.flatten(), windows.flatten()]))[0, 1]
    print(f"image of {picture.shape[1]}x{picture.shape[0]}: {count} windows of {WINDOW}")
    print(f"window by window {by_tiles:.2f} s, in one pass {in_one_pass:.2f} s")
    # MobileNetV2 pads: at a window's border its layers see zeros, in one pass what is there.
    print(f"scores of the two correlate by {alike:.3f}; without padding they would be equal")
    for number in probabilities.amax(dim=(1, 2)).argsort(descending=True)[:5].tolist():
        print(f"  {probabilities[number].max():4.0%} {name_of(number)}")

    number = chosen(probabilities.numpy(), given)
    maps = []
    for title, map_ in (("one pass", probabilities), ("windows", windows.softmax(dim=0))):
        heat = map_[number].numpy()
        maps.append((f"{title}: {name_of(number)}, up to {heat.max():.0%}", heat, STRIDE))
    save(given.out, picture, maps)
    print(f"wrote {given.out}")


if __name__ == "__main__":
    run(main)
