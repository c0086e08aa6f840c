"""Offsets of the classes: fitted, measured on other images, and stored in the network."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pixelwise
from networks import noise, randomize
from pixelwise import InputError, Predictor
from pixelwise.data.classes import IGNORE, Classes, write_classes_toml
from pixelwise.evaluation import tune_bias
from pixelwise.evaluation.logit_samples import SampledLogits
from pixelwise.evaluation.tune_bias import OFFSETS, fit_offsets
from pixelwise.models import create_model
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.logit_offsets import add_to_logits, offset_logits

CLASSES = Classes.make(("a", "b", "c"), ignore=IGNORE)


class Biased:
    """A runtime whose logits are the channels of the image and a bias that hides class c."""

    name = "biased"

    def logits(self, image: Any) -> np.ndarray[Any, Any]:
        values = np.moveaxis(np.asarray(image, np.float32), 2, 0) / 64
        values[2] -= 1.5
        return np.ascontiguousarray(values)

    def predict_labels(self, image: Any) -> np.ndarray[Any, Any]:
        return self.logits(image).argmax(axis=0).astype(np.uint8)


def write_data(folder: Path, count: int) -> Path:
    """Write noise whose masks name the brightest channel, with a frame that is ignored."""
    rng = np.random.default_rng(0)
    for part, i in product(("train", "val"), range(count)):
        image = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        mask = image.argmax(axis=2).astype(np.uint8)
        mask[:3] = IGNORE
        for kind, pixels in (("images", image), ("masks", mask)):
            (folder / kind / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / part / f"{part}_{i:02d}.png")
    return folder


def mean_iou(logits: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float:
    predicted = logits.argmax(axis=1)
    return float(
        np.mean(
            [
                ((predicted == c) & (truth == c)).sum() / ((predicted == c) | (truth == c)).sum()
                for c in np.unique(truth)
            ]
        )
    )


def test_a_planted_bias_is_found_and_the_gain_is_measured_on_other_images(tmp_path: Path) -> None:
    data = pixelwise.open_dataset(write_data(tmp_path, 4), classes=CLASSES, quiet=True)
    tuning = tune_bias(Predictor(Biased(), CLASSES), data)
    a, b, c = tuning.offsets
    assert c - (a + b) / 2 == pytest.approx(1.5, abs=0.11)
    assert a == pytest.approx(b, abs=0.11)
    assert tuning.before.mean_iou < 0.6 < 0.95 < tuning.after.mean_iou
    assert tuning.before.accuracy[2] < 0.3 < 0.95 < tuning.after.accuracy[2]
    assert tuning.images == 4
    assert tuning.after.pixels == 4 * 45 * 64


def test_offsets_that_do_not_help_the_other_half_are_not_kept(tmp_path: Path) -> None:
    """In the second half of the images, another class is hidden than in the first."""

    class Changing(Biased):
        def logits(self, image: Any) -> np.ndarray[Any, Any]:
            values = super().logits(image)
            return (
                values
                if image[0, 0, 0] == 0
                else values - np.float32([1.5, 0, -1.5])[:, None, None]
            )

    root = write_data(tmp_path, 4)
    for i, path in enumerate(sorted((root / "images/val").iterdir())):
        image = np.array(Image.open(path))
        image[0, 0, 0] = 0 if i < 2 else 255  # ignored in the mask
        Image.fromarray(image).save(path)
    data = pixelwise.open_dataset(root, classes=CLASSES, quiet=True)
    tuning = tune_bias(Predictor(Changing(), CLASSES), data)
    assert not tuning.helps
    assert not tuning.offsets.any()


def test_each_offset_is_the_best_of_all() -> None:
    """The fast search over all offsets of a class agrees with scoring each of them."""
    rng = np.random.default_rng(1)
    truth = rng.choice(5, 3000, p=[0.5, 0.3, 0.15, 0.05, 0]).astype(np.uint8)
    logits = rng.normal(size=(3000, 5)).astype(np.float32)
    logits[np.arange(3000), truth] += 1
    logits[:, 3] -= 1
    images = [
        SampledLogits("x", part, t, 0.0)
        for part, t in zip(np.split(logits, 3), np.split(truth, 3), strict=True)
    ]
    offsets = fit_offsets(images)
    best = mean_iou(logits + offsets, truth)
    assert best > mean_iou(logits, truth) + 0.01
    assert offsets[4] == 0  # no pixel of the class: nothing is known about it
    for index, offset in product(range(4), OFFSETS):
        changed = offsets.copy()
        changed[index] = offset
        assert mean_iou(logits + changed, truth) <= best + 1e-6


NETWORKS: dict[str, dict[str, Any]] = {
    "deeplab_v1": {"multi_scale": True},
    "deeplab_v2": {"backbone": "vgg16"},
    "deeplab_v3": {"backbone": "tiny"},
    "deeplab_v3plus": {"backbone": "tiny", "output_stride": 16, "stride_2_skip": True},
    "fcn8s": {},
    "fcn_resnet": {"backbone": "resnet18", "upsampling": "interpolate"},
    "lraspp": {"backbone": "mobilenet_v3_large"},
}


@pytest.mark.parametrize("name", ["deeplab_v3", "deeplab_v3plus", "lraspp"])
def test_the_logits_of_a_network_shift_by_the_offsets(name: str) -> None:
    model = randomize(create_model(name, num_classes=4, **NETWORKS[name]))
    images, offsets = noise(2, 3, 70, 90), torch.tensor([0.5, -1.0, 0.0, 2.0])
    with torch.no_grad():
        before = model(images)
        add_to_logits(model, offsets)
        torch.testing.assert_close(model(images), before + offsets[:, None, None])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deeplab_v1", "deeplab_v2", "fcn8s", "fcn_resnet"])
def test_the_logits_of_a_large_network_shift_by_the_offsets(name: str) -> None:
    test_the_logits_of_a_network_shift_by_the_offsets(name)


def test_a_network_without_such_a_bias_is_refused_and_unchanged() -> None:
    model = randomize(create_model("deeplab_v3", num_classes=4, backbone="tiny"))
    model.head.classify = torch.nn.Sequential(model.head.classify, torch.nn.Softplus())
    with torch.no_grad():
        before = model(noise(1, 3, 64, 64))
        with pytest.raises(InputError, match="no bias of its head adds equally to all logits"):
            add_to_logits(model, torch.tensor([0.5, -1.0, 0.0, 2.0]))
        assert torch.equal(model(noise(1, 3, 64, 64)), before)


@pytest.fixture
def hidden(tiny_bundle: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A bundle that hardly predicts its third class, and a dataset on which it once was right."""
    bundle = Bundle.load(tiny_bundle)
    predictor = pixelwise.load(tiny_bundle, runtime="torch")
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    for part, i in product(("train", "val"), range(4)):
        image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
        for kind, pixels in (("images", image), ("masks", predictor(image).labels)):
            (root / kind / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / kind / part / f"{part}_{i:02d}.png")
    write_classes_toml(root / "classes.toml", bundle.classes)
    path = tmp_path / "hidden.safetensors"
    offset_logits(bundle, dict(zip(bundle.classes.names, (0, 0, -0.5), strict=True))).save(path)
    return path, root


def test_the_command_writes_a_bundle_with_a_higher_score(
    hidden: tuple[Path, Path], tmp_path: Path, cli: Any
) -> None:
    path, root = hidden
    result = cli("tune-bias", path, root, "--out", "tuned.safetensors", "--json", "-")
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert content["after"]["mean_iou"] > content["before"]["mean_iou"] + 0.02
    tuned = tmp_path / "tuned.safetensors"
    before, after = (pixelwise.evaluate(p, root, quiet=True).scores for p in (path, tuned))
    assert before.mean_iou == pytest.approx(content["before"]["mean_iou"])
    assert after.mean_iou >= content["after"]["mean_iou"]
    assert Bundle.load(tuned).scores["class_offsets"] == content["offsets"]

    image = np.full((50, 70, 3), 90, np.uint8)
    offsets = np.float32(list(content["offsets"].values()))[:, None, None]
    expected = pixelwise.load(path, runtime="torch").logits(image) + offsets
    np.testing.assert_allclose(
        pixelwise.load(tuned, runtime="torch").logits(image), expected, atol=1e-5
    )
    again = pixelwise.tune_bias(path, root, out=tmp_path / "again.safetensors", quiet=True)
    assert again.to_json()["offsets"] == content["offsets"]


def test_bad_calls_are_one_line(hidden: tuple[Path, Path], tmp_path: Path, cli: Any) -> None:
    path, root = hidden
    existing = path.read_bytes()
    for out, message in (
        (path, "is the bundle to tune: choose another --out"),
        (root / "classes.toml", "exists and was not written by this command"),
    ):
        result = cli("tune-bias", path, root, "--out", out)
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert message in result.err
    assert path.read_bytes() == existing
    for mask in sorted((root / "masks/val").iterdir())[1:]:
        Image.fromarray(np.full((64, 96), 255, np.uint8)).save(mask)
    result = cli("tune-bias", path, root, "--out", "t.safetensors")
    assert result.code == 2
    assert "1 images of val have labeled pixels" in result.err
    assert not (tmp_path / "t.safetensors").exists()
    with pytest.raises(InputError, match=r"hidden.*: offsets of \['x'\]: the classes are"):
        offset_logits(Bundle.load(path), {"x": 1.0})
