"""Generator of damaged and hostile files for tests/test_hostile.py, with a fixed seed."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, PngImagePlugin

HEIGHT, WIDTH = 24, 32
RNG_SEED = 20261121


class _Touch:
    """Pickles as code that creates a file when loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def chunk(name: bytes, data: bytes) -> bytes:
    body = name + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(width: int, height: int, *chunks: bytes, bits: int = 8, kind: int = 2) -> bytes:
    """A PNG with this header and these chunks."""
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def idat(data: bytes) -> bytes:
    return chunk(b"IDAT", zlib.compress(data, 9))


def tiff(entries: list[tuple[int, int, int, int]], *, after: int = 0, data: bytes = b"") -> bytes:
    """A little-endian TIFF with one directory of (tag, type, count, value).

    `after` is the offset of the next directory.
    """
    fields = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + struct.pack("<I", after) + data


def tiff_tags(width: int, height: int, samples: int, **changes: int) -> list[Any]:
    tags = {
        256: width,
        257: height,
        258: 8,
        259: 1,
        262: 1,
        273: 200,
        277: samples,
        278: height,
        279: width * height * samples & 0xFFFFFFFF,
    }
    tags |= {int(key[1:]): value for key, value in changes.items()}
    return [(tag, 4, 1, value) for tag, value in sorted(tags.items())]


def npy(shape: str, descr: str = "'|u1'", data: bytes = b"\0" * 64) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + data


def saved(pixels: Any, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=name, **options)
    return buffer.getvalue()


def saved_tiff(pixels: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def saved_npy(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    return buffer.getvalue()


def valid_images(rng: np.random.Generator) -> dict[str, tuple[str, bytes]]:
    """(suffix, bytes) of a valid image of each encoding, by name."""
    color = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    five = rng.integers(0, 256, (HEIGHT, WIDTH, 5), dtype=np.uint8)
    deep = five[..., :4].astype(np.uint16) * 200
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep[..., :3])
    many = {"photometric": "minisblack", "planarconfig": "contig"}
    frames = [Image.fromarray(color), Image.fromarray(color[::-1])]
    animated: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
    return {
        "jpeg": (".jpg", saved(color, "JPEG")),
        "progressive": (".jpg", saved(color, "JPEG", progressive=True)),
        "png": (".png", saved(color, "PNG")),
        "deep_png": (".png", png(WIDTH, HEIGHT, idat(rows), bits=16)),
        "bmp": (".bmp", saved(color, "BMP")),
        "webp": (".webp", saved(color, "WEBP")),
        "lossless": (".webp", saved(color, "WEBP", lossless=True)),
        "tiff": (".tif", saved(color, "TIFF")),
        "lzw": (".tif", saved(color, "TIFF", compression="tiff_lzw")),
        "deep_tiff": (".tif", saved_tiff(deep, photometric="rgb", compression="zlib")),
        "five": (".tif", saved_tiff(five, **many)),
        "tiled": (".tif", saved_tiff(five, compression="lzw", tile=(16, 16), **many)),
        "float": (".tif", saved_tiff(color.astype(np.float32), photometric="rgb")),
        "npy": (".npy", saved_npy(five)),
        "float_npy": (".npy", saved_npy(color.astype(np.float64))),
        "gif": (".png", saved(color[..., 0], "GIF")),
        "animated_webp": (".webp", saved(color, "WEBP", **animated)),
        "animated_gif": (".webp", saved(color[..., 0], "GIF", **animated)),
        "apng": (".png", saved(color, "PNG", **animated)),
        "pages": (".tif", saved(color, "TIFF", **animated)),
    }


def images(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (file name, bytes) of damaged and hostile images. A loaded pickle creates `canary`."""
    rng = np.random.default_rng(RNG_SEED)
    good = valid_images(rng)
    for name, (suffix, data) in good.items():
        for tenth in range(1, 10):
            yield f"cut_{name}_{tenth}{suffix}", data[: len(data) * tenth // 10]
        for number in range(4):
            corrupted = bytearray(data)
            for offset in rng.integers(0, min(len(data), 400), 6):
                corrupted[offset] = rng.integers(0, 256)
            yield f"corrupted_{name}_{number}{suffix}", bytes(corrupted)
    suffixes = (".jpg", ".png", ".bmp", ".webp", ".tif", ".npy")
    for name in ("jpeg", "png", "tiff", "npy", "lossless"):
        for suffix in suffixes:
            if suffix != good[name][0]:
                yield f"{name}_as{suffix}", good[name][1]
    magic = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF", b"II*\0", b"\x93NUMPY\x01\0")
    for suffix, start in zip(suffixes, magic, strict=True):
        yield f"empty{suffix}", b""
        yield f"one_byte{suffix}", b"\0"
        yield f"noise{suffix}", rng.bytes(3000)
        yield f"noise_after_magic{suffix}", start + rng.bytes(3000)
        yield f"text{suffix}", b"<html>not found</html>\n" * 40
    yield from _png_attacks()
    yield from _tiff_attacks()
    yield from _npy_attacks(canary)
    yield (
        "bomb.bmp",
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 0, 0, 54, 40, 60000, 60000, 1, 24, *[0] * 6),
    )
    yield "bomb.webp", b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\xff\xff\xff\x1f" + bytes(8)
    yield (
        "bomb.jpg",
        good["jpeg"][1].replace(
            struct.pack(">HH", HEIGHT, WIDTH), struct.pack(">HH", 65500, 65500)
        ),
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    for cut in (10, 20, 30):
        yield (
            f"exif_{cut}.jpg",
            saved(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "JPEG", exif=exif.tobytes()[:cut]),
        )


def _png_attacks() -> Iterator[tuple[str, bytes]]:
    row = b"\0" + bytes(3 * WIDTH)
    for side in (20_000, 100_000, 2**31 - 1):
        yield f"bomb_{side}.png", png(side, side, idat(bytes(1000)))
    yield "bomb_thin.png", png(2**31 - 1, 1, idat(bytes(1000)))
    yield "below_limit.png", png(8000, 8000, idat(b"\0" * (1001 * 8000)), bits=1, kind=0)
    yield "more_data.png", png(WIDTH, HEIGHT, idat(bytes(60_000_000)))
    yield "no_palette.png", png(WIDTH, HEIGHT, idat((b"\0" + bytes(WIDTH)) * HEIGHT), kind=3)
    yield "no_size.png", png(0, 0, idat(b""))
    yield "no_data.png", png(WIDTH, HEIGHT)
    yield "odd_depth.png", png(WIDTH, HEIGHT, idat(row * HEIGHT), bits=3)
    yield "odd_kind.png", png(WIDTH, HEIGHT, idat(row * HEIGHT), kind=9)
    yield "wrong_sum.png", png(WIDTH, HEIGHT, idat(row * HEIGHT)[:-4] + b"\0\0\0\0")
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(100_000_000), 9))
    yield "text_bomb.png", png(WIDTH, HEIGHT, text, idat(row * HEIGHT))
    plain = PngImagePlugin.PngInfo()
    for number in range(20):
        plain.add_text(f"key{number}", "x" * 500_000, zip=True)
    yield "texts.png", saved(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "PNG", pnginfo=plain)
    profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(100_000_000), 9))
    yield "profile_bomb.png", png(WIDTH, HEIGHT, profile, idat(row * HEIGHT))
    yield "huge_chunk.png", png(WIDTH, HEIGHT, struct.pack(">I", 2**31) + b"IDAT" + bytes(50))


def _tiff_attacks() -> Iterator[tuple[str, bytes]]:
    for samples in (1, 3, 5, 9):
        for side in (60_000, 2**31):
            yield f"bomb_{samples}_{side}.tif", tiff(tiff_tags(side, side, samples))
    yield "samples.tif", tiff(tiff_tags(WIDTH, HEIGHT, 65535))
    yield "no_size.tif", tiff(tiff_tags(0, 0, 3))
    yield "no_samples.tif", tiff(tiff_tags(WIDTH, HEIGHT, 0))
    yield "far_strip.tif", tiff(tiff_tags(WIDTH, HEIGHT, 5, t273=2**32 - 10))
    yield "no_strip.tif", tiff(tiff_tags(WIDTH, HEIGHT, 5, t279=0))
    yield "bits.tif", tiff(tiff_tags(WIDTH, HEIGHT, 5, t258=77))
    yield "compression.tif", tiff(tiff_tags(WIDTH, HEIGHT, 5, t259=55555))
    yield "photometric.tif", tiff(tiff_tags(WIDTH, HEIGHT, 5, t262=60000))
    yield "itself.tif", tiff(tiff_tags(WIDTH, HEIGHT, 3), after=8, data=bytes(4000))
    yield "itself_five.tif", tiff(tiff_tags(WIDTH, HEIGHT, 5), after=8, data=bytes(9000))
    many = [(256 + n % 900, 4, 2**31, 40) for n in range(3000)]
    yield "many_tags.tif", tiff(many)
    yield "counts.tif", tiff([(tag, 5, 2**30, 8) for tag, *_ in tiff_tags(WIDTH, HEIGHT, 5)])
    for kind in (0, 13, 99):
        odd = [(tag, kind, 1, value) for tag, _, _, value in tiff_tags(WIDTH, HEIGHT, 5)]
        yield f"types_{kind}.tif", tiff(odd, data=bytes(5000))
    compressed = zlib.compress(bytes(400_000_000), 9)
    bomb = tiff_tags(WIDTH, HEIGHT, 5, t259=8, t273=122, t279=len(compressed))
    yield "strip_bomb.tif", tiff(bomb, data=compressed)
    for name, value in (("nan", np.nan), ("inf", np.inf), ("minus_inf", -np.inf)):
        for channels in (1, 3, 5):
            pixels = np.zeros((HEIGHT, WIDTH, channels), np.float32)
            pixels[3, 4] = value
            photometric = "rgb" if channels == 3 else "minisblack"
            stored = pixels[..., 0] if channels == 1 else pixels
            yield (
                f"{name}_{channels}.tif",
                saved_tiff(stored, photometric=photometric, planarconfig="contig"),
            )
    chain = io.BytesIO()
    with tifffile.TiffWriter(chain) as writer:
        for _ in range(300):
            writer.write(np.zeros((4, 4), np.uint8), contiguous=False)
    yield "pages.tif", chain.getvalue()
    yield (
        "big.tif",
        saved_tiff(
            np.zeros((HEIGHT, WIDTH, 5), np.uint8),
            bigtiff=True,
            photometric="minisblack",
            planarconfig="contig",
        )[:60],
    )


def _npy_attacks(canary: Path) -> Iterator[tuple[str, bytes]]:
    for number, shape in enumerate(
        (
            "(1000000, 1000000)",
            "(4611686018427387904, 4)",
            "(-3, 5)",
            "()",
            "(0, 5)",
            "(5,)",
            "(2, 3, 4, 5)",
            "(24, 32, 100000)",
            "(24, 32, 3)",
            "'x'",
            "(" * 3000,
        )
    ):
        yield f"shape_{number}.npy", npy(shape)
    for number, descr in enumerate(("'|O'", "'<c16'", "'<U9'", "[('a', '<f4')]", "'<M8[s]'", "7")):
        yield f"type_{number}.npy", npy("(2, 2, 2)", descr)
    pickled = pickle.dumps(_Touch(canary))
    yield "pickle.npy", pickled
    yield "pickle_inside.npy", npy("(1, 1, 1)", "'|O'", pickled)
    yield "infinite.npy", saved_npy(np.full((HEIGHT, WIDTH, 4), np.inf))
    yield "huge.npy", saved_npy(np.full((HEIGHT, WIDTH, 3), 1e300))
    yield "zip.npy", b"PK\x03\x04" + pickled


ODD_NAMES = (
    "line\nbreak.png",
    "tab\tbell\a.png",
    "\N{ZERO WIDTH SPACE}\N{RIGHT-TO-LEFT OVERRIDE}gnp.png",
    "Straße 写真 \N{AUTOMOBILE}.png",
    "-rf.png",
    "--out=x.png",
    "$(touch harm).png",
    "'; DROP TABLE;.png",
    "[red]bold[/red].png",
    "a" * 246 + ".png",
    os.fsdecode(b"no\xff\xfeutf8.png"),
    " .png",
    "con.png",
    "<script>alert(1)</script>.png".replace("/", "\N{FRACTION SLASH}"),
)


def write_named(path: Path, data: bytes) -> bool:
    """Write a file; returns False if the file system does not support its name."""
    try:
        path.write_bytes(data)
    except (OSError, UnicodeEncodeError):
        return False
    return True


def valid_pair(root: Path, stem: str) -> None:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(root / "images" / f"{stem}.png")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, 9:] = 1
    Image.fromarray(mask).save(root / "masks" / f"{stem}.png")


def links(root: Path) -> None:
    """Create links in place of images (to other folders, in a loop, to devices) and pipes."""
    for number, target in enumerate(
        ("/etc/passwd", "/dev/zero", "/dev/null", "/proc/self/mem", "..", "loop.png", "/nowhere")
    ):
        (root / f"link_{number}.png").symlink_to(target)
        (root / f"link_{number}.npy").symlink_to(target)
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "round").symlink_to(root.parent)
    os.mkfifo(root / "pipe.png")
    os.mkfifo(root / "pipe.npy")


def _coco(**changes: Any) -> dict[str, Any]:
    annotation = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "iscrowd": 0,
        "segmentation": [[1, 1, 9, 1, 9, 9]],
    }
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [{**annotation, **changes}],
    }


def _ring(count: int, value: float = 1e300) -> list[float]:
    return [(-1) ** (n // 2) * value for n in range(2 * count)]


def _documents() -> dict[str, tuple[str, str]]:
    """(file, text) of hostile annotation files, by name."""
    nested = "[" * 200_000
    found = {
        "coco_nested": ("annotations/instances.json", '{"images": ' + nested),
        "coco_nested_closed": (
            "annotations/instances.json",
            '{"images": [], "categories": [], "annotations": ' + "[" * 9000 + "]" * 9000 + "}",
        ),
        "coco_numbers": (
            "annotations/instances.json",
            json.dumps(_coco()).replace("1", "9" * 5000),
        ),
        "coco_nan": ("annotations/instances.json", json.dumps(_coco()).replace("9", "NaN")),
        "coco_null": ("annotations/instances.json", json.dumps(_coco()).replace("1", "null")),
        "coco_outside": (
            "annotations/instances.json",
            json.dumps(_coco()).replace("a.png", "../../../../../../etc/passwd"),
        ),
        "coco_absolute": (
            "annotations/instances.json",
            json.dumps(_coco()).replace("a.png", "/etc/passwd"),
        ),
        "coco_nul": (
            "annotations/instances.json",
            json.dumps(_coco()).replace("a.png", "a\\u0000.png"),
        ),
        "coco_long": (
            "annotations/instances.json",
            json.dumps(_coco()).replace("a.png", "a" * 100_000),
        ),
        "coco_empty": ("annotations/instances.json", ""),
        "coco_cut": ("annotations/instances.json", json.dumps(_coco())[:-30]),
        "coco_binary": ("annotations/instances.json", "\0\1\2" * 1000),
        "coco_surrogate": (
            "annotations/instances.json",
            json.dumps(_coco()).replace("thing", "\\ud800"),
        ),
    }
    for name, segmentation in {
        "far": [_ring(50)],
        "absurd": [_ring(100_000, 1e308)],
        "many": [[0, 0, 30, 0, 30, 20]] * 3000,
        "counts": {"size": [HEIGHT, WIDTH], "counts": [10**12, 10**12]},
        "negative": {"size": [HEIGHT, WIDTH], "counts": [-5, HEIGHT * WIDTH + 5]},
        "overflow": {"size": [HEIGHT, WIDTH], "counts": [2**63, 2**63]},
        "sized": {"size": [10**9, 10**9], "counts": [10**18]},
        "text": {"size": [HEIGHT, WIDTH], "counts": "o" * 200_000},
        "text_end": {"size": [HEIGHT, WIDTH], "counts": "~~~"},
        "deep": [[[[[[[1]]]]]]],
        "words": ["a", "b"],
        "number": 7,
    }.items():
        found[f"coco_{name}"] = (
            "annotations/instances.json",
            json.dumps(_coco(segmentation=segmentation)),
        )
    shape = {"label": "x", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}
    labelme = {"shapes": [shape], "imagePath": "a.png", "imageHeight": HEIGHT, "imageWidth": WIDTH}
    for name, change in {
        "outside": {"imagePath": "../../../../etc/passwd"},
        "windows": {"imagePath": "C:\\windows\\..\\..\\system"},
        "nul": {"imagePath": "a\0.png"},
        "data": {"imageData": "A" * 2_000_000, "imagePath": "none.png"},
        "circle": {
            "shapes": [{**shape, "shape_type": "circle", "points": [[0, 0], [1e308, 1e308]]}]
        },
        "points": {"shapes": [{**shape, "points": [[1e308, -1e308]] * 50_000}]},
        "label": {"shapes": [{**shape, "label": "x" * 100_000}]},
        "many": {"shapes": [{**shape, "label": f"c{n}"} for n in range(300)]},
        "size": {"imageHeight": 10**12},
    }.items():
        found[f"labelme_{name}"] = ("images/a.json", json.dumps({**labelme, **change}))
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    for name, text in {
        "laughs": bomb + "names: *i\npath: *i\ntrain: images\n",
        "object": "names: !!python/object/apply:os.system ['touch harm']\n",
        "outside": "names: [x]\ntrain: ../../../../../etc\nval: /etc\n",
        "numbers": "names: {99999999999: x, -1: y}\nnc: 1000000000\n",
        "nested": "names: " + "[" * 5000 + "]" * 5000 + "\n",
        "recursive": "names: &n [*n]\n",
    }.items():
        found[f"yaml_{name}"] = ("data.yaml", text)
    found |= {
        "yolo_numbers": ("labels/a.txt", "0 " + "1e308 " * 20_000),
        "yolo_class": ("labels/a.txt", "999999999999999999999 0 0 1 0 1 1"),
        "yolo_nan": ("labels/a.txt", "0 nan nan inf 0 1 1"),
        "toml_nested": ("classes.toml", "class = " + "[" * 5000),
        "toml_many": ("classes.toml", "".join(f'[[class]]\nname = "c{n}"\n' for n in range(5000))),
        "toml_value": ("classes.toml", f'[[class]]\nname = "x"\nvalue = {10**30}\n'),
        "toml_color": ("classes.toml", '[[class]]\nname = "x"\ncolor = 3\n'),
        "toml_binary": ("classes.toml", "\0" * 500),
        "labelmap": ("labelmap.txt", "a:1,2\nb:300,1,1:::\n" * 50),
        "csv": ("masks/_classes.csv", "Pixel Value, Class\n1e9, x\n" + ",,," * 9000),
        "list_outside": ("train.txt", "../../../etc/passwd ../../../etc/hosts.png\n"),
        "list_nul": ("train.txt", "a\0.png b\0.png\n"),
        "list_long": ("train.txt", "images/" + "a" * 5000 + ".png masks/a.png\n"),
    }
    return found


def folders(root: Path, canary: Path) -> dict[str, Path]:
    """Create datasets of a valid pair and one hostile file or link each; returns them by name."""
    found: dict[str, Path] = {}
    for name, (file, text) in _documents().items():
        folder = root / name
        valid_pair(folder, "a")
        if name.startswith(("coco", "labelme")):
            for path in (folder / "masks").iterdir():
                path.unlink()
            (folder / "masks").rmdir()
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text, encoding="utf-8", errors="surrogatepass")
        if name.startswith("yolo"):
            (folder / "data.yaml").write_text("names: [x]\n")
            for path in (folder / "masks").iterdir():
                path.unlink()
        found[name] = folder
    for name, data in {
        "mat_pickle": pickle.dumps(_Touch(canary)),
        "mat_noise": b"MATLAB 5.0 MAT-file" + bytes(105) + b"\0\1IM" + bytes(range(256)) * 20,
        "mat_cut": b"MATLAB 5.0",
        "mat_size": b"MATLAB 5.0 MAT-file".ljust(124)
        + b"\0\1IM"
        + struct.pack("<II", 14, 2**31 - 1),
    }.items():
        folder = root / name
        for kind in ("img", "cls"):
            (folder / kind).mkdir(parents=True)
        (folder / "img" / "a.jpg").write_bytes(saved(np.zeros((9, 9, 3), np.uint8), "JPEG"))
        (folder / "cls" / "a.mat").write_bytes(data)
        (folder / "train.txt").write_text("a\n")
        found[name] = folder
    for name in ("classes.toml", "data.yaml", "export.json", "labelmap.txt", "train.txt"):
        folder = root / f"pipe_{name}"
        valid_pair(folder, "a")
        os.mkfifo(folder / name)
        found[folder.name] = folder
    return found
