"""Temperatures and the limit for unfamiliar images: fitted, measured, stored and applied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pixelwise
from fixture_types import Cli, MakeData
from pixelwise import AnswerOptions, InputError, Predictor
from pixelwise.data.classes import IGNORE, Classes
from pixelwise.evaluation import calibrate
from pixelwise.evaluation.logit_samples import divide_in_halves
from pixelwise.inference import predict_folder
from pixelwise.inference.export_manifest import MANIFEST, ExportManifest
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.bundle_header import bundle_digest
from pixelwise.weights.stored_calibration import (
    StoredCalibration,
    read_calibration,
    write_calibration,
)

CLASSES = Classes.make(("a", "b", "c"), ignore=IGNORE)
STORED = StoredCalibration(2.5, 1.25, 0.05, 20)


class Planted:
    """A runtime whose calibrated logits are the channels of the image, divided by `temperature`."""

    name = "planted"

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def logits(self, image: Any) -> np.ndarray[Any, Any]:
        values = np.moveaxis(np.asarray(image, np.float32), 2, 0) / 64
        return np.ascontiguousarray(values * self.temperature)

    def predict_labels(self, image: Any) -> np.ndarray[Any, Any]:
        return self.logits(image).argmax(axis=0).astype(np.uint8)


def planted_data(folder: Path, *, count: int, names: str = "s{}_{:03d}") -> Path:
    """Write images whose labels are drawn with the probabilities softmax(channels / 64)."""
    rng = np.random.default_rng(0)
    for part in ("images/val", "masks/val", "images/train", "masks/train"):
        (folder / part).mkdir(parents=True)
    for split in ("train", "val"):
        for i in range(count if split == "val" else 1):
            image = rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)
            weights = np.exp(image / 64)
            ends = np.cumsum(weights / weights.sum(axis=2, keepdims=True), axis=2)
            mask = (rng.random((60, 60, 1)) > ends).sum(axis=2).clip(0, 2).astype(np.uint8)
            mask[:3] = IGNORE
            name = names.format(i % 2, i) + ("" if split == "val" else "t")
            Image.fromarray(image).save(folder / "images" / split / f"{name}.png")
            Image.fromarray(mask).save(folder / "masks" / split / f"{name}.png")
    return folder


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_planted_temperature_is_found(tmp_path: Path, temperature: float) -> None:
    root = planted_data(tmp_path, count=8)
    data = pixelwise.open_dataset(root, classes=CLASSES, quiet=True)
    report = calibrate(Predictor(Planted(temperature), CLASSES), data)
    assert report.stored.temperature == pytest.approx(temperature, rel=0.05)
    before, after = report.before, report.after
    assert after.negative_log_likelihood <= before.negative_log_likelihood
    # Labels drawn from the probabilities: what remains is noise of about 1 / sqrt(pixels).
    assert after.expected_calibration_error < 0.01
    if temperature != 1:
        assert after.expected_calibration_error < before.expected_calibration_error / 2
    assert (report.stored.images, report.pixels) == (8, 8 * 57 * 60)


def test_a_temperature_that_does_not_help_the_other_half_is_not_stored(tmp_path: Path) -> None:
    """One sequence is overconfident, and the other one the opposite."""

    class Opposite(Planted):
        def logits(self, image: Any) -> np.ndarray[Any, Any]:
            self.temperature = 4.0 if image[-1, -1, 0] == 1 else 0.25
            return super().logits(image)

    root = planted_data(tmp_path, count=4)
    for path in (root / "images" / "val").iterdir():
        pixels = np.asarray(Image.open(path)).copy()
        pixels[-1, -1, 0] = path.name.startswith("s1")
        Image.fromarray(pixels).save(path)
    data = pixelwise.open_dataset(root, classes=CLASSES, quiet=True)
    report = calibrate(Predictor(Opposite(1.0), CLASSES), data)
    assert report.stored.temperature == 1
    assert report.after == report.before


def test_halves_do_not_share_a_sequence() -> None:
    names = [f"seq{s}_{i:03d}.png" for s in "abc" for i in range({"a": 4, "b": 3, "c": 2}[s])]
    first, second = divide_in_halves(names)
    assert first | second == set(range(9))
    assert first & second == set()
    assert {names[i][:4] for i in first} & {names[i][:4] for i in second} == set()
    assert divide_in_halves([f"{i:03d}.png" for i in range(5)]) == ({0, 1}, {2, 3, 4})


def test_one_image_is_refused(tmp_path: Path) -> None:
    data = pixelwise.open_dataset(planted_data(tmp_path, count=1), classes=CLASSES, quiet=True)
    with pytest.raises(InputError, match="1 images of val have labeled pixels"):
        calibrate(Predictor(Planted(1.0), CLASSES), data)


def test_a_temperature_changes_probabilities_and_no_label() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    plain = Predictor(Planted(2.5), CLASSES)(image)
    scaled = Predictor(Planted(2.5), CLASSES, calibration=STORED)(image)
    assert np.array_equal(plain.labels, scaled.labels)
    assert np.array_equal(plain.logits, scaled.logits)
    expected = np.exp(np.moveaxis(image / 64, 2, 0))
    assert np.allclose(scaled.probabilities, expected / expected.sum(axis=0), atol=1e-5)
    assert np.array_equal(scaled.confidence, scaled.probabilities.max(axis=0))


def test_tta_keeps_its_labels_and_flags_nothing() -> None:
    """The temperature applies to the mean of the views."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    options = pixelwise.InferenceOptions(flip=True)
    plain = Predictor(Planted(2.5), CLASSES, options=options)(image)
    scaled = Predictor(Planted(2.5), CLASSES, options=options, calibration=STORED)(image)
    assert np.array_equal(plain.labels, scaled.labels)
    powers = plain.probabilities ** (1 / 2.5)
    assert np.allclose(scaled.probabilities, powers / powers.sum(axis=0), atol=1e-5)
    assert scaled.flagged is None


# --- unfamiliar images -----------------------------------------------------------------------


def test_unfamiliar_images_are_flagged(tmp_path: Path) -> None:
    """The familiarity is the mean of log(sum(exp(logits)))."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for name, least in (("usual", 0), ("bright", 200), ("dark", 0)):
        pixels = rng.integers(least, 256, (20, 20, 3), dtype=np.uint8) // (
            8 if name == "dark" else 1
        )
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}.png")
    usual = np.asarray(Image.open(folder / "usual.png")) / 64
    limit = float(np.log(np.exp(usual).sum(axis=2)).mean()) - 0.01
    predictor = Predictor(
        Planted(1.0), CLASSES, calibration=StoredCalibration(1.5, limit, 0.05, 20)
    )
    assert predictor(folder / "usual.png").flagged is False
    assert predictor(folder / "dark.png").flagged is True
    assert Predictor(Planted(1.0), CLASSES)(folder / "dark.png").flagged is None
    pytest.importorskip("scipy")
    options = AnswerOptions(table=tmp_path / "areas.json")
    result = predict_folder(predictor, folder, tmp_path / "out", answers=options)
    assert result.flagged == (str(folder / "dark.png"),)
    rows = json.loads(options.table.read_text())["rows"]
    assert {row["image"] for row in rows if row["flagged"]} == set(result.flagged)
    assert predict_folder(predictor, folder, tmp_path / "out").flagged == ()


def test_the_limit_flags_the_stated_fraction_of_val(tmp_path: Path) -> None:
    root = planted_data(tmp_path, count=40)
    data = pixelwise.open_dataset(root, classes=CLASSES, quiet=True)
    predictor = Predictor(Planted(1.0), CLASSES)
    report = calibrate(predictor, data)
    predictor.calibration = report.stored
    flagged = [predictor(data.read(sample)[0]).flagged for sample in data.splits["val"]]
    assert sum(flagged) == 2
    assert 0 <= report.stored.false_alarms <= 0.2


# --- storage ---------------------------------------------------------------------------------


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    path = tmp_path / "b.safetensors"
    path.write_bytes(tiny_bundle.read_bytes())
    return path


def test_a_bundle_keeps_its_digest_and_weights(bundle: Path) -> None:
    before, digest = Bundle.load(bundle), bundle_digest(bundle)
    assert read_calibration(bundle) is None
    for stored in (STORED, StoredCalibration(0.5, -3.0, 0.0, 7)):
        write_calibration(bundle, stored)
        assert read_calibration(bundle) == stored
        assert bundle_digest(bundle) == digest
        after = Bundle.load(bundle)
        assert all((after.weights[k] == v).all() for k, v in before.weights.items())
        assert pixelwise.load(bundle, runtime="torch").calibration == stored
    once = bundle.read_bytes()
    write_calibration(bundle, stored)
    assert bundle.read_bytes() == once


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"temperature": 0}', "1e999", "nan"])
def test_a_damaged_calibration_is_an_error(bundle: Path, tmp_path: Path, text: str) -> None:
    whole = {**STORED.to_json(), "temperature": -1.0}
    for content in (text, json.dumps(whole), json.dumps({**whole, "temperature": 1e999})):
        (tmp_path / "calibration.json").write_text(content)
        with pytest.raises(InputError, match="its calibration is damaged: calibrate it again"):
            read_calibration(tmp_path)


def test_calibrate_stores_with_the_bundle_and_its_exports(
    cli: Cli, exported: Path, make_folder_data: MakeData, tmp_path: Path
) -> None:
    """Exports and the journal of an unfinished run stay valid, and a new export is calibrated."""
    import shutil

    from networks import EXPORTED_CLASSES

    for path in exported.parent.iterdir():
        if path.is_dir():
            shutil.copytree(path, tmp_path / path.name)
        else:
            shutil.copy(path, tmp_path)
    bundle = tmp_path / exported.name
    splits = {"train": 1, "val": 3}
    values = EXPORTED_CLASSES.values
    data = make_folder_data(
        tmp_path / "data", splits=splits, size=(48, 64), values=values, classes=EXPORTED_CLASSES
    )
    manifest = tmp_path / "net-openvino" / MANIFEST
    before = manifest.read_bytes(), pixelwise.load(bundle, runtime="openvino").to_json()
    done = cli("calibrate", bundle, data, "--json", "r.json")
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert len(report["written"]) == 3
    for runtime in ("torch", "openvino", "onnx"):
        stored = pixelwise.load(bundle, runtime=runtime).calibration
        assert stored == read_calibration(bundle) == StoredCalibration.from_json(report)
    after = manifest.read_bytes(), pixelwise.load(bundle, runtime="openvino").to_json()
    assert after == before
    ExportManifest.load(tmp_path / "net-openvino")
    write_calibration(bundle, STORED)
    pixelwise.export(bundle, to="openvino", quiet=True)  # replaces the calibrated one
    assert read_calibration(tmp_path / "net-openvino") == STORED
    report = pixelwise.calibrate(tmp_path / "net-onnx", data, quiet=True)
    assert read_calibration(tmp_path / "net-onnx") == report.stored
    assert read_calibration(bundle) == STORED


def test_an_export_without_calibration_takes_that_of_its_bundle(
    exported: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(exported.parent, tmp_path, dirs_exist_ok=True)
    bundle = tmp_path / exported.name
    write_calibration(bundle, STORED)
    assert pixelwise.load(bundle, runtime="onnx").calibration == STORED
    assert pixelwise.load(tmp_path / "net-onnx").calibration is None
