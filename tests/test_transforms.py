"""Augmentation: image and mask stay aligned, and the mask holds class indices only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelwise.data.classes import IGNORE
from pixelwise.data.distortion import Distortion
from pixelwise.data.transforms import Augmentation

FILL = (11, 22, 33)
PAINT = np.zeros((256, 3), dtype=np.uint8)  # a distinct color per class, unlike FILL
PAINT[:5] = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
PAINT[IGNORE] = (250, 0, 250)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def random_image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def blocks(height: int, width: int, *, side: int, seed: int) -> NDArray[np.uint8]:
    """Return a mask of squares of random classes, including IGNORE."""
    shape = (-(-height // side), -(-width // side))
    coarse = rng(seed).choice(np.array([0, 1, 2, 3, 4, IGNORE], dtype=np.uint8), shape)
    return np.kron(coarse, np.ones((side, side), dtype=np.uint8))[:height, :width]


def away_from_edges(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the pixels whose neighbors within two pixels exist and have the same class."""
    inside = np.ones(mask.shape, dtype=bool)
    padded = np.pad(mask, 2, constant_values=253)
    for row in range(5):
        for column in range(5):
            shifted = padded[row : row + mask.shape[0], column : column + mask.shape[1]]
            inside &= shifted == mask
    return inside


@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    crop=st.tuples(st.integers(24, 90), st.integers(24, 90)),
    scale=st.sampled_from([(1.0, 1.0), (0.5, 0.5), (2.0, 2.0), (0.5, 2.0), (0.83, 1.31)]),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_image_and_mask_stay_aligned(
    height: int,
    width: int,
    crop: tuple[int, int],
    scale: tuple[float, float],
    flip: float,
    seed: int,
) -> None:
    mask = blocks(height, width, side=16, seed=seed)
    augment = Augmentation(crop=crop, scale=scale, flip=flip, fill=FILL)
    image, out = augment(PAINT[mask], mask, rng(seed))
    padding = (image == FILL).all(axis=2)
    assert (out[padding] == IGNORE).all()
    inside = away_from_edges(np.where(padding, 254, out).astype(np.uint8)) & ~padding
    expected = PAINT[out]
    difference = np.abs(image.astype(int) - expected).max(axis=2)
    assert difference[inside].max(initial=0) <= 1


def test_the_alignment_test_covers_most_of_the_image() -> None:
    mask = blocks(96, 96, side=16, seed=1)
    image, out = Augmentation(crop=(96, 96), scale=(0.8, 0.8), fill=FILL)(PAINT[mask], mask, rng())
    padding = (image == FILL).all(axis=2)
    inside = away_from_edges(out) & ~padding
    assert inside.sum() > 0.3 * (~padding).sum()


def test_alignment_holds_to_a_fraction_of_a_pixel() -> None:
    ramp = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    for columns in (ramp, ramp.T.copy()):
        image = np.repeat(columns[..., None], 3, axis=2)
        for seed in range(40):
            augment = Augmentation(crop=(64, 64), scale=(0.5, 3.0), fill=FILL)
            moved, out = augment(image, columns, rng(seed))
            # The image averages source pixels, the mask takes the middle one.
            assert np.abs(moved[4:-4, 4:-4, 0].astype(int) - out[4:-4, 4:-4]).max() <= 1


def test_flipping_mirrors_left_to_right() -> None:
    image, mask = random_image(20, 30), blocks(20, 30, side=4, seed=0)
    plain = Augmentation(crop=(20, 30), scale=(1.0, 1.0), flip=0.0)(image, mask, rng())
    turned = Augmentation(crop=(20, 30), scale=(1.0, 1.0), flip=1.0)(image, mask, rng())
    for one, other in zip(plain, turned, strict=True):
        np.testing.assert_array_equal(one[:, ::-1], other)


def test_half_of_the_images_are_flipped() -> None:
    image, mask = random_image(4, 6), blocks(4, 6, side=1, seed=0)
    augment = Augmentation(crop=(4, 6), scale=(1.0, 1.0), flip=0.5)
    generator = rng()
    flipped = sum(not np.array_equal(augment(image, mask, generator)[0], image) for _ in range(400))
    assert 160 <= flipped <= 240  # four standard deviations


@given(st.integers(1, 80), st.integers(1, 80))
def test_scale_one_at_the_images_own_size_is_the_identity(height: int, width: int) -> None:
    image, mask = random_image(height, width), blocks(height, width, side=3, seed=0)
    augment = Augmentation(crop=(height, width), scale=(1.0, 1.0), flip=0.0)
    for one, other in zip(augment(image, mask, rng()), (image, mask), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_crop_at_scale_one_is_a_slice_of_image_and_mask(dtype: type, channels: int) -> None:
    image = rng(5).integers(0, 256, (40, 50, channels)).astype(dtype)
    mask = rng(6).integers(0, 256, (40, 50), dtype=np.uint8)
    augment = Augmentation(crop=(24, 32), scale=(1.0, 1.0), flip=0.0)
    starts = set()
    for seed in range(60):
        out_image, out_mask = augment(image, mask, rng(seed))
        (start,) = (
            (row, column)
            for row in range(40 - 24 + 1)
            for column in range(50 - 32 + 1)
            if np.array_equal(out_mask, mask[row : row + 24, column : column + 32])
        )
        starts.add(start)
        row, column = start
        np.testing.assert_array_equal(out_image, image[row : row + 24, column : column + 32])
    assert len(starts) > 40
    assert {min(rows) for rows in zip(*starts, strict=True)} == {0}


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0, 1.3, 2.0, 3.0])
def test_image_and_mask_are_not_shifted_against_each_other(scale: float) -> None:
    """On a ramp the difference of image and mask is their shift, in source pixels."""
    ramp = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    augment = Augmentation(crop=(64, 64), scale=(scale, scale), flip=0.0)
    for mask, axis in ((ramp, 1), (ramp.T.copy(), 0)):
        image = mask.astype(np.float32)[..., None]
        shifts = []
        for seed in range(200):
            out, labels = augment(image, mask, rng(seed))
            inner = (slice(4, -4), slice(4, -4))  # the filter is cut off at the edges
            shifts.append(float(np.mean(out[..., 0][inner] - labels[inner])))
            positions = out[..., 0][inner].mean(axis=1 - axis)
            assert np.mean(np.diff(positions)) == pytest.approx(1 / scale, abs=0.01)
        # Of one crop at most half a source pixel, of many none: 0.29 / sqrt(200) is one std.
        assert np.abs(shifts).max() <= 0.5 + 1e-3
        assert abs(np.mean(shifts)) < 4 * 0.29 / 200**0.5
        if scale == 1:
            assert not np.any(shifts)


@given(height=st.integers(1, 60), width=st.integers(1, 60), seed=st.integers(0, 2**32))
def test_a_small_image_is_padded_with_fill_and_ignore(height: int, width: int, seed: int) -> None:
    image = random_image(height, width) // 2 + 120  # never the fill color
    mask = blocks(height, width, side=3, seed=0) % 5
    augment = Augmentation(crop=(60, 60), scale=(1.0, 1.0), flip=0.0, fill=FILL)
    out_image, out_mask = augment(image, mask, rng(seed))
    filled = (out_image == FILL).all(axis=2)
    assert filled.sum() == 60 * 60 - height * width
    assert (out_mask[filled] == IGNORE).all()
    rows, columns = np.flatnonzero(~filled.all(axis=1)), np.flatnonzero(~filled.all(axis=0))
    place = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    np.testing.assert_array_equal(out_image[place], image)
    np.testing.assert_array_equal(out_mask[place], mask)


def test_a_small_image_is_placed_anywhere() -> None:
    image, mask = np.full((1, 1, 3), 255, dtype=np.uint8), np.zeros((1, 1), dtype=np.uint8)
    augment = Augmentation(crop=(4, 4), scale=(1.0, 1.0), fill=FILL)
    counts = sum((augment(image, mask, rng(seed))[1] == 0).astype(int) for seed in range(200))
    assert np.min(counts) > 0


@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    crop=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    scale=st.tuples(st.floats(0.05, 8.0), st.floats(0.05, 8.0)),
    seed=st.integers(0, 2**32),
)
@example(size=(1, 200), crop=(200, 1), scale=(8.0, 8.0), seed=0)
@example(size=(200, 1), crop=(1, 200), scale=(0.05, 0.05), seed=0)
@example(size=(1, 1), crop=(1, 1), scale=(8.0, 8.0), seed=0)
def test_the_result_has_the_crop_size_and_values_of_the_mask(
    size: tuple[int, int], crop: tuple[int, int], scale: tuple[float, float], seed: int
) -> None:
    image, mask = random_image(*size), blocks(*size, side=2, seed=seed)
    mask[mask == 2] = 200  # a value that blending 1 and 255 would produce
    augment = Augmentation(crop=crop, scale=(min(scale), max(scale)), fill=FILL)
    out_image, out_mask = augment(image, mask, rng(seed))
    assert out_image.shape == (*crop, 3)
    assert out_mask.shape == crop
    assert out_image.dtype == out_mask.dtype == np.uint8
    assert out_image.flags.c_contiguous
    assert out_mask.flags.c_contiguous
    assert set(np.unique(out_mask)) <= {*np.unique(mask), IGNORE}


COLOR: dict[str, Any] = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}


def test_the_same_state_gives_the_same_result() -> None:
    image, mask = random_image(50, 70), blocks(50, 70, side=5, seed=0)
    augment = Augmentation(crop=(40, 40), distortion=Distortion(**COLOR))
    for one, other in zip(augment(image, mask, rng(3)), augment(image, mask, rng(3)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(augment(image, mask, rng(3))[0], augment(image, mask, rng(4))[0])


@pytest.mark.parametrize("name", COLOR)
def test_color_changes_the_image_and_nothing_else(name: str) -> None:
    image, mask = random_image(30, 40), blocks(30, 40, side=5, seed=0)
    geometry: dict[str, Any] = {"crop": (50, 50), "scale": (0.7, 0.7), "fill": FILL}
    plain, plain_mask = Augmentation(**geometry)(image, mask, rng())
    other, other_mask = Augmentation(**geometry, distortion=Distortion(**{name: 0.4}))(
        image, mask, rng()
    )
    np.testing.assert_array_equal(plain_mask, other_mask)
    padding = (plain == FILL).all(axis=2)
    assert not np.array_equal(plain, other)
    np.testing.assert_array_equal(other[padding], plain[padding])  # the fill normalizes to zero


def test_halving_is_as_likely_as_doubling() -> None:
    mask = np.zeros((8, 8), dtype=np.uint8)
    image = np.full((8, 8, 3), 255, dtype=np.uint8)
    augment = Augmentation(crop=(64, 64), scale=(0.25, 4.0), fill=FILL)
    generator = rng()
    smaller = sum((augment(image, mask, generator)[1] == 0).sum() < 64 for _ in range(400))
    assert 160 <= smaller <= 240  # about half; a uniform factor would give a fifth


def test_the_inputs_are_not_modified() -> None:
    image, mask = random_image(20, 20), blocks(20, 20, side=4, seed=0)
    image.setflags(write=False)
    mask.setflags(write=False)
    Augmentation(crop=(16, 16), flip=1.0, distortion=Distortion(**COLOR))(image, mask, rng())
