"""Random datasets of every layout, made from known masks, with what real folders contain.

`make_dataset` writes one dataset and returns the truth: the mask of each image, by the image's
content, so that a mask of another image is noticed whatever the files are called. `misread` opens
the folder and lists every difference. A dataset may be refused; it must never be read wrongly.
"""

from __future__ import annotations

import json
import struct
import unicodedata
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from miniatures import (
    CAMVID32,
    CITYSCAPES,
    VOC,
    coco_counts,
    coco_text,
    rle_pack,
    voc_colors,
    write_mask,
)
from pixelwise.data.dataset import open_dataset
from pixelwise.errors import InputError

VOID = 255
_STEP = 24  # distance between the mean colors of two images; JPEG changes a mean by less than 3

_WORDS = ("images ", "train", "A", "a", "001", "0001", "\u00c4 b", "\u732b", "mask_", "x.1_")
"""Names that are parts of each other, or have a meaning in the paths of datasets."""

Mask = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass
class Scene:
    """An image and its objects: (class, left, top, right, bottom) from the largest to the smallest.

    Attributes:
        name: Path of the image below the image folder, without suffix, with forward slashes.
        lost: Whether the image file was deleted after the annotation was written.
        annotated: False for an image that the annotator never opened.
    """

    number: int
    split: str
    name: str
    suffix: str
    size: tuple[int, int]
    objects: list[tuple[int, int, int, int, int]]
    lost: bool = False
    annotated: bool = True

    @property
    def file(self) -> str:
        return self.name + self.suffix

    @property
    def mask(self) -> Mask:
        mask = np.zeros(self.size, dtype=np.uint8)
        for value, left, top, right, bottom in self.objects:
            mask[top:bottom, left:right] = value
        return mask


@dataclass
class Dataset:
    """A dataset on disk and its truth.

    Attributes:
        names: Class names by index; None if the layout stores none.
        background: Whether an image without an annotation is background throughout.
        faults: What was done to the folder beyond a clean export.
    """

    root: Path
    layout: str
    scenes: list[Scene]
    names: list[str] | None
    background: bool = False
    has_splits: bool = True
    faults: list[str] = field(default_factory=list)


class Writer:
    """Random choices and the files of one dataset."""

    def __init__(self, root: Path, rng: np.random.Generator) -> None:
        self.root, self.rng = root, rng
        self.faults: list[str] = []

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def choose(self, items: Any) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def fault(self, name: str, probability: float = 0.12) -> bool:
        """Decide whether to apply a fault, and note it."""
        if self.chance(probability):
            self.faults.append(name)
            return True
        return False

    def stems(self, count: int) -> list[str]:
        """Distinct file names without suffix, in one of the styles that people use."""
        style = self.choose(
            (
                "number",
                "padded",
                "unicode",
                "decomposed",
                "space",
                "dots",
                "comma",
                "upload",
                "date",
                "words",
            )
        )
        stems = []
        for index in range(count):
            token = int(self.rng.integers(1000))
            stems.append(
                {
                    "number": f"{index}",
                    "padded": f"img_{index:05d}",
                    "unicode": unicodedata.normalize("NFC", f"Fläche é {index}"),
                    "decomposed": unicodedata.normalize("NFD", f"Fläche-é-{index}"),
                    "space": f"my photo ({index})",
                    "dots": f"cam.{index}.v{token}",
                    "comma": f"plot {token}, view {index}",
                    "upload": f"{self.rng.integers(1 << 32):08x}-leaf_{index}",
                    "words": f"{_WORDS[token % len(_WORDS)]}{index}",
                    "date": f"2023{index % 12 + 1:02d}{index % 28 + 1:02d}-scan{index % 2}",
                }[style]
            )
        return stems

    def scenes(
        self,
        classes: int,
        *,
        void: bool = False,
        nested: bool = False,
        splits: tuple[str, ...] = ("train", "val"),
        suffixes: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".JPG", ".PNG"),
        same_suffix: bool = True,
    ) -> list[Scene]:
        """Scenes of random sizes, names and objects; each class occurs at least once in train."""
        count = int(self.rng.integers(4, 8))
        stems = self.stems(count)
        folders = [""] * count
        if nested and self.chance(0.5):
            folders = [self.choose(("a/", "b/", "site 1/deep/")) for _ in range(count)]
            if self.fault("same name in two folders", 0.25):
                folders[:2], stems[1] = ["a/", "b/"], stems[0]
        suffix = self.choose(suffixes)
        scenes = []
        for index in range(count):
            size = int(self.rng.integers(16, 33)) * 2, int(self.rng.integers(16, 33)) * 2
            kind = suffix if same_suffix else self.choose(suffixes)
            split = splits[0] if index < count - 2 else splits[-1]
            objects = [] if self.chance(0.1) and index > 1 else self.objects(size, classes, void)
            if index == 0:
                objects = self.every_class(size, classes)
            number = int(self.rng.integers(1000))
            while number in [scene.number for scene in scenes]:
                number = int(self.rng.integers(1000))
            scenes.append(Scene(number, split, folders[index] + stems[index], kind, size, objects))
        return scenes

    def objects(
        self, size: tuple[int, int], classes: int, void: bool
    ) -> list[tuple[int, int, int, int, int]]:
        found = []
        for _ in range(int(self.rng.integers(1, 5))):
            top, left = (int(self.rng.integers(0, side - 8)) for side in size)
            bottom = int(self.rng.integers(top + 3, size[0] + 1))
            right = int(self.rng.integers(left + 3, size[1] + 1))
            value = VOID if void and self.chance(0.2) else int(self.rng.integers(1, classes))
            found.append((value, left, top, right, bottom))
        by_area = {(r - x) * (b - y): (v, x, y, r, b) for v, x, y, r, b in found}
        return [by_area[area] for area in sorted(by_area, reverse=True)]

    def every_class(
        self, size: tuple[int, int], classes: int
    ) -> list[tuple[int, int, int, int, int]]:
        """Disjoint objects of every class, in strips of growing height."""
        height, width = size
        strip = max(1, (height - 2) // max(1, classes - 1))
        found = []
        for value in range(1, classes):
            top = (value - 1) * strip
            if top + strip <= height - 1:
                found.append((value, value % 3, top, width - value % 5 - 1, top + strip))
        return sorted(found, key=lambda o: -(o[3] - o[1]) * (o[4] - o[2]))

    def note_ambiguous_values(self, scenes: list[Scene]) -> None:
        """Note masks without a class table whose values have another meaning as well."""
        values = [np.unique(scene.mask[scene.mask > 0]).tolist() for scene in scenes]
        of_classes = [[v for v in found if v != VOID] for found in values]
        counted = [found[-1] <= 1.2 * len(found) for found in of_classes if found]
        if all(counted) and max(map(len, of_classes)) > 2:
            self.faults.append("values like numbers of objects")
        if {1, VOID} == {v for found in values for v in found} and [1, VOID] not in values:
            self.faults.append("masks of 0 and 1 beside masks of 0 and 255")

    def write_image(self, path: Path, scene: Scene) -> None:
        """Write noise around a mean color that identifies the scene."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        digits = scene.number % 10, scene.number // 10 % 10, scene.number // 100
        mean = np.array([20 + _STEP * digit for digit in digits])
        noise = self.rng.integers(-9, 10, (*scene.size, 3))
        image = Image.fromarray((mean + noise - noise.mean((0, 1)).round()).astype(np.uint8))
        if path.suffix.lower() in (".jpg", ".jpeg"):
            image.save(path, quality=95, subsampling=0)
        else:
            image.save(path)

    def write_images(self, folder: Callable[[Scene], Path], scenes: list[Scene]) -> None:
        """Write the images, and what goes wrong with image files."""
        if len(scenes) > 2 and self.fault("image deleted", 0.06):
            self.choose(scenes[1:]).lost = True
        other_form = self.chance(0.2)
        for scene in scenes:
            if not scene.lost:
                file = _other_form(scene.file) if other_form else scene.file
                self.write_image(folder(scene) / file, scene)
        if self.fault("second image with the same stem", 0.06):
            scene = self.choose([scene for scene in scenes if not scene.lost])
            other = ".bmp" if scene.suffix.lower() != ".bmp" else ".png"
            twin = Scene(999 - scene.number, scene.split, scene.name, other, scene.size, [])
            if twin.number not in [s.number for s in scenes]:
                twin.annotated = False
                scenes.append(twin)
                self.write_image(folder(twin) / twin.file, twin)
        if self.fault("image without annotation", 0.08):
            numbers = {scene.number for scene in scenes}
            number = next(n for n in range(1000) if n not in numbers)
            extra = Scene(number, "train", "later", scenes[0].suffix, (40, 40), [])
            extra.annotated = False
            scenes.append(extra)
            self.write_image(folder(extra) / extra.file, extra)
        if self.fault("copy in a folder below", 0.06):
            numbers = {scene.number for scene in scenes}
            number = next(n for n in range(1000) if n not in numbers)
            scene = scenes[0]
            copy = Scene(number, scene.split, scene.name, scene.suffix, scene.size, [])
            copy.annotated = False
            scenes.append(copy)
            self.write_image(
                (folder(scene) / scene.file).parent / "again" / Path(scene.file).name, copy
            )
        if self.fault("hidden files", 0.3):
            self.write_hidden(folder(scenes[0]))

    def write_hidden(self, folder: Path) -> None:
        """Files that operating systems, notebooks and file servers leave in folders."""
        for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
            (folder / name).write_bytes(b"\0\1")
        present = [path for path in sorted(folder.rglob("*")) if path.is_file()][:2]
        for path in present:
            (folder / f"._{path.name}").write_bytes(b"\0\5\26\7")
            for name in (".ipynb_checkpoints", ".thumbnails", "@eaDir"):
                (folder / name).mkdir(exist_ok=True)
                (folder / name / path.name).write_bytes(path.read_bytes())


def _other_form(name: str) -> str:
    """The name in the other Unicode form, as another operating system stores it."""
    form = "NFC" if unicodedata.is_normalized("NFD", name) else "NFD"
    return unicodedata.normalize(form, name)


def gray_png(mask: Mask, bits: int) -> bytes:
    """A grayscale PNG of 1, 2, 4 or 8 bits per pixel that holds the values of `mask`."""
    rows = b""
    for row in mask:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", mask.shape[1], mask.shape[0], bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _mask_kind(writer: Writer, classes: int, void: bool) -> str:
    kinds = ["gray", "palette", "permuted palettes", "npy", "tif", "gray as rgb"]
    if not void:  # without a class table, the color of ignored pixels is that of one more class
        kinds += ["rgb"]
    if classes == 2 and not void:
        kinds += ["1 bit", "0 and 255", "1 bit beside 0 and 255"] * 2
    if classes <= 4 and not void:
        kinds += ["2 bits"] * 2
    if classes <= 16 and not void:
        kinds += ["4 bits"] * 2
    return str(writer.choose(kinds))


def _write_plain_mask(
    writer: Writer, path: Path, mask: Mask, kind: str, colors: list[Any], index: int
) -> None:
    """Write a mask without a class table in one of the ways in which tools store it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "1 bit beside 0 and 255":
        kind = "1 bit" if index % 2 else "0 and 255"
    if kind.endswith(("bit", "bits")):
        path.write_bytes(gray_png(mask, int(kind[0])))
    elif kind == "0 and 255":
        write_mask(path, mask * np.uint8(255))
    elif kind == "npy":
        np.save(path.with_suffix(".npy"), mask)
    elif kind == "tif":
        Image.fromarray(mask).save(path.with_suffix(".tif"))
    elif kind == "gray as rgb":
        write_mask(path, mask[..., None].repeat(3, axis=2))
    elif kind == "rgb":
        write_mask(path, np.array(colors, dtype=np.uint8)[mask])
    elif kind in ("palette", "permuted palettes"):
        order = np.arange(256)
        if kind == "permuted palettes":
            used = len(colors) if len(colors) < 256 else len(set(colors)) - 1
            order[:used] = writer.rng.permutation(used)
        table = np.zeros((256, 3), dtype=np.uint8)
        table[order[: len(colors)]] = colors
        write_mask(path, order[mask].astype(np.uint8), [tuple(color) for color in table.tolist()])
    else:
        write_mask(path, mask)


def folders(writer: Writer) -> Dataset:
    """Image and mask folders without a class table."""
    classes = int(writer.rng.integers(2, 7))
    void = writer.chance(0.3)
    structure = writer.choose(("split inside", "split outside", "flat", "one folder", "list"))
    has_splits = structure in ("split inside", "split outside", "list")
    nested = structure in ("flat", "split inside")
    scenes = writer.scenes(classes, void=void, nested=nested)
    images = writer.choose(("images", "imgs", "JPEGImages"))
    masks = writer.choose(("masks", "labels", "annotations", "gt"))
    ending = writer.choose(("", "_mask", "_gt"))
    kind = _mask_kind(writer, classes, void)
    writer.note_ambiguous_values(scenes)
    if len({scene.name.count("/") for scene in scenes}) > 1:
        writer.faults.append("folders of different depth")  # one pattern may not describe them

    def folder(scene: Scene, name: str) -> Path:
        part = {"val": "valid" if masks == "gt" else "val"}.get(scene.split, scene.split)
        inside = writer.root / name / part
        return {
            "split inside": inside,
            "split outside": writer.root / part / name,
            "one folder": writer.root,
        }.get(structure, writer.root / name)

    if structure == "one folder":
        ending = ending or "_mask"
    colors = [(0, 0, 0), (200, 10, 30), (3, 160, 40), (9, 70, 230), (250, 200, 1), (8, 190, 190)]
    colors += [(7, 8, 9)] * (255 - len(colors)) + [(224, 224, 192)]
    lines: dict[str, list[str]] = {"train": [], "val": []}
    annotated = list(scenes)
    for index, scene in enumerate(annotated):
        path = folder(scene, masks) / f"{scene.name}{ending}.png"
        _write_plain_mask(writer, path, scene.mask, kind, colors, index)
        written = next(path.parent.glob(f"{path.stem.replace('[', '[[]')}.*"))
        lines[scene.split].append(f"{images}/{scene.file}\t{written.relative_to(writer.root)}")
        if index == 1 and writer.fault("second mask with the same stem", 0.04):
            write_mask(path.with_suffix(".bmp"), 1 - np.minimum(scene.mask, 1))
    if structure == "list":
        for split, text in lines.items():
            (writer.root / f"{split}.txt").write_text("\n".join(text) + "\n", encoding="utf-8")
    writer.write_images(lambda scene: folder(scene, images), scenes)
    return Dataset(writer.root, f"folders {kind}", scenes, None, has_splits=has_splits)


def class_masks(writer: Writer) -> Dataset:
    """A black-and-white mask per class."""
    names = ["background", "car", "road"]
    scenes = writer.scenes(3)
    for scene in list(scenes):
        for value, name in enumerate(names[1:], start=1):
            path = writer.root / "masks" / scene.split / name / f"{scene.name}.png"
            write_mask(path, (scene.mask == value) * np.uint8(255))
    writer.write_images(lambda scene: writer.root / "images" / scene.split, scenes)
    return Dataset(writer.root, "class-masks", scenes, names)


def _lists(writer: Writer, folder: Path, scenes: list[Scene]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    style = writer.choose(("name", "name", "name", *_STYLES))
    for split in ("train", "val"):
        own = [scene for scene in scenes if scene.split == split]
        lines = [s.name if style == "name" else _reference(writer, s, style, "x") for s in own]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def voc(writer: Writer) -> Dataset:
    scenes = writer.scenes(21, void=True)
    palette = voc_colors() + [(0, 0, 0)] * 234 + [(224, 224, 192)]
    _lists(writer, writer.root / "ImageSets" / "Segmentation", scenes)
    for scene in scenes:
        path = writer.root / "SegmentationClass" / f"{scene.name}.png"
        write_mask(path, scene.mask, palette)
    (writer.root / "SegmentationObject").mkdir()  # evidence of the classes of VOC
    writer.write_images(lambda _: writer.root / "JPEGImages", scenes)
    return Dataset(writer.root, "voc", scenes, VOC)


def sbd(writer: Writer) -> Dataset:
    from scipy.io import savemat

    scenes = writer.scenes(21, suffixes=(".jpg",))
    base = writer.root / "dataset"
    _lists(writer, base, scenes)
    (base / "cls").mkdir(parents=True)
    for scene in scenes:
        content = {"Boundaries": np.zeros((20, 1)), "Segmentation": scene.mask}
        savemat(str(base / "cls" / f"{scene.name}.mat"), {"GTcls": content})
    writer.write_images(lambda _: base / "img", scenes)
    return Dataset(writer.root, "sbd", scenes, VOC)


def cvat(writer: Writer) -> Dataset:
    colors = {"background": (0, 0, 0), "car": (250, 50, 83), "road": (52, 209, 183)}
    if writer.fault("gray labelmap", 0.2):
        colors = {"background": (0, 0, 0), "car": (2, 2, 2), "road": (1, 1, 1)}
    names = list(colors)
    scenes = writer.scenes(3, nested=True)
    _lists(writer, writer.root / "ImageSets" / "Segmentation", scenes)
    rows = list(colors.items())
    order = [rows[i] for i in writer.rng.permutation(len(rows))]
    lines = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in order]
    text = "# label:color_rgb:parts:actions\n" + "\n".join(lines)
    (writer.root / "labelmap.txt").write_text(text)
    kind = writer.choose(("rgb", "palette", "gray" if names and colors["car"][0] == 2 else "rgb"))
    for scene in scenes:
        path = writer.root / "SegmentationClass" / f"{scene.name}.png"
        table = np.array(list(colors.values()), dtype=np.uint8)
        if kind == "palette":
            shuffled = writer.rng.permutation(3)
            stored = np.argsort(shuffled)[scene.mask].astype(np.uint8)
            write_mask(path, stored, [tuple(color) for color in table[shuffled].tolist()])
        elif kind == "gray":
            write_mask(path, table[scene.mask][..., 0])
        else:
            write_mask(path, table[scene.mask])
    writer.write_images(lambda _: writer.root / "JPEGImages", scenes)
    return Dataset(writer.root, f"cvat {kind}", scenes, names)


_ODD_NAMES = ["background", "tree", "car ", "cafe\u0301", "road sign", "Straße"]


def _odd_names(count: int) -> tuple[list[str], list[str]]:
    """Class names as they must be read, and as they are written."""
    written = _ODD_NAMES[:count]
    return [unicodedata.normalize("NFC", name.strip()) for name in written], written


def _reference(writer: Writer, scene: Scene, style: str, folder: str) -> str:
    """The path of an image as a tool on another machine writes it."""
    file = scene.file
    return {
        "plain": file,
        "base": file.rpartition("/")[2],
        "folder": f"{folder}/{file}",
        "windows": f"{folder}\\{file}".replace("/", "\\"),
        "drive": f"C:\\data\\{folder}\\{file}".replace("/", "\\"),
        "home": f"/home/ana/{folder}/{file}",
        "above": f"../../{folder}/{file}",
        "other form": _other_form(file),
    }[style]


_STYLES = ("plain", "plain", "folder", "windows", "drive", "home", "above", "other form")


def coco(writer: Writer) -> Dataset:
    expected, written = _odd_names(int(writer.rng.integers(2, 6)))
    scenes = writer.scenes(len(expected), nested=True, same_suffix=False)
    ids = {value: 3 * value + 1 for value in range(1, len(written))}
    style = writer.choose(_STYLES)
    split_folders = writer.chance(0.5)
    images = writer.choose(("images", "data", "JPEGImages", "x"))
    (writer.root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
        content["categories"] = [{"id": key, "name": written[v]} for v, key in ids.items()]
        own = [scene for scene in scenes if scene.split == split]
        folder = f"{images}/{split}" if split_folders else images
        for number, scene in enumerate(own):
            if number == 1 and writer.fault("two images share an id", 0.06):
                number = 0
            height, width = scene.size
            name = _reference(writer, scene, style, folder)
            entry = {"id": number, "file_name": name, "height": height, "width": width}
            content["images"].append(entry)
            for value, left, top, right, bottom in scene.objects[::-1]:
                ring = [left, top, right, top, right, bottom, left, bottom]
                covered = np.zeros(scene.size, dtype=bool)
                covered[top:bottom, left:right] = True
                counts = coco_counts(covered)
                stored = writer.choose(
                    (
                        [ring],
                        {"size": [height, width], "counts": counts},
                        {"size": [height, width], "counts": coco_text(counts)},
                    )
                )
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]),
                        "image_id": number,
                        "category_id": ids[value],
                        "segmentation": stored,
                        "area": int(covered.sum()),
                        "bbox": [left, top, right - left, bottom - top],
                        "iscrowd": int(isinstance(stored, dict)),
                    }
                )
        path = writer.root / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(content))
    base = writer.root / images
    writer.write_images(lambda s: base / s.split if split_folders else base, scenes)
    return Dataset(writer.root, f"coco {style}", scenes, expected, background=True)


def yolo(writer: Writer) -> Dataset:
    names = ["background", "yes", "1.10", "010", "tree"][: int(writer.rng.integers(2, 6))]
    scenes = writer.scenes(len(names), nested=True, same_suffix=False)
    suffix = ".TXT" if writer.fault("upper-case label suffix", 0.08) else ".txt"
    flat = writer.fault("labels less deep than images", 0.05)
    lost_folder = writer.fault("no labels of a split", 0.05)
    labeled = []
    for scene in scenes:
        height, width = scene.size
        lines = []
        for value, left, top, right, bottom in scene.objects:
            ring = [(left, top), (right, top), (right, bottom), (left, bottom)]
            corners = " ".join(f"{x / width:.12g} {y / height:.12g}" for x, y in ring)
            lines.append(f"{value - 1} {corners}")
        name = scene.name.rpartition("/")[2] if flat else scene.name
        path = writer.root / "labels" / scene.split / f"{name}{suffix}"
        if (lines or writer.chance(0.5)) and not (lost_folder and scene.split == "train"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n")
            labeled.append(scene)
    folders = [{(s.split, Path(s.name).parent) for s in group} for group in (scenes, labeled)]
    if folders[0] - folders[1]:  # these labels may be elsewhere
        writer.faults.append("no labels of a folder")
    paths = "train: images/train\nval: images/val\n"
    if writer.chance(0.3):
        style = writer.choose(("folder", "windows", "drive", "home"))
        paths = "train: train.txt\nval: val.txt\n"
        for split in ("train", "val"):
            own = [scene for scene in scenes if scene.split == split]
            lines = [_reference(writer, scene, style, f"images/{split}") for scene in own]
            (writer.root / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = f"{paths}names: "
    if writer.chance(0.5):
        text += "[" + ", ".join(names[1:]) + "]\n"
    else:
        text += "\n" + "".join(f"  {i}: {name}\n" for i, name in enumerate(names[1:]))
    (writer.root / "data.yaml").write_text(text)
    writer.write_images(lambda s: writer.root / "images" / s.split, scenes)
    scenes = [scene for scene in scenes if not scene.lost or scene in labeled]
    return Dataset(writer.root, "yolo", scenes, names, background=True)


def ultralytics(writer: Writer) -> Dataset:
    names = ["wood", "no", "water"]
    scenes = writer.scenes(3, void=True)
    for scene in scenes:
        write_mask(writer.root / "masks" / scene.split / f"{scene.name}.png", scene.mask)
    text = "train: images/train\nval: images/val\nmasks_dir: masks\nnames: [wood, no, water]\n"
    (writer.root / "data.yaml").write_text(text)
    writer.write_images(lambda s: writer.root / "images" / s.split, scenes)
    return Dataset(writer.root, "ultralytics", scenes, names)


def roboflow(writer: Writer) -> Dataset:
    names = ["background", "leaf", "stem"]
    scenes = writer.scenes(3)
    folders = {"train": writer.root / "train", "val": writer.root / "valid"}
    for scene in scenes:
        folder = folders[scene.split]
        write_mask(folder / f"{scene.name}_mask.png", scene.mask)
        rows = "Pixel Value, Class\n0, background\n1, leaf\n2, stem\n"
        (folder / "_classes.csv").write_text(rows)
    writer.write_images(lambda s: folders[s.split], scenes)
    return Dataset(writer.root, "roboflow", scenes, names)


def labelme(writer: Writer) -> Dataset:
    names = ["background", "car", "pole", "tree"][: int(writer.rng.integers(2, 5))]
    scenes = writer.scenes(len(names), nested=writer.chance(0.3), same_suffix=False)
    style = writer.choose(("base", "base", "windows", "drive", "home", "other form"))
    beside = writer.chance(0.5)
    if writer.chance(0.3):
        (writer.root / "labels.txt").write_text("\n".join(names[1:]))
    padded = writer.fault("space after a label", 0.1)
    for index, scene in enumerate(scenes):
        shapes = []
        for value, left, top, right, bottom in scene.objects:
            label = names[value] + (" " if padded and index % 2 else "")
            corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
            kind = writer.choose(("polygon", "rectangle"))
            points = corners if kind == "polygon" else [corners[0], corners[2]]
            shapes.append({"label": label, "shape_type": kind, "points": points})
        content = {
            "version": "5.4.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": _reference(writer, scene, style, "images"),
            "imageData": None,
            "imageHeight": scene.size[0],
            "imageWidth": scene.size[1],
        }
        folder = writer.root if beside else writer.root / "annotations"
        path = folder / f"{scene.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    writer.write_images(lambda _: writer.root if beside else writer.root / "images", scenes)
    return Dataset(writer.root, f"labelme {style}", scenes, names, has_splits=False)


def label_studio(writer: Writer) -> Dataset:
    names = ["background", "car", "road", "tree"][: int(writer.rng.integers(2, 5))]
    scenes = writer.scenes(len(names), nested=writer.chance(0.3), same_suffix=False)
    hashed = writer.chance(0.4)
    keeps_hash = writer.chance(0.5)
    tasks = []
    stored_name = {}
    for index, scene in enumerate(scenes):
        height, width = scene.size
        results = []
        for value, left, top, right, bottom in scene.objects:
            covered = np.zeros(scene.size, dtype=np.uint8)
            covered[top:bottom, left:right] = 255
            rle = rle_pack(tuple(covered.repeat(4).tolist()))
            corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
            points = [[100 * x / width, 100 * y / height] for x, y in corners]
            content: dict[str, Any] = {"points": points, "polygonlabels": [names[value]]}
            kind = writer.choose(("polygon", "rectangle", "brush"))
            if kind == "rectangle":
                area = {"x": points[0][0], "y": points[0][1]}
                area |= {
                    "width": points[2][0] - points[0][0],
                    "height": points[2][1] - points[0][1],
                }
                content = {**area, "rectanglelabels": [names[value]]}
            elif kind == "brush":
                content = {"format": "rle", "brushlabels": [names[value]], "rle": rle}
            result = {"value": content, "original_width": width, "original_height": height}
            results.append({**result, "type": next(key for key in content if "labels" in key)})
        base = scene.name.rpartition("/")[2] + scene.suffix
        upload = f"{writer.rng.integers(1 << 32):08x}-{base}" if hashed else base
        local = f"/data/local-files/?d=project/{scene.file}"
        url = f"/data/upload/1/{upload}" if hashed or "/" not in scene.name else local
        if hashed and keeps_hash:
            stored_name[index] = upload
        tasks.append({"id": index, "annotations": [{"result": results}], "data": {"image": url}})
    for index, name in stored_name.items():
        scene = scenes[index]
        scene.name, scene.suffix = name[: -len(scene.suffix)], scene.suffix
    (writer.root / "export.json").write_text(json.dumps(tasks))
    writer.write_images(lambda _: writer.root / "images", scenes)
    return Dataset(writer.root, "label-studio", scenes, names, has_splits=False)


def camvid(writer: Writer) -> Dataset:
    names = "sky,building,pole,road,pavement,tree,sign symbol,fence,car,pedestrian,bicyclist"
    scenes = writer.scenes(11, void=True)
    for scene in scenes:
        stored = np.where(scene.mask == VOID, 11, scene.mask).astype(np.uint8)
        write_mask(writer.root / f"{scene.split}annot" / f"{scene.name}.png", stored)
        (writer.root / f"{scene.split}.txt").write_text("/SegNet/CamVid/train/0.png /SegNet/0.png")
    writer.write_images(lambda s: writer.root / s.split, scenes)
    return Dataset(writer.root, "camvid", scenes, names.split(","))


def camvid32(writer: Writer) -> Dataset:
    rows = [line.split() for line in CAMVID32.splitlines()]
    named = {name: (int(r), int(g), int(b)) for r, g, b, name in rows}
    void = named.pop("Void")
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(named)], table[VOID] = [*named.values()], void
    scenes = writer.scenes(len(named), void=True)
    for scene in scenes:
        path = writer.root / "LabeledApproved_full" / f"{scene.name}_L.png"
        write_mask(path, table[scene.mask])
    (writer.root / "label_colors.txt").write_text(CAMVID32)
    writer.write_images(lambda _: writer.root / "701_StillsRaw_full", scenes)
    return Dataset(writer.root, "camvid32", scenes, [*named], has_splits=False)


def cityscapes(writer: Writer) -> Dataset:
    names = [name for name, _ in CITYSCAPES]
    ids = np.zeros(256, dtype=np.uint8)
    ids[: len(CITYSCAPES)] = [value for _, value in CITYSCAPES]
    scenes = writer.scenes(len(names), void=True, suffixes=(".png",))
    for index, scene in enumerate(scenes):
        city = ("ulm", "bonn")[index % 2]
        bare = f"{city}_{index:06d}_000019"
        scene.name = f"{city}/{bare}_leftImg8bit"
        folder = writer.root / "gtFine" / scene.split / city
        write_mask(folder / f"{bare}_gtFine_labelIds.png", ids[scene.mask])
        write_mask(folder / f"{bare}_gtFine_instanceIds.png", ids[scene.mask])
    writer.write_images(lambda s: writer.root / "leftImg8bit" / s.split, scenes)
    return Dataset(writer.root, "cityscapes", scenes, names)


def ade20k(writer: Writer) -> Dataset:
    names = [f"thing {value}" for value in range(1, 151)]
    scenes = writer.scenes(30, void=True, suffixes=(".jpg",))
    folders = {"train": "training", "val": "validation"}
    for scene in scenes:
        stored = np.where(scene.mask == VOID, 0, scene.mask + 1).astype(np.uint8)
        write_mask(writer.root / "annotations" / folders[scene.split] / f"{scene.name}.png", stored)
    rows = [f"{v}\t0.1\t10\t2\t0\tthing {v}, another {v}" for v in range(1, 151)]
    table = ["Idx\tRatio\tTrain\tVal\tStuff\tName", *rows]
    (writer.root / "objectInfo150.txt").write_text("\n".join(table) + "\n")
    writer.write_images(lambda s: writer.root / "images" / folders[s.split], scenes)
    return Dataset(writer.root, "ade20k", scenes, names)


def own_training_folders(writer: Writer) -> Dataset:
    """A user's images/training and annotations/training, which is not ADE20K."""
    scenes = writer.scenes(int(writer.rng.integers(2, 6)))
    writer.note_ambiguous_values(scenes)
    folders = {"train": "training", "val": "validation"}
    for scene in scenes:
        folder = writer.root / "annotations" / folders[scene.split]
        write_mask(folder / f"{scene.name}.png", scene.mask)
    writer.write_images(lambda s: writer.root / "images" / folders[s.split], scenes)
    return Dataset(writer.root, "own training folders", scenes, None)


def coco_stuff(writer: Writer) -> Dataset:
    names = ["person", "bicycle", "car"]
    scenes = writer.scenes(3, void=True)
    for scene in scenes:
        folder = writer.root / "stuffthingmaps" / f"{scene.split}2017"
        write_mask(folder / f"{scene.name}.png", scene.mask)
    (writer.root / "labels.txt").write_text("0: unlabeled\n1: person\n2: bicycle\n3: car\n")
    writer.write_images(lambda s: writer.root / "images" / f"{s.split}2017", scenes)
    return Dataset(writer.root, "coco-stuff", scenes, names)


LAYOUTS: dict[str, tuple[Callable[[Writer], Dataset], int]] = {
    "folders": (folders, 6),
    "class-masks": (class_masks, 1),
    "voc": (voc, 2),
    "sbd": (sbd, 1),
    "cvat": (cvat, 3),
    "coco": (coco, 4),
    "coco-stuff": (coco_stuff, 1),
    "yolo": (yolo, 4),
    "ultralytics": (ultralytics, 1),
    "roboflow": (roboflow, 1),
    "labelme": (labelme, 3),
    "label-studio": (label_studio, 3),
    "camvid": (camvid, 1),
    "camvid32": (camvid32, 1),
    "cityscapes": (cityscapes, 1),
    "ade20k": (ade20k, 1),
    "own training folders": (own_training_folders, 1),
}
"""The writer of each layout, and how often it is drawn, by the number of its choices."""


def make_dataset(root: Path, seed: int) -> Dataset:
    """Write random dataset number `seed` into an empty folder."""
    rng = np.random.default_rng(seed)
    writers = [writer for writer, weight in LAYOUTS.values() for _ in range(weight)]
    root.mkdir(parents=True)
    writer = Writer(root, rng)
    dataset = writers[seed % len(writers)](writer)
    dataset.faults = writer.faults
    return dataset


def misread(dataset: Dataset, root: Path | None = None) -> tuple[list[str], InputError | None]:
    """Open a dataset and compare it with the truth.

    Args:
        dataset: The dataset.
        root: Its folder, if it was converted to another one.

    Returns:
        What was read wrongly, and the error if the dataset was refused.
    """
    try:
        data = open_dataset(root or dataset.root, draw_val=False)
        read = [(split, s, *data.read(s)) for split, group in data.splits.items() for s in group]
    except InputError as error:
        return [], error
    truth = {scene.number: scene for scene in dataset.scenes}
    index_of: dict[int, int] = {}  # of each true class in the data
    wrong: list[str] = []
    found: set[int] = set()
    for split, sample, image, mask in read:
        digits = np.rint((np.asarray(image).mean((0, 1)) - 20) / _STEP).astype(int)
        scene = truth.get(int(digits @ [1, 10, 100]))
        if scene is None or scene.number in found:
            wrong.append(f"{sample.name}: is not in the dataset, or twice")
            continue
        found.add(scene.number)
        if dataset.has_splits and split != scene.split:
            wrong.append(f"{sample.name}: is in {split}, not in {scene.split}")
        if not scene.annotated and not dataset.background:
            wrong.append(f"{sample.name}: has no annotation, but was given a mask")
            continue
        wrong += [f"{sample.name}: {text}" for text in _compare(scene.mask, mask, index_of)]
    for scene in dataset.scenes:
        if scene.annotated and scene.number not in found:
            wrong.append(f"{scene.file}: is annotated, but missing")
    wrong += _compare_classes(dataset, data.classes.names, index_of)
    return wrong, None


def _compare(true: Mask, read: Mask, index_of: dict[int, int]) -> list[str]:
    """Compare masks up to the numbering of the classes, which `index_of` collects."""
    if true.shape != read.shape:
        return [f"the mask is {read.shape}, not {true.shape}"]
    wrong = []
    for value in np.unique(true).tolist():
        indices = np.unique(read[true == value]).tolist()
        if value == VOID:
            expected = VOID
        elif indices == [VOID]:
            wrong.append(f"class {value} is ignored")
            continue
        else:
            expected = index_of.setdefault(value, indices[0])
        if indices != [expected]:
            wrong.append(f"class {value} is read as {indices}, elsewhere as {expected}")
    return wrong


def _compare_classes(
    dataset: Dataset, names: tuple[str, ...], index_of: dict[int, int]
) -> list[str]:
    wrong = []
    if len(set(index_of.values())) < len(index_of):
        wrong.append(f"two classes are read as one: {index_of}")
    for value, index in index_of.items():
        if dataset.names is not None and names[index] != dataset.names[value]:
            wrong.append(f"class {dataset.names[value]!r} is read as {names[index]!r}")
    return wrong
