"""Generated scenes: reproducible from a seed, with valid masks, and written as a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelwise.data.classes import read_classes_toml
from pixelwise.data.scenes import SCENE_CLASSES, generate_scene, write_scenes
from pixelwise.errors import InputError

ALLOWED = {*SCENE_CLASSES.values, SCENE_CLASSES.file_ignore}


def test_a_seed_determines_the_scene() -> None:
    image, mask = generate_scene(7)
    again, mask_again = generate_scene(7)
    other, _ = generate_scene(8)
    assert image.shape == (144, 192, 3)
    assert mask.shape == (144, 192)
    assert image.dtype == mask.dtype == np.uint8
    assert np.array_equal(image, again)
    assert np.array_equal(mask, mask_again)
    assert not np.array_equal(image, other)


def test_most_scenes_contain_every_class_and_some_contain_void() -> None:
    masks = [generate_scene(seed)[1] for seed in range(20)]
    pixels = np.stack([np.bincount(mask.reshape(-1), minlength=256) for mask in masks])
    assert set(np.flatnonzero(pixels.sum(axis=0)).tolist()) == ALLOWED
    for value in SCENE_CLASSES.values:
        assert (pixels[:, value] > 30).mean() >= 0.8, SCENE_CLASSES.names[value]
    void = pixels[:, SCENE_CLASSES.file_ignore]
    assert 0.2 < (void > 0).mean() < 0.9
    assert void.max() < 0.1 * masks[0].size


def test_scenes_differ_in_brightness() -> None:
    brightness = [generate_scene(seed)[0].mean() for seed in range(12)]
    assert max(brightness) - min(brightness) > 30


@settings(max_examples=30)
@given(seed=st.integers(0, 2**40), height=st.integers(16, 90), width=st.integers(16, 90))
def test_masks_of_any_size_contain_only_allowed_values(seed: int, height: int, width: int) -> None:
    image, mask = generate_scene(seed, height=height, width=width)
    assert image.shape == (height, width, 3)
    assert mask.shape == (height, width)
    assert set(np.unique(mask).tolist()) <= ALLOWED


@pytest.mark.parametrize(("height", "width"), [(16, 300), (300, 16)])
def test_scenes_with_extreme_aspect_ratios_are_generated(height: int, width: int) -> None:
    image, mask = generate_scene(1, height=height, width=width)
    assert image.shape[:2] == mask.shape == (height, width)


def test_a_larger_image_shows_the_same_scene() -> None:
    _, small = generate_scene(3, height=72, width=96)
    _, large = generate_scene(3, height=144, width=192)
    assert (large[::2, ::2] == small).mean() > 0.9


def test_written_scenes_are_readable_with_pillow(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "new" / "scenes", train=3, val=2, test=1, height=48, width=64)
    assert read_classes_toml(root / "classes.toml") == SCENE_CLASSES
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    assert files == sorted(
        f"{kind}/{split}/scene_{number:04d}.png"
        for kind in ("images", "masks")
        for split, count in (("train", 3), ("val", 2), ("test", 1))
        for number in range(count)
    )
    images = set()
    for path in sorted((root / "images").rglob("*.png")):
        with Image.open(path) as image, Image.open(root / "masks" / Path(*path.parts[-2:])) as mask:
            assert (image.mode, mask.mode) == ("RGB", "P")
            assert image.size == mask.size == (64, 48)
            assert set(np.unique(np.asarray(mask)).tolist()) <= ALLOWED
            colors = np.array(mask.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
            assert colors[: len(SCENE_CLASSES)].tolist() == [*map(list, SCENE_CLASSES.colors)]
            images.add(image.tobytes())
    assert len(images) == 6  # splits share no scene


def test_adding_training_scenes_does_not_change_validation(tmp_path: Path) -> None:
    few = write_scenes(tmp_path / "few", train=1, val=1, height=32, width=32)
    many = write_scenes(tmp_path / "many", train=3, val=1, height=32, width=32)
    other = write_scenes(tmp_path / "other", train=1, val=1, seed=1, height=32, width=32)
    name = Path("images/val/scene_0000.png")
    assert (few / name).read_bytes() == (many / name).read_bytes()
    assert (few / name).read_bytes() != (other / name).read_bytes()
    assert not (few / "images" / "test").exists()


def test_scenes_can_be_rewritten_but_not_mixed_with_other_images(tmp_path: Path) -> None:
    write_scenes(tmp_path, train=2, val=1, height=16, width=16)
    write_scenes(tmp_path, train=2, val=1, height=16, width=16)
    with pytest.raises(InputError) as raised:
        write_scenes(tmp_path, train=1, val=1, height=16, width=16)
    (line,) = raised.value.problems
    assert line.startswith(f"{tmp_path}: contains images/train/scene_0001.png, ")
    assert line.endswith(": give a new folder, or empty this one")


def test_invalid_sizes_counts_and_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="15 x 192"):
        generate_scene(0, height=15)
    with pytest.raises(InputError, match="seed -1"):
        generate_scene(-1)
    with pytest.raises(InputError, match="-1 scenes for val"):
        write_scenes(tmp_path / "out", train=1, val=-1)
    with pytest.raises(InputError, match="144 x 15"):
        write_scenes(tmp_path / "out", train=1, val=1, width=15)
    assert not (tmp_path / "out").exists()
