"""Folds: disjoint parts of a dataset, each of which is val while a network trains on the others."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError


def assign_folds(
    groups: Sequence[str], counts: NDArray[np.int64], folds: int, *, seed: int
) -> NDArray[np.int64]:
    """Divide images into folds of about the same size and the same classes.

    Groups are given to folds one after another, those with the largest share of a class first, each
    to the fold that its classes and images are the least represented in.

    Args:
        groups: The group of each of the N images; a group is never divided.
        counts: (N, C) pixels of each class in each image.
        folds: The number of folds.
        seed: Decides between equal groups.

    Returns:
        (N,) the fold of each image, 0..folds-1. No fold is empty.

    Raises:
        InputError: If there are fewer groups than folds.
    """
    names = sorted(set(groups))
    if len(names) < folds:
        what = "images" if len(names) == len(groups) else "groups of images"
        raise InputError(
            f"{folds} folds: the dataset has {len(names)} {what}: give at most that many folds"
        )
    random.Random(seed).shuffle(names)
    index = {name: i for i, name in enumerate(names)}
    members = np.array([index[group] for group in groups])
    # Images with a class count, not its pixels: a class is learned from different images.
    present = np.zeros((len(names), counts.shape[1] + 1))
    np.add.at(present[:, :-1], members, counts > 0)
    np.add.at(present[:, -1], members, 1)
    share = present / np.maximum(present.sum(axis=0), 1)
    weights = np.ones(share.shape[1])
    weights[-1] = max(1, counts.shape[1])
    load = np.zeros((folds, share.shape[1]))
    fold_of_group = np.zeros(len(names), np.int64)
    for group in np.argsort(-share.max(axis=1), kind="stable"):
        added = ((load + share[group]) ** 2 - load**2) @ weights
        fold = int(np.argmin(added))
        fold_of_group[group] = fold
        load[fold] += share[group]
    return np.asarray(fold_of_group[members])
