"""Train one network per fold: each image is then predicted by a network that has not seen it.

OUT/folds.json          the dataset, the number of folds and the recipe
OUT/fold-N              the run of each fold

The first fold resolves what the recipe leaves `auto`, and the others use the same settings. A study
that was stopped or killed continues with its unfinished run. A folder that `pixelwise train DATA
--set data.fold=N/FOLDS --out OUT/fold-N` filled elsewhere counts as that fold, of which
last.safetensors is enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixelwise.data.dataset import SegmentationData
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.distributed.environment import read_distributed_env
from pixelwise.errors import InputError
from pixelwise.evaluation.open_splits import describe_seen, open_splits, seen_images
from pixelwise.file_io import write_text
from pixelwise.folder_lock import NAME as LOCK
from pixelwise.folder_lock import FolderLock
from pixelwise.inference import Predictor
from pixelwise.overwriting import check_output, json_mark
from pixelwise.recipes.fold import MAX_FOLDS
from pixelwise.recipes.load_recipe import load_recipe, load_resolved_recipe
from pixelwise.recipes.schema import Recipe
from pixelwise.training.callbacks import Callback
from pixelwise.training.run_folder import check_same_data
from pixelwise.training.runs import check_continuable, is_finished, train_or_resume
from pixelwise.weights.bundle import Bundle

FILE = "folds.json"
RESULTS = ("cross_validation.json", "label_errors.json", "label_errors.html")
"""What studies write beside the folds."""
WRITER = "folds"


class FoldsCallback(Callback):
    """A callback of runs that also receives the number of each fold."""

    def on_fold_begin(self, number: int, folds: int) -> None:
        """Called before a fold is trained or resumed; not for one that is finished."""

    def on_fold_predicting(self, number: int, folds: int) -> None:
        """Called before the images of a fold are predicted."""


@contextmanager
def folds_folder(out: Path, command: str) -> Iterator[None]:
    """Lock the folder of a study, and create it if necessary."""
    if read_distributed_env() is not None:
        raise InputError(f"{command}: runs in a single process: start it without torchrun and srun")
    with FolderLock(out, command) as lock:
        lock.take()
        yield


def train_folds(
    root: Path, out: Path, recipe: Recipe, folds: int, *, callback: FoldsCallback
) -> list[Path]:
    """Train the network of each fold, or what an earlier call has not finished.

    Args:
        root: Folder of images and masks. Its train and val images are divided anew.
        out: The folder of the study, locked by `folds_folder`.
        recipe: The recipe of all folds, with `data.group_by`.
        folds: The number of folds.
        callback: Receives the progress.

    Returns:
        The bundle of each fold after its last epoch, which no score has selected.

    Raises:
        InputError: If `out` holds something else or a study with other settings, or the dataset or
            the recipe has a problem.
        TrainingStoppedError: On Ctrl-C or SIGTERM.
    """
    if not 2 <= folds <= MAX_FOLDS:
        raise InputError(f"folds {folds}: must be 2 to {MAX_FOLDS}")
    if recipe.data.fold:
        raise InputError(f"data.fold = {recipe.data.fold!r}: the study sets it: omit it")
    description = _describe(root, recipe, folds)
    _check_settings(out, description)
    for number in range(1, folds + 1):
        folder = out / f"fold-{number}"
        check_continuable(folder)
        if is_finished(folder):
            _check_fold(folder / "last.safetensors", recipe, f"{number}/{folds}")
    marked = {"written_by": f"pixelwise {WRITER}", **description}
    write_text(out / FILE, json.dumps(marked, indent=1) + "\n")
    bundles = []
    for number in range(1, folds + 1):
        folder = out / f"fold-{number}"
        bundle = folder / "last.safetensors"
        if not is_finished(folder):
            callback.on_fold_begin(number, folds)
            fold_recipe = _chosen(out, recipe).replace({"data.fold": f"{number}/{folds}"})
            train_or_resume(root, folder, fold_recipe, callback=callback)
        bundles.append(bundle)
    return bundles


def open_unseen(
    bundle: Path,
    root: Path,
    *,
    same: bool = True,
    scales: Sequence[float] = (1.0,),
    progress: ProgressCallback | None = None,
) -> tuple[Predictor, SegmentationData]:
    """Load a network and open the images that it has not seen, as `val`.

    Args:
        bundle: The network.
        root: Folder of images and masks.
        same: Whether the images and masks must be those that it was trained and validated on.
        scales: Those of test-time augmentation.
        progress: Called with (done, total) after each pair is checked.

    Raises:
        InputError: If the dataset has changed, the network has seen these images, or it has other
            classes.
    """
    predictor = Predictor.load(bundle, runtime="torch", scales=scales)
    data = open_splits(predictor, root, "train", "val", progress=progress)
    if same and (bundle.parent / "data.json").is_file():
        check_same_data(bundle.parent, data)
    elif seen := seen_images(bundle, data, "val"):
        raise InputError(f"{root}: {describe_seen(seen, 'val')}: train folds to examine it")
    return predictor, data


def _chosen(out: Path, recipe: Recipe) -> Recipe:
    """Return the recipe with what the first fold has chosen; what it began with, if it has not."""
    first = out / "fold-1" / "recipe.toml"
    return load_resolved_recipe(first) if first.is_file() else recipe


def _check_fold(bundle: Path, recipe: Recipe, fold: str) -> None:
    """Raise InputError if a bundle that was trained elsewhere is not that of the fold."""
    saved = Bundle.load(bundle).recipe
    found = {**saved.get("data", {}), "seed": saved.get("seed")}
    wanted = {"fold": fold, "group_by": recipe.data.group_by, "seed": recipe.seed}
    for key, value in wanted.items():
        if found.get(key) != value:
            name = key if key == "seed" else f"data.{key}"
            raise InputError(
                f"{bundle}: was trained with {name} = {found.get(key)!r}, not {value!r}: remove "
                "its folder, or choose another --out"
            )


def _describe(root: Path, recipe: Recipe, folds: int) -> dict[str, Any]:
    return {"data": str(root.resolve()), "folds": folds, "recipe": recipe.to_json()}


def _check_settings(out: Path, description: Mapping[str, Any]) -> None:
    """Raise InputError if a folder holds other files, or folds with other settings."""
    path, folds = out / FILE, description["folds"]
    check_output(path, mark=json_mark(WRITER))
    begun = any((out / f"fold-{number}").exists() for number in range(1, MAX_FOLDS + 1))
    if not path.exists() or not begun:
        own = {LOCK, FILE, *RESULTS, *(f"fold-{number}" for number in range(1, folds + 1))}
        others = sorted(entry.name for entry in out.iterdir() if entry.name not in own)
        if others:
            raise InputError(f"{out}: holds other files, such as {others[0]}: choose another --out")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in description if before.get(key) != description[key]]
        if changed == ["recipe"]:
            old, new = load_recipe(None, {}).flat() | before["recipe"], description["recipe"]
            changed = [f"recipe ({key})" for key in new if old.get(key) != new[key]]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is damaged: choose another --out") from error
    if changed:
        raise InputError(
            f"{out}: holds a study with another {changed[0]}: use the original settings, or choose "
            "another --out"
        )
