"""Several networks as one: mean probabilities, agreement of the networks, gain on val."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pixelwise
from fixture_types import Cli, MakeData
from pixelwise import InputError
from pixelwise.data.classes import Classes
from pixelwise.data.pixel_format import PixelFormat
from pixelwise.evaluation.calibrate import store_calibration
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.stored_calibration import StoredCalibration

torch = pytest.importorskip("torch")

SIZE = (32, 48)


@pytest.fixture
def bundles(tiny_bundle: Path, tmp_path: Path) -> list[Path]:
    """Three networks that predict different masks; the second is calibrated."""
    from pixelwise.models import create_model

    paths = []
    first = Bundle.load(tiny_bundle)
    for number in range(3):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number + 1)
            model = create_model(first.model, num_classes=len(first.classes), **first.options)
        paths.append(tmp_path / f"{number}.safetensors")
        replace(first, weights=model.state_dict()).save(paths[-1])
    store_calibration(paths[1], StoredCalibration(2.5, 0.0, 0.05, 9))
    return paths


def photo(seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def test_an_ensemble_predicts_the_mean_probability(bundles: list[Path]) -> None:
    ensemble = pixelwise.load(bundles, runtime="torch")
    each = [pixelwise.load(path, runtime="torch")(photo()).probabilities for path in bundles]
    result = ensemble(photo())
    expected = np.mean(each, axis=0)
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-6)
    np.testing.assert_array_equal(result.labels, expected.argmax(axis=0))
    np.testing.assert_array_equal(ensemble.segment(photo()).labels, result.labels)
    assert result.flagged is None
    assert any((one.argmax(axis=0) != result.labels).any() for one in each)


def test_views_are_averaged_over_all_networks(bundles: list[Path]) -> None:
    views: dict[str, Any] = {"runtime": "torch", "scales": (0.75, 1.0), "flip": True}
    result = pixelwise.load(bundles[::2], **views)(photo())
    each = [pixelwise.load(path, **views)(photo()).probabilities for path in bundles[::2]]
    np.testing.assert_allclose(result.probabilities, np.mean(each, axis=0), atol=1e-6)


@pytest.mark.slow
def test_each_network_cuts_large_images_as_it_does_alone(bundles: list[Path]) -> None:
    image = np.tile(photo(), (1, 20, 1))
    tiled = pixelwise.load(bundles[::2], runtime="torch", tile=672)(image)
    each = [pixelwise.load(p, runtime="torch", tile=672)(image).probabilities for p in bundles[::2]]
    np.testing.assert_allclose(tiled.probabilities, np.mean(each, axis=0), atol=1e-6)
    with pytest.raises(InputError, match="tile 64: the receptive field"):
        pixelwise.load(bundles[::2], runtime="torch", tile=64)


def test_an_ensemble_is_pickled_and_resumed_as_itself(bundles: list[Path], tmp_path: Path) -> None:
    ensemble = pixelwise.load(bundles, runtime="torch")
    copy = pickle.loads(pickle.dumps(ensemble))
    np.testing.assert_array_equal(copy.segment(photo()).labels, ensemble.segment(photo()).labels)
    before = ensemble.to_json()
    assert copy.to_json() == before
    store_calibration(bundles[2], StoredCalibration(1.5, 0.0, 0.05, 9))  # changes the masks
    assert pixelwise.load(bundles, runtime="torch").to_json() != before


def test_networks_that_do_not_agree_are_refused(bundles: list[Path], tmp_path: Path) -> None:
    first = Bundle.load(bundles[0])
    names = first.classes.names
    other = tmp_path / "other.safetensors"
    for changed, message in (
        (replace(first, classes=Classes.make(names[::-1])), "has in another order"),
        (replace(first, classes=Classes.make(("a", *names[1:]))), "has other classes"),
        (replace(first, pixels=PixelFormat(dtype="uint16", value_range=(0, 4095))), "takes images"),
    ):
        changed.save(other)
        with pytest.raises(InputError, match=message) as caught:
            pixelwise.load([bundles[0], other], runtime="torch")
        assert len(caught.value.problems) == 1
    for wrong, message in (([], "no network"), ([bundles[0]] * 2, "is given twice")):
        with pytest.raises(InputError, match=message):
            pixelwise.load(wrong, runtime="torch")


def test_evaluate_states_the_gain_beside_each_network(
    bundles: list[Path], make_folder_data: MakeData, cli: Cli, tmp_path: Path
) -> None:
    data = make_folder_data(tmp_path / "data", count=8)
    single = [pixelwise.evaluate(path, data, quiet=True) for path in bundles]
    together = pixelwise.evaluate(bundles, data, details=False, quiet=True)
    assert [*together.members] == [str(path) for path in bundles]
    for one, member in zip(single, together.members.values(), strict=True):
        assert member.scores.mean_iou == one.scores.mean_iou
    best = max(one.scores.mean_iou for one in single)
    assert together.gain is not None
    assert together.gain.mean == pytest.approx(together.scores.mean_iou - best)
    done = cli("evaluate", *bundles, data, "--json", "scores.json")
    assert done.code == 0, done.err
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["mean_iou"] == pytest.approx(together.scores.mean_iou)
    assert [row["mean_iou"] for row in scores["members"].values()] == [
        pytest.approx(one.scores.mean_iou) for one in single
    ]
    assert scores["gain"]["over"] == together.best_member
    assert f"gain over {together.best_member}: " in done.out.replace("\n", "")


def test_a_network_that_saw_images_of_val_is_named(
    bundles: list[Path], make_folder_data: MakeData, cli: Cli, tmp_path: Path
) -> None:
    """Without a val split, networks with other seeds were trained on images of this val."""
    data = make_folder_data(tmp_path / "data", count=8)
    for number, seed in enumerate((0, 0, 5)):
        replace(Bundle.load(bundles[number]), recipe={"seed": seed}).save(bundles[number])
    done = cli("evaluate", *bundles, data)
    assert done.code == 0, done.err
    named = [str(path) for path in bundles if f"{path} was trained with another val" in done.out]
    assert named == [str(bundles[2])]


def test_predict_takes_several_bundles(bundles: list[Path], cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo()).save(tmp_path / "photos" / "a.png")
    done = cli("predict", *bundles, "photos", "--runtime", "torch", "--out", "o")
    assert done.code == 0, done.err
    ensemble = pixelwise.load(bundles, runtime="torch")
    mask = np.asarray(Image.open(tmp_path / "o" / "a.png"))
    np.testing.assert_array_equal(mask, ensemble.segment(photo()).mask)
    for arguments, message in (
        ((*bundles,), "is no image: give the images after the bundles"),
        ((*bundles, "photos", "--large"), "tiles of an image need a single network"),
    ):
        done = cli("predict", *arguments, "--runtime", "torch", "--out", "p")
        assert done.code == 2
        assert message in done.err
        assert len(done.err.splitlines()) == 1
