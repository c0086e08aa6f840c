"""Plant faults of five kinds into copies of masks, to measure how well they are found.

    python tests/planted_faults.py ../shared/camvid/train ../shared/camvid/trainannot OUT

writes OUT/images, OUT/masks, OUT/classes.toml and OUT/faults.json for CamVid; `--half` halves the
images and masks afterwards. The kinds, one fault per mask:

- `missing`: an object is erased; its pixels take the class next to them.
- `superfluous`: the outline of an object of another mask is pasted where there is no object.
- `wrong-class`: an object gets the number of another class, drawn at random.
- `border`: an object is dilated by some pixels, or moved.
- `swapped`: two masks of one sequence change places. It alone is not limited in size: what differs
  is most of the mask.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

KINDS = ("missing", "superfluous", "wrong-class", "border", "swapped")
LEAST, MOST = 150, 3000
VOID = 11
OBJECTS = (2, 6, 7, 8, 9, 10)  # pole, sign symbol, fence, car, pedestrian, bicyclist
CAMVID_CLASSES = (
    "sky,building,pole,road,pavement,tree,sign symbol,fence,car,pedestrian,bicyclist".split(",")
)

Mask = NDArray[np.uint8]
Region = NDArray[np.bool_]


@dataclass(frozen=True)
class PlantedFault:
    """A fault: the stem of its mask, its kind, and the number of pixels that it changes."""

    name: str
    kind: str
    pixels: int


def plant_faults(
    masks: dict[str, Mask],
    *,
    each: int = 24,
    seed: int = 0,
    objects: Sequence[int] = OBJECTS,
    void: int = VOID,
    least: int = LEAST,
    most: int = MOST,
) -> tuple[dict[str, Mask], list[PlantedFault]]:
    """Return copies of the masks with `each` faults of each kind, at most one per mask."""
    rng = random.Random(seed)
    names = sorted(masks)
    shapes = {name: _objects(masks[name], objects, least, most) for name in names}
    planted, faults, free = dict(masks), [], names.copy()
    rng.shuffle(free)
    makers: dict[str, Callable[[str], Mask | None]] = {
        "missing": lambda name: _erase(rng, masks[name], shapes[name], void),
        "superfluous": lambda name: _paste(rng, masks, shapes, name, objects, void),
        "wrong-class": lambda name: _rename(rng, masks[name], shapes[name], void),
        "border": lambda name: _loosen(rng, masks[name], shapes[name]),
    }
    for kind, make in makers.items():
        count = 0
        for name in free.copy():
            mask = make(name) if count < each else None
            if mask is None:
                continue
            changed = int((mask != masks[name]).sum())
            if least <= changed <= most:
                planted[name] = mask
                faults.append(PlantedFault(name, kind, changed))
                free.remove(name)
                count += 1
        assert count == each, f"{count} masks can hold a fault of the kind {kind}"
    pairs = 0
    while pairs < each // 2:
        first = free.pop()
        others = [name for name in free if _sequence(name) == _sequence(first)]
        if not others:
            continue
        second = rng.choice(others)
        free.remove(second)
        for name, other in ((first, second), (second, first)):
            planted[name] = masks[other]
            changed = int((masks[name] != masks[other]).sum())
            faults.append(PlantedFault(name, "swapped", changed))
        pairs += 1
    return planted, faults


def _sequence(name: str) -> str:
    return re.sub(r"[\d_]+$", "", name) or "all"


def _objects(mask: Mask, objects: Sequence[int], least: int, most: int) -> list[Region]:
    """The connected components of the objects with a suitable number of pixels."""
    found = []
    for value in objects:
        numbered, count = ndimage.label(mask == value)
        sizes = np.bincount(numbered.reshape(-1), minlength=count + 1)
        found += [numbered == i for i in range(1, count + 1) if least <= sizes[i] <= most]
    return found


def _erase(rng: random.Random, mask: Mask, shapes: list[Region], void: int) -> Mask | None:
    if not shapes:
        return None
    region = rng.choice(shapes)
    nearest = ndimage.distance_transform_edt(
        region | (mask == void), return_distances=False, return_indices=True
    )
    return np.where(region, mask[tuple(nearest)], mask)


def _paste(
    rng: random.Random,
    masks: dict[str, Mask],
    shapes: dict[str, list[Region]],
    name: str,
    objects: Sequence[int],
    void: int,
) -> Mask | None:
    mask = masks[name]
    donor = rng.choice(sorted(other for other in masks if shapes[other] and other != name))
    region = rng.choice(shapes[donor])
    value = masks[donor][region][0]
    rows, columns = ndimage.find_objects(region.astype(np.uint8))[0]
    cut = region[rows, columns]
    taken = np.isin(mask, [*objects, void])
    for _ in range(50):
        top = rng.randrange(mask.shape[0] - cut.shape[0] + 1)
        left = rng.randrange(mask.shape[1] - cut.shape[1] + 1)
        window = np.s_[top : top + cut.shape[0], left : left + cut.shape[1]]
        if not (taken[window] & cut).any():
            result = mask.copy()
            result[window][cut] = value
            return result
    return None


def _rename(rng: random.Random, mask: Mask, shapes: list[Region], void: int) -> Mask | None:
    if not shapes:
        return None
    region = rng.choice(shapes)
    own = int(mask[region][0])
    other = rng.choice([value for value in range(void) if value != own])
    return np.where(region, np.uint8(other), mask)


def _loosen(rng: random.Random, mask: Mask, shapes: list[Region]) -> Mask | None:
    if not shapes:
        return None
    region = rng.choice(shapes)
    value = mask[region][0]
    if rng.random() < 0.5:
        steps = rng.randint(4, 8)
        return np.where(ndimage.binary_dilation(region, iterations=steps), value, mask)
    nearest = ndimage.distance_transform_edt(region, return_distances=False, return_indices=True)
    erased = mask[tuple(nearest)]
    shift = rng.choice((-1, 1)) * rng.randint(6, 12), rng.choice((-1, 1)) * rng.randint(6, 12)
    moved = ndimage.shift(region.astype(np.uint8), shift, order=0, mode="constant") > 0
    return np.where(moved, value, erased)


def write_planted(images: Path, annotations: Path, out: Path, *, half: bool, seed: int) -> None:
    """Write a copy of CamVid with planted faults."""
    masks = {path.stem: np.asarray(Image.open(path)) for path in sorted(annotations.iterdir())}
    planted, faults = plant_faults(masks, seed=seed)
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for path in sorted(images.iterdir()):
        if not half:
            (out / "images" / path.name).write_bytes(path.read_bytes())
            continue
        image = Image.open(path).convert("RGB")
        small = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
        small.save(out / "images" / f"{path.stem}.png")
    for name, mask in planted.items():
        Image.fromarray(mask[::2, ::2] if half else mask).save(out / "masks" / f"{name}.png")
    tables = [f'[[class]]\nname = "{name}"\nvalue = {i}\n' for i, name in enumerate(CAMVID_CLASSES)]
    (out / "classes.toml").write_text(f"ignore = {VOID}\n\n" + "\n".join(tables))
    (out / "faults.json").write_text(json.dumps([asdict(fault) for fault in faults], indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for argument in ("images", "annotations", "out"):
        parser.add_argument(argument, type=Path)
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write_planted(given.images, given.annotations, given.out, half=given.half, seed=given.seed)
