"""Data as other tools leave it: found by looking, read as meant, written in the plain layout."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from miniatures import MINIATURES, Expected
from pixelwise.data import layouts
from pixelwise.data.classes import IGNORE
from pixelwise.data.convert import convert_data
from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.training import load_recipe, train

TINY = {
    "model.pretrained": "none",
    "model.options.backbone": "tiny",
    "layout": "contiguous",
    "device": "cpu",
    "epochs": 1,
    "batch_size": 3,
    "data.workers": 0,
}

Made = Callable[[str], tuple[Path, Expected]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Each miniature, written once; not to be changed."""
    kept: dict[str, tuple[Path, Expected]] = {}

    def make(name: str) -> tuple[Path, Expected]:
        if name not in kept:
            root = tmp_path_factory.mktemp("format") / name.replace(" ", "-")
            root.mkdir()
            kept[name] = (root, MINIATURES[name](root))
        return kept[name]

    return make


def check(data: SegmentationData, expected: Expected, *, name: Callable[[Any], str]) -> None:
    assert list(data.classes.names) == expected.names
    if expected.colours is not None:
        assert list(data.classes.colours) == expected.colours
    assert (data.classes.ignore is not None) == expected.ignored
    found = {
        split: {name(sample): data.read(sample)[1] for sample in samples}
        for split, samples in data.splits.items()
    }
    assert {s: sorted(m) for s, m in found.items()} == {
        s: sorted(m) for s, m in expected.masks.items()
    }
    for split, masks in expected.masks.items():
        for stem, mask in masks.items():
            np.testing.assert_array_equal(found[split][stem], mask, err_msg=f"{split} {stem}")


@pytest.mark.parametrize("name", MINIATURES)
def test_a_format_is_found_by_itself_and_by_no_other(made: Made, name: str) -> None:
    root, expected = made(name)
    found = [layout.__name__.split(".")[-1] for layout in layouts.LAYOUTS if layout.detect(root)]
    assert [module.replace("_", "-") for module in found] == [expected.layout]
    assert layouts.find(root).layout == expected.layout


@pytest.mark.parametrize("name", MINIATURES)
def test_looking_opens_few_files(
    made: Made, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = made(name)
    copy = tmp_path / "many"
    shutil.copytree(root, copy)
    for folder in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
        for file in [path for path in folder.iterdir() if path.is_file()][:4]:
            for number in range(100):
                (folder / f"{number}_{file.name}").hardlink_to(file)
    opened: list[str] = []
    real = io.open

    def counting(file: Any, *arguments: Any, **options: Any) -> Any:
        opened.append(str(file))
        return real(file, *arguments, **options)

    monkeypatch.setattr(io, "open", counting)
    for layout in layouts.LAYOUTS:
        layout.detect(copy)
    assert len(opened) < 60


@pytest.mark.parametrize("name", MINIATURES)
def test_a_format_gives_exactly_its_masks(made: Made, name: str) -> None:
    root, expected = made(name)
    data = open_dataset(root, divide=False)
    check(data, expected, name=lambda sample: sample.image.stem)
    uncached = open_dataset(root, divide=False, cache_bytes=0)
    check(uncached, expected, name=lambda sample: sample.image.stem)


@pytest.mark.parametrize("name", MINIATURES)
def test_a_format_comes_back_from_the_plain_layout(made: Made, name: str, tmp_path: Path) -> None:
    root, expected = made(name)
    target = tmp_path / "plain"
    source = convert_data(root, target)
    assert sorted(path.name for path in target.iterdir()) == ["classes.toml", "images", "masks"]
    data = open_dataset(target, divide=False)
    assert data.layout == "folders"
    check(data, expected, name=lambda sample: sample.image.stem)
    assert data.classes == source.classes.indexed()
    for split, samples in source.splits.items():
        copies = {sample.image.name: sample.image for sample in data.splits[split]}
        for sample in samples:
            assert copies[sample.image.name].read_bytes() == sample.image.read_bytes()
    for path in (target / "masks").rglob("*.png"):
        with Image.open(path) as picture:
            assert picture.mode == "P"


@pytest.mark.parametrize("name", MINIATURES)
def test_a_format_trains_a_step(made: Made, name: str, tmp_path: Path) -> None:
    root, expected = made(name)
    run = train(root, tmp_path / "run", load_recipe(None, dict(TINY)))
    assert list(run.data.classes.names) == expected.names
    assert np.isfinite(run.history[0]["loss"])


def test_every_layout_has_a_miniature(made: Made) -> None:
    written = {made(name)[1].layout for name in MINIATURES}
    modules = {layout.__name__.split(".")[-1].replace("_", "-") for layout in layouts.LAYOUTS}
    assert written == modules


# VOC: a palette PNG and its RGB copy.


def test_a_palette_mask_and_its_rgb_copy_have_one_index(made: Made, tmp_path: Path) -> None:
    root, expected = made("voc")
    copy = tmp_path / "rgb"
    shutil.copytree(root, copy)
    for path in (copy / "SegmentationClass").iterdir():
        with Image.open(path) as picture:
            picture.convert("RGB").save(path)
    check(open_dataset(copy, divide=False), expected, name=lambda sample: sample.image.stem)
    assert any((mask == IGNORE).any() for mask in expected.masks["train"].values())
