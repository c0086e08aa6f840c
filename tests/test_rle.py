"""Run-length encodings and polygons: round trips, and one error line for damaged input."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from miniatures import coco_counts, coco_text, inside, rle_pack
from pixelwise.data.polygons import Polygons, RegionMask, as_ring, fill_polygon
from pixelwise.data.rle import BrushRLE, CocoRLE, decode_compressed, decode_rle_pack
from pixelwise.errors import InputError

Mask = np.ndarray[Any, np.dtype[np.bool_]]
SIZE = st.tuples(st.integers(1, 12), st.integers(1, 12))
MASK = SIZE.flatmap(lambda size: arrays(np.bool_, size))


@given(MASK)
def test_coco_runs_round_trip(mask: Mask) -> None:
    counts = coco_counts(mask)
    for stored in (tuple(counts), coco_text(counts)):
        np.testing.assert_array_equal(CocoRLE(1, stored, mask.shape).cover(mask.shape), mask)


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=40))
def test_compressed_counts_round_trip(counts: list[int]) -> None:
    assert decode_compressed(coco_text(counts)) == counts


@given(MASK)
def test_compressed_runs_equal_those_of_pycocotools(mask: Mask) -> None:
    coder = pytest.importorskip("pycocotools.mask")
    stored = coder.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert stored == coco_text(coco_counts(mask))
    np.testing.assert_array_equal(CocoRLE(1, stored, mask.shape).cover(mask.shape), mask)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=200), max_size=30))
def test_any_string_is_decoded_or_gives_one_error(text: str) -> None:
    try:
        covered = CocoRLE(1, text, (4, 5)).cover((4, 5))
    except InputError:
        return
    assert covered.shape == (4, 5)


@pytest.mark.parametrize(
    "counts", [(), (19,), (21,), (-1, 21), (10, 5, 6), (2**70,), (2**40, 2**40)]
)
def test_runs_that_do_not_fill_the_mask_are_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="RLE counts"):
        CocoRLE(1, counts, (4, 5)).cover((4, 5))


WORDS = st.lists(st.one_of(st.just(0), st.just(255), st.integers(0, 255)), min_size=1, max_size=80)


@given(WORDS, st.integers(1, 40))
def test_label_studio_rle_round_trips(words: list[int], repeat: int) -> None:
    words = [word for word in words for _ in range(repeat)]
    packed = bytes(rle_pack(tuple(words)))
    assert decode_rle_pack(packed, count=len(words)).tolist() == words


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_refused(packed: bytes) -> None:
    with pytest.raises(InputError):  # no short stream decodes to 20 pixels
        BrushRLE(1, packed, (4, 5)).cover((4, 5))


@given(WORDS)
def test_a_truncated_brush_is_refused(words: list[int]) -> None:
    packed = bytes(rle_pack(tuple(words)))
    with pytest.raises(InputError, match=r"cut off|holds"):
        decode_rle_pack(packed[:-1], count=len(words))


CORNER = st.floats(-6, 18, allow_nan=False).map(lambda x: round(x, 3))


@given(st.lists(st.tuples(CORNER, CORNER), min_size=3, max_size=8), SIZE)
def test_a_polygon_covers_the_pixels_whose_centers_are_inside(
    ring: list[tuple[float, float]], size: tuple[int, int]
) -> None:
    filled = fill_polygon(np.array(ring), size)
    expected = [[inside(c + 0.5, r + 0.5, ring) for c in range(size[1])] for r in range(size[0])]
    # Rounding may put a center on the polygon itself to either side.
    different = np.argwhere(filled != np.array(expected))
    for row, column in different:
        near = [
            inside(column + 0.5 + dx, row + 0.5 + dy, ring)
            for dx in (-1e-9, 1e-9)
            for dy in (-1e-9, 1e-9)
        ]
        assert any(near)
        assert not all(near)


@given(st.lists(CORNER, min_size=2, max_size=2), CORNER)
def test_two_halves_do_not_overlap_and_leave_no_gap(cut: list[float], height: float) -> None:
    top, bottom = cut
    left = np.array([(-9, -9), (top, -9), (bottom, 30), (-9, 30)])
    right = np.array([(top, -9), (40, -9), (40, 30), (bottom, 30)])
    halves = fill_polygon(left, (12, 14)).astype(int) + fill_polygon(right, (12, 14))
    assert (halves == 1).all()


@pytest.mark.parametrize("by_area", [False, True])
def test_memory_does_not_grow_with_the_number_of_objects(by_area: bool) -> None:
    """A mask of the whole image for each of thousands of objects would not fit into memory."""
    size, side = (300, 400), 10
    corners = [(x, y) for y in range(0, size[0], 20) for x in range(0, size[1], 20)]
    squares = tuple(
        Polygons(1 + n % 200, (as_ring([x, y, x + side, y, x + side, y + side, x, y + side]),))
        for n, (x, y) in enumerate(corners)
    )
    tracemalloc.start()
    read = RegionMask(Path("a.json"), "a.png", squares, by_area=by_area).read(size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * read.nbytes < len(squares) * read.nbytes / 30
    for n, (x, y) in enumerate(corners):
        assert (read[y : y + side, x : x + side] == 1 + n % 200).all()
    assert (read > 0).sum() == len(squares) * side**2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pycocotools with NumPy 2
def test_polygons_are_close_to_cocos() -> None:
    coder = pytest.importorskip("pycocotools.mask")
    ring = [10.2, 5.1, 50.7, 12.9, 44.4, 48.8, 8.1, 39.0]
    theirs = coder.decode(coder.merge(coder.frPyObjects([ring], 60, 64))).astype(bool)
    ours = Polygons(1, (as_ring(ring),)).cover((60, 64))
    assert (theirs & ours).sum() / (theirs | ours).sum() > 0.97


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([1, 2, 3, 4], "a polygon has 2 of at least 3 corners"),
        ([1, 2, 3, 4, 5, 6, 7], "a polygon has 7 numbers, so that a corner has x but no y"),
        ([1, 2, 3, 4, 5, "x"], "not a number"),
        ([1, 2, 3, 4, 5, [6]], "not a number"),
        (["1", "2", "3", "4", "5", "6"], "not a number"),
        ([1, 2, 3, 4, 5, float("nan")], "not finite"),
        ([1, 2, 3, 4, 5, 1e999], "not finite"),
    ],
)
def test_invalid_polygons_are_refused(numbers: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_ring(numbers)
