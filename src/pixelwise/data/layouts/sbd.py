"""SBD (Hariharan et al. 2011) as published: img/, cls/*.mat, train.txt and val.txt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.image_files import list_images
from pixelwise.data.layouts.folder_names import first_names
from pixelwise.data.layouts.pairing import sample_name
from pixelwise.data.layouts.split_lists import list_files, read_stems
from pixelwise.data.source import Sample, Source
from pixelwise.data.voc_palette import VOC_CLASSES
from pixelwise.errors import InputError, refuse
from pixelwise.file_io import check_regular

DESCRIPTION = "SBD: img/, cls/ with .mat files, train.txt, val.txt (also below dataset/)"


@dataclass(frozen=True)
class MatFile:
    """The class mask of one of SBD's MATLAB files."""

    path: Path

    def read(self, size: tuple[int, int]) -> NDArray[Any]:
        try:
            from scipy.io import loadmat
        except ImportError as error:
            raise InputError(
                f"{self.path}: SBD's .mat files are read by scipy, which is not installed: "
                "pip install 'scipy>=1.14'"
            ) from error
        try:
            check_regular(self.path)
            content = loadmat(self.path, squeeze_me=True, struct_as_record=True)
            stored = np.asarray(content["GTcls"]["Segmentation"].item())
        except Exception as error:  # scipy's reader raises whatever the file's bytes provoke
            reason = " ".join(str(error).split())
            raise InputError(
                f"{self.path}: is not one of SBD's class files ({reason}): restore the file"
            ) from error
        if stored.ndim != 2 or stored.dtype != np.uint8:
            raise InputError(f"{self.path}: GTcls.Segmentation is no mask: restore the file")
        return stored


def detect(root: Path) -> bool:
    return _base(root) is not None


def _base(root: Path) -> Path | None:
    for base in (root, root / "dataset", root / "benchmark_RELEASE" / "dataset"):
        if (base / "img").is_dir() and first_names(base / "cls", frozenset({".mat"})):
            return base
    return None


def read(root: Path) -> Source:
    base = _base(root)
    assert base is not None  # as detect has found
    image_of = {path.stem: path for path in list_images(base / "img")}
    lists = {split: read_stems(path) for split, path in list_files(base).items()}
    problems: list[str] = []
    splits: dict[str, list[Sample]] = {}
    for split, stems in (lists or {"all": sorted(image_of)}).items():
        for stem in stems:
            image, mask = image_of.get(stem), base / "cls" / f"{stem}.mat"
            if image is None:
                missing = base / "img" / f"{stem}.jpg"
                problems.append(f"{missing}: is not there, but {split}.txt names it")
            elif not mask.is_file():
                problems.append(f"{mask}: is not there: restore it, or remove the image")
            else:
                sample = Sample(sample_name(root, image), image, MatFile(mask))
                splits.setdefault(split, []).append(sample)
    refuse(problems)
    return Source(root, "sbd", splits, VOC_CLASSES, False, ["SBD: the 21 classes of PASCAL VOC"])
