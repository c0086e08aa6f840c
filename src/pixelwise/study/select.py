"""Choose which images of a pool to label next.

OUT/selection.txt            the chosen images, one path per line, the most useful first
OUT/selection.json           the same with the reasons, and what was left out
OUT/selection.html           a page with the chosen images and the reasons
OUT/images                   copies of the images or links to them, on request
OUT/.pixelwise-select.jsonl  the measurements, so that a stopped command continues
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pixelwise.data import layouts
from pixelwise.data.classes import Classes
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.data.dataset_spec import DatasetSpec
from pixelwise.errors import InputError
from pixelwise.file_io import PART, atomic, make_folder, write_errors, write_text
from pixelwise.folder_lock import FolderLock
from pixelwise.inference import Predictor
from pixelwise.inference.output_names import find_images
from pixelwise.overwriting import check_output, files_of_others, html_mark, json_mark
from pixelwise.pages.html_page import write_page
from pixelwise.recipes.load_recipe import load_bundle_recipe
from pixelwise.regions.annotations import unique_names
from pixelwise.study.diverse_choice import Choice, choose, near_labeled, skip_frames
from pixelwise.study.pool_measures import (
    LOG_MARK,
    MeasureLog,
    NetworkProbe,
    decode_fingerprint,
    decode_measures,
    encode_fingerprint,
    encode_measures,
    measure_images,
    take_fingerprint,
)
from pixelwise.study.selection_images import draw_choice

COMMAND = "select"
LIST_MARK = "# pixelwise select:"
"""The beginning of selection.txt."""
LOG = ".pixelwise-select.jsonl"
IMAGES = "images"
Files = Literal["copy", "link"]
NAMED_CLASSES = 2
SHOWN = 200
"""The page shows at most this many images."""


@dataclass(frozen=True)
class Selected:
    """A chosen image.

    Attributes:
        path: The image.
        doubt: Doubt of the network: the root mean square of `class_doubt`.
        class_doubt: Doubt about each class, in units of the mean of the candidates.
        distance: Distance of the features to `nearest`, in units of the median of the pool; None
            for the first image if nothing is labeled.
        nearest: The most similar image that is labeled or was chosen before.
    """

    path: Path
    doubt: float
    class_doubt: dict[str, float]
    distance: float | None
    nearest: Path | None

    @property
    def reason(self) -> str:
        """Why it was chosen, in one sentence."""
        order = sorted(self.class_doubt.items(), key=lambda item: -item[1])[:NAMED_CLASSES]
        text = " and ".join(f"{name} ({value:.1f} times the mean)" for name, value in order)
        text = f"in doubt about {text}"
        if self.nearest is not None and self.distance is not None:
            text += f"; {self.distance:.1f} times the usual distance from {self.nearest.name}"
        return text

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "image": str(self.path),
            "doubt": self.doubt,
            "distance": self.distance,
            "nearest": None if self.nearest is None else str(self.nearest),
            "class_doubt": self.class_doubt,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Selection:
    """The images to label next.

    Attributes:
        out: Folder of the results.
        chosen: The images, the most useful first.
        wanted: The number that was asked for.
        pool: Number of images in the pool.
        left_out: Number of images of the pool that could not be chosen, by reason.
        faults: One line for each image that cannot be read.
        calibrated: Whether the probabilities of the network are calibrated.
    """

    out: Path
    chosen: list[Selected]
    wanted: int
    pool: int
    left_out: dict[str, int]
    faults: list[str]
    calibrated: bool

    @property
    def page(self) -> Path:
        """The page with the images."""
        return self.out / "selection.html"

    @property
    def list_file(self) -> Path:
        """The list of the images."""
        return self.out / "selection.txt"

    @property
    def notes(self) -> list[str]:
        """What is worth knowing, in sentences."""
        lines = []
        if len(self.chosen) < self.wanted:
            lines.append(
                f"only {len(self.chosen)} of {self.wanted} images were chosen: the rest of the "
                "pool is labeled or nearly equal to what is labeled or chosen"
            )
        if not self.calibrated:
            lines.append(
                "the network is not calibrated, so its doubt is less reliable: calibrate the "
                "bundle first, with pixelwise calibrate"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "pool": self.pool,
            "left_out": self.left_out,
            "notes": self.notes,
            "images": [selected.to_json() for selected in self.chosen],
        }


def select(
    pool: str | Path | Sequence[str | Path],
    predictor: Predictor,
    out: Path,
    *,
    count: int,
    labeled: str | Path | Sequence[Path] | None = None,
    files: Files | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> Selection:
    """Choose the images of a pool that are most worth labeling.

    Images that are labeled already, near-duplicates of those, and frames of videos that show the
    same scene as another frame are left out. For the other arguments see `pixelwise.select`.

    Args:
        predictor: A network, run by PyTorch, that was trained on what is labeled so far.
        progress: Called with (done, total) after each image, in each of the passes over the images.

    Raises:
        InputError: If the pool has too few images, none can be chosen, the images do not fit the
            network, or a file would be replaced.
        StoppedError: On Ctrl-C or SIGTERM.
    """
    probe = NetworkProbe(predictor)
    paths = find_images(pool)
    if count < 1:
        raise InputError(f"count {count}: must be at least 1")
    if len(paths) < count:
        raise InputError(
            f"{_name(pool)}: has {len(paths)} images: give a count of at most that, not {count}"
        )
    if isinstance(labeled, str | Path):
        labeled = _labeled_images(Path(labeled), predictor)
    if files is not None:
        _check_apart([*paths, *(labeled or ())], out / IMAGES)
    with FolderLock(out, COMMAND) as lock:
        previous = _check_files(out, files, overwrite=overwrite)
        lock.take()
        log = MeasureLog(out / LOG, {"network": predictor.network_id, **_probabilities(predictor)})
        scan = _Scan(log, predictor, probe, progress)
        selection = _select(scan, _name(pool), paths, list(labeled or ()), out, count)
        _write(selection, files, previous, predictor, overwrite=overwrite)
    return selection


@dataclass
class _Scan:
    """Measures images, and keeps the faults."""

    log: MeasureLog
    predictor: Predictor
    probe: NetworkProbe
    progress: ProgressCallback | None

    def fingerprints(self, paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
        return measure_images(
            paths,
            self.log,
            self.predictor,
            "fingerprint",
            take_fingerprint,
            encode_fingerprint,
            parallel=True,
            progress=self.progress,
        )

    def network(self, paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
        return measure_images(
            paths,
            self.log,
            self.predictor,
            "network",
            self.probe,
            encode_measures,
            parallel=False,
            progress=self.progress,
        )

    def find(self, kind: str, path: Path) -> dict[str, Any]:
        line = self.log.find(kind, path)
        if line is None:
            raise InputError(f"{path}: has changed meanwhile: run the command again")
        return line


def _select(
    scan: _Scan, name: str, paths: Sequence[Path], known: Sequence[Path], out: Path, count: int
) -> Selection:
    """Measure the images, leave some out, and choose."""
    labeled_files = {path.resolve() for path in known}
    others = [path for path in paths if path.resolve() not in labeled_files]
    readable, faults = scan.fingerprints([*known, *others])
    is_known = {*known}
    known = [path for path in readable if path in is_known]
    candidates = [path for path in readable if path not in is_known]
    if not candidates:
        raise InputError(*(faults or [f"{name}: all of its images are labeled: give others"]))
    prints = {path: decode_fingerprint(scan.find("fingerprint", path)) for path in readable}
    doubles = near_labeled([prints[p] for p in known], [prints[p] for p in candidates])
    fresh = [path for i, path in enumerate(candidates) if i not in doubles]
    frames = skip_frames(fresh, [prints[path] for path in fresh])
    kept = [path for i, path in enumerate(fresh) if i not in frames]
    if not kept:
        raise InputError(
            f"{name}: each of its images nearly equals a labeled one: give other images"
        )
    measured, more = scan.network([*known, *kept])
    faults += more
    measures = {path: decode_measures(scan.find("network", path)) for path in measured}
    known = [path for path in known if path in measures]
    kept = [path for path in kept if path in measures]
    if not kept:
        raise InputError(*faults)
    doubt = np.stack([measures[path].doubt for path in kept])
    features = np.stack([measures[path].features for path in kept])
    reference = np.stack([measures[path].features for path in known]) if known else features[:0]
    choices = choose(doubt, features, reference, [prints[path] for path in kept], count)
    left_out = {
        "labeled": len(paths) - len(others),
        "nearly equal to a labeled image": len(doubles),
        "the same scene as an earlier frame": len(frames),
        "cannot be read": len(faults),
    }
    classes = scan.predictor.classes
    return Selection(
        out,
        [_selected(choice, kept, [*known, *kept], classes) for choice in choices],
        count,
        len(paths),
        {reason: number for reason, number in left_out.items() if number},
        faults,
        scan.predictor.calibration is not None,
    )


def _selected(
    choice: Choice, candidates: Sequence[Path], together: Sequence[Path], classes: Classes
) -> Selected:
    by_class = dict(zip(classes.names, choice.class_doubt.tolist(), strict=True))
    has_nearest = choice.nearest >= 0
    return Selected(
        candidates[choice.index],
        choice.doubt,
        by_class,
        choice.distance if has_nearest else None,
        together[choice.nearest] if has_nearest else None,
    )


def _name(pool: str | Path | Sequence[str | Path]) -> str:
    return str(pool) if isinstance(pool, str | Path) else ", ".join(map(str, pool[:3]))


def _labeled_images(labeled: Path, predictor: Predictor) -> list[Path]:
    """List the images of a dataset, read as in the training of the network if that fits."""
    settings = load_bundle_recipe(predictor.recipe).data
    spec = DatasetSpec(settings.images, settings.masks, from_run=True)
    source = layouts.read(labeled, spec)
    samples = [sample for samples in source.splits.values() for sample in samples]
    if any(sample.part is not None for sample in samples):
        raise InputError(
            f"{labeled}: its images are windows of rasters, with which a pool is not compared: "
            "omit --labelled"
        )
    return [sample.image for sample in samples]


def _probabilities(predictor: Predictor) -> dict[str, Any]:
    """Return what decides the probabilities besides the network."""
    calibration = predictor.calibration
    return {**predictor.to_json(), "temperature": calibration and calibration.temperature}


def _check_apart(images: Sequence[Path], folder: Path) -> None:
    """Raise InputError if an image lies in the folder whose files are replaced."""
    target = folder.resolve()
    for image in images:
        if target in (image.parent.resolve(), image.resolve().parent):
            raise InputError(
                f"{image}: lies in {folder}, where the chosen images are put: choose another --out"
            )


def _check_files(out: Path, files: Files | None, *, overwrite: bool) -> set[str]:
    """Check that no file of others would be replaced.

    Returns:
        The names of the files in OUT/images that an earlier call wrote.
    """
    if not out.is_dir():
        return set()
    for name, mark in (
        ("selection.txt", LIST_MARK),
        ("selection.json", json_mark(COMMAND)),
        ("selection.html", html_mark("study")),
        (LOG, LOG_MARK),
    ):
        check_output(out / name, mark=mark, overwrite=overwrite)
    previous: set[str] = set()
    try:
        content = json.loads((out / "selection.json").read_text(encoding="utf-8"))
        previous = {str(name) for name in content["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    folder = out / IMAGES
    if files is not None and os.path.lexists(folder) and not overwrite:
        inside = sorted(folder.iterdir()) if folder.is_dir() else [folder]
        others = [path for path in inside if path.name not in previous and not _is_part(path)]
        if others:
            raise files_of_others(others, out)
    return previous


def _write(
    selection: Selection,
    files: Files | None,
    previous: set[str],
    predictor: Predictor,
    *,
    overwrite: bool,
) -> None:
    out, chosen = selection.out, selection.chosen
    _check_files(out, files, overwrite=overwrite)  # some may have appeared meanwhile
    names = {}
    if files is not None:
        paths = [selected.path for selected in chosen]
        stems = unique_names(paths)
        names = {stem + path.suffix: path for stem, path in zip(stems, paths, strict=True)}
    # All names are recorded before, so that files that a kill leaves behind are known.
    _write_json(selection, sorted(previous | {*names}))
    if files is not None:
        _put_images(out / IMAGES, names, previous, files)
        _write_json(selection, sorted(names))
    head = f"{LIST_MARK} {len(chosen)} of {selection.pool} images, the most useful first"
    write_text(selection.list_file, "\n".join([head, *(str(each.path) for each in chosen)]) + "\n")
    write_page(
        selection.page,
        package="pixelwise.study",
        template="selection.html.j2",
        selection=selection,
        shown=[(each, draw_choice(predictor, each.path)) for each in chosen[:SHOWN]],
    )


def _is_part(path: Path) -> bool:
    """Whether a file is what a kill left behind of a copy."""
    return path.name.startswith(".") and path.name.endswith(PART)


def _write_json(selection: Selection, files: Sequence[str]) -> None:
    content = {"written_by": f"pixelwise {COMMAND}", **selection.to_json(), "files": list(files)}
    write_text(selection.out / "selection.json", json.dumps(content, indent=1) + "\n")


def _put_images(folder: Path, names: dict[str, Path], previous: set[str], files: Files) -> None:
    """Copy or link images into a folder, in place of those of an earlier call; others stay."""
    make_folder(folder)
    with write_errors(folder):
        for path in list(folder.iterdir()):
            if path.name in previous | {*names} or _is_part(path):
                path.unlink()
        for name, path in names.items():
            if files == "link":
                (folder / name).symlink_to(path.resolve())
                continue
            with atomic(folder / name) as side:
                shutil.copyfile(path, side)
