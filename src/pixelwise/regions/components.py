"""Connected components of a label map, and the removal of small components and holes.

Pixels are connected along edges, not across corners, so that the outline of a component is one
polygon with holes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE
from pixelwise.errors import InputError, needs_package

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Components:
    """The connected components of a label map, numbered by class, then from top to bottom.

    Attributes:
        ids: (H, W) int32, the number of the component of each pixel, 0..N-1.
        labels: (N,) uint8, the class index (or IGNORE) of each component.
        sizes: (N,) int64, the number of pixels of each component.
    """

    ids: NDArray[np.int32]
    labels: Labels
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def find_components(labels: Labels) -> Components:
    """Find the connected components of every class and of the ignored pixels.

    Args:
        labels: (H, W) class indices and IGNORE.

    Raises:
        MissingPackageError: If scipy is not installed.
    """
    ndimage = require_ndimage()
    ids = np.zeros(labels.shape, np.int32)
    component_labels: list[int] = []
    for value in np.flatnonzero(np.bincount(labels.reshape(-1), minlength=256)):
        covered = labels == value
        numbered, count = ndimage.label(covered)
        np.copyto(ids, numbered + np.int32(len(component_labels) - 1), where=covered)
        component_labels += [int(value)] * count
    sizes = np.bincount(ids.reshape(-1), minlength=len(component_labels)).astype(np.int64)
    return Components(ids, np.array(component_labels, np.uint8), sizes)


def require_ndimage() -> Any:
    """Return scipy.ndimage; raise MissingPackageError if it is not installed."""
    with needs_package(
        "connected components need scipy, which is not installed: pip install 'pixelwise[geo]'"
    ):
        from scipy import ndimage
    return ndimage


def clean_labels(labels: Labels, *, min_area: int = 0, holes_of: int | None = None) -> Labels:
    """Fill holes, then merge small components into their surroundings.

    Args:
        labels: (H, W) class indices and IGNORE. Ignored pixels stay ignored.
        min_area: Components with fewer pixels take the class with which they share the longest
            border.
        holes_of: The class (the background) whose components are holes, and are filled, if a single
            class encloses them; None fills no holes.

    Returns:
        The cleaned label map, a new array if anything changed.

    Raises:
        InputError: If `min_area` is negative.
    """
    if min_area < 0:
        raise InputError(f"min_area {min_area}: must be 0 or a number of pixels above 0")
    if holes_of is not None:
        labels = _fill_holes(labels, holes_of)
    while min_area > 1:
        components = find_components(labels)
        merged = _merge_small(components, min_area)
        if merged is None:
            break
        labels = merged[components.ids]
    return labels


def _fill_holes(labels: Labels, background: int) -> Labels:
    components = find_components(labels)
    first, second, _ = _borders(components.ids)
    new = components.labels.copy()
    at_edge = np.zeros(len(components), bool)
    for side in (
        components.ids[0],
        components.ids[-1],
        components.ids[:, 0],
        components.ids[:, -1],
    ):
        at_edge[side] = True
    low, high = np.full(len(components), 255), np.full(len(components), -1)
    around = components.labels[second].astype(np.int64)
    np.minimum.at(low, first, around)
    np.maximum.at(high, first, around)
    hole = (components.labels == background) & ~at_edge & (low == high) & (low != IGNORE)
    new[hole] = low[hole]
    return new[components.ids] if hole.any() else labels


def _merge_small(components: Components, min_area: int) -> Labels | None:
    """Return the new label of each component, or None if no small component can be merged.

    A small component takes the label of its neighbors that are large enough. If all neighbors are
    small, only the smallest component of all is merged, so that no two components swap labels.
    """
    known = components.labels != IGNORE
    small = (components.sizes < min_area) & known
    first, second, lengths = _borders(components.ids)
    usable = small[first] & known[second]
    with_large = usable & ~small[second]
    if not usable.any():
        return None
    if with_large.any():
        usable = with_large
    else:
        candidates = first[usable]
        smallest = candidates[np.argmin(components.sizes[candidates])]
        usable &= first == smallest
    new = components.labels.copy()
    targets, labels = first[usable], components.labels[second[usable]]
    keys, position = np.unique(targets * 256 + labels, return_inverse=True)
    totals = np.bincount(position, weights=lengths[usable])
    order = np.lexsort((-totals, keys // 256))  # of each component, the longest border comes first
    owners, at = np.unique(keys[order] // 256, return_index=True)
    new[owners] = (keys[order][at] % 256).astype(np.uint8)
    return new


def _borders(
    ids: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of adjacent components, both ways, and the length of each border."""
    pairs = []
    for one, other in ((ids[:, :-1], ids[:, 1:]), (ids[:-1], ids[1:])):
        apart = one != other
        pairs.append(np.stack([one[apart], other[apart]], axis=1).astype(np.int64))
    both = np.concatenate([*pairs, *(pair[:, ::-1] for pair in pairs)])
    count = int(ids.max()) + 1
    keys, lengths = np.unique(both[:, 0] * count + both[:, 1], return_counts=True)
    return keys // count, keys % count, lengths.astype(np.int64)
