"""Rotation, turns, flips, rare-class crops, cutout, and changes of the pixel values."""

from __future__ import annotations

import base64
import colorsys
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fixture_types import Cli
from pixelwise.data.classes import IGNORE
from pixelwise.data.distortion import Distortion, blur, compress, shift_hue
from pixelwise.data.pixel_format import PixelFormat
from pixelwise.data.rotation import rotate, rotated_extent
from pixelwise.data.scenes import write_scenes
from pixelwise.data.transforms import Augmentation
from pixelwise.errors import InputError
from pixelwise.recipes.augmentation_presets import PRESETS
from pixelwise.recipes.load_recipe import load_recipe
from pixelwise.recipes.schema import ResolvedAugmentationRecipe
from pixelwise.report import write_preview
from pixelwise.training import plan_training, train
from pixelwise.training.loading import BatchOrder, augmented_train_split, make_augmentation
from test_transforms import FILL, PAINT, away_from_edges, blocks, random_image, rng

PLAIN: dict[str, Any] = {"scale": (1.0, 1.0), "flip": 0.0, "fill": FILL}


# --- Geometry


@pytest.mark.parametrize(
    "options",
    [
        {"rotation": 45.0},
        {"rotation": 10.0, "scale": (0.5, 2.0)},
        {"quarter_turns": 1.0},
        {"vertical_flip": 1.0},
        {"rare_crops": 1.0, "class_weights": (1.0, 1, 1, 1, 9), "scale": (1.0, 2.0)},
        {"rotation": 20.0, "quarter_turns": 0.5, "vertical_flip": 0.5, "flip": 0.5},
        {"rotation": 20.0, "cutout": 0.3},
    ],
)
@pytest.mark.parametrize("crop", [(60, 90), None])
def test_image_and_mask_turn_together(options: dict[str, Any], crop: tuple[int, int]) -> None:
    mask = blocks(96, 128, side=16, seed=1)
    augment = Augmentation(**{**PLAIN, "crop": crop, **options})
    compared = 0
    for seed in range(12):
        image, out = augment(PAINT[mask], mask, rng(seed))
        assert crop is None or (out.shape == crop and image.shape == (*crop, 3))
        assert image.flags.writeable  # PyTorch needs this
        assert out.flags.writeable
        inside = away_from_edges(out) & (out != IGNORE)
        np.testing.assert_array_equal(image[inside], PAINT[out[inside]])
        compared += inside.sum()
    assert compared > 12 * 0.2 * 60 * 90


def test_a_rotation_turns_counterclockwise_about_the_center() -> None:
    mask = np.zeros((81, 81), np.uint8)
    mask[40, 60] = 1  # 20 to the right of the center
    angle = np.deg2rad(30)
    image, turned = rotate(PAINT[mask], mask, (41, 41), angle)
    assert rotated_extent((41, 41), angle)[0] <= 81
    ((row, column),) = np.argwhere(turned == 1)
    assert row == pytest.approx(20 - 20 * np.sin(angle), abs=0.51)
    assert column == pytest.approx(20 + 20 * np.cos(angle), abs=0.51)
    assert image[row, column, 0] < PAINT[0, 0]


@pytest.mark.parametrize("size", [(41, 41), (40, 60), (1, 9)])
def test_a_rotation_by_nothing_and_by_a_quarter_are_exact(size: tuple[int, int]) -> None:
    image, mask = random_image(64, 64), blocks(64, 64, side=4, seed=0)
    top, left = (64 - size[0]) // 2, (64 - size[1]) // 2
    window = (slice(top, top + size[0]), slice(left, left + size[1]))
    if all(side % 2 == 0 for side in size):  # otherwise the center lies between two pixels
        pixels, labels = rotate(image, mask, size, 0.0)
        np.testing.assert_array_equal(pixels, image[window])
        np.testing.assert_array_equal(labels, mask[window])
        pixels, labels = rotate(image, mask, size, np.pi / 2)
        np.testing.assert_array_equal(labels, np.rot90(mask)[window])
        assert np.abs(pixels.astype(int) - np.rot90(image)[window]).max() <= 1
    assert rotated_extent(size, 0.0) == size


def test_a_rotated_crop_inside_the_image_has_no_padding() -> None:
    mask = np.zeros((200, 200), np.uint8)
    augment = Augmentation(**{**PLAIN, "crop": (60, 90), "rotation": 45.0})
    for seed in range(20):
        image, out = augment(PAINT[mask], mask, rng(seed))
        assert (out == 0).all()
        assert (image == PAINT[0]).all()


def test_all_turns_are_equally_likely_and_a_crop_keeps_its_shape() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[:4, :4] = 1
    augment = Augmentation(**{**PLAIN, "crop": (40, 40), "quarter_turns": 0.75})
    counts = dict.fromkeys(((0, 0), (0, 39), (39, 0), (39, 39)), 0)
    generator = rng()
    for _ in range(400):
        _, out = augment(PAINT[mask], mask, generator)
        for corner in counts:
            counts[corner] += int(out[corner] == 1)
    assert sum(counts.values()) == 400
    assert min(counts.values()) > 60


def test_vertical_flips_mirror_top_to_bottom() -> None:
    image, mask = random_image(20, 30), blocks(20, 30, side=5, seed=0)
    augment = Augmentation(**{**PLAIN, "crop": (20, 30), "vertical_flip": 1.0})
    flipped, labels = augment(image, mask, rng())
    np.testing.assert_array_equal(flipped, image[::-1])
    np.testing.assert_array_equal(labels, mask[::-1])


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 2.0), (3.0, 3.0)])
def test_rare_crops_contain_a_pixel_of_the_rare_class(scale: tuple[float, float]) -> None:
    weights = (1e-4, 1.0)
    for row, column in ((0, 0), (79, 99), (33, 71)):
        mask = np.full((80, 100), IGNORE, np.uint8)
        mask[:, 40:] = 0
        mask[row : row + 3, column : column + 3] = 1
        augment = Augmentation(
            **{**PLAIN, "scale": scale, "crop": (24, 32), "rare_crops": 1.0},
            class_weights=(0.0, weights[1]),
        )
        places = set()
        for seed in range(40):
            _, out = augment(PAINT[mask], mask, rng(seed))
            assert (out == 1).any() or scale[0] < 1  # nearest neighbor may skip it when shrinking
            places.add(tuple(np.argwhere(out == 1)[0]) if (out == 1).any() else ())
        assert len(places) > 3 or (row, column) != (33, 71)  # the others are corners


def test_rare_crops_prefer_rare_classes_and_skip_masks_without_any() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[2:4, 2:4] = 1
    weights = (1 / 4092, 1 / 4)

    def share(probability: float) -> float:
        augment = Augmentation(
            **{**PLAIN, "crop": (8, 8), "rare_crops": probability}, class_weights=weights
        )
        generator = rng()
        found = [(augment(PAINT[mask], mask, generator)[1] == 1).any() for _ in range(200)]
        return float(np.mean(found))

    assert share(0.0) < 0.1
    assert 0.3 < share(0.5) < 0.7
    assert share(1.0) > 0.95
    empty = np.full((64, 64), IGNORE, np.uint8)
    augment = Augmentation(**{**PLAIN, "crop": (8, 8), "rare_crops": 1.0}, class_weights=weights)
    assert (augment(PAINT[empty], empty, rng())[1] == IGNORE).all()


def test_cutout_fills_and_ignores_one_square() -> None:
    mask = np.zeros((60, 80), np.uint8)
    augment = Augmentation(**{**PLAIN, "crop": (60, 80), "cutout": 0.5})
    sides = []
    for seed in range(30):
        image, out = augment(PAINT[mask], mask, rng(seed))
        hole = out == IGNORE
        np.testing.assert_array_equal((image == FILL).all(axis=2), hole)
        rows, columns = np.nonzero(hole.any(axis=1))[0], np.nonzero(hole.any(axis=0))[0]
        assert hole.sum() == len(rows) * len(columns)
        assert len(rows) == len(columns)
        sides.append(len(rows))
    assert 20 < max(sides) <= 30
    assert min(sides) < 10


# --- Pixel values

ALL: dict[str, Any] = {
    "brightness": 0.3,
    "contrast": 0.3,
    "saturation": 0.3,
    "hue": 0.2,
    "gamma": 0.5,
    "blur": 2.0,
    "noise": 20.0,
    "jpeg": 20,
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_each_distortion_changes_the_image_in_place_of_none(name: str, kind: type) -> None:
    if name == "jpeg" and kind is np.float32:
        return
    image = random_image(30, 40).astype(kind)
    image.setflags(write=False)
    distort = Distortion(**{name: ALL[name]})
    changed = distort(image, rng(3))
    assert changed.dtype == kind
    assert changed.shape == image.shape
    assert not np.array_equal(changed, image)
    np.testing.assert_array_equal(changed, distort(image, rng(3)))
    assert not np.array_equal(changed, distort(image, rng(4)))
    np.testing.assert_array_equal(Distortion()(image, rng(3)), image)


@pytest.mark.parametrize("turns", [0.0, 0.25, 1 / 3, -1 / 3, 0.5])
def test_hue_turns_the_color_circle_and_keeps_gray(turns: float) -> None:
    gray = np.full((2, 2, 3), 90, np.uint8)
    np.testing.assert_allclose(shift_hue(gray, turns), gray, atol=1e-3)
    color = np.array([[[120, 90, 90]]], np.uint8)
    (shifted,) = shift_hue(color, turns)[0]
    before = colorsys.rgb_to_hsv(*(color[0, 0] / 255))[0]
    after = colorsys.rgb_to_hsv(*(shifted / 255))[0]
    assert (after - before - turns + 0.5) % 1 == pytest.approx(0.5, abs=0.04)
    assert shifted.mean() == pytest.approx(100, abs=1e-3)


def test_gamma_keeps_black_and_white_and_values_outside() -> None:
    image = np.array([-20.0, 0, 64, 128, 255], np.float32).reshape(1, 5, 1)
    curves = np.array([Distortion(gamma=1.0)(image, rng(seed)).ravel() for seed in range(200)])
    assert (curves[:, 0] == -20).all()
    np.testing.assert_allclose(curves[:, [1, 4]], np.tile([0, 255], (200, 1)), atol=1e-3)
    exponents = np.log(curves[:, 3] / 255) / np.log(128 / 255)
    assert 0.5 <= exponents.min() < 0.55
    assert 1.8 < exponents.max() <= 2.0
    assert 70 < (exponents < 1).sum() < 130  # darker is as likely as brighter


def test_blur_equals_the_filter_of_scipy() -> None:
    from scipy.ndimage import gaussian_filter

    image = random_image(40, 50)
    expected = gaussian_filter(
        image.astype(np.float64), (1.5, 1.5, 0), mode="nearest", radius=(5, 5, 0)
    )
    np.testing.assert_allclose(blur(image, 1.5), expected, atol=1e-3)
    np.testing.assert_array_equal(blur(image, 0.0), image)


def test_noise_has_a_mean_of_zero_and_the_drawn_std() -> None:
    image = np.full((64, 64, 4), 128, np.float32)
    stds = [float((Distortion(noise=10.0)(image, rng(seed)) - image).std()) for seed in range(60)]
    assert max(stds) <= 10.3
    assert max(stds) > 8
    assert min(stds) < 2
    noisy = Distortion(noise=10.0)(image, rng(1))
    assert abs(float(noisy.mean()) - 128) < 0.5


def test_jpeg_artifacts_are_those_of_an_encoder() -> None:
    image = random_image(32, 48)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="JPEG", quality=30)
    np.testing.assert_array_equal(compress(image, quality=30), np.asarray(Image.open(stream)))
    single: NDArray[np.uint8] = image[..., :1]
    assert compress(single, quality=95).shape == single.shape


def test_channels_beyond_the_color_keep_their_hue() -> None:
    image = np.dstack([random_image(20, 20), random_image(20, 20, 1)[..., :2]])
    changed = Distortion(hue=0.3, saturation=0.3)(image, rng(2))
    np.testing.assert_array_equal(changed[..., 3:], image[..., 3:])
    two = image[..., :2]
    np.testing.assert_array_equal(Distortion(hue=0.3, saturation=0.3)(two, rng(2)), two)


# --- Recipes


def test_a_preset_sets_values_and_given_ones_take_precedence() -> None:
    default = load_recipe().augmentation
    assert default.preset == "none"
    for name, values in PRESETS.items():
        chosen = load_recipe(None, {"augmentation.preset": name}).augmentation
        for key, value in dict(default).items():
            expected = {**dict(default), **values, "preset": name}[key]
            assert getattr(chosen, key) == expected, key
            assert value is not None
    mixed = load_recipe(None, {"augmentation.preset": "aerial", "augmentation.hue": 0.0})
    assert (mixed.augmentation.hue, mixed.augmentation.vertical_flip) == (0.0, 0.5)
    again = load_recipe().replace({"augmentation.preset": "aerial", "augmentation.hue": 0.0})
    assert again == mixed
    assert mixed.replace({"epochs": 3}).augmentation == mixed.augmentation
    with pytest.raises(InputError, match="'street', 'aerial', 'microscopy' or 'documents'"):
        load_recipe(None, {"augmentation.preset": "xray"})


@pytest.mark.parametrize(
    "pixels", [PixelFormat(4), PixelFormat(3, "uint16"), PixelFormat(2), PixelFormat(1, "float32")]
)
def test_jpeg_compression_of_other_images_is_refused(pixels: PixelFormat) -> None:
    settings: dict[str, Any] = {"fill": (0.0,) * pixels.channels, "counts": np.ones(2, np.int64)}
    recipe = ResolvedAugmentationRecipe(crop=(32, 32), jpeg=40)
    with pytest.raises(InputError, match=r"augmentation\.jpeg = 40: the images are .* 8-bit"):
        make_augmentation(recipe, pixels=pixels, **settings)
    make_augmentation(ResolvedAugmentationRecipe(crop=(32, 32)), pixels=pixels, **settings)
    assert make_augmentation(recipe, **settings).distortion == Distortion(
        brightness=0.2, contrast=0.2, saturation=0.2, jpeg=40
    )


def test_jpeg_compression_that_does_not_fit_is_refused_before_the_run_begins(
    tmp_path: Path, make_folder_data: Any
) -> None:
    root = make_folder_data(tmp_path / "data", splits={"train": 4, "val": 2})
    for path in (root / "images").rglob("*.png"):  # RGB and another channel, which is no alpha
        pixels = np.asarray(Image.open(path).convert("RGBA"))
        np.save(path.with_suffix(".npy"), pixels)
        path.unlink()
    settings = {"model.weights": "none", "model.options.backbone": "tiny"}
    settings |= {"augmentation.preset": "street", "memory_format": "contiguous"}
    with pytest.raises(InputError, match=r"augmentation\.jpeg = 50: the images are 4 channels"):
        train(root, tmp_path / "run", load_recipe(None, settings))
    assert not (tmp_path / "run").exists()


def test_the_preview_shows_what_the_network_will_see(tmp_path: Path, cli: Cli) -> None:
    scenes = write_scenes(tmp_path / "scenes", train=5, val=2, height=64, width=96)
    settings = {"model.weights": "none", "model.options.backbone": "tiny", "epochs": 2}
    settings["memory_format"] = "contiguous"
    settings |= {"augmentation.preset": "aerial", "augmentation.crop": [32, 64], "batch_size": 2}
    run = plan_training(scenes, tmp_path / "run", load_recipe(None, settings))
    write_preview(run, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    masks = re.findall(r'class="mask" src="data:image/png;base64,([^"]+)"', page)
    images = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert (len(images), len(masks)) == (12, 12)
    trained = augmented_train_split(run)
    order = BatchOrder(5, batch_size=2, seed=run.recipe.seed)
    order.begin(1)
    first = [key for batch in order for key in batch]
    for key, image, mask in zip(first, images, masks, strict=False):
        pixels, labels = (tensor.numpy() for tensor in trained[key])
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(mask))))
        np.testing.assert_array_equal(shown, labels)
        decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(image)))).astype(float)
        assert np.abs(decoded - pixels.transpose(1, 2, 0)).mean() < 6  # JPEG
    assert "augmentation.quarter_turns" in page

    small = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    done = cli("train", scenes, "--out", "mine", "--preview", *small)
    assert (done.code, done.err) == (0, "")
    assert "mine_preview.html" in done.out
    refused = cli("train", scenes, "--preview", "--plan-only")
    assert (refused.code, "give only one of them" in refused.err) == (2, True)
