"""Areas of an image that is larger than memory, from strips of its labels."""

from __future__ import annotations

import numpy as np

from pixelwise.data.classes import IGNORE, Classes
from pixelwise.regions.areas import ClassArea
from pixelwise.regions.components import Labels, find_components

STRIP_PIXELS = 1 << 22


class StreamedAreas:
    """Measures what `measure_areas` does, without confidences, from strips in order.

    Only the components that reach the last row stay in memory.

    Args:
        classes: The classes of the indices.
    """

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self._pixels = np.zeros(256, np.int64)
        self._count = np.zeros(256, np.int64)  # of components that cannot grow any more
        self._largest = np.zeros(256, np.int64)
        self._labels = np.zeros(0, np.uint8)  # of the components that reach the last row
        self._sizes = np.zeros(0, np.int64)
        self._row: tuple[Labels, np.ndarray[tuple[int, ...], np.dtype[np.int64]]] | None = None

    def add(self, labels: Labels) -> None:
        """Add the next rows (height, width) of class indices and IGNORE."""
        rows = max(1, STRIP_PIXELS // labels.shape[1])
        for top in range(0, len(labels), rows):
            self._add(labels[top : top + rows])

    def _add(self, labels: Labels) -> None:
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        self._pixels += np.bincount(labels.reshape(-1), minlength=256)
        found, known = find_components(labels), len(self._labels)
        upper = lower = np.zeros(0, np.int64)
        if self._row is not None:
            row_labels, row_ids = self._row
            same = row_labels == labels[0]
            upper, lower = row_ids[same], found.ids[0][same].astype(np.int64) + known
        all_labels = np.concatenate([self._labels, found.labels])
        links = (np.ones(len(upper), np.int8), (upper, lower))
        graph = coo_matrix(links, shape=(len(all_labels), len(all_labels)))
        count, group = connected_components(graph, directed=False)
        sizes = np.zeros(count, np.int64)
        np.add.at(sizes, group, np.concatenate([self._sizes, found.sizes]))
        group_labels = np.zeros(count, np.uint8)
        group_labels[group] = all_labels
        bottom = group[found.ids[-1].astype(np.int64) + known]
        open_groups = np.unique(bottom)
        self._close(group_labels, sizes, np.setdiff1d(np.arange(count), open_groups))
        self._labels, self._sizes = group_labels[open_groups], sizes[open_groups]
        self._row = labels[-1].copy(), np.searchsorted(open_groups, bottom)

    def _close(
        self,
        labels: Labels,
        sizes: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
        groups: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    ) -> None:
        np.add.at(self._count, labels[groups], 1)
        np.maximum.at(self._largest, labels[groups], sizes[groups])

    def finish(self, pixel_area: float | None = None) -> list[ClassArea]:
        """Return one entry per class, after the last strip.

        Args:
            pixel_area: Area of a pixel on the ground in square meters.
        """
        self._close(self._labels, self._sizes, np.arange(len(self._labels)))
        valid = int(self._pixels.sum() - self._pixels[IGNORE])
        return [
            ClassArea(
                name,
                pixels := int(self._pixels[index]),
                pixels / valid if valid else 0.0,
                int(self._count[index]),
                int(self._largest[index]),
                square_meters=None if pixel_area is None else pixels * pixel_area,
            )
            for index, name in enumerate(self.classes.names)
        ]
