"""Measure the run time of the doctor on generated scenes of 500x375, randomly cropped and flipped.

python benchmarks/doctor.py [--images 3000] [--workers 2]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from pixelwise.data.classes import write_classes_toml
from pixelwise.data.scenes import SCENE_CLASSES, generate_scene
from pixelwise.doctor import examine

SCENES = 60
WIDTH, HEIGHT = 500, 375


def write(root: Path, count: int) -> None:
    """Write pairs as JPEG and PNG, a sixth of them in val; each scene gives many crops."""
    rng = np.random.default_rng(0)
    scenes = [generate_scene(seed, height=HEIGHT, width=WIDTH) for seed in range(SCENES)]
    for number in range(count):
        split = "val" if number % 6 == 0 else "train"
        image, mask = scenes[int(rng.integers(SCENES))]
        width = rng.uniform(0.6, 1) * WIDTH
        height = width * HEIGHT / WIDTH
        left, top = rng.uniform(0, WIDTH - width), rng.uniform(0, HEIGHT - height)
        box = (left, top, left + width, top + height)
        for kind, pixels, suffix, resampling in (
            ("images", image, ".jpg", Image.Resampling.BICUBIC),
            ("masks", mask, ".png", Image.Resampling.NEAREST),
        ):
            folder = root / kind / split
            folder.mkdir(parents=True, exist_ok=True)
            crop = Image.fromarray(pixels).resize((WIDTH, HEIGHT), resampling, box=box)
            if number % 2:
                crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            crop.save(folder / f"{number:05d}{suffix}", quality=92)
    write_classes_toml(root / "classes.toml", SCENE_CLASSES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), arguments.images)
        started = time.perf_counter()
        diagnosis = examine(Path(folder), workers=arguments.workers)
        seconds = time.perf_counter() - started
    print(
        f"{arguments.images} images of {WIDTH}x{HEIGHT}: {seconds:.1f} s, "
        f"{1000 * seconds / arguments.images:.1f} ms each; {diagnosis.verdict}"
    )
    for kind, severity, findings in diagnosis.by_kind():
        print(f"  {severity.value} {kind.id}: {len(findings)}")


if __name__ == "__main__":
    main()
