"""Compare `select` with random choice and with uncertainty alone.

For each seed, a network is trained on a few labeled images. Then as many images of the pool are
added at random, by the largest mean entropy, and by `select`, and a network is trained on each of
the three sets, with equally many steps. A script that was stopped or killed continues.

    python benchmarks/selection.py scenes --out runs/selection-scenes
    python benchmarks/selection.py camvid --data CAMVID --out runs/selection-camvid

`scenes` generates small street scenes, of which few have a striped barrier. Half of the val scenes
have one, so that its IoU is measured well. It trains the tiny network 20 times. `camvid` starts
with 40 images of CamVid, adds 40, and fine-tunes the default network 12 times; --set as for
`pixelwise train`.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import pixelwise
from pixelwise.data.classes import Classes, write_classes_toml
from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.scenes import SCENE_CLASSES, generate_scene
from pixelwise.inference import Predictor
from pixelwise.recipes.load_recipe import load_recipe, parse_override
from pixelwise.study.learning_curve import count_class_pixels, nested_order, repeat_subset
from pixelwise.study.pool_measures import entropy
from pixelwise.study.select import select
from pixelwise.training import Recipe, resume, train
from pixelwise.training.resume_state import list_checkpoints

HEIGHT, WIDTH = 48, 72
POOL, RARE = 300, 15
LABELED, LABELED_RARE = 24, 5
BATCH = 8
VAL = 60
CLASSES = Classes.make([*SCENE_CLASSES.names, "barrier"], ignore=255)
SCENE_SETTINGS = {
    "model.options.backbone": "tiny",
    "model.options.output_stride": 8,
    "model.weights": "none",
    "memory_format": "contiguous",
    "kernels": "plain",
    "loss.name": "cross_entropy",
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 0.003,
    "optimizer.head_multiplier": 1.0,
    "optimizer.schedule": "cosine",
    "augmentation.scale": [0.75, 1.5],
    "augmentation.crop": [HEIGHT, WIDTH],
}
WAYS = ("random", "uncertainty", "select")
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""Student's t by the number of seeds."""


@dataclass(frozen=True)
class Problem:
    """A dataset of which some training images count as labeled, and the others as the pool."""

    data: SegmentationData
    pixels: NDArray[np.int64]
    start: NDArray[np.intp]
    recipe: Recipe
    steps: int
    added: int

    @property
    def pool(self) -> NDArray[np.intp]:
        return np.setdiff1d(np.arange(len(self.pixels)), self.start)

    def images(self, indices: NDArray[np.intp]) -> list[Path]:
        return [self.data.splits["train"][index].image for index in indices]


def make_scene(number: int, *, rare: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a generated scene and its mask, with a striped barrier on the ground if `rare`."""
    image, mask = generate_scene(number, height=HEIGHT, width=WIDTH)
    if rare:
        rng = np.random.default_rng(number)
        height, width = int(rng.integers(7, 13)), int(rng.integers(10, 20))
        top = int(rng.integers(HEIGHT // 2, HEIGHT - height - 3))
        left = int(rng.integers(0, WIDTH - width))
        rows, columns = np.mgrid[:height, :width]
        stripe = (columns + rng.choice([-1, 1]) * rows) // int(rng.integers(2, 4)) % 2
        first = np.array([rng.integers(150, 240), rng.integers(30, 130), rng.integers(20, 70)])
        second = np.full(3, rng.integers(120, 240))
        place = np.s_[top : top + height, left : left + width]
        light = image[place].mean() / 110  # darker in shadow
        colors = np.where(stripe[..., None] == 0, first, second) * light
        image[place] = np.clip(colors, 0, 255)
        mask[place] = CLASSES.values[-1]
    return image, mask


def write_barrier_scenes(folder: Path, seed: int) -> Path:
    """Write the scenes of a seed: train (labeled and pool, distinguished by name) and val."""
    number = seed * 1_000_000
    for split, prefix, rare, count in (
        ("val", "val", VAL // 2, VAL),
        ("train", "labeled", LABELED_RARE, LABELED),
        ("train", "pool", RARE, POOL),
    ):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            path = folder / "images" / split / f"{prefix}_{index:03d}_scene.png"
            if not path.exists():
                image, mask = make_scene(number + index, rare=index < rare)
                Image.fromarray(mask).save(folder / "masks" / split / path.name)
                Image.fromarray(image).save(path)
        number += count
    write_classes_toml(folder / "classes.toml", CLASSES)
    return folder


def scenes_problem(options: argparse.Namespace, seed: int) -> Problem:
    data = open_dataset(write_barrier_scenes(options.out / f"scenes-{seed}", seed))
    names = [sample.name for sample in data.splits["train"]]
    start = np.array([i for i, name in enumerate(names) if "labeled" in name])
    recipe = make_recipe(SCENE_SETTINGS, options, seed)
    return Problem(data, count_class_pixels(data), start, recipe, options.steps or 1000, LABELED)


def camvid_problem(options: argparse.Namespace, seed: int) -> Problem:
    data = open_dataset(options.data, splits=("train", "val"))
    pixels = count_class_pixels(data)
    recipe = make_recipe({}, options, seed)
    start = np.sort(nested_order(pixels, seed)[:40])
    return Problem(data, pixels, start, recipe, options.steps or 600, 40)


def make_recipe(settings: dict[str, Any], options: argparse.Namespace, seed: int) -> Recipe:
    stated = dict(parse_override(text) for text in options.set)
    fixed = {"seed": seed, "epochs": 1, "batch_size": BATCH, "checkpoint_minutes": 2}
    return load_recipe(None, {**settings, **fixed, **stated})


def score(problem: Problem, out: Path, chosen: NDArray[np.intp]) -> dict[str, float]:
    """Train on some images, or continue, and return the val scores."""
    path = out / "scores.json"
    if not path.exists():
        length = problem.steps * BATCH
        data = repeat_subset(problem.data, chosen, problem.pixels, length)
        if list_checkpoints(out / "checkpoints"):
            run = resume(out, data=data)
        else:
            run = train(data, out, problem.recipe, overwrite=out.exists())
        assert run.evaluation is not None
        scores = run.evaluation.scores
        values = {"mean IoU": scores.mean_iou}
        values |= dict(zip(data.classes.names, scores.iou.tolist(), strict=True))
        path.write_text(json.dumps(values))
    scores_of: dict[str, float] = json.loads(path.read_text())
    return scores_of


def choose(problem: Problem, way: str, predictor: Predictor, out: Path) -> NDArray[np.intp]:
    """Return the indices of the images that are added to the labeled ones."""
    pool = problem.pool
    paths = problem.images(pool)
    if way == "random":
        return np.random.default_rng(problem.recipe.seed).permutation(pool)[: problem.added]
    if way == "uncertainty":
        means = [float(entropy(predictor(path).probabilities).mean()) for path in paths]
        return pool[np.argsort(means)[::-1][: problem.added]]
    known = problem.images(problem.start)
    found = select(paths, predictor, out, count=problem.added, labeled=known)
    index = dict(zip(paths, pool, strict=True))
    return np.array([index[each.path] for each in found.chosen])


def run_seed(problem: Problem, out: Path) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {"start": score(problem, out / "start", problem.start)}
    bundle = out / "start" / "last.safetensors"
    pixelwise.calibrate(bundle, problem.data, quiet=True)
    predictor = pixelwise.load(bundle, runtime="torch")
    rarest = int(
        np.where(problem.pixels.any(axis=0), (problem.pixels > 0).sum(axis=0), 1e9).argmin()
    )
    for way in WAYS:
        path = out / f"{way}.json"
        if not path.exists():
            path.write_text(json.dumps(choose(problem, way, predictor, out / "selection").tolist()))
        added = np.array(json.loads(path.read_text()))
        results[way] = dict(score(problem, out / way, np.concatenate([problem.start, added])))
        results[way]["rare"] = int((problem.pixels[added, rarest] > 0).sum())
        print(f"  {out.name} {way}: {100 * results[way]['mean IoU']:.1f}", flush=True)
    return results


def paired(first: Sequence[float], second: Sequence[float]) -> str:
    """Return the mean difference in points with its 95 % interval."""
    differences = 100 * (np.array(first) - np.array(second))
    mean = differences.mean()
    half = T_95[len(differences)] * differences.std(ddof=1) / np.sqrt(len(differences))
    return f"{mean:+.1f} points ({mean - half:+.1f} to {mean + half:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problem", choices=["scenes", "camvid"])
    parser.add_argument("--data", type=Path, help="CamVid with train and val")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, help="5 for scenes, 3 for camvid")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of each training")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    make = scenes_problem if options.problem == "scenes" else camvid_problem
    rows = []
    count = options.seeds or (5 if options.problem == "scenes" else 3)
    for seed in range(options.first_seed, options.first_seed + count):
        rows.append(run_seed(make(options, seed), options.out / f"seed-{seed}"))
    seeds = f"{len(rows)} seeds from {options.first_seed}"
    print(f"{options.problem}, {platform.machine()}, {date.today()}, {seeds}")
    for way in ("start", *WAYS):
        values = [100 * row[way]["mean IoU"] for row in rows]
        rare = [row[way].get("rare", 0) for row in rows]
        each = ", ".join(f"{value:.1f}" for value in values)
        print(f"{way:12s} {np.mean(values):.1f} % mIoU ({each}); rarest class in {rare} images")
    keys = [key for key in rows[0]["start"] if len(rows) > 1]
    for other in ("random", "uncertainty"):
        for key in keys:
            pair = [[row[way][key] for row in rows] for way in ("select", other)]
            print(f"select - {other}, {key}: {paired(*pair)}")


if __name__ == "__main__":
    main()
