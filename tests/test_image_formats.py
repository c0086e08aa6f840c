"""Further image formats: photos of phones, GIF, JPEG 2000, PGM, and every kind of TIFF."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image

from pixelwise.data import image_decoding
from pixelwise.data.channel_statistics import choose_format, summarize_pixels
from pixelwise.data.dataset import open_dataset
from pixelwise.data.image_files import IMAGE_SUFFIXES, read_image, read_raw, swapped_by_exif
from pixelwise.data.mask_files import read_stored_mask
from pixelwise.errors import InputError, MissingPackageError
from pixelwise.inference.batch.tiff_source import TiffSource
from pixelwise.inference.input_image import as_pixels

HEIGHT, WIDTH = 48, 64
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
SMOOTH = np.stack([COLUMNS * 3, ROWS * 4, ROWS + COLUMNS], -1).astype(np.uint8)
# Largest difference to the stored image: these formats are lossy, or have 256 colors.
FORMATS: dict[str, tuple[dict[str, Any], int]] = {
    ".gif": ({}, 20),
    ".ppm": ({}, 0),
    ".jp2": ({}, 0),
    ".j2k": ({}, 0),
    ".avif": ({"quality": 95}, 6),
    ".heic": ({"quality": 95}, 6),
    ".heif": ({"quality": 95}, 6),
}


@pytest.fixture(autouse=True, scope="module")
def _heif_writer() -> None:
    pillow_heif.register_heif_opener()


def problem(path: Path, read: Any = read_raw) -> str:
    with pytest.raises(InputError) as raised:
        read(path)
    (line,) = raised.value.problems
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_photo_of_each_format_is_read(tmp_path: Path, suffix: str) -> None:
    options, tolerance = FORMATS[suffix]
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(SMOOTH).save(path, **options)
    assert np.abs(read_image(path).astype(int) - SMOOTH).max() <= tolerance
    path.rename(path.with_suffix(".jpg"))  # as phones and messengers name them
    assert np.abs(read_image(path.with_suffix(".jpg")).astype(int) - SMOOTH).max() <= tolerance


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_truncated_photo_is_never_read_in_part(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(SMOOTH).save(path, **FORMATS[suffix][0])
    data = path.read_bytes()
    for twentieth in range(1, 20):
        path.write_bytes(data[: len(data) * twentieth // 20])
        assert "remove it" in problem(path), twentieth
    path.write_bytes(data[:-30])
    assert "remove it" in problem(path)


@pytest.mark.parametrize("suffix", [".gif", ".avif", ".heic"])
def test_several_frames_are_refused_with_their_number(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"frames{suffix}"
    frames = [Image.fromarray(np.roll(SMOOTH, n, 0).copy()) for n in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert "several images (3 frames or pages): save a single one" in problem(path)


def test_several_pages_are_refused_with_their_number(tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    Image.fromarray(SMOOTH).save(path, save_all=True, append_images=[Image.fromarray(SMOOTH)])
    for read in (read_raw, read_stored_mask):
        assert "several images (2 pages): save a single one" in problem(path, read)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_orientation_of_an_avif_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.avif"
    Image.fromarray(SMOOTH).save(path, exif=exif, quality=95)
    turned = np.rot90(SMOOTH, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    assert np.abs(read_image(path).astype(int) - turned).max() <= 6
    assert swapped_by_exif(path) == (orientation >= 5)


def test_heif_without_its_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.heic"
    Image.fromarray(SMOOTH).save(path)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'pixelwise\[heif\]'"):
        read_raw(path)


def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    code = bytearray(encoded("JPEG2000", no_jp2=True))
    struct.pack_into(">II", code, code.find(b"\xff\x4f\xff\x51") + 8, 9000, 9000)
    struct.pack_into(">II", code, code.find(b"\xff\x4f\xff\x51") + 24, 9000, 9000)
    gif = bytearray(encoded("GIF"))
    struct.pack_into("<HH", gif, 6, 9000, 9000)
    bombs = {"bomb.j2k": code, "bomb.gif": gif, "bomb.ppm": b"P6\n20000 20000\n255\n" + bytes(100)}
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
        assert "exceeds the limit of" in problem(tmp_path / name), name


def encoded(name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(SMOOTH).save(buffer, format=name, **options)
    return buffer.getvalue()


def test_a_jpeg_2000_with_missing_tiles_is_refused(tmp_path: Path) -> None:
    """OpenJPEG leaves them black."""
    code = bytearray(encoded("JPEG2000", no_jp2=True))
    struct.pack_into(">I", code, code.find(b"\xff\x4f\xff\x51") + 8, 2 * WIDTH)
    (tmp_path / "photo.j2k").write_bytes(code)
    assert "damaged or cut off" in problem(tmp_path / "photo.j2k")


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_jpeg_2000_is_exact_or_refused(tmp_path: Path, bits: int) -> None:
    import imagecodecs

    gray = (COLUMNS * 15).astype(np.uint16)
    path = tmp_path / "deep.jp2"
    path.write_bytes(imagecodecs.jpeg2k_encode(gray, bitspersample=bits))
    if bits == 16:
        np.testing.assert_array_equal(read_raw(path).pixels[..., 0], gray)
    else:
        assert f"is a JPEG 2000 of {bits} bits" in problem(path)
    path.write_bytes(imagecodecs.jpeg2k_encode(np.dstack([gray] * 3), bitspersample=bits))
    assert f"is a JPEG 2000 of {bits} bits" in problem(path)


@pytest.mark.parametrize("maxval", [1000, 4095, 65535])
def test_a_deep_pgm_keeps_its_values(tmp_path: Path, maxval: int) -> None:
    gray = (COLUMNS * 15 % (maxval + 1)).astype(">u2")
    header = f"P5\n{WIDTH} {HEIGHT}\n{maxval}\n".encode()
    (tmp_path / "deep.pgm").write_bytes(header + gray.tobytes())
    raw = read_raw(tmp_path / "deep.pgm")
    assert raw.dtype == "uint16"
    np.testing.assert_array_equal(raw.pixels[..., 0], gray)
    rgb = f"P6\n{WIDTH} {HEIGHT}\n{maxval}\n".encode() + np.dstack([gray] * 3).tobytes()
    (tmp_path / "deep.ppm").write_bytes(rgb)
    assert "is a PPM of 16 bits" in problem(tmp_path / "deep.ppm")


# TIFF: whatever tifffile and GDAL write is read exactly, or refused, with and without --large.

LOSSLESS = [None, "lzw", "zlib", "packbits", "zstd", "lzma", "png", "lerc", "jpegxl", "jpeg2000"]
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "rgb": (SMOOTH, {"photometric": "rgb"}),
    "tiles": (SMOOTH, {"photometric": "rgb", "tile": (16, 16)}),
    "planes": (np.moveaxis(SMOOTH, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}),
    "three gray": (SMOOTH, {"photometric": "minisblack", "planarconfig": "contig"}),
    "three gray planes": (
        np.moveaxis(SMOOTH, 2, 0), {"photometric": "minisblack", "planarconfig": "separate"},
    ),
    "gray": (SMOOTH[..., 0], {"photometric": "minisblack"}),
    "predictor": (SMOOTH, {"photometric": "rgb", "predictor": 2}),
    "16 bits": (SMOOTH.astype(np.uint16) * 16, {"photometric": "rgb"}),
    "float": ((SMOOTH / 255).astype(np.float32), {"photometric": "rgb"}),
    "five": (np.dstack([SMOOTH, SMOOTH[..., :2]]), {"photometric": "minisblack"}),
    "big endian": (SMOOTH, {"photometric": "rgb", "byteorder": ">"}),
    "big": (SMOOTH, {"photometric": "rgb", "bigtiff": True}),
}  # fmt: skip


def write_tiff(path: Path, pixels: Any, **options: Any) -> bool:
    """Return whether tifffile can write this combination."""
    if options.get("planarconfig") == "contig" or options["photometric"] == "minisblack":
        options.setdefault("planarconfig", "contig")
    try:
        tifffile.imwrite(path, pixels, **options)
    except (ValueError, KeyError, RuntimeError):
        return False
    return True


def read_large(path: Path, raw: Any) -> Any:
    """Return what `predict --large` reads, for a network of such images."""
    pixels, _ = choose_format([summarize_pixels(raw)])
    with TiffSource.open(path, pixels) as source:
        return source.read(0, 0, *source.size), pixels.scale(pixels.select(raw, path))


@pytest.mark.parametrize("kind", KINDS)
def test_each_lossless_compression_of_a_tiff_is_read_exactly(tmp_path: Path, kind: str) -> None:
    stored, options = KINDS[kind]
    path = tmp_path / "image.tif"
    expected = np.moveaxis(stored, 0, 2) if stored.shape[0] == 3 else stored
    expected = expected if expected.ndim == 3 else expected[..., None]
    written = 0
    for compression in LOSSLESS:
        if not write_tiff(path, stored, compression=compression, **options):
            continue
        raw = read_raw(path)
        np.testing.assert_array_equal(raw.pixels, expected, err_msg=str(compression))
        large, plain = read_large(path, raw)
        np.testing.assert_array_equal(large, plain, err_msg=str(compression))
        written += 1
    assert written >= 5


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2), (2, 1)])
def test_jpeg_in_ycbcr_is_read_as_its_colors(tmp_path: Path, tile: Any, subsampling: Any) -> None:
    path = tmp_path / "ortho.tif"
    options: dict[str, Any] = {"compression": "jpeg", "compressionargs": {"level": 98}}
    tifffile.imwrite(path, SMOOTH, photometric="rgb", subsampling=subsampling, tile=tile, **options)
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].photometric == 6  # YCbCr
    raw = read_raw(path)
    assert np.abs(raw.pixels.astype(int) - SMOOTH).max() <= 12
    large, plain = read_large(path, raw)
    assert np.abs(large.astype(int) - plain).max() <= 4  # other rounding of the chroma


@pytest.mark.parametrize("compression", ["jpeg", "webp", "lzw"])
def test_overviews_and_masks_of_valid_pixels_are_left_out(tmp_path: Path, compression: str) -> None:
    """As in cloud-optimized GeoTIFF files."""
    path = tmp_path / "cog.tif"
    options: dict[str, Any] = {"photometric": "rgb", "tile": (16, 16), "compression": compression}
    if compression == "webp":
        options["compressionargs"] = {"lossless": True}
    with tifffile.TiffWriter(path) as file:
        file.write(SMOOTH, **options)
        file.write(SMOOTH[..., 0] > 9, subfiletype=4, photometric=4, tile=(16, 16))
        file.write(np.ascontiguousarray(SMOOTH[::2, ::2]), subfiletype=1, **options)
    raw = read_raw(path)
    tolerance = 25 if compression == "jpeg" else 0
    assert np.abs(raw.pixels.astype(int) - SMOOTH).max() <= tolerance
    large, plain = read_large(path, raw)
    assert np.abs(large.astype(int) - plain).max() <= 4 * (compression == "jpeg")


@pytest.mark.parametrize("compression", ["none", "lzw"])
@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize(
    ("options", "nodata"), [({}, None), ({}, 7), ({"interleave": "band"}, 7), ({"nbits": 4}, None)]
)
def test_strips_and_tiles_that_gdal_omits_hold_no_data(
    tmp_path: Path, compression: str, tiled: bool, options: dict[str, Any], nodata: int | None
) -> None:
    """Pillow reads the beginning of an uncompressed file in their place."""
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "sparse.tif"
    count = 1 if "nbits" in options else 3
    pixels = np.random.default_rng(0).integers(0, 16, (count, 48, 64), np.uint8)
    pixels[:, 16:] = nodata or 0
    size = {"blockxsize": 16, "blockysize": 16} if tiled else {"blockysize": 8}
    options = {"tiled": tiled, "compress": compression, "sparse_ok": True, **size, **options}
    shape = {"width": 64, "height": 48, "count": count, "dtype": "uint8", "nodata": nodata}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", **shape, **options) as file:
            file.write(pixels)
    with tifffile.TiffFile(path) as file:
        assert 0 in file.pages[0].databytecounts
    raw = read_raw(path)
    stored = np.moveaxis(pixels, 0, 2)
    np.testing.assert_array_equal(raw.pixels, stored * 17 if count == 1 else stored)
    mask = read_stored_mask(path).values
    np.testing.assert_array_equal(mask, stored[..., 0] if count == 1 else stored)
    if count == 3:
        large, plain = read_large(path, raw)
        np.testing.assert_array_equal(large, plain)
    with (
        Image.open(path) as image,
        pytest.raises(InputError, match=r"omits empty strips or tiles.*give the path"),
    ):
        as_pixels(image)


def test_gray_channels_in_jpeg_are_refused_with_and_without_large(tmp_path: Path) -> None:
    """A decoder would convert them from YCbCr."""
    path = tmp_path / "three.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(SMOOTH, photometric="rgb", compression="jpeg")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        tag = file.pages[0].tags[262]
        offset = tag.valueoffset
    data[offset : offset + 2] = b"\1\0"  # photometric: black is zero
    path.write_bytes(data)
    assert "3 gray channels compressed with JPEG" in problem(path)
    with pytest.raises(InputError, match="3 gray channels compressed with JPEG"):
        TiffSource.open(path).__enter__()


@pytest.mark.parametrize("bits", [1, 8, 16])
@pytest.mark.parametrize("compression", [None, "lzw", "lerc"])
def test_tones_whose_zero_is_white_are_inverted(
    tmp_path: Path, bits: int, compression: str | None
) -> None:
    gray = SMOOTH[..., 0]
    stored = {1: gray > 99, 8: gray, 16: gray.astype(np.uint16) * 100}[bits]
    path = tmp_path / "image.tif"
    if not write_tiff(path, stored, photometric="miniswhite", compression=compression):
        return
    shown = (gray <= 99) * 255 if bits == 1 else np.iinfo(stored.dtype).max - stored
    np.testing.assert_array_equal(read_raw(path).pixels[..., 0], shown)


def test_a_palette_tiff_with_overviews_gives_its_colors(tmp_path: Path) -> None:
    index = SMOOTH[..., 0]
    colors = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    path = tmp_path / "palette.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(index, photometric="palette", colormap=colors * 257)
        file.write(index[::2, ::2], subfiletype=1, photometric="palette", colormap=colors * 257)
    expected = colors.T[index]
    np.testing.assert_array_equal(read_raw(path).pixels, expected)
    stored = read_stored_mask(path)
    np.testing.assert_array_equal(stored.values, index)
    assert stored.palette is not None
    np.testing.assert_array_equal(stored.palette[index], expected)


@pytest.mark.parametrize("photometric", ["cielab", "icclab"])
def test_color_spaces_that_are_not_rgb_are_refused(tmp_path: Path, photometric: str) -> None:
    tifffile.imwrite(tmp_path / "lab.tif", SMOOTH, photometric=photometric)
    assert f"{photometric.upper()} is not supported" in problem(tmp_path / "lab.tif")


def test_libtiff_prints_nothing(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    Image.fromarray(SMOOTH).save(path, compression="tiff_lzw")
    data = path.read_bytes()
    damaged = bytearray(data)
    damaged[8:60] = bytes(52)
    for number, content in enumerate((bytes(damaged), data[: len(data) // 2], data[:-9])):
        (tmp_path / f"{number}.tif").write_bytes(content)
    code = (
        "import sys; from pathlib import Path; from pixelwise.data.image_files import *\n"
        "for path in sys.argv[1:]:\n"
        "    for read in (read_raw, read_mask):\n"
        "        try: read(Path(path))\n"
        "        except ValueError: pass\n"
    )
    files = [str(tmp_path / f"{number}.tif") for number in range(3)]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, check=True)
    assert done.stdout + done.stderr == b""


# Files that are no images.

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize("read", [read_raw, read_stored_mask])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LFS, "is a Git LFS pointer instead of an image: run `git lfs pull`"),
        (b"/annex/objects/SHA256E-s12--4d7a.jpg\n", "is a git-annex pointer"),
        (b"<!DOCTYPE html>\n<html><body>404", "is an HTML document instead of an image: download"),
        (b"\n  <html>", "is an HTML document"),
        (b'<?xml version="1.0"?><Error>AccessDenied', "is an XML document instead of an image"),
        (b"../train/p0.jpg", "is a text file with the path ../train/p0.jpg"),
    ],
)
def test_a_file_that_is_no_image_is_named_for_what_it_is(
    tmp_path: Path, read: Any, content: bytes, message: str
) -> None:
    (tmp_path / "photo.png").write_bytes(content)
    assert message in problem(tmp_path / "photo.png", read)


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_dangling_link_in_a_dataset_is_one_line(
    tmp_path: Path, make_folder_data: Any, kind: str
) -> None:
    make_folder_data(tmp_path)
    path = tmp_path / kind / "001.png"
    path.unlink()
    path.symlink_to("../.git/annex/objects/p1.png")
    with pytest.raises(InputError) as raised:
        open_dataset(tmp_path)
    (line,) = raised.value.problems
    assert line.startswith(f"{path}: is a link to ../.git/annex/objects/p1.png, which does not")


def test_a_folder_named_like_an_image_is_named_as_a_folder(
    tmp_path: Path, make_folder_data: Any
) -> None:
    make_folder_data(tmp_path)
    (tmp_path / "images" / "x.jpg").mkdir()
    with pytest.raises(InputError) as raised:
        open_dataset(tmp_path)
    assert raised.value.problems == (
        f"{tmp_path / 'images' / 'x.jpg'}: is a folder with the name of an image: rename or remove "
        "it",
    )


def test_the_new_formats_are_found_in_folders() -> None:
    assert set(FORMATS) | {".pgm"} <= IMAGE_SUFFIXES
    assert set(image_decoding.FORMAT_OF_SUFFIX.values()) == set(image_decoding.IMAGE_FORMATS)
