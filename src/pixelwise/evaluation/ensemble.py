"""Score an ensemble beside each of its networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pixelwise.data.dataset import SegmentationData
from pixelwise.data.dataset_scan import ProgressCallback
from pixelwise.evaluation.evaluate import Evaluation, evaluate
from pixelwise.inference import Predictor
from pixelwise.recipes.load_recipe import load_bundle_recipe


def evaluate_ensemble(
    ensemble: Predictor,
    members: Mapping[str, Callable[[], Predictor]],
    data: SegmentationData,
    split: str = "val",
    *,
    details: bool = False,
    progress: ProgressCallback | None = None,
) -> Evaluation:
    """Score an ensemble and each of its networks on the same images.

    A network that was trained with another division into train and val saw images of this val. That
    is added to the notes of the data.

    Args:
        ensemble: The ensemble.
        members: How to load each network, by its path.
        data: A dataset with their classes.
        split: Name of the split.
        details: Whether to score boundaries and calibration of the ensemble as well.
        progress: Called with (done, total) after each image of each network.

    Raises:
        InputError: As for `evaluate`.
    """
    total = (len(members) + 1) * len(data.splits[split])
    scored: dict[str, Evaluation] = {}

    def count(done: int, _: int) -> None:
        if progress is not None:
            progress(len(scored) * len(data.splits[split]) + done, total)

    drawn = any(note.startswith("no validation split") for note in data.notes)
    division = _division(ensemble)
    for path, load in members.items():
        member = load()
        other = _division(member)
        if other != division and (drawn or other["fold"] != division["fold"]):
            data.notes.append(
                f"{path} was trained with another val, which depends on the seed and the fold if "
                "the dataset has none: its score and that of the ensemble are too high"
            )
        scored[path] = evaluate(member, data, split, progress=count)
    result = evaluate(ensemble, data, split, details=details, progress=count)
    return replace(result, members=scored)


def _division(predictor: Predictor) -> dict[str, Any]:
    """Return what decides how the dataset of a network was divided."""
    recipe = load_bundle_recipe(predictor.recipe)
    settings = recipe.data.model_dump()
    keys = ("val_fraction", "group_by", "fold")
    return {"seed": recipe.seed, **{key: settings.get(key) for key in keys}}
