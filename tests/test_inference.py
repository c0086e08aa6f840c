"""Prediction gives the same masks through every interface and for every image size."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import pixelwise
from networks import noise, randomize, relative_difference, write_bundle
from pixelwise.crf import PARAMETER_SETS
from pixelwise.data.classes import Classes
from pixelwise.data.image_files import read_mask
from pixelwise.errors import InputError
from pixelwise.inference import InferenceOptions, Predictor, predict_folder
from pixelwise.inference.runtimes.torch.simplify import simplify
from pixelwise.models import create_model
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.normalization import IMAGENET

CLASSES = Classes.make(["soil", "plant <i>", "stone"], values=[0, 10, 200], ignore=255)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "model.safetensors"
    return write_bundle(path, "deeplab_v3plus", CLASSES, backbone="tiny", output_stride=16)


def test_folding_batch_norm_changes_only_rounding() -> None:
    model = randomize(create_model("deeplab_v3plus", num_classes=5))
    folded = simplify(model)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    x = noise(1, 3, 65, 97)
    with torch.no_grad():
        one, other = model(x), folded(x)
    assert relative_difference(one, other) < 1e-5
    assert any(
        isinstance(m, torch.nn.BatchNorm2d) for m in model.modules()
    )  # the original is unchanged


def test_the_predictor_equals_the_plain_network(bundle: Path) -> None:
    image = photo(37, 53)
    result = pixelwise.load(bundle)(image)
    mean, std = torch.tensor(IMAGENET.mean), torch.tensor(IMAGENET.std)
    x = ((torch.from_numpy(image).float() / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits = Bundle.load(bundle).build()(x)[0]
    assert np.allclose(result.logits, logits.numpy(), atol=1e-4)
    assert np.allclose(result.probabilities, logits.softmax(0).numpy(), atol=1e-5)
    assert (result.labels == logits.argmax(0).numpy()).all()
    assert set(np.unique(result.mask)) <= {0, 10, 200}  # the values of the training masks


def test_path_pillow_and_array_give_the_same_mask(bundle: Path, tmp_path: Path) -> None:
    predictor, image = pixelwise.load(bundle), photo(20, 31)
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path)
    masks = [predictor(x).mask for x in (image, path, str(path), Image.open(path))]
    assert all((masks[0] == mask).all() for mask in masks[1:])
    assert (masks[0] == predictor.classes.to_value(predictor.predict_labels(image))).all()
    assert [(r.mask == masks[0]).all() for r in predictor.stream([image, path])] == [True, True]


def test_command_and_python_write_the_same_files(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in (("a", (33, 50)), ("b", (1, 1)), ("c", (64, 48))):
        Image.fromarray(photo(*size)).save(folder / f"{name}.png")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pixelwise", "predict", str(bundle), str(folder)]
    subprocess.run([*command, "--out", str(out)], check=True, capture_output=True)
    assert sorted(p.name for p in out.iterdir()) == [
        f"{name}{kind}.png" for name in "abc" for kind in ("", "_overlay")
    ]
    predictor = pixelwise.load(bundle)
    for name in "abc":
        result = predictor(folder / f"{name}.png")
        assert (read_mask(out / f"{name}.png") == result.mask).all()
        with Image.open(out / f"{name}.png") as written:
            assert written.mode == "P"
            assert bytes(written.getpalette()) == CLASSES.palette()
        with Image.open(out / f"{name}_overlay.png") as written:
            assert (np.asarray(written) == np.asarray(result.overlay())).all()


def test_images_with_the_same_stem_do_not_overwrite_each_other(
    bundle: Path, tmp_path: Path
) -> None:
    Image.fromarray(photo(8, 8)).save(tmp_path / "a.png")
    Image.fromarray(photo(8, 9)).save(tmp_path / "a.jpg")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pixelwise", "predict", str(bundle), str(tmp_path)]
    subprocess.run([*command, "--out", str(out)], check=True, capture_output=True)
    assert sorted(p.name for p in out.iterdir()) == [
        "a.jpg.png",
        "a.jpg_overlay.png",
        "a.png.png",
        "a.png_overlay.png",
    ]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60))
def test_every_image_size_gives_a_complete_result(height: int, width: int) -> None:
    torch.manual_seed(0)
    model = create_model("deeplab_v3plus", num_classes=3, backbone="tiny")
    result = Predictor.from_model(model, CLASSES, IMAGENET)(photo(height, width))
    assert result.mask.shape == (height, width)
    assert result.probabilities.shape == (3, height, width)
    assert np.allclose(result.probabilities.sum(axis=0), 1, atol=1e-5)
    assert sum(result.class_fractions().values()) == pytest.approx(1)
    overlay = result.overlay()
    assert overlay.width >= width
    assert overlay.height > height  # the legend is below
    assert result.overlay(legend=False).size == (width, height)


def test_an_overlay_of_opacity_0_is_the_image_and_of_opacity_1_the_colors(bundle: Path) -> None:
    result = pixelwise.load(bundle)(photo(12, 12))
    assert (np.asarray(result.overlay(opacity=0, legend=False)) == result.image).all()
    colors = CLASSES.color_table()[result.labels]
    assert (np.asarray(result.overlay(opacity=1, legend=False)) == colors).all()


def test_a_notebook_shows_the_overlay_and_escapes_names(bundle: Path) -> None:
    predictor = pixelwise.load(bundle)
    shown = [predictor(photo(16, 16, seed))._repr_html_() for seed in range(3)]
    assert all(text.startswith("<img ") and "base64" in text for text in shown)
    assert all("<i>" not in text for text in shown)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        None,
        3,
    ],
)
def test_anything_but_an_image_is_refused(bundle: Path, image: object) -> None:
    with pytest.raises(InputError, match="uint8 array of shape"):
        pixelwise.load(bundle)(image)  # type: ignore[arg-type]


def pillow_image(mode: str) -> Image.Image:
    """Return an image with colors and, if the mode has it, transparency."""
    color = Image.fromarray(photo(20, 31))
    if mode in {"RGBA", "RGBa", "LA", "La", "PA"}:
        color.putalpha(Image.fromarray(photo(20, 31, seed=1)[..., 0]))
    if mode in {"La", "RGBa"}:
        return color.convert({"La": "LA", "RGBa": "RGBA"}[mode]).convert(mode)
    if mode == "PA":
        return color.convert("RGB").convert("P").convert("PA")
    return color.convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK"])
def test_pillow_images_give_the_mask_of_their_colors(bundle: Path, mode: str) -> None:
    predictor, image = pixelwise.load(bundle), pillow_image(mode)
    result = predictor(image)
    np.testing.assert_array_equal(result.image, np.asarray(image.convert("RGB")))
    assert len(np.unique(result.image)) > 1
    np.testing.assert_array_equal(result.labels, predictor(result.image).labels)


@pytest.mark.parametrize("mode", ["La", "RGBa", "YCbCr", "HSV"])
def test_pillow_images_of_rare_modes_are_converted(bundle: Path, mode: str) -> None:
    image = pillow_image(mode)
    through = {"La": "LA", "RGBa": "RGBA"}.get(mode, "RGB")
    expected = np.asarray(image.convert(through).convert("RGB"))
    np.testing.assert_array_equal(pixelwise.load(bundle).prepare(image), expected)


@pytest.mark.parametrize("mode", ["I", "F", "I;16", "I;16B", "LAB"])
def test_pillow_images_that_rgb_cannot_hold_are_refused(
    bundle: Path, mode: str, tmp_path: Path
) -> None:
    """The same values in a file are refused, too."""
    values = photo(20, 31)[..., 0].astype(np.int32) * 100
    if mode == "LAB":
        image = Image.new("LAB", (31, 20))
    elif mode == "F":
        image = Image.fromarray(values.astype(np.float32))
    else:
        image = Image.fromarray(values).convert(mode)
    assert image.mode == mode
    predictor = pixelwise.load(bundle)
    with pytest.raises(InputError, match=f"image of mode {mode}: "):
        predictor(image)
    image.save(tmp_path / "deep.tif")
    with pytest.raises(InputError, match=r"deep\.tif: "):
        predictor(tmp_path / "deep.tif")


def test_pillow_images_whose_file_has_16_bits_are_refused(bundle: Path, tmp_path: Path) -> None:
    """Pillow would open the file as 8-bit RGB."""
    rows = b"".join(b"\0" + photo(20, 31 * 2)[row].tobytes() for row in range(20))
    header = struct.pack(">IIBBBBB", 31, 20, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    path = tmp_path / "deep.png"
    path.write_bytes(data)
    predictor = pixelwise.load(bundle)
    with Image.open(path) as image:
        for given in (path, image):
            with pytest.raises(InputError, match="16 bits"):
                predictor(given)


def test_damaged_and_empty_pillow_images_are_refused(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(photo(40, 40)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    predictor = pixelwise.load(bundle)
    refused = pytest.raises(InputError, match="image of mode RGB: is damaged or cut off")
    with Image.open(path) as image, refused:
        predictor(image)
    with pytest.raises(InputError, match="has no pixels"):
        predictor(Image.new("RGB", (0, 5)))


def test_threads_may_share_an_image_that_is_not_loaded_yet(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(300, 200)).save(path, exif=exif)
    predictor = pixelwise.load(bundle)
    expected = predictor.prepare(path)
    assert expected.shape == (200, 300, 3)
    for _ in range(5):
        with Image.open(path) as image, ThreadPoolExecutor(8) as pool:
            for found in pool.map(predictor.prepare, [image] * 8):
                np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "dtype", [*"?bhHiIlLqQefdgFDGSUVOmM", ">u2", ">f4", "i1,i1"], ids=lambda dtype: f"dtype {dtype}"
)
def test_arrays_of_other_types_are_refused(bundle: Path, dtype: str) -> None:
    with pytest.raises(InputError, match="uint8 array of shape"):
        pixelwise.load(bundle)(np.zeros((4, 4, 3), dtype))


def test_views_and_masked_arrays(bundle: Path) -> None:
    predictor, image = pixelwise.load(bundle), photo(20, 31)
    view = image[::-1, ::2, ::-1]
    np.testing.assert_array_equal(predictor.logits(view), predictor.logits(view.copy()))
    np.testing.assert_array_equal(predictor(view).image, view)
    whole = np.ma.masked_array(image)
    assert type(predictor(whole).image) is np.ndarray
    whole[3, 4] = np.ma.masked
    with pytest.raises(InputError, match="masked values"):
        predictor(whole)


def test_an_address_is_shown_as_it_was_given(bundle: Path) -> None:
    for address in ("https://example.org/a.png", "s3://bucket/a.png"):
        for use in (pixelwise.load(bundle), pixelwise.load):
            with pytest.raises(InputError, match=f"^{address}: ") as refused:
                use(address)
            assert refused.value.problems[0].startswith(f"{address}: ")


@pytest.mark.parametrize("name", ["fcn_resnet_dilated", "deeplab_v3"])
def test_normalizations_outside_a_sequential_are_folded_too(name: str) -> None:
    model = randomize(create_model(name, num_classes=2, backbone="resnet50"))
    folded = simplify(model)
    left = [n for n, m in folded.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [n for n in left if not n.startswith("auxiliary")] == []  # not used in prediction
    x = noise(1, 3, 33, 47)
    with torch.no_grad():
        one, other = model(x), folded(x)
    assert relative_difference(one, other) < 1e-5


def test_a_convolution_that_two_normalizations_share_is_left() -> None:
    class Shared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 4, 3)
            self.one, self.other = torch.nn.BatchNorm2d(4), torch.nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.convolution(x)
            return self.one(y) + 2 * self.other(y)

    model = Shared().eval()
    x = torch.randn(1, 3, 9, 9)
    with torch.no_grad():
        assert torch.equal(simplify(model)(x), model(x))


def test_reprs_are_short(bundle: Path) -> None:
    predictor = pixelwise.load(bundle)
    result = predictor(np.zeros((16, 12, 3), np.uint8))
    assert repr(result).startswith("Prediction(12x16 pixels: ")
    assert repr(predictor).startswith("Predictor(runtime='torch', 3 classes, RGB, 8 bits, ")
    assert max(len(repr(one)) for one in (predictor, result)) < 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "x"}, "runtime 'x': allowed are auto, torch, openvino"),
        ({"runtime": "onnx", "device": "cpu"}, "leave one of the two out"),
        ({"tile": 0}, "tile 0: allowed are auto, none and a number of pixels"),
        ({"scales": (0.5, 0.5)}, "scale 0.5: is given twice"),
        ({"crf": "v9"}, "v9"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        InferenceOptions(**options)


def test_options_resolve_names_and_are_plain_json() -> None:
    options = InferenceOptions(crf="camvid", scales=[1, 0.5], tile=500)
    assert options.crf == PARAMETER_SETS["camvid"]
    assert json.loads(json.dumps(options.to_json())) == {
        "runtime": "auto",
        "device": None,
        "crf": PARAMETER_SETS["camvid"].to_json(),
        "tile": 500,
        "scales": [1.0, 0.5],
        "flip": False,
        "value_range": None,
    }
    assert options == InferenceOptions(crf=PARAMETER_SETS["camvid"], scales=(1, 0.5), tile=500)


def test_predict_folder_accepts_a_folder_or_files(bundle: Path, tmp_path: Path) -> None:
    for name in "ab":
        Image.fromarray(photo(9, 9)).save(tmp_path / f"{name}.png")
    predictor = pixelwise.load(bundle)
    given = [str(tmp_path), [tmp_path / "b.png", str(tmp_path / "a.png")], tmp_path / "a.png"]
    for number, images in enumerate(given):
        out = tmp_path / f"out{number}"
        assert predict_folder(predictor, images, str(out), overlay=False).written == 2 - number // 2
        assert len(list(out.iterdir())) == 2 - number // 2


def test_importing_the_predictor_imports_no_torch() -> None:
    code = "import sys, pixelwise.inference; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
