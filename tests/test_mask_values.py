"""Mask values: read as their authors meant them in every layout, or refused with both readings."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from miniatures import MINIATURES
from pixelwise.data import layouts
from pixelwise.data.classes import Classes
from pixelwise.data.dataset import SegmentationData, open_dataset
from pixelwise.data.mask_files import read_stored_mask
from pixelwise.data.source import MaskFile
from pixelwise.doctor import examine
from pixelwise.errors import InputError

HEIGHT, WIDTH = 40, 56
INFERRED = ["plain", "splits above", "suffixes", "suffixes in two folders", "pair lists"]
COLORS = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (0, 0, 128)]


def problem(root: Path) -> str:
    """Return the only line with which both reading and the doctor refuse a dataset."""
    assert not examine(root).trains
    with pytest.raises(InputError) as raised:
        open_dataset(root, draw_val=False)
    (line,) = raised.value.problems
    return line


def png_of_bits(index: Any, bits: int) -> bytes:
    """A gray PNG of `bits` bits, which Pillow cannot write."""
    rows = b""
    for row in index.astype(np.uint8):
        digits = np.unpackbits(row[:, None], axis=1)[:, 8 - bits :]
        rows += b"\0" + np.packbits(digits.reshape(-1)).tobytes()
    height, width = index.shape
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def truth(number: int, count: int = 3) -> Any:
    """Class indices in blocks, each class at least once."""
    rng = np.random.default_rng(number)
    blocks = rng.integers(0, count, (HEIGHT // 8, WIDTH // 8), dtype=np.uint8)
    blocks.reshape(-1)[:count] = range(count)
    return blocks.repeat(8, 0).repeat(8, 1)


def rewrite(root: Path, write: Callable[[Path, int], Any]) -> dict[str, Any]:
    """Replace all masks of a miniature; return what `write` returned, by sample name."""
    samples = [s for samples in layouts.read(root).splits.values() for s in samples]
    return {s.name: write(s.mask.path, number) for number, s in enumerate(samples)}


def assert_reads(data: SegmentationData, expected: dict[str, Any]) -> None:
    samples = [s for samples in data.splits.values() for s in samples]
    assert sorted(s.name for s in samples) == sorted(expected)
    for sample in samples:
        np.testing.assert_array_equal(data.read(sample)[1], expected[sample.name], sample.name)


def make(root: Path, name: str, write: Callable[[Path, Any, int], None], count: int = 3) -> Any:
    """Fill `root` with a miniature whose masks `write` writes; return the expected masks."""
    MINIATURES[name](root)

    def write_one(path: Path, number: int) -> Any:
        index = truth(number, count)
        write(path, index, number)
        return index

    return rewrite(root, write_one)


def save(path: Path, pixels: Any) -> None:
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)


def save_palette(path: Path, index: Any, colors: Any) -> None:
    image = Image.fromarray(np.asarray(index, dtype=np.uint8))
    image.putpalette(np.asarray(colors, dtype=np.uint8).tobytes())
    image.save(path)


def save_bits(path: Path, white: Any) -> None:
    Image.fromarray(np.asarray(white, dtype=bool)).save(path)


# The numbers of a file.


@pytest.mark.parametrize("name", INFERRED)
@pytest.mark.parametrize(("bits", "top"), [(2, 3), (4, 15)])
def test_a_gray_png_of_few_bits_keeps_its_numbers(
    tmp_path: Path, name: str, bits: int, top: int
) -> None:
    values = np.array([0, 1, top], dtype=np.uint8)
    expected = make(
        tmp_path, name, lambda path, t, _: path.write_bytes(png_of_bits(values[t], bits))
    )
    data = open_dataset(tmp_path, draw_val=False)
    assert data.classes.values == (0, 1, top)
    assert data.classes.ignore is None
    assert_reads(data, expected)


def few_bits(image: Image.Image) -> bytes | Image.Image | None:
    index = np.asarray(image)
    return png_of_bits(index, 4) if image.mode == "L" and index.max() <= 15 else None


def opaque(image: Image.Image) -> bytes | Image.Image | None:
    if image.mode not in {"L", "RGB"}:
        return None
    image.putalpha(255)
    return image


def shuffled_palette(image: Image.Image) -> bytes | Image.Image | None:
    if image.mode != "P":
        return None
    palette = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    index = np.asarray(image)
    used = np.unique(index[index != 255])
    used = used[used < len(palette)]
    order = np.arange(256)
    order[used] = np.random.default_rng(int(index.sum())).permutation(used)
    colors = palette.copy()
    colors[order[used]] = palette[used]
    shuffled = Image.fromarray(order[index].astype(np.uint8))
    shuffled.putpalette(colors.tobytes())
    return shuffled


MASK_FILES = [
    *INFERRED, "voc", "voc with sbd", "cityscapes", "cityscapes trainIds", "ade20k", "camvid 11",
    "camvid 32", "coco-stuff", "cvat", "cvat palette", "roboflow", "ultralytics",
]  # fmt: skip


@pytest.mark.parametrize("name", MASK_FILES)
def test_another_encoding_of_the_same_masks_reads_alike(tmp_path: Path, name: str) -> None:
    changed = 0
    for encode in (few_bits, opaque, shuffled_palette):
        root = tmp_path / encode.__name__
        MINIATURES[name](root)
        before = open_dataset(root, draw_val=False)
        samples = [s for samples in before.splits.values() for s in samples]
        masks = {s.name: before.read(s)[1] for s in samples}
        for path in {s.mask.path for s in samples if isinstance(s.mask, MaskFile)}:
            with Image.open(path) as image:
                image.load()
                encoded = encode(image)
            if isinstance(encoded, bytes):
                path.write_bytes(encoded)
            elif encoded is not None:
                encoded.save(path)
            changed += encoded is not None
        after = open_dataset(root, draw_val=False)
        assert after.classes.names == before.classes.names
        assert_reads(after, masks)
    assert changed


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.uint32, np.int16])
def test_an_integer_tiff_mask_keeps_its_numbers(tmp_path: Path, kind: type) -> None:
    index = truth(0)
    tifffile.imwrite(tmp_path / "mask.tif", index.astype(kind))
    stored = read_stored_mask(tmp_path / "mask.tif").values
    np.testing.assert_array_equal(stored, index)
    assert stored.dtype == np.uint8
    tifffile.imwrite(tmp_path / "mask.tif", index.astype(np.int32) - 1)
    with pytest.raises(InputError, match="the value -1 is out of range"):
        read_stored_mask(tmp_path / "mask.tif")


@pytest.mark.parametrize("compression", [None, "lzw", "zstd", "webp", "lerc"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_mask_in_any_lossless_tiff_keeps_its_numbers(
    tmp_path: Path, compression: str | None, bigtiff: bool
) -> None:
    index = truth(1)
    rgb = np.array(COLORS, dtype=np.uint8)[index]
    stored = rgb if compression == "webp" else index
    options: dict[str, Any] = {"compressionargs": {"lossless": True}} if stored is rgb else {}
    tifffile.imwrite(
        tmp_path / "mask.tif", stored, compression=compression, bigtiff=bigtiff, **options
    )
    np.testing.assert_array_equal(read_stored_mask(tmp_path / "mask.tif").values, stored)


@pytest.mark.parametrize("maxval", [1, 3, 20, 255, 300])
@pytest.mark.parametrize("plain", [False, True])
def test_a_pgm_mask_keeps_its_numbers(tmp_path: Path, maxval: int, plain: bool) -> None:
    index = truth(2, count=min(3, maxval + 1))
    data = index.astype(">u2" if maxval > 255 else np.uint8).tobytes()
    if plain:
        data = " ".join(map(str, index.reshape(-1).tolist())).encode()
    header = f"P{2 if plain else 5}\n{WIDTH} {HEIGHT}\n{maxval}\n".encode()
    (tmp_path / "mask.pgm").write_bytes(header + data)
    np.testing.assert_array_equal(read_stored_mask(tmp_path / "mask.pgm").values, index)


def test_a_gif_mask_keeps_its_numbers(tmp_path: Path) -> None:
    index = truth(3)
    Image.fromarray(index).save(tmp_path / "mask.gif")
    np.testing.assert_array_equal(read_stored_mask(tmp_path / "mask.gif").values, index)


@pytest.mark.parametrize("values", [[0, 1, 2], [255, 254, 253], [0, 255, 128]])
def test_a_tiff_whose_zero_is_white_keeps_low_numbers_and_is_refused_otherwise(
    tmp_path: Path, values: list[int]
) -> None:
    stored = np.array(values, dtype=np.uint8)[truth(4)]
    path = tmp_path / "mask.tif"
    for options in ({}, {"compression": "lzw"}, {"compression": "lerc"}):
        tifffile.imwrite(path, stored, photometric="miniswhite", **options)
        if max(values) < 128:
            np.testing.assert_array_equal(read_stored_mask(path).values, stored)
            continue
        with pytest.raises(InputError, match="value 255 is shown as 0, and either number could"):
            read_stored_mask(path)


def test_bilevel_files_whose_one_is_black_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", truth(0, 2) > 0, photometric="miniswhite")
    (tmp_path / "mask.pgm").write_bytes(b"P1\n2 2\n0 1 1 0\n")
    for name in ("mask.tif", "mask.pgm"):
        with pytest.raises(InputError, match="value 1 is shown as 0"):
            read_stored_mask(tmp_path / name)


@pytest.mark.parametrize("name", ["mask.png", "mask.tif"])
def test_jpeg_data_is_refused_as_a_mask_under_any_name(tmp_path: Path, name: str) -> None:
    index = truth(0) * np.uint8(90)
    if name.endswith("tif"):
        tifffile.imwrite(tmp_path / name, index, compression="jpeg")
    else:
        Image.fromarray(index).save(tmp_path / name, format="JPEG")
    with pytest.raises(InputError, match="JPEG compression blurs"):
        read_stored_mask(tmp_path / name)


# Alpha.


def test_transparency_is_refused_with_its_own_message(tmp_path: Path) -> None:
    alpha = np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)
    for mode in ("LA", "RGBA"):
        image = Image.fromarray(truth(0)).convert(mode[:-1])
        alpha[3, 4] = 0
        image.putalpha(Image.fromarray(alpha))
        image.save(tmp_path / "mask.png")
        with pytest.raises(InputError, match="transparent pixels"):
            read_stored_mask(tmp_path / "mask.png")


# Black and white in different formats.


def write_black_and_white(path: Path, white: Any, number: int) -> None:
    """One of five formats, none of which a person can tell from the others."""
    white = white > 0
    if number % 5 == 0:
        save_bits(path, white)
    elif number % 5 == 1:
        save(path, white * 255)
    elif number % 5 == 2:
        path.write_bytes(png_of_bits(white * 3, 2))
    elif number % 5 == 3:
        save(path, np.dstack([white * 255] * 3))
    else:
        save_bits(path, white * 0)


@pytest.mark.parametrize("name", INFERRED)
def test_black_and_white_masks_of_several_depths_are_one_class(tmp_path: Path, name: str) -> None:
    expected = make(tmp_path, name, write_black_and_white, count=2)
    for number, key in enumerate(expected):
        expected[key] = expected[key] * (number % 5 != 4)
    data = open_dataset(tmp_path, draw_val=False)
    assert data.classes.names == ("background", "foreground")
    assert_reads(data, expected)
    assert any("black and white masks in different formats" in note for note in data.notes)
    assert examine(tmp_path).scan.classes == data.classes


@pytest.mark.parametrize("name", INFERRED)
def test_black_and_white_palettes_of_both_orders_are_one_class(tmp_path: Path, name: str) -> None:
    def write(path: Path, index: Any, number: int) -> None:
        black_first = [(0, 0, 0), (255, 255, 255)]
        if number % 2:
            save_palette(path, 1 - index, black_first[::-1])
        else:
            save_palette(path, index, black_first)

    expected = make(tmp_path, name, write, count=2)
    assert_reads(open_dataset(tmp_path, draw_val=False), expected)


@pytest.mark.parametrize("name", INFERRED)
def test_masks_of_0_and_1_beside_masks_of_0_and_255_are_refused(tmp_path: Path, name: str) -> None:
    make(tmp_path, name, lambda path, t, n: save(path, t * (255 if n % 2 else 1)), count=2)
    line = problem(tmp_path)
    assert "hold 0 and 1" in line
    assert "hold 0 and 255" in line
    assert '"1,255" = "foreground"' in line
    assert '"255" = "ignore"' in line


def test_255_stays_ignored_if_a_mask_has_it_beside_1(tmp_path: Path) -> None:
    values = np.array([0, 1, 255], dtype=np.uint8)
    make(tmp_path, "plain", lambda path, t, n: save(path, values[t] if n else (t == 2) * 255))
    assert open_dataset(tmp_path, draw_val=False).classes.ignore == 255


@pytest.mark.parametrize("name", INFERRED)
def test_masks_of_255_alone_are_refused(tmp_path: Path, name: str) -> None:
    make(tmp_path, name, lambda path, t, _: save(path, t * 0 + 255))
    assert "all masks hold only 255" in problem(tmp_path)


@pytest.mark.parametrize("values", [(0, 127, 255), (0, 128, 255), (0, 85, 170, 255), (0, 90, 255)])
def test_gray_tones_up_to_white_are_refused_with_both_readings(
    tmp_path: Path, values: tuple[int, ...]
) -> None:
    tones = np.array(values, dtype=np.uint8)
    make(tmp_path, "plain", lambda path, t, _: save(path, tones[t]), count=len(values))
    line = problem(tmp_path)
    assert "255 is ignored if they are class numbers, but a class if they are gray tones" in line
    rows = "".join(f'[[class]]\nname = "c{value}"\nvalue = {value}\n' for value in values)
    (tmp_path / "classes.toml").write_text(rows)
    assert len(open_dataset(tmp_path, draw_val=False).classes) == len(values)


def test_class_numbers_beside_an_ignored_255_are_read(tmp_path: Path) -> None:
    for values in ((0, 1, 255), (0, 2, 8, 10, 255), (0, 20, 255), (1, 2, 255)):
        numbers = np.array(values, dtype=np.uint8)
        make(tmp_path, "plain", lambda p, t, _, n=numbers: save(p, n[t]), count=len(values))  # type: ignore[misc]
        classes = open_dataset(tmp_path, draw_val=False).classes
        assert classes.values == values[:-1]
        assert classes.ignore == 255


def test_few_bits_that_agree_with_8_bits_only_by_tone_are_refused(tmp_path: Path) -> None:
    def write(path: Path, index: Any, number: int) -> None:
        if number % 2:
            path.write_bytes(png_of_bits(index, 4))
        else:
            save(path, index * 17)

    make(tmp_path, "plain", write)
    line = problem(tmp_path)
    assert "has values of 4 bits, 0, 1, 2" in line
    assert "shown as gray tones of 8 bits they are 0, 17, 34" in line


# Palettes.


def write_shuffled(path: Path, index: Any, number: int) -> None:
    order = np.roll(np.arange(3), number)
    colors = np.zeros((3, 3), dtype=np.uint8)
    colors[order] = COLORS[:3]
    save_palette(path, order[index], colors)


@pytest.mark.parametrize("name", INFERRED)
def test_palettes_in_another_order_are_read_by_color(tmp_path: Path, name: str) -> None:
    expected = make(tmp_path, name, write_shuffled)
    data = open_dataset(tmp_path, draw_val=False)
    assert_reads(data, expected)
    assert data.classes.colors == tuple(COLORS[:3])
    diagnosis = examine(tmp_path)
    assert diagnosis.trains
    assert diagnosis.scan.classes == data.classes


@pytest.mark.parametrize("name", INFERRED)
def test_palettes_of_other_colors_are_refused_with_both_readings(tmp_path: Path, name: str) -> None:
    def write(path: Path, index: Any, number: int) -> None:
        colors = [(0, 0, 0), (200, number, 7), (9, 200, number)]
        save_palette(path, index, colors)

    make(tmp_path, name, write)
    line = problem(tmp_path)
    assert "the palette gives value 1 the color" in line
    assert "if the colors identify the classes" in line
    assert "if the numbers do" in line


def test_a_table_with_colors_decides_for_the_colors_of_palettes(tmp_path: Path) -> None:
    expected = make(tmp_path, "plain", write_shuffled)
    rows = [f'[[class]]\nname = "c{n}"\ncolor = {list(COLORS[n])}\n' for n in range(3)]
    (tmp_path / "classes.toml").write_text("".join(rows))
    data = open_dataset(tmp_path, draw_val=False)
    assert data.classes.names == ("c0", "c1", "c2")
    assert_reads(data, expected)
    (tmp_path / "classes.toml").write_text("".join(f'[[class]]\nname = "c{n}"\n' for n in range(3)))
    assert "if the colors identify the classes" in problem(tmp_path)


def test_palette_masks_beside_rgb_masks_are_read_by_color(tmp_path: Path) -> None:
    def write(path: Path, index: Any, number: int) -> None:
        if number % 2:
            save(path, np.array(COLORS)[index])
        else:
            write_shuffled(path, index, number)

    expected = make(tmp_path, "plain", write)
    data = open_dataset(tmp_path, draw_val=False)
    by_color = {color: index for index, color in enumerate(data.classes.colors)}
    order = np.array([by_color[color] for color in COLORS[:3]])
    assert_reads(data, {name: order[index] for name, index in expected.items()})


def test_gray_rgb_masks_beside_gray_masks_are_index_masks(tmp_path: Path) -> None:
    expected = make(
        tmp_path, "plain", lambda path, t, n: save(path, np.dstack([t] * 3) if n % 2 else t)
    )
    assert_reads(open_dataset(tmp_path, draw_val=False), expected)
    (tmp_path / "classes.toml").write_text("".join(f'[[class]]\nname = "c{n}"\n' for n in range(3)))
    assert_reads(open_dataset(tmp_path, draw_val=False), expected)


# Gray masks under a table of gray colors.


def write_labelmap(root: Path, tones: list[int]) -> None:
    rows = [f"{name}:{t},{t},{t}::" for name, t in zip("abc", tones, strict=True)]
    (root / "labelmap.txt").write_text("\n".join(rows))


@pytest.mark.parametrize("name", ["plain", "cvat"])
def test_gray_masks_are_read_by_the_gray_colors_of_a_table(tmp_path: Path, name: str) -> None:
    tones = np.array([0, 128, 255], dtype=np.uint8)
    expected = make(tmp_path, name, lambda path, t, _: save(path, tones[t]))
    write_labelmap(tmp_path, tones.tolist())
    assert_reads(open_dataset(tmp_path, draw_val=False), expected)


def test_a_table_whose_gray_colors_contradict_its_positions(tmp_path: Path) -> None:
    tones = [0, 2, 1]
    make(tmp_path / "plain", "plain", lambda path, t, _: save(path, t))
    write_labelmap(tmp_path / "plain", tones)
    line = problem(tmp_path / "plain")
    assert "is b by its position in the class table and c by its gray color" in line
    # CVAT identifies classes by color only.
    expected = make(tmp_path / "cvat", "cvat", lambda p, t, _: save(p, np.array(tones)[t]))
    write_labelmap(tmp_path / "cvat", tones)
    assert_reads(open_dataset(tmp_path / "cvat", draw_val=False), expected)


# Instance ids.


def objects_mask(number: int, count: int, *, first: int = 1) -> Any:
    """`count` separate rectangles with the numbers from `first` on."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint16)
    rng = np.random.default_rng(number)
    for each in range(count):
        top = int(rng.integers(2, 20))
        mask[top : top + 15, 2 + 9 * each : 9 + 9 * each] = first + each
    return mask


COUNTS = [1, 3, 2, 4, 5]


@pytest.mark.parametrize("name", INFERRED)
def test_masks_that_number_their_objects_are_refused_with_the_mapping(
    tmp_path: Path, name: str
) -> None:
    make(tmp_path, name, lambda path, _, n: save(path, objects_mask(n, COUNTS[n])))
    line = problem(tmp_path)
    assert "numbers of objects (instance ids)" in line
    assert f"write {tmp_path / 'data.toml'} with" in line
    assert '"1.." = "object"' in line
    assert f"write {tmp_path / 'classes.toml'} with a name for each class" in line
    names = [f"c{value}" for value in range(max(COUNTS) + 1)]
    (tmp_path / "classes.toml").write_text("".join(f'[[class]]\nname = "{n}"\n' for n in names))
    assert open_dataset(tmp_path, draw_val=False).classes.names == tuple(names)  # stated


def test_instance_ids_that_go_on_from_image_to_image_are_refused(tmp_path: Path) -> None:
    first = np.cumsum([1, *COUNTS])
    make(tmp_path, "plain", lambda p, _, n: save(p, objects_mask(n, COUNTS[n], first=first[n])))
    assert "instance ids" in problem(tmp_path)


def test_16_bit_instance_ids_are_refused_with_the_mapping(tmp_path: Path) -> None:
    def write(path: Path, _: Any, number: int) -> None:
        cells = np.arange(1, 1 + HEIGHT // 2 * WIDTH // 2).reshape(HEIGHT // 2, WIDTH // 2)
        mask = np.where(cells <= 90 + 100 * number, cells, 0).repeat(2, 0).repeat(2, 1)
        Image.fromarray(mask.astype(np.uint16)).save(path)

    make(tmp_path, "plain", write)
    assert '"1.." = "object"' in problem(tmp_path)


def test_objects_in_random_colors_are_refused(tmp_path: Path) -> None:
    def write(path: Path, _: Any, number: int) -> None:
        colors = np.random.default_rng(number).integers(20, 255, (9, 3))
        colors[0] = 0
        save(path, colors[objects_mask(number, COUNTS[number])])

    make(tmp_path, "plain", write)
    assert "instance ids" in problem(tmp_path)


def test_classes_are_not_taken_for_instance_ids(tmp_path: Path) -> None:
    """Classes that are absent between others, have several regions, or nest as organ and tumor."""
    organ = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    organ[5:30, 5:40] = 1
    tumor = organ.copy()
    tumor[10:20, 10:20] = 2

    def blocks(number: int) -> Any:
        return truth(number, count=1 + COUNTS[number])

    def gaps(number: int) -> Any:
        mask = objects_mask(number, 4)
        mask[mask == 1 + number % 3] = 0
        return mask

    for kind, mask_of in enumerate(
        (lambda n: (organ, tumor, organ * 0)[n % 3], blocks, gaps, lambda n: objects_mask(n, 3))
    ):
        root = tmp_path / str(kind)
        root.mkdir()
        make(root, "plain", lambda p, _, n, f=mask_of: save(p, f(n)))  # type: ignore[misc]
        assert open_dataset(root, draw_val=False).classes.names[0] == "class_0"


def test_a_split_that_lacks_classes_is_not_taken_for_instance_ids(tmp_path: Path) -> None:
    counts = {"train": 4, "val": 1}
    MINIATURES["plain"](tmp_path)
    for path in tmp_path.glob("masks/*/*.png"):
        save(path, objects_mask(0, counts[path.parent.name]))
    assert len(open_dataset(tmp_path).classes) == 5


def test_stated_values_win_over_every_reading(tmp_path: Path) -> None:
    """Classes written back by convert-data have explicit values."""
    expected = make(tmp_path, "plain", lambda path, t, _: save(path, t))
    classes = Classes.make(["a", "b", "c"], colors=[(0, 0, 0), (2, 2, 2), (1, 1, 1)])
    rows = zip(classes.names, classes.colors, classes.values, strict=True)
    text = "".join(f'[[class]]\nname = "{n}"\ncolor = {list(c)}\nvalue = {v}\n' for n, c, v in rows)
    (tmp_path / "classes.toml").write_text(text)
    assert_reads(open_dataset(tmp_path, draw_val=False), expected)


# Masks of one class or one brush stroke each: white is inside.


@pytest.mark.parametrize("name", ["class folders", "class endings", "label studio png"])
def test_a_binary_mask_in_another_encoding_reads_alike(tmp_path: Path, name: str) -> None:
    MINIATURES[name](tmp_path)
    before = open_dataset(tmp_path, draw_val=False)
    samples = [s for samples in before.splits.values() for s in samples]
    expected = {s.name: before.read(s)[1] for s in samples}
    images = {s.image for s in samples}
    paths = [path for path in sorted(tmp_path.rglob("*.png")) if path not in images]
    assert len(paths) > 5
    for number, path in enumerate(paths):
        inside = np.asarray(Image.open(path).convert("L")) > 0
        if number % 3 == 0:
            path.write_bytes(png_of_bits(inside * 15, 4))
        elif number % 3 == 1:
            save_bits(path, inside)
        elif name != "label studio png":
            save_palette(path, ~inside, [(255, 255, 255), (0, 0, 0)])
    assert_reads(open_dataset(tmp_path, draw_val=False), expected)
