"""Draw the images of val whose masks differ most between two bundles, as one PNG file.

    python benchmarks/changed_masks.py BEFORE AFTER DATA --out changed.png

Each row has the image, its label, and both masks, with the fraction of correct pixels of each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import pixelwise
from pixelwise.data.classes import IGNORE
from pixelwise.data.pixel_format import as_shown

WIDTH = 480
MARGIN = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("changed.png"))
    parser.add_argument("--count", type=int, default=10)
    arguments = parser.parse_args()
    networks = [
        pixelwise.load(path, runtime="torch") for path in (arguments.before, arguments.after)
    ]
    data = pixelwise.open_dataset(arguments.data, classes=networks[0].classes, quiet=True)
    found = []
    for sample in data.splits["val"]:
        image, truth = data.read(sample)
        labels = [network(image).labels for network in networks]
        changed = float(((labels[0] != labels[1]) & (truth != IGNORE)).mean())
        found.append((changed, sample.name, image, truth, labels))
        found = sorted(found, key=lambda item: -item[0])[: arguments.count]
    table = data.classes.color_table()
    rows = []
    for changed, name, image, truth, labels in found:
        scored = truth != IGNORE
        right = [f"{100 * (label == truth)[scored].mean():.1f} % correct" for label in labels]
        captions = [f"{name}: {100 * changed:.1f} % of the pixels changed", "label", *right]
        panels = [as_shown(image), table[truth], *(table[label] for label in labels)]
        rows.append([_panel(*pair) for pair in zip(panels, captions, strict=True)])
        print(captions[0], "|", " -> ".join(right))
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    Image.fromarray(sheet).save(arguments.out)


def _panel(pixels: np.ndarray, caption: str) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    image = image.resize(
        (WIDTH, round(WIDTH * image.height / image.width)), Image.Resampling.NEAREST
    )
    panel = Image.new("RGB", (WIDTH + 4, image.height + MARGIN), "white")
    panel.paste(image, (0, MARGIN))
    ImageDraw.Draw(panel).text((4, 6), caption, fill="black")
    return np.asarray(panel)


if __name__ == "__main__":
    main()
