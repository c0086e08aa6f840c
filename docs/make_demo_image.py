"""Write docs/demo.png from a finished demo: python docs/make_demo_image.py runs/demo

Each row shows one scene of the test split: image, ground truth, prediction.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import pixelwise
from pixelwise.data.dataset import open_dataset

SCENES = (0, 3, 5)
SCALE, GAP = 2, 6


def main(run: Path) -> None:
    predictor = pixelwise.load(run / "best.safetensors")
    data = open_dataset(run / "scenes", splits=("test",))
    colors = predictor.classes.color_table()
    rows = []
    for sample in (data.splits["test"][i] for i in SCENES):
        image, truth = data.read(sample)
        tiles = [image, colors[truth], colors[predictor.predict_labels(image)]]
        rows.append([np.kron(t, np.ones((SCALE, SCALE, 1), np.uint8)) for t in tiles])
    height, width = rows[0][0].shape[:2]
    sheet = Image.new(
        "RGB",
        (3 * width + 2 * GAP, len(rows) * height + (len(rows) - 1) * GAP),
        "white",
    )
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            sheet.paste(Image.fromarray(tile), (x * (width + GAP), y * (height + GAP)))
    sheet.save(Path(__file__).parent / "demo.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
