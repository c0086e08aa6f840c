"""Compare `select` with random choice and with uncertainty alone, on scenes with a rare class.

For each seed, a pool of generated scenes of which few contain a
barrier, and a few labeled scenes. A
small network is trained on these; then the same number of scenes is added at random, by the mean
entropy alone, and by `select`, and a network is trained on each of the three sets. Half of the val
scenes contain one, so that its IoU is measured well.

    python benchmarks/selection_scenes.py --out runs/selection-scenes

A script that was stopped continues. It takes about 20 seconds for each of the 20 trainings.
"""

from __future__ import annotations

import argparse
import json
import platform
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import pixelwise
from pixelwise.data.classes import Classes, write_classes_toml
from pixelwise.data.scenes import SCENE_CLASSES, generate_scene
from pixelwise.inference import Predictor
from pixelwise.study.pool_measures import entropy
from pixelwise.study.select import select

HEIGHT, WIDTH = 64, 96
POOL, RARE = 400, 16
LABELED, LABELED_RARE = 24, 2
ADDED = 24
VAL = 80
CLASSES = Classes.make([*SCENE_CLASSES.names, "barrier"], ignore=255)
SETTINGS = {
    "model.options.backbone": "tiny",
    "model.options.output_stride": 8,
    "model.weights": "none",
    "memory_format": "contiguous",
    "kernels": "plain",
    "device": "cpu",
    "batch_size": 8,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 0.003,
    "optimizer.head_multiplier": 1.0,
    "optimizer.schedule": "cosine",
    "augmentation.scale": [0.75, 1.5],
}
STEPS = 300
WAYS = ("random", "uncertainty", "select")


def make_scene(number: int, *, rare: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a generated scene and its mask, with a striped barrier on the ground if `rare`."""
    image, mask = generate_scene(number, height=HEIGHT, width=WIDTH)
    if rare:
        rng = np.random.default_rng(number)
        height, width = int(rng.integers(6, 13)), int(rng.integers(9, 19))
        top = int(rng.integers(HEIGHT // 2, HEIGHT - height - 4))
        left = int(rng.integers(0, WIDTH - width))
        rows, columns = np.mgrid[:height, :width]
        stripe = (columns + rng.choice([-1, 1]) * rows) // int(rng.integers(2, 5)) % 2
        first = np.array([rng.integers(150, 240), rng.integers(30, 130), rng.integers(20, 70)])
        second = np.full(3, rng.integers(120, 240))
        colors = np.where(stripe[..., None] == 0, first, second) + rng.normal(0, 8, (1, 1, 3))
        place = np.s_[top : top + height, left : left + width]
        light = image[place].mean() / 110  # darker in shadow
        image[place] = np.clip(colors * light, 0, 255)
        mask[place] = CLASSES.values[-1]
    return image, mask


def draw_scenes(seed: int) -> dict[str, list[tuple[int, bool]]]:
    """Return number and rareness of the scenes of each set, a pure function of `seed`."""
    sets, number = {}, seed * 1_000_000
    for name, rare, count in (
        ("val", VAL // 2, VAL),
        ("labeled", LABELED_RARE, LABELED),
        ("pool", RARE, POOL),
    ):
        sets[name] = [(number + i, i < rare) for i in range(count)]
        number += count
    return sets


def write_dataset(folder: Path, sets: dict[str, list[tuple[int, bool]]]) -> Path:
    """Write scenes as images/SPLIT/N.png and masks/SPLIT/N.png, with classes.toml."""
    for split, scenes in sets.items():
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for number, rare in scenes:
            path = folder / "images" / split / f"n{number}x.png"  # no frame of a video
            if not path.exists():
                image, mask = make_scene(number, rare=rare)
                Image.fromarray(mask).save(folder / "masks" / split / path.name)
                Image.fromarray(image).save(path)
    write_classes_toml(folder / "classes.toml", CLASSES)
    return folder


def train(data: Path, out: Path, seed: int) -> dict[str, float]:
    """Train for STEPS steps and return the val scores of the last epoch."""
    scores = out / "scores.json"
    if not scores.exists():
        images = len(list((data / "images" / "train").iterdir()))
        epochs = max(1, round(STEPS / -(-images // 8)))
        run = pixelwise.train(
            data,
            out=out,
            seed=seed,
            settings={**SETTINGS, "epochs": epochs, "augmentation.crop": [HEIGHT, WIDTH]},
            overwrite=out.exists(),
            quiet=True,
        )
        result = pixelwise.evaluate(run.last, data, details=False, quiet=True)
        names = CLASSES.names
        values = {"mean_iou": result.scores.mean_iou}
        values |= dict(zip(names, result.scores.iou.tolist(), strict=True))
        scores.write_text(json.dumps(values))
    return json.loads(scores.read_text())


def by_entropy(predictor: Predictor, pool: list[Path], count: int) -> list[Path]:
    """Return the images with the highest mean entropy: the usual baseline."""
    means = [float(entropy(predictor(path).probabilities).mean()) for path in pool]
    return [pool[i] for i in np.argsort(means)[::-1][:count]]


def run_seed(out: Path, seed: int) -> dict[str, dict[str, float]]:
    folder = out / f"seed-{seed}"
    table = folder / "sets.json"
    if not table.exists():
        folder.mkdir(parents=True, exist_ok=True)
        table.write_text(json.dumps(draw_scenes(seed)))
    sets = json.loads(table.read_text())
    pool_folder = write_dataset(folder / "pool", {"train": sets["pool"]}) / "images" / "train"
    pool = sorted(pool_folder.iterdir())
    start = write_dataset(folder / "start", {"train": sets["labeled"], "val": sets["val"]})
    results = {"start": train(start, folder / "run-start", seed)}
    bundle = folder / "run-start" / "last.safetensors"
    pixelwise.calibrate(bundle, start, quiet=True)
    predictor = pixelwise.load(bundle, runtime="torch")
    for way in WAYS:
        if way == "random":
            order = np.random.default_rng(seed).permutation(len(pool))
            chosen = [pool[i] for i in order[:ADDED]]
        elif way == "uncertainty":
            chosen = by_entropy(predictor, pool, ADDED)
        else:
            found = select(pool, predictor, folder / "selection", count=ADDED, labeled=start)
            chosen = [each.path for each in found.chosen]
        rare = dict(sets["pool"])
        numbers = [int(path.stem[1:-1]) for path in chosen]
        added = [(number, rare[number]) for number in numbers]
        data = write_dataset(
            folder / way, {"train": sets["labeled"] + added, "val": sets["val"]}
        )
        results[way] = train(data, folder / f"run-{way}", seed)
        results[way]["found"] = sum(is_rare for _, is_rare in added)
    return results


def paired(first: list[float], second: list[float]) -> str:
    """Return the mean difference in points with its 95 % interval (Student's t)."""
    differences = 100 * (np.array(first) - np.array(second))
    t = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}.get(len(differences), 2.262)
    half = t * differences.std(ddof=1) / np.sqrt(len(differences))
    return f"{differences.mean():+.1f} ({differences.mean() - half:+.1f} to {differences.mean() + half:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/selection-scenes"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    rows = [run_seed(options.out, seed) for seed in range(options.seeds)]
    print(f"{platform.processor() or platform.machine()}, {date.today()}, {len(rows)} seeds")
    for way in ("start", *WAYS):
        miou = [row[way]["mean_iou"] for row in rows]
        barrier = [row[way]["barrier"] for row in rows]
        found = [row[way].get("found", 0) for row in rows]
        print(
            f"{way:12s} mIoU {100 * np.mean(miou):.1f} {[round(100 * v, 1) for v in miou]}  barrier IoU "
            f"{100 * np.mean(barrier):.1f}  barriers added {found}"
        )
    if len(rows) > 1:
        for other in ("random", "uncertainty"):
            for key in ("mean_iou", "barrier"):
                pair = ([row[way][key] for row in rows] for way in ("select", other))
                print(f"select - {other}, {key}: {paired(*pair)} points")


if __name__ == "__main__":
    main()
