"""TIFF files read and written in tiles: masks as in memory, complete files, clear errors."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

import hostile
from fixture_types import Cli
from pixelwise.data.classes import Classes
from pixelwise.data.image_files import read_image
from pixelwise.data.pixel_format import PixelFormat
from pixelwise.errors import InputError
from pixelwise.inference import InferenceOptions, Predictor
from pixelwise.inference.batch import mask_tiff, tiff_source
from pixelwise.inference.batch.large_images import predict_large_image
from pixelwise.inference.batch.tiff_source import TiffSource
from pixelwise.inference.runtimes.torch.torch_runtime import TorchRuntime
from pixelwise.models import create_model
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.normalization import IMAGENET, Normalization

CLASSES = Classes.make(["soil", "plant", "stone"], values=[0, 10, 200], ignore=255)
SIDE = 320  # of the tiles; possible because the receptive field of the network is small
OPTIONS = {"backbone": "tiny", "aspp": False}


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """8x8 blocks with noise."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 200, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)
    noise = rng.integers(0, 56, (height, width, 3))
    return (blocks[:height, :width] + noise).astype(np.uint8)


def network(image: np.ndarray, normalization: Normalization) -> nn.Module:
    """A network with random weights that predicts all classes in the image."""
    torch.manual_seed(0)
    channels = image.shape[2]
    model = create_model("deeplab_v3plus", num_classes=3, in_channels=channels, **OPTIONS)
    logits = TorchRuntime(model, normalization).logits(image)
    with torch.no_grad():
        model.head.classify.bias -= torch.from_numpy(logits.mean(axis=(1, 2)))
    return model.eval()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = network(IMAGE, IMAGENET)
    path = tmp_path_factory.mktemp("bundle") / "model.safetensors"
    Bundle("deeplab_v3plus", OPTIONS, CLASSES, IMAGENET, model.state_dict()).save(path)
    return path


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return Predictor.load(bundle, tile=SIDE)


IMAGE = photo(517, 603)

FORMATS: dict[str, dict[str, Any]] = {
    "tiles": {"tile": (128, 128)},
    "tiles, deflate, predictor": {"tile": (64, 256), "compression": "zlib", "predictor": True},
    "tiles, lzw": {"tile": (128, 128), "compression": "lzw"},
    "strips": {"rowsperstrip": 7},
    "strips, deflate": {"rowsperstrip": 50, "compression": "zlib"},
    "one strip": {"rowsperstrip": 517},
    "big-endian BigTIFF": {"tile": (256, 256), "bigtiff": True, "byteorder": ">"},
    "planes in strips": {"planarconfig": "separate", "rowsperstrip": 20},
    "planes in tiles": {"planarconfig": "separate", "tile": (128, 128), "compression": "zlib"},
}


def write_tiff(path: Path, pixels: np.ndarray, **form: Any) -> Path:
    how = {key: form.pop(key) for key in ("bigtiff", "byteorder") if key in form}
    if form.get("planarconfig") == "separate":
        pixels = np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
    form.setdefault("photometric", "rgb")
    with tifffile.TiffWriter(path, **how) as writer:
        writer.write(pixels, metadata=None, **form)
    return path


@pytest.mark.parametrize("form", FORMATS)
def test_any_window_of_a_file_can_be_read(form: str, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", IMAGE, **FORMATS[form])
    rng = np.random.default_rng(0)
    with TiffSource.open(path) as image:
        assert image.size == (517, 603)
        for _ in range(20):
            top, left = rng.integers(0, 516), rng.integers(0, 602)
            height, width = rng.integers(1, 518 - top), rng.integers(1, 604 - left)
            found = image.read(top, left, height, width)
            assert (found == IMAGE[top : top + height, left : left + width]).all()


def test_gray_palette_white_is_zero_and_alpha_are_read_as_rgb(tmp_path: Path) -> None:
    gray = IMAGE[..., 0]
    colors = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    for name, pixels, form, wanted in (
        ("gray", gray, {"photometric": "minisblack"}, gray[..., None].repeat(3, 2)),
        ("white", gray, {"photometric": "miniswhite"}, 255 - gray[..., None].repeat(3, 2)),
        ("palette", gray, {"photometric": "palette", "colormap": colors * 257}, colors.T[gray]),
        ("rgba", np.dstack([IMAGE, gray]), {"extrasamples": ["unassalpha"]}, IMAGE),
    ):
        path = write_tiff(tmp_path / f"{name}.tif", pixels, tile=(128, 128), **form)
        with TiffSource.open(path) as image:
            assert (image.read(5, 7, 400, 500) == wanted[5:405, 7:507]).all(), name


def test_jpeg_tiles_are_decoded_to_rgb(tmp_path: Path) -> None:
    form = {"photometric": "ycbcr", "compression": "jpeg", "subsampling": (2, 2)}
    path = write_tiff(tmp_path / "a.tif", IMAGE, tile=(128, 128), **form)
    with TiffSource.open(path) as image, Image.open(path) as pillow:
        expected = np.asarray(pillow.convert("RGB"))[9:409, 7:507]
        assert (image.read(9, 7, 400, 500) == expected).all()


DEEP = {
    "16 bits": (PixelFormat(3, "uint16", (0, 4095)), {"tile": (128, 128)}),
    "16 bits, deflate": (
        PixelFormat(3, "uint16", (100, 9000)),
        {"tile": (64, 256), "compression": "zlib", "predictor": True},
    ),
    "16 bits, big-endian strips": (
        PixelFormat(3, "uint16", (0, 65535)),
        {"rowsperstrip": 7, "byteorder": ">"},
    ),
    "near infrared, called alpha": (
        PixelFormat(4, "uint16", (0, 4095)),
        {"tile": (128, 128), "extrasamples": ["unassalpha"]},
    ),
    "near infrared, called premultiplied alpha": (
        PixelFormat(4, "uint8"),
        {"tile": (128, 128), "extrasamples": ["assocalpha"]},
    ),
    "five channels in planes": (
        PixelFormat(5, "uint8"),
        {"planarconfig": "separate", "rowsperstrip": 20, "extrasamples": [0, 0]},
    ),
    "floating point": (PixelFormat(3, "float32", (0, 1)), {"tile": (128, 128)}),
    "signed": (PixelFormat(3, "float32", (-500, 500)), {"tile": (128, 128)}),
}


def deep(form: str, height: int = 517, width: int = 603) -> np.ndarray:
    """Stored values (height, width, C) over the full range and slightly beyond."""
    pixels = DEEP[form][0]
    low, high = pixels.value_range
    channels = [photo(height, width, seed)[..., 0] for seed in range(pixels.channels)]
    values = low + np.stack(channels, axis=2) / 250 * (high - low)
    kind = {"signed": np.int16, "floating point": np.float64}.get(form, pixels.dtype)
    if np.dtype(kind).kind in "ui":
        values = values.clip(np.iinfo(kind).min, np.iinfo(kind).max)
    return values.astype(kind)


@pytest.mark.parametrize("form", DEEP)
def test_images_of_any_depth_and_channels_are_read_in_the_units_of_training(
    form: str, tmp_path: Path
) -> None:
    pixels, how = DEEP[form]
    stored = deep(form)
    path = write_tiff(tmp_path / "a.tif", stored, **how)
    whole = read_image(path, pixels)  # as training reads it
    low, high = pixels.value_range
    assert np.allclose(whole, (stored.astype(np.float64) - low) / (high - low) * 255, atol=1e-3)
    with TiffSource.open(path, pixels) as image:
        found = image.read(50, 7, 400, 500)
        assert image.missing(0, 0, 517, 603) is None
    assert found.dtype == pixels.network_dtype
    assert (found == whole[50:450, 7:507]).all()


def test_a_16_bit_image_gets_the_same_mask_as_in_memory(tmp_path: Path) -> None:
    form = "near infrared, called alpha"
    pixels, how = DEEP[form]
    normalization = Normalization((0.4,) * 4, (0.2,) * 4)
    model = network(pixels.scale(deep(form)), normalization)
    options = InferenceOptions(tile=SIDE)
    runtime = TorchRuntime(model, normalization)
    predictor = Predictor(runtime, CLASSES, pixels=pixels, options=options)
    path = write_tiff(tmp_path / "a.tif", deep(form), **how)
    predict_large_image(predictor, path, tmp_path / "m.tif")
    found = tifffile.imread(tmp_path / "m.tif")
    assert (found == predictor(path).mask).all()
    assert len(np.unique(found)) > 1
    with pytest.raises(InputError, match=r"has 3 channels of 8 bits, but 4 channels of 16 bits"):
        predict_large_image(predictor, write_tiff(tmp_path / "b.tif", IMAGE), tmp_path / "n.tif")


@pytest.mark.parametrize("nodata", ["nan", "-9999"])
def test_nodata_values_do_not_reach_the_network(nodata: str, tmp_path: Path) -> None:
    pixels, how = DEEP["floating point"]
    stored = deep("floating point").astype(np.float32)
    stored[100:300, 200:450] = float(nodata)
    path = write_tiff(tmp_path / "a.tif", stored, **how,
                      extratags=[(42113, 2, len(nodata) + 1, nodata, True)])  # fmt: skip
    with TiffSource.open(path, pixels) as image:
        found = image.read(90, 0, 300, 603)
        missing = image.missing(90, 0, 300, 603)
    wanted = np.zeros((300, 603), bool)
    wanted[10:210, 200:450] = True
    assert (missing == wanted).all()
    assert (found[wanted] == 0).all()
    assert found[~wanted].max() > 200


def test_other_values_that_are_not_finite_are_refused_with_their_position(tmp_path: Path) -> None:
    pixels, how = DEEP["floating point"]
    stored = deep("floating point").astype(np.float32)
    stored[120, 30, 1] = np.inf
    path = write_tiff(tmp_path / "a.tif", stored, **how)
    with (
        TiffSource.open(path, pixels) as image,
        pytest.raises(InputError, match=r"not finite at row 120, column 30, channel 1: replace it"),
    ):
        image.read(100, 10, 50, 50)


def test_the_mask_is_the_same_as_in_memory(predictor: Predictor, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", IMAGE, tile=(128, 128))
    seen: list[tuple[int, int]] = []
    predict_large_image(
        predictor, path, tmp_path / "m.tif", progress=lambda done, total: seen.append((done, total))
    )
    with tifffile.TiffFile(tmp_path / "m.tif") as written:
        page = written.pages.first
        assert page.is_tiled
        assert page.compression.name == "ADOBE_DEFLATE"
        found = page.asarray()
    assert (found == predictor(IMAGE).mask).all()
    assert len(np.unique(found)) > 1
    assert seen[-1] == (len(seen), len(seen))
    assert len(seen) > 4  # it used tiles
    with Image.open(tmp_path / "m.tif") as pillow:  # other programs can read it
        assert pillow.mode == "P"
        assert bytes(pillow.getpalette()) == CLASSES.palette()
        assert (np.asarray(pillow) == found).all()
    options = InferenceOptions(tile="none")
    one_pass = Predictor(predictor.runtime, CLASSES, options=options)(IMAGE).mask
    assert (found != one_pass).mean() < 5e-4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "m.tif"]


GEOREFERENCE = [
    (33550, 12, 3, (0.5, 0.5, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 431000.25, 5321000.75, 0.0), True),
    (34735, 3, 8, (1, 1, 0, 1, 3072, 0, 1, 32633), True),
    (34737, 2, 12, "WGS 84 / 33|", True),
]


def test_the_mask_has_the_georeference_of_the_image(predictor: Predictor, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", photo(64, 80), extratags=GEOREFERENCE)
    predict_large_image(predictor, path, tmp_path / "m.tif")
    with tifffile.TiffFile(path) as one, tifffile.TiffFile(tmp_path / "m.tif") as other:
        for code, *_ in GEOREFERENCE:
            assert other.pages.first.tags[code].value == one.pages.first.tags[code].value
        assert 42113 not in other.pages.first.tags  # every pixel has data


@pytest.mark.parametrize("kind", ["nodata", "alpha"])
def test_pixels_without_data_get_the_ignore_value(
    kind: str, predictor: Predictor, tmp_path: Path
) -> None:
    pixels = np.maximum(IMAGE, 1)
    pixels[100:300, 200:450] = 0
    pixels[50, 60, 1] = 0  # black in one channel is a color
    form: dict[str, Any] = {"extratags": [(42113, 2, 2, "0", True)]}
    if kind == "alpha":
        opaque = np.full((517, 603), 255, np.uint8)
        opaque[100:300, 200:450] = 0
        pixels = np.dstack([pixels, opaque])
        form = {"extrasamples": ["unassalpha"]}
    path = write_tiff(tmp_path / "a.tif", pixels, tile=(128, 128), **form)
    predict_large_image(predictor, path, tmp_path / "m.tif")
    with tifffile.TiffFile(tmp_path / "m.tif") as written:
        found = written.pages.first.asarray()
        assert written.pages.first.tags[42113].value == "255"
    missing = np.zeros((517, 603), bool)
    missing[100:300, 200:450] = True
    assert ((found == 255) == missing).all()
    wanted = predictor(np.ascontiguousarray(pixels[..., :3])).mask
    assert (found[~missing] == wanted[~missing]).all()


def test_a_mask_is_assembled_from_strips_of_any_height(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).integers(0, 3, (1500, 1100)).astype(np.uint8)
    cuts = [0, 3, 700, 701, 1212, 1500]
    strips = [whole[a:b] for a, b in pairwise(cuts)]
    mask_tiff.write_mask_tiff(
        tmp_path / "m.tif", strips, size=whole.shape, palette=CLASSES.palette(), nodata=None
    )
    assert (tifffile.imread(tmp_path / "m.tif") == whole).all()


def test_a_mask_over_3_gib_is_a_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_tiff, "CLASSIC_BYTES", 99)
    strip = np.zeros((10, 10), np.uint8)
    mask_tiff.write_mask_tiff(
        tmp_path / "m.tif", [strip], size=(10, 10), palette=CLASSES.palette(), nodata=None
    )
    with tifffile.TiffFile(tmp_path / "m.tif") as written:
        assert written.is_bigtiff


def truncated(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def broken(path: Path) -> Path:
    """Damage a compressed tile."""
    with tifffile.TiffFile(path) as file:
        offset = file.pages.first.dataoffsets[3]
    data = bytearray(path.read_bytes())
    data[offset : offset + 40] = bytes(40)
    path.write_bytes(data)
    return path


FAULTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "truncated": (
        lambda p: truncated(write_tiff(p, IMAGE, tile=(128, 128))),
        "is truncated: restore the file or remove it",
    ),
    "a damaged tile": (
        lambda p: broken(write_tiff(p, IMAGE, tile=(128, 128), compression="zlib")),
        "is damaged or truncated",
    ),
    "16 bits": (
        lambda p: write_tiff(p, IMAGE.astype(np.uint16), tile=(128, 128)),
        "has 3 channels of 16 bits, but 3 channels of 8 bits are needed: convert it, for "
        "example with `gdal",
    ),
    "CMYK": (
        lambda p: write_tiff(p, np.dstack([IMAGE, IMAGE[..., 0]]), photometric="separated"),
        "has the color space SEPARATED",
    ),
    "four colors": (
        lambda p: write_tiff(p, np.dstack([IMAGE, IMAGE[..., 0]]), extrasamples=[0]),
        "has 4 channels of 8 bits, but 3 channels of 8 bits are needed: convert it",
    ),
    "rotated": (
        lambda p: write_tiff(p, IMAGE, extratags=[(274, 3, 1, 6, True)]),
        r"has orientation 6, and rotating it",
    ),
    "not a TIFF": (
        lambda p: p.write_bytes(b"hello") and p,
        "is not a TIFF file that can be read in windows.*convert it, for example with `vips",
    ),
    "empty": (lambda p: p.write_bytes(b"") or p, "is not a TIFF file"),
    "pages without end": (
        lambda p: (
            p.write_bytes(hostile.tiff(hostile.tiff_tags(9, 9, 3), after=8, data=bytes(999))) and p
        ),
        r"is damaged \(its list of pages has no end\)",
    ),
    "missing": (lambda p: p, "does not exist: check the path"),
    "a folder": (lambda p: p.mkdir() or p, "is a folder, not an image"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_cannot_be_read_is_one_line_and_leaves_nothing(
    name: str, predictor: Predictor, tmp_path: Path
) -> None:
    make, message = FAULTS[name]
    path = make(tmp_path / "a.tif")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InputError, match=message) as raised:
        predict_large_image(predictor, path, out / "m.tif")
    (line,) = raised.value.problems
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert list(out.iterdir()) == []


def test_several_pages_are_refused_but_overviews_are_skipped(
    predictor: Predictor, tmp_path: Path
) -> None:
    for kind in (0, 1):
        with tifffile.TiffWriter(tmp_path / f"{kind}.tif") as writer:
            writer.write(IMAGE, photometric="rgb", metadata=None)
            writer.write(IMAGE[::2, ::2], photometric="rgb", metadata=None, subfiletype=kind)
    with pytest.raises(
        InputError, match=r"contains 2 images \(pages\): save one of them separately"
    ):
        predict_large_image(predictor, tmp_path / "0.tif", tmp_path / "m.tif")
    with TiffSource.open(tmp_path / "1.tif") as image:
        assert image.size == (517, 603)


def test_a_strip_too_large_for_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_source, "SEGMENT_BYTES", 10_000)
    path = write_tiff(tmp_path / "a.tif", IMAGE, rowsperstrip=517, compression="zlib")
    with (
        pytest.raises(InputError, match=r"has a strip of 603x517 pixels.*gdal_translate"),
        TiffSource.open(path),
    ):
        pass
    plain = write_tiff(tmp_path / "b.tif", IMAGE, rowsperstrip=517)  # readable without decoding
    with TiffSource.open(plain) as image:
        assert (image.read(100, 100, 10, 10) == IMAGE[100:110, 100:110]).all()


def test_a_full_disk_is_one_line_and_leaves_nothing(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiff(tmp_path / "a.tif", IMAGE, tile=(128, 128))
    out = tmp_path / "out"
    out.mkdir()
    (out / "m.tif").write_bytes(b"as it was")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tifffile.FileHandle, "write", full)
    with pytest.raises(InputError, match=r"m.tif: cannot be written \(No space left on device\)"):
        predict_large_image(predictor, path, out / "m.tif")
    assert [p.read_bytes() for p in out.iterdir()] == [b"as it was"]


def test_options_that_need_the_full_image_are_refused(predictor: Predictor, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", IMAGE)
    for options, message in (
        ({"flip": True}, "--scales or --flip: needs the full image"),
        ({"tile": "none"}, "--tile none: needs the full image"),
    ):
        other = Predictor(predictor.runtime, CLASSES, options=InferenceOptions(**options))
        with pytest.raises(InputError, match=message):
            predict_large_image(other, path, tmp_path / "m.tif")
    with pytest.raises(InputError, match="is the image itself"):
        predict_large_image(predictor, path, path)


def test_the_command_reports_bad_files_and_continues(
    bundle: Path, cli: Cli, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    write_tiff(photos / "a.tif", photo(90, 70), tile=(64, 64))
    Image.fromarray(photo(20, 20)).save(photos / "b.png")
    result = cli("predict", bundle, photos, "--large", "--out", tmp_path / "out")
    assert result.code == 1
    assert "70x90 pixels" in result.out
    (line,) = result.err.splitlines()
    assert "b.png: is not a TIFF file" in line
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.tif"]
    result = cli("predict", bundle, photos / "b.png", "--large", "--out", tmp_path / "other")
    assert result.code == 2
    assert not (tmp_path / "other").exists()


def test_memory_is_bounded_by_the_tile_and_not_by_the_image(tmp_path: Path) -> None:
    """An image of 32 Mpx (96 MB, with logits of 384 MB) takes less than 80 MB."""
    pytest.importorskip("resource")
    script, image = tmp_path / "child.py", tmp_path / "a.tif"
    script.write_text(CHILD)
    with tifffile.TiffWriter(image) as writer:
        writer.write(
            (np.full((256, 256, 3), i % 251, np.uint8) for i in range(16 * 32)),
            shape=(8000, 4000, 3),
            dtype=np.uint8,
            tile=(256, 256),
            photometric="rgb",
            metadata=None,
        )
    done = subprocess.run(
        [sys.executable, str(script), str(image), str(tmp_path / "m.tif")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) / 1024 < 80


CHILD = """
import resource, sys
from pathlib import Path
import numpy as np
from pixelwise.data.classes import Classes
from pixelwise.data.image_files import read_image
from pixelwise.data.pixel_format import PixelFormat
from pixelwise.inference import InferenceOptions, Predictor
from pixelwise.inference.batch.large_images import predict_large_image

class Runtime:
    name = "none"
    def logits(self, image):
        return np.stack([image[..., i].astype(np.float32) for i in range(3)])

import tifffile, imagecodecs
predictor = Predictor(Runtime(), Classes.make(["a", "b", "c"]), options=InferenceOptions(tile=1280))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
predict_large_image(predictor, Path(sys.argv[1]), Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
assert "torch" not in sys.modules
"""
