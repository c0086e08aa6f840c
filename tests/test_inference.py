"""Prediction gives the same masks through every interface and for every image size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import pixelwise
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
    torch.manual_seed(0)
    options = {"backbone": "tiny", "output_stride": 16}
    model = create_model("deeplab_v3plus", num_classes=3, **options)
    for module in model.modules():  # realistic statistics, as after training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2)
    path = tmp_path_factory.mktemp("bundle") / "model.safetensors"
    Bundle("deeplab_v3plus", options, CLASSES, IMAGENET, model.state_dict()).save(path)
    return path


def test_folding_batch_norm_changes_only_rounding() -> None:
    torch.manual_seed(0)
    model = create_model("deeplab_v3plus", num_classes=5).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2)
    folded = simplify(model)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        one, other = model(x), folded(x)
    assert ((one - other).abs().max() / (one.max() - one.min())).item() < 1e-5
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


@pytest.mark.parametrize("name", ["fcn_resnet_dilated", "deeplab_v3"])
def test_normalizations_outside_a_sequential_are_folded_too(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=2, backbone="resnet50").eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    folded = simplify(model)
    left = [n for n, m in folded.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [n for n in left if not n.startswith("auxiliary")] == []  # not used in prediction
    x = torch.randn(1, 3, 33, 47)
    with torch.no_grad():
        one, other = model(x), folded(x)
    assert ((one - other).abs().max() / (one.max() - one.min())).item() < 1e-5


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
