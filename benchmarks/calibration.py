"""Calibration, and which images are flagged as unlike the data of a network.

    python benchmarks/calibration.py BUNDLE DATA

It fits to the val split as `pixelwise calibrate` does, but stores nothing. Then it prints the
fraction of flagged images among those of val, darkened ones of val, noise, and generated scenes.
The limit comes from all images of val, as in the stored calibration; `false alarms` was measured by
cross-validation.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import pixelwise
from pixelwise.data.scenes import generate_scene
from pixelwise.evaluation import calibrate
from pixelwise.evaluation.open_splits import open_splits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    predictor = pixelwise.load(arguments.bundle, runtime="torch")
    data = open_splits(predictor, arguments.data, "val")
    report = calibrate(predictor, data)
    for name, value in report.to_json().items():
        print(f"{name:20} {value}")
    predictor.calibration = report.stored
    images = [data.read(sample)[0] for sample in data.splits["val"]]
    for name, some in sets(images).items():
        flagged = [bool(predictor(np.ascontiguousarray(image)).flagged) for image in some]
        print(f"{name:20} {sum(flagged)} of {len(flagged)} flagged")


def sets(images: Sequence[Any]) -> dict[str, list[Any]]:
    """Return images by kind, all of the same size."""
    rng = np.random.default_rng(0)
    height, width, _ = images[0].shape
    coarse = rng.integers(0, 256, (12, height // 16, width // 16, 3), dtype=np.uint8)
    return {
        "val": list(images),
        "brightness 0.5": [(image * 0.5).astype(np.uint8) for image in images[::4]],
        "brightness 0.3": [(image * 0.3).astype(np.uint8) for image in images[::4]],
        "brightness 0.2": [(image * 0.2).astype(np.uint8) for image in images[::4]],
        "noise": list(rng.integers(0, 256, (12, height, width, 3), dtype=np.uint8)),
        "smooth noise": [
            np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))
            for noise in coarse
        ],
        "generated scenes": [
            generate_scene(seed, height=height, width=width)[0] for seed in range(24)
        ],
    }


if __name__ == "__main__":
    main()
