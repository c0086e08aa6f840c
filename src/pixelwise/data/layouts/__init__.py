"""Dataset layouts: each one recognizes a folder structure and lists its images and masks.

A layout is one module in this package and one entry in `LAYOUTS`. To add a layout:

1. Write a module with three names. `DESCRIPTION` is a noun phrase for users: the format's name, a
   colon, and the files that identify it. `detect(root)` returns whether a folder has this layout.
   It reads file names and the start of a few files only, and no two layouts may detect the same
   folder. `read(root)` returns a `Source` with the samples of each split, without opening images or
   masks; its `layout` is the module's name with hyphens. It passes faults to
   `errors.raise_problems`, one line each: `{file}: {what is wrong}: {remedy}`. A class table that
   the format defines can be a file beside the module, in one of the formats of `class_tables` (see
   `camvid` and `cityscapes`).
2. Import the module below and add it to `LAYOUTS`.
3. Add a function to `MINIATURES` in tests/miniatures.py that writes a tiny dataset of the layout
   and returns the expected masks. tests/test_formats.py detects, reads, converts and trains on it.
   Add the layout to `OUTCOMES` in tests/test_label_kinds.py.

A mask that is not an image file implements `MaskSource` (see `sbd`, `class_masks` and `coco`).
Shared helpers: `pairing`, `listed_pairs`, `split_lists`, `folder_names`, `folder_pairs`,
`layout_classes` and `error_handling`. Folders are listed by `data.folder_listing` alone, and the
files that annotations name are found by `data.file_resolver` alone.
"""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.dataset_spec import DatasetSpec
from pixelwise.data.folder_listing import list_folders
from pixelwise.data.layouts import (
    ade20k,
    camvid,
    camvid32,
    cityscapes,
    class_masks,
    coco,
    coco_stuff,
    cvat,
    folders,
    geojson,
    label_studio,
    labelme,
    rasters,
    roboflow,
    sbd,
    ultralytics,
    voc,
    yolo,
)
from pixelwise.data.layouts.data_toml import DataToml, read_data_toml
from pixelwise.data.layouts.folder_names import data_yaml
from pixelwise.data.layouts.layout_classes import check_numbering
from pixelwise.data.layouts.stated import (
    as_patterns,
    assign_stated_splits,
    matches,
    read_patterns,
    read_stated,
)
from pixelwise.data.layouts.structure import files_outside, find_readings, with_other_partners
from pixelwise.data.layouts.suggestions import ambiguous, check_export, unknown
from pixelwise.data.polygons import RegionMask, check_scale
from pixelwise.data.source import Sample, Source
from pixelwise.errors import Fault, InputError, raise_problems

LAYOUTS = (
    camvid,
    camvid32,
    cityscapes,
    ade20k,
    voc,
    sbd,
    cvat,
    coco,
    coco_stuff,
    labelme,
    label_studio,
    geojson,
    roboflow,
    ultralytics,
    yolo,
    class_masks,
    folders,
)
"""All layouts, in the order in which they are tried."""


_ARCHIVES = frozenset({".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"})

STRUCTURE = "structure"
"""Layout name of a dataset in which only the structure of the folders was detected."""


def read(root: Path, spec: DatasetSpec | None = None) -> Source:
    """List the images and masks of a dataset folder, as stated, or as detected.

    Args:
        root: Folder of the dataset.
        spec: What the user states about it. It takes precedence over a data.toml in the folder,
            and that over what is detected.

    Returns:
        The samples of each split, with the classes if the layout defines them.

    Raises:
        InputError: If the folder does not exist, no layout matches, several readings are possible,
            a file has no partner, or an image is in two splits.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        remedy = "give the folder that holds the images and masks"
        if root.suffix.lower() in _ARCHIVES and root.exists():
            what, remedy = "is an archive", "unpack it, and give the folder"
        raise InputError(f"{root}: {what}: {remedy}")
    toml = read_data_toml(root)
    spec = spec or DatasetSpec()
    if toml is not None and toml.rasters:
        return _read_rasters(root, toml, spec)
    if spec.from_run and not matches(root, spec):
        spec = DatasetSpec()
    if spec or (toml is not None and (toml.images or toml.masks)):
        source = read_stated(root, spec, toml)
    else:
        source = _detect(root, toml)
    if toml is not None:
        assign_stated_splits(source, toml)
    _check_unique(source)
    masks = [sample.mask for samples in source.splits.values() for sample in samples]
    check_scale(mask for mask in masks if isinstance(mask, RegionMask))
    check_numbering(mask.path for mask in masks)
    if toml is not None:
        toml.set_classes(source)
        source.stated = toml.to_json()
    if spec:
        source.stated |= {"images": spec.images, "masks": spec.masks}
    return source


def _read_rasters(root: Path, toml: DataToml, spec: DatasetSpec) -> Source:
    if spec and not spec.from_run:
        raise InputError(
            f"{toml.path}: names rasters, so that --images and --masks have no meaning: remove the "
            "options, or [[rasters]]"
        )
    source = rasters.read(root, toml)
    toml.set_classes(source)
    source.stated = toml.to_json()
    return source


def _detect(root: Path, toml: DataToml | None) -> Source:
    source = _read_known(root) or _read_structure(root, toml)
    if source is not None:
        return source
    # Reading reports what is missing.
    if data_yaml(root) is not None:
        return yolo.read(root)
    check_export(root)
    if folders.detect(root) or folders.is_incomplete(root):
        return folders.read(root)
    raise unknown(root, ", ".join(layout.DESCRIPTION.partition(":")[0] for layout in LAYOUTS[:-1]))


def _read_known(root: Path) -> Source | None:
    """Read a known layout in `root`, or in the only folder that it contains."""
    for layout in LAYOUTS:
        if layout is folders:
            if folders.detect(root) and folders.finds_pairs(root):
                return _read_folders(root)
        elif layout.detect(root):
            source: Source = layout.read(root)
            return source
    inner = list_folders(root)
    return _read_known(inner[0]) if len(inner) == 1 else None


def _read_folders(root: Path) -> Source:
    """Read folders of common names, unless other folders fit the same images or masks."""
    source = folders.read(root)
    if (root / "class_names.txt").is_file():  # labelme exports each mask in several formats
        return source
    pairs = {s.image: s.mask.path for samples in source.splits.values() for s in samples}
    others = files_outside(root, {path.parent for pair in pairs.items() for path in pair})
    if others:
        readings = [] if folders.is_labelme_export(root) else find_readings(root)
        if len(readings) == 1 and pairs.items() < readings[0].pairs.items():
            return read_patterns(root, *as_patterns(readings[0]), STRUCTURE, stated=False)
        alternatives = with_other_partners(readings, root, pairs)
        if alternatives:
            raise ambiguous(root, alternatives)
        named = ", ".join(f"{path.relative_to(root)}/ ({n})" for path, n in sorted(others.items()))
        source.notes.append(f"not used, because they belong to no pair: the files of {named}")
    return source


def _read_structure(root: Path, toml: DataToml | None) -> Source | None:
    readings = find_readings(root)
    if len(readings) > 1:
        raise ambiguous(root, readings)
    if not readings:
        return None
    return read_patterns(root, *as_patterns(readings[0]), STRUCTURE, toml=toml, stated=False)


def _check_unique(source: Source) -> None:
    """Report names, images and mask files that belong to several samples or splits."""
    problems: list[str] = []
    first: dict[str, tuple[str, Sample]] = {}
    image_of: dict[Path, Path] = {}
    for split, samples in source.splits.items():
        for sample in samples:
            other_split, other = first.setdefault(sample.name, (split, sample))
            if other is sample and split == other_split:
                continue
            if other.image != sample.image:
                text = f"has the same name as {other.image.name}: rename one of them and its mask"
                problems.append(Fault("duplicate-stem", sample.image, text))
            elif split == other_split:
                text = f"is listed twice in {split}: remove one of its entries"
                problems.append(Fault("duplicate-stem", sample.image, text))
            else:
                text = f"is in {other_split} and in {split}: keep it in one split"
                problems.append(Fault("in-two-splits", sample.image, text))
    raise_problems(problems)
    for sample in (sample for samples in source.splits.values() for sample in samples):
        if not isinstance(sample.mask, RegionMask):  # a file of regions describes many images
            image = image_of.setdefault(sample.mask.path, sample.image)
            if image != sample.image:
                text = f"is the mask of {image} and of {sample.image}: keep one of the images"
                problems.append(Fault("duplicate-stem", sample.mask.path, text))
    raise_problems(problems)
