"""Measure how many planted faults are among the first findings of label-errors.

    python tests/planted_faults.py CAMVID/train CAMVID/trainannot PLANTED --seed 1
    python benchmarks/label_errors.py PLANTED CAMVID/trainannot STUDY

STUDY holds the trained folds, or they are trained with the default recipe. Beside the ranking of
label-errors, a baseline ranks the connected components of plain disagreement by their size. A
finding hits a fault if at least half of its pixels were changed, or if it covers at least half of
the fault.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.data.classes import IGNORE
from pixelwise.data.dataset import open_dataset
from pixelwise.recipes.load_recipe import load_recipe
from pixelwise.regions.components import find_components
from pixelwise.study.label_errors.find import LabelErrors, find_label_errors
from pixelwise.study.label_errors.predictions import predict_again
from pixelwise.study.label_errors.regions import Kind

FIRST = (50, 100, 200)


@dataclass(frozen=True)
class Faults:
    """The planted faults: the kind of each, and the pixels that it has changed."""

    kinds: dict[str, str]
    changed: dict[str, NDArray[np.bool_]]


def read_faults(planted: Path, originals: Path) -> Faults:
    rows = json.loads((planted / "faults.json").read_text())
    kinds = {row["name"]: row["kind"] for row in rows}

    def read(folder: Path, name: str) -> NDArray[np.uint8]:
        return np.asarray(Image.open(folder / f"{name}.png"))

    changed = {name: read(planted / "masks", name) != read(originals, name) for name in kinds}
    return Faults(kinds, changed)


def is_hit(changed: NDArray[np.bool_], window: tuple[slice, slice], pixels: NDArray) -> bool:
    inside = int((changed[window] & pixels).sum())
    return inside >= 0.5 * pixels.sum() or inside >= 0.5 * changed.sum()


def judge_findings(result: LabelErrors, faults: Faults) -> list[str | None]:
    """Return the image of the fault that each finding hits, or None."""
    hits: list[str | None] = []
    for finding in result.findings[: max(FIRST)]:
        name = Path(finding.image).name
        hit = name in faults.kinds
        if hit and finding.kind is Kind.MISPAIRED:
            hit = faults.kinds[name] == "swapped"
        elif hit:
            hit = is_hit(faults.changed[name], finding.window, finding.mask())
        hits.append(name if hit else None)
    return hits


def judge_baseline(result: LabelErrors, faults: Faults) -> list[str | None]:
    """Rank the components of plain disagreement by size, and judge them in the same way."""
    data = open_dataset(result.root, draw_val=False)
    found: list[tuple[int, str | None]] = []
    for predicted in predict_again(result.images, data, result.images):
        labels = predicted.labels
        wrong = (labels != predicted.predicted) & (labels != IGNORE)
        components = find_components(wrong.astype(np.uint8))
        name = Path(predicted.sample.name).name
        for number in np.flatnonzero(components.labels == 1):
            size = int(components.sizes[number])
            if size < 50:
                continue
            pixels = components.ids == number
            hit = name in faults.kinds and is_hit(faults.changed[name], np.s_[:, :], pixels)
            found.append((size, name if hit else None))
    found.sort(key=lambda row: -row[0])
    return [name for _, name in found[: max(FIRST)]]


def show(title: str, hits: Sequence[str | None], faults: Faults) -> None:
    print(f"\n{title}")
    total = Counter(faults.kinds.values())
    print(f"{'first':>6} {'planted':>8} {'found':>6}  " + "  ".join(total))
    for first in FIRST:
        part = [name for name in hits[:first] if name is not None]
        by_kind = Counter(faults.kinds[name] for name in {*part})
        kinds = "  ".join(f"{by_kind[kind]}/{total[kind]}".rjust(len(kind)) for kind in total)
        share = len({*part}) / len(faults.kinds)
        print(f"{first:>6} {len(part) / first:>8.0%} {share:>6.0%}  {kinds}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for argument in ("planted", "originals", "study"):
        parser.add_argument(argument, type=Path)
    given = parser.parse_args()
    found = find_label_errors(given.planted, given.study, load_recipe(None, {}), folds=4)
    planted = read_faults(given.planted, given.originals)
    print(f"{len(found.findings)} findings, estimate {found.estimate}")
    show("label-errors", judge_findings(found, planted), planted)
    show("plain disagreement, by size", judge_baseline(found, planted), planted)
