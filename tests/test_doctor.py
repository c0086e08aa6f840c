"""The doctor finds each planted fault with its file and remedy, and nothing in clean datasets."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fixture_types import Cli
from miniatures import MINIATURES
from pixelwise.data.classes import Classes, write_classes_toml
from pixelwise.data.connected_components import objects
from pixelwise.data.dataset import open_dataset
from pixelwise.doctor import Diagnosis, Severity, examine
from pixelwise.doctor.doctor_page import write_page
from pixelwise.doctor.measures.alignment import agreement
from pixelwise.doctor.measures.fingerprint import fingerprint, near_pairs
from pixelwise.errors import InputError
from pixelwise.planning.plan import PLANNED
from pixelwise.recipes.load_recipe import load_recipe, parse_override

CAMVID = Path(__file__).parents[2] / "shared" / "camvid"
CLASSES = Classes.make(
    ["soil", "plant", "stone"],
    colors=[(120, 90, 60), (60, 160, 70), (150, 150, 170)],
    ignore=255,
    ignore_color=(255, 255, 255),
)
SIZE = (96, 128)


def scene(seed: int, size: tuple[int, int] = SIZE) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return an image (H, W, 3) of boxes and discs on a random background, and its mask (H, W)."""
    rng = np.random.default_rng(seed)
    height, width = size
    ground = Image.fromarray(rng.integers(60, 130, (5, 6, 3), dtype=np.uint8))
    image = np.asarray(ground.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float64)
    mask = np.zeros(size, dtype=np.uint8)
    rows, columns = np.indices(size)
    for number in range(6):
        value = 1 + number % 2
        y, x = rng.uniform(0.15, 0.85, 2) * size
        tall, wide = rng.uniform(0.08, 0.2, 2) * height
        if value == 1:
            inside = ((rows - y) / tall) ** 2 + ((columns - x) / wide) ** 2 < 1
        else:
            inside = (abs(rows - y) < tall) & (abs(columns - x) < wide)
        image[inside] = np.array(((40, 190, 60), (210, 200, 230))[value - 1]) + rng.uniform(
            -30, 25, 3
        )
        mask[inside] = value
    image += rng.normal(0, 4, image.shape)
    return image.clip(0, 255).astype(np.uint8), mask


def make(
    root: Path,
    *,
    splits: dict[str, int] | None = None,
    form: str = "index",
    table: bool = True,
    suffix: str = ".png",
    size: tuple[int, int] = SIZE,
) -> Path:
    """Write a clean dataset.

    form: of the masks: index, palette, binary, rgb. splits: {"": n} for none.
    """
    seed = 0
    for split, count in (splits or {"train": 12, "val": 4}).items():
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, mask = scene(seed, size)
            seed += 1
            stem = f"{split or 'all'}_{number:02d}"
            Image.fromarray(image).save(root / "images" / split / f"{stem}{suffix}", quality=95)
            save(root / "masks" / split / f"{stem}.png", mask, form)
    if table:
        write_classes_toml(root / "classes.toml", CLASSES)
    return root


def save(path: Path, mask: NDArray[np.uint8], form: str = "index") -> None:
    if form == "binary":
        mask = np.where(mask == 1, 255, 0).astype(np.uint8)
    image = Image.fromarray(CLASSES.color_table()[mask] if form == "rgb" else mask)
    if form == "palette":
        image.putpalette(CLASSES.palette())
    image.save(path)


def read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


def change(path: Path, function: Callable[[NDArray[np.uint8]], NDArray[np.generic]]) -> None:
    Image.fromarray(function(read(path))).save(path)


# Clean folders.


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"form": "palette"},
        {"form": "rgb"},
        {"form": "binary", "table": False},
        {"table": False},
        {"splits": {"": 20}},
        {"splits": {"train": 12, "val": 4, "test": 3}, "suffix": ".jpg"},
        {"size": (128, 128), "suffix": ".jpg"},
    ],
    ids=lambda options: " ".join(map(str, options.values())) or "plain",
)
def test_a_clean_dataset_has_no_findings(tmp_path: Path, options: dict[str, Any]) -> None:
    diagnosis = examine(make(tmp_path, **options))
    bad = [f for f in diagnosis.findings if f.severity is not Severity.NOTE]
    assert bad == []
    assert diagnosis.trains
    open_dataset(tmp_path)


def change_all(root: Path, edit: Callable[[Any], Any], split: str = "*") -> None:
    for path in root.glob(f"masks/{split}/*.png"):
        change(path, edit)


def cut_in_half(path: Path) -> None:
    complete = path.read_bytes()
    path.write_bytes(complete[: len(complete) // 2])


# Planted faults: each states the kind, the file and the remedy of the expected finding.


@dataclass(frozen=True)
class Fault:
    kind: str
    file: str  # the first file of the finding; "" for none
    remedy: str  # a substring
    plant: Callable[[Path], None]
    options: dict[str, Any]
    severity: str = "error"
    stops: bool | None = None  # whether train refuses it; None: if it is an error


FAULTS: list[Fault] = []
IMAGE, MASK = "images/train/train_03.png", "masks/train/train_03.png"


def fault(
    kind: str,
    file: str,
    remedy: str,
    *,
    severity: str = "error",
    stops: bool | None = None,
    **options: Any,
) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    def note(plant: Callable[[Path], None]) -> Callable[[Path], None]:
        FAULTS.append(Fault(kind, file, remedy, plant, options, severity, stops))
        return plant

    return note


fault("image-without-mask", IMAGE, "or remove the image")(lambda root: (root / MASK).unlink())
fault("mask-without-image", MASK, "remove the mask")(lambda root: (root / IMAGE).unlink())
fault("duplicate-stem", IMAGE, "rename one and its mask")(
    lambda root: Image.open(root / IMAGE).save((root / IMAGE).with_suffix(".jpg"))
)
fault("unsupported-format", "images/train/extra.psd", "convert it or remove it")(
    lambda root: (root / "images/train/extra.psd").write_bytes(b"8BPS" + bytes(60))
)
fault("stray-file", "images/stray.png", "move it into a split")(
    lambda root: shutil.copy(root / IMAGE, root / "images/stray.png")
)


@fault("empty-split", "images/val", "put images there")
def _(root: Path) -> None:
    for kind in ("images", "masks"):
        shutil.rmtree(root / kind / "val")
        (root / kind / "val").mkdir()


fault("corrupt-image", IMAGE, "restore the file")(lambda root: cut_in_half(root / IMAGE))


@fault("corrupt-image", "images/train/train_03.jpg", "restore the file", suffix=".jpg")
def _(root: Path) -> None:
    path = root / "images/train/train_03.jpg"
    path.write_bytes(path.read_bytes()[:-900])


fault("corrupt-mask", MASK, "restore the file")(lambda root: cut_in_half(root / MASK))
fault("empty-file", IMAGE, "restore the file")(lambda root: (root / IMAGE).write_bytes(b""))
fault("empty-file", MASK, "restore the file")(lambda root: (root / MASK).write_bytes(b""))
fault("not-an-image", IMAGE, "git lfs pull")(
    lambda root: (root / IMAGE).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n"
    )
)
fault("not-an-image", MASK, "download the file again")(
    lambda root: (root / MASK).write_text("<html>404</html>")
)


@fault("wrong-extension", IMAGE, "the file is PDF: convert it to PNG")
def _(root: Path) -> None:
    image = Image.open(root / IMAGE).convert("RGB")
    image.save(root / IMAGE, format="PDF")


@fault("wrong-extension", IMAGE, "rename it to .jpeg", severity="warning")
def _(root: Path) -> None:
    image = Image.open(root / IMAGE).convert("RGB")
    image.save(root / IMAGE, format="JPEG", quality=95)


fault("size-mismatch", MASK, "nearest neighbor")(
    lambda root: change(root / MASK, lambda mask: mask[::2, ::2])
)
fault("size-mismatch", MASK, "rotate one of the two by 90 degrees")(
    lambda root: change(root / MASK, lambda mask: np.rot90(mask))
)


def rotate_image(path: Path, orientation: int, *, transpose: Image.Transpose) -> None:
    """Store an image transposed, with the EXIF orientation that makes it upright again."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = Image.open(path).convert("RGB")
    upright.transpose(transpose).save(path, exif=exif, quality=95)


JPEG = "images/train/train_03.jpg"


@fault("exif-mismatch", MASK, "rotate the mask the same way", suffix=".jpg")
def _(root: Path) -> None:
    rotate_image(root / JPEG, 6, transpose=Image.Transpose.ROTATE_90)
    change(root / MASK, lambda mask: np.rot90(mask))


@fault("exif-unturned-mask", MASK, "rotate the mask the same way", stops=False, suffix=".jpg")
def _(root: Path) -> None:
    rotate_image(root / JPEG, 3, transpose=Image.Transpose.ROTATE_180)
    change(root / MASK, lambda mask: mask[::-1, ::-1])


@fault(
    "exif-unturned-mask", MASK, "draw the mask on it", stops=False, suffix=".jpg",
    size=(128, 128),
)  # fmt: skip
def _(root: Path) -> None:
    rotate_image(root / JPEG, 6, transpose=Image.Transpose.ROTATE_90)
    change(root / MASK, lambda mask: np.rot90(mask))


fault("all-void", MASK, "label it, or remove it", severity="warning")(
    lambda root: change(root / MASK, lambda mask: np.full_like(mask, 255))
)
fault("single-class", MASK, "none needed if the image is meant to be empty", severity="note")(
    lambda root: change(root / MASK, np.zeros_like)
)
fault("one-class-everywhere", "masks/train/train_00.png", "export the masks again", stops=False)(
    lambda root: change_all(root, np.zeros_like)
)
fault("unknown-value", MASK, "or add the value to")(
    lambda root: change(root / MASK, lambda mask: np.where(mask == 2, 7, mask).astype(np.uint8))
)
fault("unknown-value", "masks/train/train_00.png", "subtract 1 from the masks")(
    lambda root: change_all(root, lambda mask: mask + np.uint8(1))
)


@fault("unknown-value", MASK, "`ignore = 255`")
def _(root: Path) -> None:
    write_classes_toml(root / "classes.toml", Classes.make(CLASSES.names))
    change(root / MASK, lambda mask: np.where(mask == 2, 255, mask).astype(np.uint8))


@fault("binary-255", "masks/train/train_00.png", "`ignore = 255`", severity="note",
       form="binary", table=False)  # fmt: skip
def _(root: Path) -> None:
    """Every binary dataset has this finding."""


fault("ignored-255", MASK, "to confirm it", severity="note", table=False)(
    lambda root: change(root / MASK, lambda mask: np.where(mask == 2, 255, mask).astype(np.uint8))
)


@fault("unclear-values", "masks/train/train_03.png", '"1,255" = "foreground"', table=False)
def _(root: Path) -> None:
    change_all(root, lambda mask: (mask == 1).astype(np.uint8))
    change(root / MASK, lambda mask: mask * np.uint8(255))


fault("off-by-one", "masks/train/train_00.png", "`value`", severity="warning", table=False)(
    lambda root: change_all(root, lambda mask: mask + np.uint8(1))
)
fault(
    "value-gaps",
    "masks/train/train_00.png",
    "`value` of each class",
    severity="warning",
    table=False,
)(lambda root: change_all(root, lambda mask: mask * np.uint8(100)))
fault("rgb-without-table", MASK, "a name and a color for each class", table=False)(
    lambda root: save(root / MASK, read(root / MASK), "rgb")
)


@fault("unknown-color", MASK, "as ignore_color", form="rgb")
def _(root: Path) -> None:
    def recolor(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        mask = mask.copy()
        mask[:9, :9] = 1, 2, 3
        return mask

    change(root / MASK, recolor)


@fault("jpeg-mask", "masks/train/train_03.jpg", "export the masks again as PNG")
def _(root: Path) -> None:
    Image.open(root / MASK).save((root / MASK).with_suffix(".jpg"))
    (root / MASK).unlink()


fault("soft-edges", MASK, "nearest neighbor", form="binary", table=False)(
    lambda root: Image.open(root / MASK).filter(ImageFilter.GaussianBlur(1.5)).save(root / MASK)
)


@fault("soft-edges", MASK, "nearest neighbor", stops=False)
def _(root: Path) -> None:
    """Smoothing 0 and 2 gives a border of 1: all of them are classes."""
    boxes = np.zeros(SIZE, dtype=np.uint8)
    boxes[20:80, 20:50] = boxes[10:60, 70:110] = 2
    image = read(root / IMAGE).copy()
    image[boxes == 2] = 250, 250, 250
    Image.fromarray(image).save(root / IMAGE)
    boxes[:, 1:][np.abs(np.diff(boxes.astype(int), axis=1)) == 2] = 1
    Image.fromarray(boxes).save(root / MASK)


@fault("unclear-values", MASK, "classes.toml", table=False)
def _(root: Path) -> None:
    deep = read(root / MASK).astype(np.uint16) * 300
    Image.fromarray(deep).save(root / MASK)


@fault("transparent-mask", MASK, "without an alpha channel", form="rgb")
def _(root: Path) -> None:
    image = Image.open(root / MASK).convert("RGBA")
    image.putpixel((5, 5), (0, 0, 0, 0))
    image.save(root / MASK)


fault("absent-from-train", "", "add images of stone to train", stops=False)(
    lambda root: change_all(
        root, lambda mask: np.where(mask == 2, 0, mask).astype(np.uint8), "train"
    )
)
fault("absent-from-val", "", "move some images of stone into val", severity="warning")(
    lambda root: change_all(root, lambda mask: np.where(mask == 2, 0, mask).astype(np.uint8), "val")
)


@fault("rare-class", MASK, "--set loss.class_weights=root_median_frequency", severity="warning")
def _(root: Path) -> None:
    change_all(root, lambda mask: np.where(mask == 2, 0, mask).astype(np.uint8), "train")
    change(root / MASK, lambda mask: _with_box(mask, 20))


def _with_box(mask: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    mask = mask.copy()
    mask[10 : 10 + side, 10 : 10 + side] = 2
    return mask


@fault("duplicate-across-splits", "images/val/val_01.png", "remove one of the two",
       severity="warning")  # fmt: skip
def _(root: Path) -> None:
    shutil.copy(root / IMAGE, root / "images/val/val_01.png")
    shutil.copy(root / MASK, root / "masks/val/val_01.png")


@fault("near-duplicate-across-splits", "images/val/val_01.jpg", "in one split",
       severity="warning")  # fmt: skip
def _(root: Path) -> None:
    size = (round(SIZE[1] * 0.9), round(SIZE[0] * 0.9))
    (root / "images/val/val_01.png").unlink()
    small = Image.open(root / IMAGE).resize(size, Image.Resampling.BICUBIC)
    small.save(root / "images/val/val_01.jpg", quality=70)
    mask = Image.open(root / MASK).resize(size, Image.Resampling.NEAREST)
    mask.save(root / "masks/val/val_01.png")


@fault("duplicate-with-other-mask", "images/train/train_02.png", "keep the right mask",
       severity="warning")  # fmt: skip
def _(root: Path) -> None:
    shutil.copy(root / IMAGE, root / "images/train/train_02.png")
    mask = read(root / MASK).copy()
    mask[mask == 2] = 1
    Image.fromarray(mask).save(root / "masks/train/train_02.png")


@fault("duplicate-within-split", "images/train/train_02.png", "remove one pair", severity="note")
def _(root: Path) -> None:
    shutil.copy(root / IMAGE, root / "images/train/train_02.png")
    shutil.copy(root / MASK, root / "masks/train/train_02.png")


@fault("unusual-size", IMAGE, "to the usual scale", severity="warning")
def _(root: Path) -> None:
    image, mask = scene(99, (300, 400))
    Image.fromarray(image).save(root / IMAGE)
    Image.fromarray(mask).save(root / MASK)


fault("gray-among-color", IMAGE, "keep it if new images", severity="warning")(
    lambda root: Image.open(root / IMAGE).convert("L").save(root / IMAGE)
)
fault("alpha", IMAGE, "flatten the images", severity="note")(
    lambda root: Image.open(root / IMAGE).convert("RGBA").save(root / IMAGE)
)
fault("cmyk", JPEG, "save them as RGB", severity="note", suffix=".jpg")(
    lambda root: Image.open(root / JPEG).convert("CMYK").save(root / JPEG, quality=95)
)
fault("blank-image", IMAGE, "remove it and its mask", severity="warning")(
    lambda root: change(root / IMAGE, np.zeros_like)
)
fault("blank-image", IMAGE, "export it again", severity="warning")(
    lambda root: change(root / IMAGE, lambda image: np.full_like(image, 130))
)
fault(
    "shifted-masks", "masks/train/train_00.png", "in the export of the masks", severity="warning"
)(lambda root: change_all(root, lambda mask: np.roll(mask, (6, 9), (0, 1))))
fault("shifted-mask", MASK, "move it back", severity="warning")(
    lambda root: change(root / MASK, lambda mask: np.roll(mask, (7, -8), (0, 1)))
)
fault("turned-mask", MASK, "rotate or mirror it this way", severity="warning")(
    lambda root: change(root / MASK, lambda mask: mask[:, ::-1])
)
fault("mismatched-pair", MASK, "export the right mask", severity="warning")(
    lambda root: Image.fromarray(scene(77)[1]).save(root / MASK)
)
fault("few-images", "", "label a few dozen", severity="warning", splits={"train": 5, "val": 4})(
    lambda root: None
)  # the options plant it
fault(
    "tiny-val",
    "",
    "move images from train to val",
    severity="warning",
    splits={"train": 12, "val": 1},
)(lambda root: None)  # the options plant it


fault("layout", "", "at least 2 are needed", splits={"": 1})(
    lambda root: None
)  # the options plant it


@fault("tiny-objects", "", '--set augmentation.scale="[1.0, 2.0]"', severity="warning")
def _(root: Path) -> None:
    def dots(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        mask = np.where(mask == 2, 0, mask).astype(np.uint8)
        for y, x in ((10, 10), (10, 30), (40, 60), (80, 20), (70, 100), (30, 90)) * 1:
            mask[y : y + 5, x : x + 5] = 2
        return mask

    change_all(root, dots)


@fault("splits-differ", "", "draw the splits from all of them", severity="warning")
def _(root: Path) -> None:
    for number in range(4):
        image, mask = scene(50 + number, (170, 220))
        Image.fromarray(image).save(root / f"images/val/val_{number:02d}.png")
        Image.fromarray(mask).save(root / f"masks/val/val_{number:02d}.png")


fault("class-table", "classes.toml", "give each class its own")(
    lambda root: (root / "classes.toml").write_text(
        '[[class]]\nname = "a"\n[[class]]\nname = "a"\n'
    )
)
fault("class-table", "classes.toml", "correct the line")(
    lambda root: (root / "classes.toml").write_text("[[class\n")
)


@fault("shared-color", "classes.toml", "give each class its own color", severity="warning")
def _(root: Path) -> None:
    colors = [(1, 2, 3), (9, 9, 9), (9, 9, 9)]
    write_classes_toml(root / "classes.toml", Classes.make(CLASSES.names, colors=colors))


FOLLOWING = {
    "empty-split": {"tiny-val"},
    "rare-class": {"few-images-of-class"},
    "tiny-objects": {"rare-class"},
}
"""Further findings that such a fault causes."""


def found(diagnosis: Diagnosis, planted: Fault) -> list[str]:
    """Return the remedies of the findings with the planted kind and file."""
    return [
        row["remedy"]
        for row in diagnosis.to_json()["findings"]
        if row["kind"] == planted.kind
        and row["severity"] == planted.severity
        and (row["files"] or [""])[0] == planted.file
    ]


@pytest.mark.parametrize("planted", FAULTS, ids=lambda f: f"{f.kind}-{f.file.split('/')[0]}")
def test_a_planted_fault_is_found_in_its_file_with_its_remedy(
    tmp_path: Path, planted: Fault
) -> None:
    make(tmp_path, **planted.options)
    planted.plant(tmp_path)
    diagnosis = examine(tmp_path)
    remedies = found(diagnosis, planted)
    assert remedies, [(f.kind.id, f.files, f.message) for f in diagnosis.findings]
    assert planted.remedy in remedies[0]
    stops = planted.severity == "error" if planted.stops is None else planted.stops
    assert diagnosis.trains is not stops
    if planted.kind != "soft-edges":  # training would take a few blended values for classes
        assert opens(tmp_path) is diagnosis.trains
    others = {f.kind.id for f in diagnosis.findings if f.severity is not Severity.NOTE}
    assert others <= {planted.kind, *FOLLOWING.get(planted.kind, ())}


def opens(root: Path) -> bool:
    try:
        open_dataset(root, splits=("train", "val"))
    except InputError:
        return False
    return True


def test_the_planted_faults_cover_many_kinds() -> None:
    assert len({planted.kind for planted in FAULTS}) >= 45


def kinds(diagnosis: Diagnosis) -> set[str]:
    return {finding.kind.id for finding in diagnosis.findings}


def test_one_fault_does_not_hide_another(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "masks/train/train_00.png").unlink()
    (tmp_path / "images/train/train_01.png").write_bytes(b"")
    (tmp_path / "masks/train/train_02.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    change(tmp_path / "masks/train/train_04.png", lambda mask: mask[1:])
    change(tmp_path / "masks/val/val_00.png", lambda mask: mask + np.uint8(40))
    change(tmp_path / "masks/val/val_01.png", lambda mask: np.roll(mask, (7, -8), (0, 1)))
    wanted = {
        "image-without-mask",
        "empty-file",
        "corrupt-mask",
        "size-mismatch",
        "unknown-value",
        "shifted-mask",
    }
    diagnosis = examine(tmp_path)
    assert kinds(diagnosis) >= wanted
    assert sum(diagnosis.facts.pairs.values()) == 15
    assert diagnosis.facts.classes[1].images == {"train": 8, "val": 3}


def test_exchanged_masks_name_each_other(tmp_path: Path) -> None:
    make(tmp_path)
    one, other = tmp_path / "masks/train/train_03.png", tmp_path / "masks/train/train_08.png"
    one.rename(tmp_path / "aside.png")
    other.rename(one)
    (tmp_path / "aside.png").rename(other)
    found = [f for f in examine(tmp_path).findings if f.kind.id == "mismatched-pair"]
    assert sorted((f.files[0].name, f.message.split("it fits ")[1]) for f in found) == [
        ("train_03.png", "train_08.png"),
        ("train_08.png", "train_03.png"),
    ]


def test_problems_of_the_test_split_do_not_stop_training(tmp_path: Path) -> None:
    make(tmp_path, splits={"train": 12, "val": 4, "test": 3})
    (tmp_path / "images/test/test_01.png").write_bytes(b"")
    diagnosis = examine(tmp_path)
    assert kinds(diagnosis) == {"empty-file"}
    assert diagnosis.trains
    assert "Training would run, but the dataset has 1 error and 0 warnings" in diagnosis.verdict
    assert opens(tmp_path)


def test_a_file_without_read_permission_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    real = Path.open

    def denied(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "train_03.png" and path.parent.parent.name == "images":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "open", denied)
    monkeypatch.setattr("builtins.open", lambda path, *a, **o: denied(Path(path), *a, **o))
    (finding,) = examine(tmp_path).findings
    assert finding.kind.id == "unreadable-file"
    assert finding.files == (tmp_path / "images/train/train_03.png",)
    assert "chmod" in finding.remedy


def test_16_bit_images_are_reported_or_read(tmp_path: Path) -> None:
    make(tmp_path)
    deep = np.asarray(Image.open(tmp_path / IMAGE).convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / IMAGE)
    diagnosis = examine(tmp_path)
    assert diagnosis.trains is opens(tmp_path)
    assert diagnosis.trains or "image-16-bit" in kinds(diagnosis)


def test_names_that_differ_only_in_case_are_reported(tmp_path: Path) -> None:
    make(tmp_path)
    for kind in ("images", "masks"):
        for source, target in (("train_02.png", "a.png"), ("train_03.png", "A.png")):
            (tmp_path / kind / "train" / source).rename(tmp_path / kind / "train" / target)
    if len(list((tmp_path / "images/train").iterdir())) < 12:
        pytest.skip("this file system ignores case")
    found = [f for f in examine(tmp_path).findings if f.kind.id == "case-collision"]
    assert [f.files[0].parent.parent.name for f in found] == ["images", "masks"]
    assert found[0].files == (tmp_path / "images/train/A.png", tmp_path / "images/train/a.png")


def test_specks_and_imbalance_are_notes(tmp_path: Path) -> None:
    make(tmp_path)

    def peppered(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        mask = np.where(mask == 2, 0, mask).astype(np.uint8)
        mask[2:90:8, 2:120:12] = 2
        return mask

    for path in tmp_path.glob("masks/*/*.png"):
        change(path, peppered)
    diagnosis = examine(tmp_path)
    notes = {f.kind.id for f in diagnosis.findings if f.severity is Severity.NOTE}
    assert {"specks", "imbalance"} <= notes


@pytest.mark.parametrize("name", MINIATURES)
def test_the_doctor_reads_every_layout_as_training_does(tmp_path: Path, name: str) -> None:
    MINIATURES[name](tmp_path)
    diagnosis = examine(tmp_path)
    data = open_dataset(tmp_path)
    facts = diagnosis.facts
    assert diagnosis.trains
    assert facts.layout == data.layout
    assert facts.notes == data.notes
    assert facts.image_format == str(data.pixels)
    assert facts.pairs == {split: len(samples) for split, samples in data.splits.items()}
    assert [row.name for row in facts.classes] == list(data.classes.names)
    for split, counts in data.pixel_counts.items():
        assert [row.pixels[split] for row in facts.classes] == counts.tolist()
    expected = {
        "few-images", "tiny-val", "absent-from-train", "absent-from-val", "rare-class",
        "tiny-objects", "few-images-of-class", "ignored-255", "value-gaps", "shared-color",
    }  # fmt: skip
    bad = {f.kind.id for f in diagnosis.findings if f.severity is not Severity.NOTE}
    assert bad <= expected


@pytest.mark.parametrize("name", MINIATURES)
def test_a_bad_image_in_any_layout_is_one_finding(tmp_path: Path, name: str) -> None:
    MINIATURES[name](tmp_path)
    bad = open_dataset(tmp_path).splits["train"][0].image
    bad.write_bytes(b"")
    diagnosis = examine(tmp_path)
    assert [f.files for f in diagnosis.findings if f.kind.id == "empty-file"] == [(bad,)]
    assert not diagnosis.trains
    assert any(row.pixels["train"] for row in diagnosis.facts.classes)


def test_a_dataset_with_polygons_is_examined_too(tmp_path: Path) -> None:
    """COCO: all masks are rasterized from the same file."""
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for number in range(14):
        image, _ = scene(number)
        image = image.copy()
        left = 10 + 5 * number
        image[20:70, left : left + 40] = 250, 240, 20
        name = f"{number:02d}.png"
        Image.fromarray(image).save(tmp_path / "images" / name)
        images.append({"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        ring = [left, 20, left + 40, 20, left + 40, 70, left, 70]
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "segmentation": [ring],
                "iscrowd": 0,
                "area": 2000,
                "bbox": [left, 20, 40, 50],
            }
        )
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "tag"}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    diagnosis = examine(tmp_path)
    assert diagnosis.facts.layout == "coco"
    assert [f for f in diagnosis.findings if f.severity is not Severity.NOTE] == []
    assert diagnosis.facts.classes[1].images["train"] == diagnosis.facts.pairs["train"] == 11


def test_the_real_camvid_trains_and_its_rare_classes_are_named() -> None:
    if not CAMVID.is_dir():
        pytest.skip("no shared/camvid beside the repository: CamVid is not part of it")
    diagnosis = examine(CAMVID)
    assert diagnosis.trains
    warnings = [f for f in diagnosis.findings if f.severity is not Severity.NOTE]
    # val is a part of a sequence that train also has.
    assert {f.kind.id for f in warnings} == {"rare-class", "split-cuts-groups"}
    rare = [f for f in warnings if f.kind.id == "rare-class"]
    assert {f.message.split(" has ")[0] for f in rare} == {
        "pole",
        "sign symbol",
        "fence",
        "pedestrian",
        "bicyclist",
    }


# Facts and suggestions.


def test_facts_match_the_files(tmp_path: Path) -> None:
    make(tmp_path, splits={"train": 12, "val": 4})
    facts = examine(tmp_path).facts
    assert facts.pairs == {"train": 12, "val": 4}
    assert facts.sizes == [(SIZE, 16)]
    pixels = np.concatenate([read(p).reshape(-1, 3) for p in tmp_path.glob("images/*/*.png")])
    np.testing.assert_allclose(facts.mean or (), pixels.mean(axis=0), atol=0.006)
    np.testing.assert_allclose(facts.std or (), pixels.std(axis=0), atol=0.006)
    data = open_dataset(tmp_path)
    for split, counts in data.pixel_counts.items():
        assert [row.pixels[split] for row in facts.classes] == counts.tolist()
        assert sum(row.share[split] for row in facts.classes) == pytest.approx(1, abs=1e-5)


def test_suggestions_are_flags_that_train_knows(tmp_path: Path) -> None:
    make(tmp_path)
    for path in tmp_path.glob("masks/*/*.png"):
        change(path, lambda mask: _with_box(np.zeros_like(mask), 9))
    suggestions = examine(tmp_path).suggestions
    assert [s.key for s in suggestions] == list(PLANNED)
    for suggestion in suggestions:
        recipe = load_recipe(None, {suggestion.key: suggestion.value}).to_json()
        if suggestion.flag.startswith("--set "):
            text = suggestion.flag.removeprefix("--set ").replace('"', "")
            assert parse_override(text) == (suggestion.key, suggestion.value)
        for key in suggestion.key.split("."):
            recipe = recipe[key]
        assert recipe == suggestion.value
    assert suggestions[0].value == [96, 128]
    assert suggestions[1].flag == f"--batch-size {suggestions[1].value}"
    assert suggestions[3].value != "none"


# Measures.


def test_objects_are_the_4_connected_components() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        shape = tuple(rng.integers(1, 25, 2))
        mask = rng.integers(0, rng.integers(1, 5), shape, dtype=np.uint8)
        values, areas = objects(mask)
        assert sorted(zip(values.tolist(), areas.tolist(), strict=True)) == flooded(mask)


def flooded(mask: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Return the value and area of each component, by flood fill."""
    visited = np.zeros(mask.shape, dtype=bool)
    parts = []
    for start in np.ndindex(mask.shape):
        if visited[start]:
            continue
        visited[start], waiting, area = True, [start], 0
        while waiting:
            y, x = waiting.pop()
            area += 1
            for place in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                inside = 0 <= place[0] < mask.shape[0] and 0 <= place[1] < mask.shape[1]
                if inside and not visited[place] and mask[place] == mask[start]:
                    visited[place] = True
                    waiting.append(place)
        parts.append((int(mask[start]), area))
    return sorted(parts)


@pytest.mark.parametrize("shift", [(0, 0), (5, 0), (-4, 9)])
def test_agreement_finds_the_shift(shift: tuple[int, int]) -> None:
    image, mask = scene(3)
    gray = np.asarray(Image.fromarray(image).convert("L"))
    found = agreement(gray, np.roll(mask, shift, (0, 1)))
    assert found is not None
    assert found.shift == (-shift[0], -shift[1])
    assert found.best > 10


def test_agreement_without_edges_is_none() -> None:
    image, mask = scene(3)
    gray = np.asarray(Image.fromarray(image).convert("L"))
    assert agreement(gray, np.zeros_like(mask)) is None
    assert agreement(np.zeros_like(gray), mask) is None
    assert agreement(gray[:4, :4], mask[:4, :4]) is None


def test_copies_are_similar_and_other_images_are_not(tmp_path: Path) -> None:
    def fingerprint_of(image: Image.Image) -> Any:
        return fingerprint(np.asarray(image), np.asarray(image.convert("L")))

    originals, copies = [], []
    for number in range(20):
        image = Image.fromarray(scene(number)[0])
        originals.append(fingerprint_of(image))
        small = image.resize((109, 82), Image.Resampling.BILINEAR)
        small.save(tmp_path / "copy.jpg", quality=60)
        copies.append(fingerprint_of(Image.open(tmp_path / "copy.jpg")))
    pairs = near_pairs(originals, copies)
    assert sorted((one, other) for one, other, _ in pairs) == [(i, i) for i in range(20)]


def test_a_diagnosis_has_a_short_repr(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / MASK).write_bytes(b"")
    assert repr(examine(str(tmp_path))) == (
        f"Diagnosis({str(tmp_path)!r}, 1 error, 0 warnings, 0 notes: "
        "Training would fail: fix 1 problem first.)"
    )


@pytest.mark.parametrize("gray", [True, False])
def test_training_and_the_doctor_infer_classes_from_rgb_masks_alike(
    tmp_path: Path, gray: bool
) -> None:
    make(tmp_path, table=False)
    for path in tmp_path.glob("masks/*/*.png"):
        mask = read(path)
        colors = np.repeat(mask[..., None], 3, axis=2) if gray else CLASSES.color_table()[mask]
        Image.fromarray(colors).save(path)
    data, facts = open_dataset(tmp_path), examine(tmp_path).facts
    assert facts.notes == data.notes
    assert any("all RGB masks are gray" in note for note in data.notes) is gray
    assert [row.name for row in facts.classes] == list(data.classes.names)
    assert [row.color for row in facts.classes] == list(data.classes.colors)
    for split, counts in data.pixel_counts.items():
        assert [row.pixels[split] for row in facts.classes] == counts.tolist()


# The command, its JSON and its page.


@pytest.mark.parametrize(("spoil", "code"), [(None, 0), (MASK, 1), ("", 2)])
def test_exit_codes(tmp_path: Path, cli: Cli, spoil: str, code: int) -> None:
    make(tmp_path / "data")
    if spoil:
        (tmp_path / "data" / spoil).write_bytes(b"")
    result = cli("doctor", tmp_path / ("data" if spoil != "" else "absent"))
    assert result.code == code
    text = result.out + result.err
    message = {0: "Ready to train", 1: "Training would fail", 2: "does not exist: give the folder"}
    assert message[code] in text
    assert ("suggested options for train\n--set" in text) == (code < 2)


def test_an_unknown_layout_is_bad_input(tmp_path: Path, cli: Cli) -> None:
    result = cli("doctor", tmp_path)
    assert result.code == 2
    assert "no images and masks found" in result.err


def test_the_json_is_valid_and_stable(tmp_path: Path, cli: Cli) -> None:
    make(tmp_path / "data")
    (tmp_path / "data" / MASK).write_bytes(b"")
    texts = []
    for workers in (1, 4):
        target = tmp_path / f"{workers}.json"
        cli("doctor", "data", "--json", target, "--workers", workers)
        texts.append(target.read_text("utf-8"))
    texts.append(cli("doctor", "data", "--json", "-").out)
    assert texts[0] == texts[1]
    content = json.loads(texts[0])
    assert content.pop("written_by") == "pixelwise doctor"
    assert content == json.loads(texts[2])
    assert content["trains"] is False
    assert content["findings"][0] == {
        "kind": "empty-file",
        "severity": "error",
        "stops_training": True,
        "files": [MASK],
        "message": "is empty (0 bytes)",
        "remedy": "restore the file from its source, or remove it and its partner",
    }


class Links(HTMLParser):
    """Collect everything that a page could load, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in {"src", "href", "srcset", "data"}]


@pytest.mark.skipif(os.name == "nt", reason="such names are not possible there")
def test_the_page_loads_nothing_and_escapes_names(tmp_path: Path) -> None:
    make(tmp_path / "data")
    for kind in ("images", "masks"):
        folder = tmp_path / "data" / kind / "train"
        (folder / "train_03.png").rename(folder / "<b>x.png")
        (folder / "train_04.png").rename(folder / "a\nb.png")
    change(tmp_path / "data/masks/train/<b>x.png", lambda mask: np.roll(mask, (7, -8), (0, 1)))
    (tmp_path / "data/masks/train/a\nb.png").write_bytes(b"")
    page = tmp_path / "page.html"
    write_page(page, examine(tmp_path / "data"))
    text = page.read_text("utf-8")
    links = Links()
    links.feed(text)
    assert links.links
    assert all(link.startswith("data:") for link in links.links)
    assert links.tags.count("img") >= 3  # the shifted pair, and the image of the empty mask
    assert "b" not in links.tags
    assert "&lt;b&gt;x.png" in text
    assert not re.search(r"url\(|@import|<script", text)
    assert "default-src 'none'" in text


@pytest.mark.skipif(os.name == "nt", reason="such names are not possible there")
def test_control_characters_in_names_do_not_reach_the_terminal(tmp_path: Path, cli: Cli) -> None:
    make(tmp_path / "data")
    (tmp_path / "data/masks/train/train_03.png").unlink()
    folder = tmp_path / "data/images/train"
    (folder / "train_03.png").rename(folder / "a\x1b[31m.png")
    result = cli("doctor", "data")
    assert result.code == 1
    assert "\x1b" not in result.out


def test_every_planted_fault_makes_a_page(tmp_path: Path) -> None:
    for number, planted in enumerate(FAULTS[::4]):
        root = tmp_path / str(number)
        make(root, **planted.options)
        planted.plant(root)
        write_page(tmp_path / "page.html", examine(root))
        assert f'id="{planted.kind}-{planted.severity}"' in (tmp_path / "page.html").read_text()
