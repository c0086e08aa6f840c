"""Images of any depth and any number of channels, from the file to the mask."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

import pixelwise
from fixture_types import Cli
from pixelwise.backbones import create_backbone
from pixelwise.data.channel_statistics import choose_format, compute_statistics, summarize_pixels
from pixelwise.data.classes import Classes
from pixelwise.data.dataset import open_dataset
from pixelwise.data.distortion import Distortion
from pixelwise.data.image_files import read_image, read_mask, read_raw
from pixelwise.data.pixel_format import RGB, PixelFormat, RawImage, as_shown
from pixelwise.data.transforms import Augmentation
from pixelwise.doctor import examine
from pixelwise.errors import InputError
from pixelwise.exporters import export
from pixelwise.inference import Predictor
from pixelwise.models import MODELS, create_model
from pixelwise.recipes.schema import ModelRecipe
from pixelwise.training import load_recipe, train
from pixelwise.training.initial_model import create_initial_model
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.channel_widening import widen
from pixelwise.weights.load_backbone import load_backbone
from pixelwise.weights.normalization import CAFFE, IMAGENET, Normalization
from pixelwise.weights.published.fetch import find_imagenet_weights

TINY = {"backbone": "tiny", "output_stride": 16}
CLASSES = Classes.make(["off", "on"])
HEIGHT, WIDTH = 20, 30


def noise(channels: int, dtype: str = "uint8", *, top: int = 65535, seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.normal(0, 1, (HEIGHT, WIDTH, channels)).astype(dtype)
    top = min(top, np.iinfo(dtype).max)
    return rng.integers(np.iinfo(dtype).min, top + 1, (HEIGHT, WIDTH, channels), dtype=dtype)


def write_png(path: Path, pixels: NDArray[np.uint16]) -> None:
    """Write a PNG with 16 bits per channel, which Pillow does not support."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def one_problem(work: Callable[[], object]) -> str:
    with pytest.raises(InputError) as raised:
        work()
    (line,) = raised.value.problems
    return line


# Decoding


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_16_bit_png_is_read_with_all_its_bits(tmp_path: Path, channels: int) -> None:
    stored = noise(channels, "uint16")
    write_png(tmp_path / "deep.png", stored)
    raw = read_raw(tmp_path / "deep.png")
    np.testing.assert_array_equal(raw.pixels, stored)
    assert raw.alpha == (channels in {2, 4})


TIFFS = {
    "rgb": (3, {"photometric": "rgb"}),
    "alpha": (4, {"photometric": "rgb"}),
    "fourth": (4, {"photometric": "rgb", "extrasamples": ["unspecified"]}),
    "two": (2, {"photometric": "minisblack", "planarconfig": "contig"}),
    "seven": (7, {"photometric": "minisblack", "planarconfig": "contig"}),
    "planes": (3, {"photometric": "rgb", "planarconfig": "separate"}),
    "planes4": (4, {"photometric": "rgb", "planarconfig": "separate"}),
    "pages": (5, {"imagej": True, "metadata": {"axes": "CYX"}}),
}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("kind", TIFFS)
def test_a_tiff_is_read_as_it_was_written(tmp_path: Path, kind: str, dtype: str) -> None:
    channels, options = TIFFS[kind]
    stored = noise(channels, dtype)
    by_plane = options.get("planarconfig") == "separate" or "imagej" in options
    path = tmp_path / "image.tif"
    forms: list[dict[str, Any]] = [{}]
    if "imagej" not in options:
        forms += [{"byteorder": ">"}, {"compression": "lzw", "tile": (16, 16)}]
        forms += [{"compression": "zlib", "predictor": True}]
    for form in forms:
        written = stored.transpose(2, 0, 1) if by_plane else stored
        tifffile.imwrite(path, np.ascontiguousarray(written), **options, **form)
        raw = read_raw(path)
        np.testing.assert_array_equal(raw.pixels, stored, err_msg=str(form))
        assert raw.dtype == dtype, form
        assert raw.alpha == (kind in {"alpha", "planes4"}), form


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "int32", "uint32", "float16", "float32", "float64"]
)
def test_gray_values_of_any_type_are_read(tmp_path: Path, dtype: str) -> None:
    stored = (np.linspace(-3, 3, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 40).astype(dtype)
    if dtype == "uint32":
        stored += np.uint32(3_000_000_000)  # beyond int32
    tifffile.imwrite(tmp_path / "gray.tif", stored)
    np.save(tmp_path / "gray.npy", stored)
    for name in ("gray.tif", "gray.npy"):
        pixels = read_raw(tmp_path / name).pixels
        np.testing.assert_array_equal(pixels[..., 0], stored.astype(np.float32), err_msg=name)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_reader_applies_the_orientation_the_same_way(
    tmp_path: Path, orientation: int
) -> None:
    five, deep = noise(5), noise(3, "uint16")
    tag = [(274, 3, 1, orientation, True)]
    more = {"extrasamples": ["unspecified"] * 2}
    tifffile.imwrite(tmp_path / "five.tif", five, photometric="rgb", extratags=tag, **more)
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb", extratags=tag)
    for name, pixels in (("five", five[..., :3]), ("deep", (deep >> 8).astype(np.uint8))):
        Image.fromarray(pixels).save(tmp_path / f"{name}_plain.tif", tiffinfo={274: orientation})
    np.testing.assert_array_equal(
        read_raw(tmp_path / "five.tif").pixels[..., :3], read_image(tmp_path / "five_plain.tif")
    )
    np.testing.assert_array_equal(
        read_raw(tmp_path / "deep.tif").pixels >> 8, read_image(tmp_path / "deep_plain.tif")
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["image.tif", "image.npy"])
def test_values_that_are_not_finite_are_refused_with_their_position(
    tmp_path: Path, name: str, value: float
) -> None:
    pixels = noise(4, "float32")
    pixels[3, 7, 2] = value
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, pixels)
    else:
        tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig")
    line = one_problem(lambda: read_raw(path))
    assert line.startswith(f"{path}: the value at row 3, column 7, channel 2 is {value}")
    gray = pixels[..., 2]
    Image.fromarray(gray).save(tmp_path / "gray.tif")
    assert "row 3, column 7" in one_problem(lambda: read_raw(tmp_path / "gray.tif"))


def test_pages_that_are_not_channels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "pages.tif", noise(3), photometric="minisblack")
    tifffile.imwrite(tmp_path / "complex.tif", noise(1, "float32")[..., 0].astype(np.complex64))
    assert "several images" in one_problem(lambda: read_raw(tmp_path / "pages.tif"))
    assert "complex64 as" in one_problem(lambda: read_raw(tmp_path / "complex.tif"))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.zeros((4, 30, 40), np.uint8), "save the channels last"),
        (np.zeros((5,), np.uint8), "the shape (5,) is not"),
        (np.zeros((5, 0, 3), np.uint8), "the shape (5, 0, 3) is not"),
        (np.zeros((2, 2), np.complex64), "the type is complex64"),
        (np.array([[{}]], dtype=object), "not a readable array"),
    ],
)
def test_arrays_that_are_not_images_are_refused(
    tmp_path: Path, stored: NDArray[Any], message: str
) -> None:
    np.save(tmp_path / "image.npy", stored, allow_pickle=True)
    assert message in one_problem(lambda: read_raw(tmp_path / "image.npy"))


def test_a_missing_tifffile_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    tifffile.imwrite(tmp_path / "five.tif", noise(5), photometric="rgb")
    tifffile.imwrite(tmp_path / "four.tif", noise(4, "uint16"), photometric="rgb")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    assert "pip install 'tifffile" in one_problem(lambda: read_raw(tmp_path / "five.tif"))
    assert read_raw(tmp_path / "four.tif").pixels.shape == (HEIGHT, WIDTH, 4)  # does not need it


@pytest.mark.parametrize("channels", [2, 4, 6])
def test_a_one_hot_tiff_gives_the_class_of_each_pixel(tmp_path: Path, channels: int) -> None:
    index = np.random.default_rng(0).integers(0, channels, (HEIGHT, WIDTH), dtype=np.uint8)
    path = tmp_path / "mask.tif"
    for scale in (1, 255):
        hot = np.eye(channels, dtype=np.uint8)[index] * np.uint8(scale)
        photometric = "rgb" if channels == 4 else "minisblack"
        tifffile.imwrite(path, hot, photometric=photometric, planarconfig="contig")
        np.testing.assert_array_equal(read_mask(path), index)
    hot[5, 6] = 255
    tifffile.imwrite(path, hot, photometric=photometric, planarconfig="contig")
    assert f"{channels} channels are set at row 5, column 6" in one_problem(lambda: read_mask(path))


# The pixel format of a dataset


def format_of(*images: NDArray[Any], **stated: Any) -> PixelFormat:
    return choose_format([summarize_pixels(RawImage(pixels)) for pixels in images], **stated)[0]


@pytest.mark.parametrize(
    ("bits", "top"), [(255, 255), (256, 511), (1000, 1023), (4095, 4095), (4096, 8191)]
)
def test_the_range_of_16_bit_images_covers_the_used_bits(bits: int, top: int) -> None:
    pixels = np.full((40, 40, 3), bits, dtype=np.uint16)
    assert format_of(pixels) == PixelFormat(3, "uint16", (0, top))
    pixels[0, 0] = 65535  # a single hot pixel does not change the range
    assert format_of(pixels).value_range == (0, top)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 1, (0, 1)), (0, 255, (0, 255)), (0.1, 0.6, (0, 1))]
)
def test_usual_floating_point_ranges_are_recognized(
    low: float, high: float, expected: tuple[float, float]
) -> None:
    pixels = np.linspace(low, high, 1600).reshape(40, 40, 1).astype(np.float32)
    assert format_of(pixels).value_range == expected


def test_other_ranges_are_measured_and_nothing_is_clipped() -> None:
    pixels = np.linspace(-30, 10, 1600).reshape(40, 40, 1).astype(np.float32)
    pixels[0, 0] = 500
    found = format_of(pixels)
    low, high = found.value_range
    assert low == pytest.approx(-30, abs=0.5)
    assert high == pytest.approx(10, abs=0.5)
    scaled = found.scale(pixels)
    assert scaled.dtype == np.float32
    assert scaled.max() == pytest.approx(255 * (500 - low) / (high - low), rel=1e-5)
    assert format_of(np.full((9, 9, 1), 700.5, np.float32)).scale(np.float32([700.5])) == 0


def test_16_bit_images_are_scaled_to_the_unit_of_8_bit_images() -> None:
    eight = noise(3)
    deep = RawImage(eight.astype(np.uint16) * 257)
    found = format_of(deep.pixels)
    assert found == PixelFormat(3, "uint16", (0, 65535))
    np.testing.assert_allclose(found.scale(deep.pixels), eight, rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(as_shown(found.scale(deep.pixels)), eight)


def test_a_tiff_channel_labeled_alpha_is_judged_by_its_values(tmp_path: Path) -> None:
    opaque = noise(4)
    opaque[..., 3] = np.where(opaque[..., 3] > 50, 255, 0)
    kinds = {"data": noise(4), "opacity": opaque}
    for suffix, kind, channels in (
        ("tif", "data", 4),
        ("tif", "opacity", 3),
        ("png", "data", 3),  # the fourth channel of a PNG is alpha by definition
    ):
        Image.fromarray(kinds[kind]).save(tmp_path / f"image.{suffix}")
        raw = read_raw(tmp_path / f"image.{suffix}")
        found, notes = choose_format([summarize_pixels(raw)])
        assert found.channels == channels, (suffix, kind)
        assert any("labeled alpha" in note for note in notes) == (channels == 4)
        assert choose_format([summarize_pixels(raw)], channels=4)[0].channels == 4
        for wanted in (3, 4):
            selected = PixelFormat(wanted).select(raw, "image")
            np.testing.assert_array_equal(selected, kinds[kind][..., :wanted])


def test_gray_becomes_rgb_and_other_channels_are_refused() -> None:
    gray = RawImage(noise(1))
    np.testing.assert_array_equal(RGB.select(gray, "g"), gray.pixels.repeat(3, axis=2))
    line = one_problem(lambda: PixelFormat(4).select(gray, "g.png"))
    assert line == (
        "g.png: has 1 channel of 8 bits, but 4 channels of 8 bits are needed: provide images in "
        "this format"
    )


def test_mean_and_std_are_computed_over_all_pixels() -> None:
    images = [noise(5, "float32", seed=seed) * 3 + 10 for seed in range(3)]
    found = format_of(*images)
    measured = compute_statistics([summarize_pixels(RawImage(pixels)) for pixels in images], found)
    everything = found.scale(np.concatenate(images)).reshape(-1, 5).astype(np.float64)
    np.testing.assert_allclose(measured.mean, everything.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(measured.std, everything.std(axis=0), rtol=1e-4)
    other = PixelFormat(5, "float32", (-7, 90))
    again = compute_statistics([summarize_pixels(RawImage(pixels)) for pixels in images], other)
    moved = measured.rescaled(found, other)
    np.testing.assert_allclose(moved.mean, again.mean)
    np.testing.assert_allclose(moved.std, again.std)


# Augmentation and normalization


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("channels", [2, 3, 4, 6])
def test_all_channels_are_cropped_alike(channels: int, dtype: str) -> None:
    ramp = np.add.outer(np.arange(60), np.arange(80)).astype(dtype)
    image = np.repeat(ramp[..., None], channels, axis=2)
    mask = (ramp > 70).astype(np.uint8)
    cut = Augmentation(crop=(48, 64), scale=(0.5, 2.0), fill=(9.0,) * channels)
    for seed in range(8):
        out, labels = cut(image, mask, np.random.default_rng(seed))
        assert out.shape == (48, 64, channels)
        assert out.dtype == dtype
        assert (out == out[..., :1]).all()
        inside = labels != 255
        wrong = (out[..., 0] > 70.5) != (labels == 1)
        assert (wrong & inside).mean() < 0.05  # bilinear and nearest differ at the border only
        assert (out[~inside] == 9).all()


def test_color_jitter_is_the_same_for_floats_and_bytes_and_skips_other_channels() -> None:
    image = (noise(5) // 4 + 90).astype(np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    jitter = Distortion(brightness=0.2, contrast=0.2, saturation=0.2)
    color = Augmentation(crop=None, scale=(1, 1), flip=0, distortion=jitter)
    for seed in range(5):
        of_bytes, _ = color(image, mask, np.random.default_rng(seed))
        of_floats, _ = color(image.astype(np.float32), mask, np.random.default_rng(seed))
        assert (
            np.abs(of_floats - of_bytes).max() < 4
        )  # three steps round, and the mean is an integer
        assert np.abs(of_floats - image)[..., :3].max() > 4
        np.testing.assert_array_equal(of_bytes[..., 3:], image[..., 3:])
        np.testing.assert_array_equal(of_floats[..., 3:], image[..., 3:])


def test_the_first_three_channels_keep_their_normalization() -> None:
    images = torch.from_numpy(noise(5).transpose(2, 0, 1)[None].copy())
    mean, std = tuple(range(10, 15)), (3.0, 4.0, 5.0, 6.0, 0.0)
    for known in (IMAGENET, CAFFE):
        wide = known.widened(mean, std)
        out = wide(images)
        assert torch.equal(out[:, :3], known(images[:, :3]))
        usual = known(images[:, :3] * 0)  # in the same unit for both
        assert usual.shape[1] == 3
        ratio = sum(known.std) / sum(IMAGENET.std)
        torch.testing.assert_close(out[:, 3], (images[:, 3] - 13.0) / (6 * ratio))
        assert torch.isfinite(out).all()  # a constant channel has std 0
        assert Normalization.from_json(wide.to_json()) == wide
        in_order = images.contiguous(memory_format=torch.channels_last)
        assert wide(in_order).is_contiguous(memory_format=torch.channels_last)
    two = CAFFE.widened(mean[:2], std[:2])
    torch.testing.assert_close(
        two(images[:, :2])[:, 0] * sum(CAFFE.std) / sum(IMAGENET.std), (images[:, 0] - 10.0) / 3
    )


# Networks and initial weights


def test_a_new_channel_gets_the_mean_of_the_weights() -> None:
    kernel = torch.randn(7, 3, 5, 5)
    wide = widen(kernel, 5)
    assert torch.equal(wide[:, :3], kernel)
    for channel in (3, 4):
        torch.testing.assert_close(wide[:, channel], kernel.mean(dim=1))
    torch.testing.assert_close(widen(kernel, 2)[:, 1], kernel.mean(dim=1))
    assert torch.equal(widen(wide, 3), kernel)
    assert torch.equal(widen(kernel, 3), kernel)


def test_imagenet_weights_initialize_a_network_with_four_channels() -> None:
    path = find_imagenet_weights("mobilenet_v2")
    three = create_backbone("mobilenet_v2", output_stride=16)
    four = create_backbone("mobilenet_v2", output_stride=16, in_channels=4)
    assert isinstance(three, torch.nn.Module)
    assert isinstance(four, torch.nn.Module)
    assert load_backbone(three, "mobilenet_v2", path) == IMAGENET
    assert load_backbone(four, "mobilenet_v2", path) == IMAGENET
    before, after = three.state_dict(), four.state_dict()
    first = "features.0.0.weight"
    assert torch.equal(after[first][:, :3], before[first])
    torch.testing.assert_close(after[first][:, 3], before[first].mean(dim=1))
    assert [k for k in before if k != first and not torch.equal(before[k], after[k])] == []


@pytest.mark.parametrize("name", MODELS)
def test_every_network_accepts_any_number_of_channels(name: str) -> None:
    for variant in {v.backbone.rstrip("01"): v for v in MODELS[name].variants}.values():
        shapes = {}
        for channels in (3, 6):
            with torch.device("meta"):
                model = create_model(
                    name, num_classes=2, in_channels=channels, **variant.options
                ).eval()
                assert model(torch.zeros(1, channels, 65, 65)).shape == (1, 2, 65, 65)
            shapes[channels] = {k: tuple(v.shape) for k, v in model.state_dict().items()}
        changed = {k for k in shapes[3] if shapes[3][k] != shapes[6][k]}
        assert changed, name
        for key in changed:
            (out, *window), (same, *wide) = shapes[3][key], shapes[6][key]
            assert (out, 3, window[1:], 6) == (same, window[0], wide[1:], wide[0]), key


def bundle_of(channels: int, pixels: PixelFormat | None = None, **options: Any) -> Bundle:
    torch.manual_seed(channels)
    options = options or TINY
    model = create_model("deeplab_v3plus", num_classes=2, in_channels=channels, **options)
    normalization = IMAGENET
    if channels != 3:
        normalization = IMAGENET.widened((100.0,) * channels, (50.0,) * channels)
    return Bundle(
        "deeplab_v3plus",
        options,
        CLASSES,
        normalization,
        model.state_dict(),
        pixels=pixels or PixelFormat(channels),
    )


def test_a_bundle_stores_the_pixel_format(tmp_path: Path) -> None:
    stated = PixelFormat(4, "uint16", (0, 4095))
    bundle_of(4, stated).save(tmp_path / "four.safetensors")
    again = Bundle.load(tmp_path / "four.safetensors")
    assert again.pixels == stated
    assert again.build()(torch.zeros(1, 4, 33, 33)).shape == (1, 2, 33, 33)
    bundle_of(4, PixelFormat(3)).save(tmp_path / "wrong.safetensors")
    assert "damaged" in one_problem(lambda: Bundle.load(tmp_path / "wrong.safetensors"))


def test_a_bundle_initializes_a_network_with_more_channels(tmp_path: Path) -> None:
    path = tmp_path / "three.safetensors"
    bundle = bundle_of(3)
    bundle.save(path)
    recipe = ModelRecipe(name="deeplab_v3plus", weights=str(path), options=TINY)
    images = [summarize_pixels(RawImage(noise(5)))]
    start = create_initial_model(
        recipe,
        CLASSES,
        pixels=PixelFormat(5),
        statistics=compute_statistics(images, PixelFormat(5)),
    )
    assert "widened from 3 to 5 channels" in start.origin
    state = start.model.state_dict()
    first = "backbone.stages.0.0.weight"
    assert torch.equal(state[first], widen(bundle.weights[first], 5))
    assert [k for k in state if k != first and not torch.equal(state[k], bundle.weights[k])] == []
    assert start.normalization.mean[:3] == IMAGENET.mean
    assert start.normalization.channels == 5


def test_a_branch_on_the_image_is_widened_too(tmp_path: Path) -> None:
    options = {"width": 1 / 32, "hidden": 8, "multi_scale": True}
    three = create_model("deeplab_v1", num_classes=2, **options)
    path = tmp_path / "msc.safetensors"
    Bundle("deeplab_v1", options, CLASSES, IMAGENET, three.state_dict()).save(path)
    recipe = ModelRecipe(name="deeplab_v1", weights=str(path), options=options)
    statistics = compute_statistics([summarize_pixels(RawImage(noise(4)))], PixelFormat(4))
    start = create_initial_model(recipe, CLASSES, pixels=PixelFormat(4), statistics=statistics)
    for name in ("head.branches.c0.0.weight", "backbone.features.0.weight"):
        assert torch.equal(start.model.state_dict()[name], widen(three.state_dict()[name], 4))


def test_the_value_range_of_a_bundle_is_kept_unless_another_is_stated(tmp_path: Path) -> None:
    path = tmp_path / "deep.safetensors"
    bundle_of(3, PixelFormat(3, "uint16", (0, 1023))).save(path)
    recipe = ModelRecipe(weights=str(path), options=TINY)
    found = PixelFormat(3, "uint16", (0, 4095))
    assert create_initial_model(recipe, CLASSES, pixels=found).pixels.value_range == (0, 1023)
    assert create_initial_model(recipe, CLASSES, pixels=found, keep_range=True).pixels == found
    assert create_initial_model(recipe, CLASSES, pixels=RGB).pixels == RGB


# Prediction


def test_a_predictor_accepts_the_format_its_network_was_trained_on(tmp_path: Path) -> None:
    eight = noise(3)
    deep = eight.astype(np.uint16) * 257
    write_png(tmp_path / "deep.png", deep)
    bundle_of(3).save(tmp_path / "eight.safetensors")
    bundle_of(3, PixelFormat(3, "uint16", (0, 65535))).save(tmp_path / "deep.safetensors")
    plain = pixelwise.load(tmp_path / "eight.safetensors")(eight)
    of_deep = pixelwise.load(tmp_path / "deep.safetensors")
    for image in (tmp_path / "deep.png", deep):
        result = of_deep(image)
        np.testing.assert_allclose(result.logits, plain.logits, atol=1e-4)
        assert result.overlay().tobytes() == plain.overlay().tobytes()
    line = one_problem(lambda: of_deep(eight))
    assert "a uint16 array of shape (H, W, 3)" in line
    with pytest.raises(
        InputError, match="image of mode RGB: has 3 channels of 8 bits, but 3 channels of 16 bits"
    ):
        of_deep(Image.fromarray(eight))
    bundle_of(2, PixelFormat(2, "float32", (0, 1))).save(tmp_path / "two.safetensors")
    two = pixelwise.load(tmp_path / "two.safetensors")
    assert two(noise(2, "float32")).overlay(legend=False).size == (WIDTH, HEIGHT)
    with pytest.raises(InputError, match="not finite"):
        two(np.full((9, 9, 2), np.nan, np.float32))


def test_an_export_accepts_what_its_bundle_accepts(tmp_path: Path) -> None:
    path = tmp_path / "four.safetensors"
    stated = PixelFormat(4, "uint16", (0, 1023))
    bundle_of(4, stated).save(path)
    made = export(path, to="openvino")
    assert made.pixels == stated
    image = noise(4, "uint16", top=1023)
    one, other = (pixelwise.load(path, runtime=name) for name in ("openvino", "torch"))
    assert one.runtime.name == "openvino"
    np.testing.assert_allclose(one(image).logits, other(image).logits, atol=1e-4)
    with pytest.raises(InputError, match="a uint16 array"):
        one(noise(3))


def test_an_image_with_other_channels_is_one_clear_line(cli: Cli, tmp_path: Path) -> None:
    bundle_of(4).save(tmp_path / "four.safetensors")
    Image.fromarray(noise(3)).save(tmp_path / "rgb.png")
    done = cli("predict", tmp_path / "four.safetensors", tmp_path / "rgb.png")
    assert done.code == 2
    assert done.err == (
        f"pixelwise: error: {tmp_path / 'rgb.png'}: has 3 channels of 8 bits, but 4 channels of 8 "
        "bits are needed: give images like those that the network was trained on\n"
    )


# A dataset, from training to the report


def write_folder(
    root: Path, count: int, *, name: str = "{}.tif", deep: bool = True, blind: int = 3
) -> Path:
    """Write a dataset whose objects are visible in the last channel only; the others are noise."""
    rng = np.random.default_rng(5)
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for number in range(count):
        mask = np.zeros((48, 64), np.uint8)
        row, column = rng.integers(0, 24), rng.integers(0, 32)
        mask[row : row + 24, column : column + 32] = 1
        top = 4096 if deep else 256
        pixels = rng.integers(0, top, (48, 64, blind + 1)).astype(np.uint16 if deep else np.uint8)
        pixels[..., -1] = pixels[..., -1] // 4 + mask.astype(pixels.dtype) * (top // 2)
        path = root / "images" / name.format(number)
        if path.suffix == ".npy":
            np.save(path, pixels)
        else:
            tifffile.imwrite(
                path,
                pixels,
                photometric="rgb" if blind == 3 else "minisblack",
                planarconfig="contig",
            )
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    return root


QUICK = {
    "epochs": 6,
    "batch_size": 4,
    "model.weights": "none",
    "model.options": TINY,
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.05,
    "memory_format": "contiguous",
    "augmentation.scale": (0.9, 1.1),
}


def test_a_fourth_channel_is_used_without_a_flag(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 16)
    run = train(root, tmp_path / "run", load_recipe(None, QUICK))
    assert run.facts["images"] == "4 channels of 16 bits, values 0 to 4095 as 0 to 255"
    assert "use 12 bits" in run.facts["assumed"]
    assert run.evaluation is not None
    assert run.evaluation.scores.mean_iou > 0.7  # at most 0.45 without that channel
    predictor = Predictor.load(run.best)
    assert predictor.pixels == PixelFormat(4, "uint16", (0, 4095))
    sample = run.data.splits["val"][0]
    from_file = predictor(sample.image)
    np.testing.assert_array_equal(
        from_file.labels, predictor.predict_labels(run.data.read(sample)[0])
    )
    text = (tmp_path / "run" / "recipe.toml").read_text()
    assert load_recipe(tmp_path / "run" / "recipe.toml").data.value_range == (0, 4095), text


def test_commands_accept_images_with_many_channels(cli: Cli, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 6, name="{}.npy", blind=5)
    bundle = tmp_path / "run" / "best.safetensors"
    settings = [
        f"--set={key}={value}"
        for key, value in (("model.options.backbone", "tiny"), ("memory_format", "contiguous"))
    ]
    done = cli(
        "train", root, "--out", tmp_path / "run", "--weights", "none", "--epochs", 1, *settings
    )
    assert done.code == 0, done.err
    assert "6 channels of 16 bits" in done.out
    done = cli("evaluate", bundle, root)
    assert done.code == 0, done.err
    done = cli("predict", bundle, root / "images", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert len(list((tmp_path / "out").iterdir())) == 12
    done = cli("doctor", root, "--html", tmp_path / "page.html")
    assert "6 channels of 16 bits" in done.out
    done = cli("convert-data", root, tmp_path / "plain")
    assert done.code == 0, done.err
    again = open_dataset(tmp_path / "plain")
    assert again.pixels == open_dataset(root).pixels


def test_evaluation_uses_the_value_range_of_the_bundle(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 4)
    stated = PixelFormat(4, "uint16", (0, 1023))
    data = open_dataset(root, pixels=stated)
    image, _ = data.read(data.splits["val"][0])
    raw = read_raw(data.splits["val"][0].image)
    np.testing.assert_allclose(image, raw.pixels * (255 / 1023), rtol=1e-5)
    with pytest.raises(InputError) as raised:
        open_dataset(root, pixels=RGB)
    assert len(raised.value.problems) == 4


@pytest.mark.parametrize(
    ("channels", "depth", "kind"), [(3, "uint16", "channels"), (4, "uint8", "depth")]
)
def test_an_image_that_differs_from_the_others_is_named(
    tmp_path: Path, channels: int, depth: str, kind: str
) -> None:
    root = write_folder(tmp_path / "data", 8)
    odd = root / "images" / "3.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, channels)).astype(depth)
    tifffile.imwrite(odd, pixels, photometric="rgb")
    line = one_problem(lambda: open_dataset(root))
    assert line.startswith(f"{odd}: has {channels} channels of")
    diagnosis = examine(root)
    (finding,) = [f for f in diagnosis.findings if f.stops]
    assert (finding.kind.id, finding.files) == (kind, (odd,))
    assert not diagnosis.trains


def test_the_value_range_comes_from_the_training_images(tmp_path: Path) -> None:
    for split, top in (("train", 1000), ("val", 60000)):
        for part in ("images", "masks"):
            (tmp_path / part / split).mkdir(parents=True)
        for number in range(2):
            write_png(
                tmp_path / "images" / split / f"{split}{number}.png", noise(3, "uint16", top=top)
            )
            mask = np.random.default_rng(number).integers(0, 2, (HEIGHT, WIDTH), dtype=np.uint8)
            Image.fromarray(mask).save(tmp_path / "masks" / split / f"{split}{number}.png")
    data = open_dataset(tmp_path)
    assert data.pixels.value_range == (0, 1023)
    image, _ = data.read(data.splits["val"][0])
    assert image.max() > 10_000  # beyond the range, not clipped
    assert open_dataset(tmp_path, value_range=(0, 50)).pixels.value_range == (0, 50)
