"""16-bit and floating-point images for a network of 8-bit images."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import pixelwise
from fixture_types import Cli, MakeData
from pixelwise.data.classes import Classes
from pixelwise.data.pixel_format import PixelFormat
from pixelwise.errors import InputError
from pixelwise.inference import InferenceOptions, Predictor

RGB8 = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)


def deep_image(path: Path, kind: str) -> tuple[float, float]:
    """Write RGB8 with another type of values; return the values of 0 and 255."""
    if kind == "16 bits":
        tifffile.imwrite(path, RGB8.astype(np.uint16) * 257, photometric="rgb")
        return 0, 65535
    if kind == "12 bits":
        stored = np.rint(RGB8.astype(np.float64) * (4095 / 255)).astype(np.uint16)
        tifffile.imwrite(path, stored, photometric="rgb")
        return 0, 4095
    tifffile.imwrite(path, (RGB8 / 255).astype(np.float32), photometric="rgb")
    return 0, 1


@pytest.mark.parametrize("kind", ["16 bits", "12 bits", "float"])
def test_the_command_in_the_error_works_and_gives_the_mask_of_the_8_bit_image(
    tmp_path: Path, tiny_bundle: Path, cli: Cli, kind: str
) -> None:
    path = tmp_path / "my photo.tif"
    deep_image(path, kind)
    Image.fromarray(RGB8).save(tmp_path / "plain.png")
    refused = cli("predict", tiny_bundle, path)
    assert refused.code == 2
    command = shlex.split(refused.err.split("`")[1])
    assert command[0] == "pixelwise"
    done = cli(*command[1:])
    assert done.code == 0, done.err
    assert cli("predict", tiny_bundle, tmp_path / "plain.png").code == 0
    masks = [np.asarray(Image.open(tmp_path / "predictions" / f"{n}.png"))
             for n in ("my photo", "plain")]  # fmt: skip
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("kind", ["16 bits", "12 bits", "float"])
def test_python_and_large_map_the_same_values(
    tmp_path: Path, tiny_bundle: Path, cli: Cli, kind: str
) -> None:
    path = tmp_path / "deep.tif"
    low, high = deep_image(path, kind)
    with pytest.raises(InputError, match=f"value_range=.{low:g}, {high:g}|--value-range"):
        pixelwise.load(tiny_bundle, runtime="torch")(path)
    predictor = pixelwise.load(tiny_bundle, runtime="torch", value_range=(low, high))
    np.testing.assert_array_equal(predictor.prepare(path), RGB8)
    options = ("--value-range", f"{low:g},{high:g}", "--runtime", "torch")
    for extra in ((), ("--large",)):
        done = cli("predict", tiny_bundle, path, "--out", "o", "--no-overlay", *options, *extra)
        assert done.code == 0, done.err
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "o" / "deep.tif"),
        np.asarray(Image.open(tmp_path / "o" / "deep.png")),
    )


def test_values_beyond_the_range_are_clipped_and_8_bit_images_unchanged(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    gray = np.array([[0, 100, 200, 300, 65535]], dtype=np.uint16)
    Image.fromarray(gray).save(tmp_path / "deep.png")
    Image.fromarray(RGB8).save(tmp_path / "plain.png")
    predictor = pixelwise.load(tiny_bundle, runtime="torch", value_range=(100, 300))
    shown = predictor.prepare(tmp_path / "deep.png")
    np.testing.assert_array_equal(shown[0, :, 0], [0, 0, 128, 255, 255])
    np.testing.assert_array_equal(predictor.prepare(tmp_path / "plain.png"), RGB8)


def test_wrong_ranges_are_refused(tmp_path: Path, tiny_bundle: Path, cli: Cli) -> None:
    for text in ("4095", "0,a", "0,1,2", "5,5", "9,1", "0,inf"):
        done = cli("predict", tiny_bundle, tmp_path, f"--value-range={text}")
        assert done.code == 2, text
        assert len(done.err.splitlines()) == 1


def test_a_network_with_a_range_of_its_own_takes_no_other() -> None:
    pixels = PixelFormat(3, "uint16", (0, 4095))
    options = InferenceOptions(value_range=(0, 255))
    with pytest.raises(InputError, match="has its own range: omit it"):
        Predictor(None, Classes.make(["a", "b"]), pixels=pixels, options=options)  # type: ignore[arg-type]


def test_train_and_convert_data_report_dataset_faults_without_pytorch(
    tmp_path: Path, make_folder_data: MakeData, run_cli: Cli
) -> None:
    root = make_folder_data(tmp_path / "data")
    mask = root / "masks" / "001.png"
    Image.fromarray(np.full((24, 32), 9, dtype=np.uint8)).save(mask)
    blocker = tmp_path / "torch"  # the commands run in this folder
    blocker.mkdir()
    (blocker / "__init__.py").write_text("raise SystemExit('PyTorch was imported')")
    commands = (["train", root], ["convert-data", root, "out"])
    for command in commands:
        done = run_cli(*command)
        assert done.code == 2, done.err
        assert done.err.startswith(f"pixelwise: error: {mask}: mask value 9 is not among"), command
