"""Decoding and encoding: files are read exactly, or give one error that names the file."""

from __future__ import annotations

import errno
import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pixelwise.data import image_decoding, image_files
from pixelwise.data.classes import Classes
from pixelwise.data.image_files import (
    list_images,
    mask_palette,
    read_image,
    read_mask,
    swapped_by_exif,
    write_image,
    write_mask,
)
from pixelwise.errors import InputError
from pixelwise.file_io import atomic, atomic_folder, cache_folder, make_folder

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
INDEX = np.array([[0, 1, 2, 2], [3, 0, 1, 255], [2, 2, 9, 0]], dtype=np.uint8)
PALETTE = bytes(range(255, -1, -1)) * 3


def problem(read: Callable[[Path], object], path: Path) -> str:
    """Return the single error line about a file, without its path."""
    with pytest.raises(InputError) as raised:
        read(path)
    (line,) = raised.value.problems
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line.removeprefix(f"{path}: ")


def png(*, bits: int, kind: int, row: bytes, width: int) -> bytes:
    """Encode a PNG of one row, for depths that Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, 1, bits, kind, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts)


# EXIF 2.3, tag 0x0112: what has to be done to the stored rows and columns to see them upright.
UPRIGHT: dict[int, Callable[[Any], Any]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_the_exif_orientation_of_an_image_is_applied(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image{suffix}"
    lossless = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(PIXELS).save(path, exif=exif, **lossless)
    np.testing.assert_array_equal(read_image(path), UPRIGHT[orientation](PIXELS))
    assert swapped_by_exif(path) == (orientation >= 5)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_the_exif_orientation_of_a_jpeg_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain, turned = tmp_path / "plain.jpg", tmp_path / "turned.jpg"
    Image.fromarray(PIXELS).save(plain)
    Image.fromarray(PIXELS).save(turned, exif=exif)
    np.testing.assert_array_equal(read_image(turned), UPRIGHT[orientation](read_image(plain)))


def test_invalid_exif_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    good = exif.tobytes()
    path = tmp_path / "image.png"
    for cut in range(len(good)):
        Image.fromarray(PIXELS).save(path, exif=good[:cut])
        assert sorted(read_image(path).shape) == [3, 30, 40]
    for orientation in (0, 9, 6000):
        exif[0x0112] = orientation
        Image.fromarray(PIXELS).save(path, exif=exif)
        np.testing.assert_array_equal(read_image(path), PIXELS)


def test_gray_becomes_rgb(tmp_path: Path) -> None:
    gray = PIXELS[..., 0]
    Image.fromarray(gray).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "gray.png"), np.repeat(gray[..., None], 3, axis=2)
    )


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    bits = PIXELS[..., 0] > 127
    Image.fromarray(bits).save(tmp_path / "bits.png")
    expected = np.repeat(bits[..., None], 3, axis=2) * np.uint8(255)
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png"), expected)


@pytest.mark.parametrize("transparency", [None, 1, b"\x00\x80\xff"])
def test_a_palette_image_shows_its_colors(tmp_path: Path, transparency: int | bytes | None) -> None:
    image = Image.fromarray(PIXELS).quantize(16)
    options = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / "palette.png", **options)
    colors = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), colors[np.asarray(image)])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_dropped_and_the_colors_are_unchanged(tmp_path: Path, suffix: str) -> None:
    pixels = np.dstack([PIXELS, np.arange(1200, dtype=np.uint8).reshape(30, 40)])
    Image.fromarray(pixels).save(tmp_path / f"alpha{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"alpha{suffix}"), PIXELS)


def test_gray_with_alpha_becomes_rgb(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[..., :2], "LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "la.png"), np.repeat(PIXELS[..., :1], 3, axis=2)
    )


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    ink = {"white": (0, 0, 0, 0), "red": (0, 255, 255, 0), "black": (0, 0, 0, 255)}
    for name, color in ink.items():
        Image.new("CMYK", (16, 16), color).save(tmp_path / f"{name}.jpg", quality=100)
        Image.new("CMYK", (16, 16), color).save(tmp_path / f"{name}.tif")
    expected = {"white": (255, 255, 255), "red": (255, 0, 0), "black": (0, 0, 0)}
    for name, color in expected.items():
        for path in (tmp_path / f"{name}.jpg", tmp_path / f"{name}.tif"):
            assert abs(read_image(path).astype(int) - color).max() <= 2, path


@pytest.mark.parametrize("suffix", sorted(image_files.PHOTO_SUFFIXES | {".JPG"}))
def test_each_format_is_read_whatever_the_suffix_says(tmp_path: Path, suffix: str) -> None:
    pillow_heif.register_heif_opener()
    path = tmp_path / f"image{suffix}"
    Image.fromarray(PIXELS).save(path)
    assert read_image(path).shape == (30, 40, 3)
    Image.fromarray(PIXELS).save(path, format="PNG")
    np.testing.assert_array_equal(read_image(path), PIXELS)


def test_a_jpeg_with_previews_is_read_as_its_first_image(tmp_path: Path) -> None:
    small = Image.fromarray(PIXELS[:8, :8])
    Image.fromarray(PIXELS).save(tmp_path / "plain.jpg", quality=90)
    Image.fromarray(PIXELS).save(
        tmp_path / "mpo.jpg", format="MPO", quality=90, save_all=True, append_images=[small]
    )
    np.testing.assert_array_equal(
        read_image(tmp_path / "mpo.jpg"), read_image(tmp_path / "plain.jpg")
    )


def test_a_palette_mask_gives_its_indices(tmp_path: Path) -> None:
    image = Image.fromarray(INDEX)
    image.putpalette(PALETTE)
    for suffix in (".png", ".bmp", ".tif"):
        image.save(tmp_path / f"mask{suffix}")
        np.testing.assert_array_equal(read_mask(tmp_path / f"mask{suffix}"), INDEX)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_palette_mask_of_few_bits_gives_its_indices(tmp_path: Path, bits: int) -> None:
    index = np.random.default_rng(bits).integers(0, 2**bits, (7, 9), dtype=np.uint8)
    image = Image.fromarray(index)
    image.putpalette(PALETTE[: 3 * 2**bits])
    image.save(tmp_path / "mask.png", bits=bits)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), index)


def test_a_gray_mask_gives_its_values(tmp_path: Path) -> None:
    Image.fromarray(INDEX).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), INDEX)
    assert mask_palette(tmp_path / "mask.png") is None


def test_a_one_bit_mask_gives_0_and_1(tmp_path: Path) -> None:
    Image.fromarray(INDEX > 1).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, INDEX > 1)


def test_an_rgb_mask_keeps_its_three_channels(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), PIXELS)
    opaque = np.dstack([PIXELS, np.full((30, 40), 255, dtype=np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "opaque.png"), PIXELS)


def test_a_mask_with_a_transparent_pixel_is_refused(tmp_path: Path) -> None:
    pixels = np.dstack([PIXELS, np.full((30, 40), 255, dtype=np.uint8)])
    pixels[3, 4, 3] = 254
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    line = problem(read_mask, tmp_path / "mask.png")
    assert "transparent" in line
    assert "save the mask without an alpha channel" in line


@pytest.mark.parametrize("name", ["mask.jpg", "mask.JPEG", "mask.png"])
def test_a_jpeg_mask_is_refused_even_under_another_name(tmp_path: Path, name: str) -> None:
    Image.fromarray(INDEX).save(tmp_path / name, format="JPEG")
    line = problem(read_mask, tmp_path / name)
    assert "PNG" in line


@pytest.mark.parametrize(
    ("read", "channels"),
    [*((read_image, n) for n in (1, 2, 3, 4)), *((read_mask, n) for n in (2, 3, 4))],
)
def test_sixteen_bits_are_refused(
    tmp_path: Path, read: Callable[[Path], object], channels: int
) -> None:
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    data = png(bits=16, kind=kind, row=bytes(2 * channels * 5), width=5)
    (tmp_path / "deep.png").write_bytes(data)
    assert "save it as an 8-bit PNG" in problem(read, tmp_path / "deep.png")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("top", "kind"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_a_gray_mask_of_sixteen_bits_gives_its_numbers(
    tmp_path: Path, suffix: str, top: int, kind: type
) -> None:
    stored = np.array([[0, 1, 254, top]], dtype=np.uint16)
    Image.fromarray(stored).save(tmp_path / f"deep{suffix}")
    mask = read_mask(tmp_path / f"deep{suffix}")
    np.testing.assert_array_equal(mask, stored)
    assert mask.dtype == kind


@pytest.mark.parametrize(
    ("read", "kind"),
    [*((read_image, k) for k in (np.float32, np.int32, np.uint16)), (read_mask, np.float32)],
)
def test_images_of_more_than_8_bits_are_refused(
    tmp_path: Path, read: Callable[[Path], object], kind: type
) -> None:
    Image.fromarray(np.ones((4, 5), dtype=kind)).save(tmp_path / "deep.tif")
    line = problem(read, tmp_path / "deep.tif")
    assert "save it as an 8-bit" in line


def encoded(name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format=name, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_a_truncated_image_is_never_read_in_part(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    complete = encoded(name, **options)
    path = tmp_path / f"image.{name.lower()}"
    readers = [read_image, read_mask] if name in image_files.MASK_FORMATS else [read_image]
    for tenth in range(1, 10):
        path.write_bytes(complete[: len(complete) * tenth // 10])
        for read in readers:
            assert "remove it" in problem(read, path), tenth


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@given(data=st.data())
def test_an_image_with_a_changed_byte_is_read_or_gives_one_error(
    scratch: Path, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["JPEG", "PNG", "BMP", "WEBP", "TIFF"]))
    damaged = bytearray(encoded(name))
    # Most of what a decoder depends on is at the start.
    place = data.draw(st.one_of(st.integers(0, 60), st.integers(0, len(damaged) - 1)))
    damaged[place] = data.draw(st.integers(0, 255))
    path = scratch / f"image.{name.lower()}"
    path.write_bytes(damaged)
    for read in (read_image, read_mask):
        message = [f"{path}: "]
        try:
            # A changed size must not allocate half a gigabyte.
            with patch.object(image_decoding, "MAX_PIXELS", 100_000):
                assert read(path).dtype == np.uint8
        except InputError as error:
            message = list(error.problems)
        assert [line for line in message if not line.startswith(f"{path}: ")] == []


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty (0 bytes): restore the file or remove it"),
        (b"this is no image\n" * 20, "is not an image that can be read"),
        (b"\x89PNG\r\n\x1a\n", "is not an image that can be read"),
    ],
)
def test_a_file_that_is_not_an_image_is_refused(
    tmp_path: Path, read: Callable[[Path], object], content: bytes, message: str
) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(content)
    assert message in problem(read, path)


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_a_path_without_a_file_is_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    assert problem(read, tmp_path / "absent.png") == "does not exist: check the path"
    assert problem(read, tmp_path / "link.png") == (
        f"is a link to {tmp_path / 'gone.png'}, which does not exist: fetch the data that it links "
        "to (for example `git annex get` or `dvc pull`), or remove the link"
    )
    assert "is a folder" in problem(read, tmp_path / "folder.png")
    assert "cannot be read" in problem(read, tmp_path / "file" / "below.png")


@pytest.mark.parametrize("suffix", [".png", ".gif", ".webp", ".tif"])
def test_several_images_in_one_file_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"animated{suffix}"
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1])]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    line = problem(read_image, path)
    assert "several images" in line or "is not an image that can be read" in line
    if suffix in image_files.MASK_SUFFIXES:
        assert "save a single one" in problem(read_mask, path)


def test_an_ico_is_refused_with_the_supported_formats(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "icon.ico")
    line = problem(read_image, tmp_path / "icon.ico")
    assert (
        "supported formats are JPEG, PNG, BMP, WEBP, TIFF, GIF, PPM, JPEG2000, AVIF, HEIF" in line
    )
    assert "supported formats are PNG, BMP, TIFF, GIF, PPM)" in problem(
        read_mask, tmp_path / "icon.ico"
    )


@pytest.mark.parametrize("pillows_own_limit", [True, False])
@pytest.mark.parametrize(("width", "height"), [(20_000, 10_000), (100_000, 100_000)])
def test_an_image_too_large_for_memory_is_refused_before_it_is_decoded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    width: int,
    height: int,
    pillows_own_limit: bool,
) -> None:
    if not pillows_own_limit:  # many programs raise it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    complete = png(bits=8, kind=0, row=bytes(10), width=10)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    bomb = complete[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + complete[33:]
    (tmp_path / "bomb.png").write_bytes(bomb)
    line = problem(read_image, tmp_path / "bomb.png")
    assert line == (
        f"the image exceeds the limit of {image_decoding.MAX_PIXELS} pixels: split it into smaller "
        "images; `predict --large` takes TIFF files of any size"
    )


def test_reading_in_threads_does_not_change_the_warning_filters(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "image.jpg")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read_image, [tmp_path / "image.jpg"] * 200))
    assert list(warnings.filters) == before


def test_images_of_a_folder_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c.txt", ".hidden.png", "d.tif"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpg", "b.PNG", "d.tif"]


def test_a_written_mask_holds_its_values_and_their_colors(tmp_path: Path) -> None:
    classes = Classes.make(["a", "b", "c", "d", "e"], values=[0, 1, 2, 3, 9], ignore=255)
    path = tmp_path / "mask.png"
    write_mask(path, INDEX, palette=classes.palette())
    np.testing.assert_array_equal(read_mask(path), INDEX)
    palette = mask_palette(path)
    assert palette is not None
    for color, value in zip(classes.colors, classes.values, strict=True):
        assert tuple(palette[value]) == color
    np.testing.assert_array_equal(read_image(path), classes.color_table()[classes.to_index(INDEX)])


def test_a_written_image_is_read_back(tmp_path: Path) -> None:
    write_image(tmp_path / "array.png", PIXELS)
    write_image(tmp_path / "image.png", Image.fromarray(PIXELS))
    np.testing.assert_array_equal(read_image(tmp_path / "array.png"), PIXELS)
    np.testing.assert_array_equal(read_image(tmp_path / "image.png"), PIXELS)


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("when", ["pathlib.Path.write_bytes", "os.fsync", "pathlib.Path.replace"])
def test_a_save_that_fails_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    old, new = tmp_path / "old.png", tmp_path / "new.png"
    write_image(old, PIXELS)
    before = old.read_bytes()
    monkeypatch.setattr(when, full_disk)
    for path in (old, new):
        line = problem(lambda path: write_image(path, PIXELS[::-1]), path)
        assert "cannot be written (No space left on device): choose another path" in line
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]
    assert old.read_bytes() == before


def test_an_error_while_writing_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail() -> None:
        with atomic(path) as side:
            side.write_text("half")
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_paths_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "absent" / "a.png", tmp_path / "file" / "a.png"):
        assert "cannot be written" in problem(lambda path: write_image(path, PIXELS), path)
    assert "directory" in problem(lambda p: write_image(p, PIXELS), tmp_path / "folder.png")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert "cannot be written" in problem(make_folder, path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_written_file_has_the_permissions_of_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_image(tmp_path / "ours.png", PIXELS)
    assert (tmp_path / "ours.png").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("umask", [0o027, 0o022])
def test_writing_never_changes_the_umask_of_the_process(umask: int, tmp_path: Path) -> None:
    """The umask can only be read by setting it, which other threads would notice."""
    before = os.umask(umask)
    modes: set[int] = set()
    try:
        with ThreadPoolExecutor(8) as pool:

            def write(number: int) -> None:
                with atomic(tmp_path / f"ours{number}") as side:
                    side.unlink()  # as writers do that put a private file in its place
                    os.close(os.open(side, os.O_CREAT | os.O_WRONLY, 0o600))
                with atomic_folder(tmp_path / f"folder{number}", flush=False):
                    pass
                (tmp_path / f"theirs{number}").touch()

            list(pool.map(write, range(200)))
        modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if path.is_file()}
        folders = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if path.is_dir()}
    finally:
        assert os.umask(before) == umask
    assert modes == {0o666 & ~umask}
    assert folders == {0o777 & ~umask}


def test_no_function_sets_the_umask() -> None:
    import pixelwise

    for path in Path(pixelwise.__file__).parent.rglob("*.py"):
        assert "os.umask" not in path.read_text("utf-8"), path


def test_a_user_without_a_home_folder_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("PIXELWISE_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert cache_folder() is None
    monkeypatch.setenv("PIXELWISE_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")
