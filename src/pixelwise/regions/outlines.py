"""Outlines of the components of a label map, simplified so that neighbors keep a common border.

The borders are cut into arcs at the points where three components meet, and each arc is simplified
once, for both of its sides. Outlines therefore have neither gaps nor overlaps between them, as the
outlines of a coverage must not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.image_decoding import warnings_hidden
from pixelwise.errors import needs_package

if TYPE_CHECKING:
    from shapely import Polygon

Ring = NDArray[Any]
"""(N, 2) corners x, y; the first one is not repeated."""
_Key = tuple[int, ...]

MAX_CHANGE = 0.25
"""The share of its area that a component may gain or lose; beyond it the outline stays exact."""


def require_packages() -> tuple[Any, Any]:
    """Return rasterio.features and shapely; raise MissingPackageError if one is not installed."""
    with needs_package(missing("shapely")):
        import shapely
        import shapely.geometry
    with needs_package(missing("rasterio")):
        from rasterio import features
    return features, shapely


def missing(package: str) -> str:
    """Return the message about a package that polygons need."""
    return f"polygons need {package}, which is not installed: pip install 'pixelwise[geo]'"


def trace_outlines(
    ids: NDArray[np.int32], traced: NDArray[np.bool_], sizes: NDArray[np.int64], tolerance: float
) -> dict[int, Polygon]:
    """Trace the outline, with its holes, of each connected component.

    Args:
        ids: (H, W) the number of the component of each pixel.
        traced: (N,) whether a component is traced.
        sizes: (N,) the number of pixels of each component.
        tolerance: Largest distance in pixels between an outline and the border of its component; 0
            follows the edges of the pixels exactly.

    Returns:
        The outlines by component, in pixels from the upper left corner of the image.

    Raises:
        MissingPackageError: If rasterio or shapely is not installed.
    """
    features, shapely = require_packages()
    with warnings_hidden():  # costs no time: tracing uses a single thread anyway
        shapes = list(features.shapes(ids, mask=traced[ids], connectivity=4))
    rings = {
        int(number): [np.array(ring[:-1], dtype=np.int64) for ring in geometry["coordinates"]]
        for geometry, number in shapes
    }
    if tolerance > 0 and rings:
        return _simplify(rings, _junctions(ids), sizes, tolerance)
    return {number: shapely.Polygon(own[0], own[1:]) for number, own in rings.items()}


def bridge_holes(outline: Polygon) -> Ring:
    """Return an outline as one ring that runs to each hole and back on the same line.

    By the even-odd rule it covers the same pixels: the bridges are horizontal and at whole numbers,
    where no pixel has its center. Formats whose polygons have no holes store them so.
    """
    ring = np.asarray(outline.exterior.coords)[:-1]
    holes = [np.asarray(interior.coords)[:-1] for interior in outline.interiors]
    for hole in sorted(holes, key=lambda points: (points[:, 0].min(), points[:, 1].min())):
        start = int(np.lexsort((hole[:, 1], hole[:, 0]))[0])
        x, y = hole[start]
        after = np.roll(ring, -1, axis=0)
        low, high = np.minimum(ring[:, 1], after[:, 1]), np.maximum(ring[:, 1], after[:, 1])
        edges = np.flatnonzero((low <= y) & (y <= high) & (low < high))
        (x0, y0), (x1, y1) = ring[edges].T, after[edges].T
        crossed = x0 + (y - y0) / (y1 - y0) * (x1 - x0)
        left = np.where(crossed <= x, crossed, -np.inf)
        nearest = int(left.argmax())
        bridge = [[left[nearest], y]]
        around = np.roll(hole, -start, axis=0)
        at = edges[nearest] + 1
        ring = np.concatenate([ring[:at], bridge, around, around[:1], bridge, ring[at:]])
    return ring


def _junctions(ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return at which corners of pixels (H + 1, W + 1) an arc ends.

    Besides the points where at least three components meet, these are the corners of the image,
    which no outline may cut off.
    """
    padded = np.pad(ids, 1, constant_values=-1)
    across = padded[:, :-1] != padded[:, 1:]  # edges between left and right neighbors
    down = padded[:-1] != padded[1:]
    degree = across[:-1].astype(np.int8) + across[1:] + down[:, :-1] + down[:, 1:]
    found = degree > 2
    found[:: len(found) - 1, :: found.shape[1] - 1] = True
    return np.asarray(found)


def _simplify(
    rings: dict[int, list[Ring]],
    junctions: NDArray[np.bool_],
    sizes: NDArray[np.int64],
    tolerance: float,
) -> dict[int, Polygon]:
    """Simplify all arcs, but keep those of a component that would change too much."""
    _, shapely = require_packages()
    arcs: dict[_Key, Ring] = {}
    with_junctions = _insert_junctions([ring for own in rings.values() for ring in own], junctions)
    paths = {
        number: [_cut(*next(with_junctions), arcs) for _ in own] for number, own in rings.items()
    }
    count = [len(arc) for arc in arcs.values()]
    lines = shapely.linestrings(
        np.concatenate([*arcs.values()]), indices=np.repeat(np.arange(len(arcs)), count)
    )
    simple = shapely.simplify(lines, tolerance, preserve_topology=False)
    corners, owner = shapely.get_coordinates(simple, return_index=True)
    parts = np.split(corners, np.flatnonzero(np.diff(owner)) + 1)
    short: dict[_Key, Ring] = dict(zip(arcs, parts, strict=True))
    outlines: dict[int, Polygon] = {}
    changed = [*paths]
    while changed:
        new = [_join(paths[number], short) for number in changed]
        outlines |= zip(changed, new, strict=True)
        gain = np.abs(shapely.area(new) - sizes[changed])
        with warnings_hidden():
            valid = shapely.is_valid(new)
        distorted = ~valid | (gain > MAX_CHANGE * sizes[changed])
        exact: set[_Key] = set()
        for number in np.array(changed)[distorted].tolist():
            keys = {key for path in paths[number] for key, _ in path}
            exact |= {key for key in keys if short[key] is not arcs[key]}
        short |= {key: arcs[key] for key in exact}
        changed = [
            n for n, own in paths.items() if any(k in exact for path in own for k, _ in path)
        ]
    return outlines


def _insert_junctions(
    rings: Sequence[Ring], junctions: NDArray[np.bool_]
) -> Iterator[tuple[Ring, NDArray[np.bool_]]]:
    """Yield each ring with the junctions on its edges, and which of its points are junctions."""
    corners = np.concatenate(rings)
    after = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    lengths = np.abs(after - corners).sum(axis=1)
    # Whole numbers along the edges: every point where a junction can be.
    places = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    points = np.repeat(corners, lengths, axis=0)
    points += places[:, None] * np.repeat(np.sign(after - corners), lengths, axis=0)
    found = junctions[points[:, 1], points[:, 0]]
    owner = np.repeat(np.repeat(np.arange(len(rings)), [*map(len, rings)]), lengths)
    kept = found | (places == 0)
    points, found, owner = points[kept], found[kept], owner[kept]
    cuts = np.flatnonzero(np.diff(owner)) + 1
    yield from zip(np.split(points, cuts), np.split(found, cuts), strict=True)


def _cut(
    points: Ring, junctions: NDArray[np.bool_], arcs: dict[_Key, Ring]
) -> list[tuple[_Key, bool]]:
    """Cut a ring into arcs, add them to `arcs`, and return the key of each and if it is reversed.

    The direction of an arc does not depend on the ring, so that both sides simplify it alike.
    """
    ends = np.flatnonzero(junctions)
    if ends.size == 0:  # an island: two arcs between points that do not depend on the ring
        first = np.lexsort((points[:, 0], points[:, 1]))[0]
        distance = np.square(points - points[first]).sum(axis=1)
        ends = np.sort([first, np.lexsort((points[:, 0], points[:, 1], -distance))[0]])
    start = int(ends[0])
    points = np.concatenate([points[start:], points[: start + 1]])
    keys = []
    for begin, end in pairwise([*(ends - start).tolist(), len(points) - 1]):
        arc = points[begin : end + 1]
        key, other = ((*a.tolist(), *b.tolist()) for a, b in ((arc[0], arc[1]), (arc[-1], arc[-2])))
        arcs.setdefault(min(key, other), arc if key <= other else arc[::-1])
        keys.append((min(key, other), other < key))
    return keys


def _join(path: Sequence[Sequence[tuple[_Key, bool]]], short: dict[_Key, Ring]) -> Polygon:
    """Join the arcs of the rings of a component; an empty polygon if a ring has collapsed."""
    _, shapely = require_packages()
    rings = []
    for keys in path:
        arcs = [short[key][::-1] if reverse else short[key] for key, reverse in keys]
        rings.append(np.concatenate([arc[:-1] for arc in arcs]))
    if min(map(len, rings)) < 3:
        return shapely.Polygon()
    return shapely.Polygon(rings[0], rings[1:])
