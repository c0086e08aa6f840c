"""Test-time augmentation: what is averaged, and at which sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fixture_types import Cli, MakeData
from pixelwise.data.classes import Classes
from pixelwise.errors import InputError
from pixelwise.inference import InferenceOptions, Predictor
from pixelwise.inference.tta import TTA

CLASSES = Classes.make(["one", "two"])


class Runtime:
    """Logits 0 for the first class, and `second(image)` for the second."""

    name = "formula"

    def __init__(self, second: Callable[[np.ndarray], np.ndarray]) -> None:
        self.second = second
        self.sizes: list[tuple[int, int]] = []

    def logits(self, image: np.ndarray) -> np.ndarray:
        self.sizes.append((image.shape[0], image.shape[1]))
        found = self.second(image).astype(np.float32)
        return np.stack([np.zeros_like(found), found])

    def predict_labels(self, image: np.ndarray) -> np.ndarray:
        return self.logits(image).argmax(axis=0).astype(np.uint8)


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_probabilities_are_averaged_instead_of_logits() -> None:
    """1/2 and 1/2 at full size, 1/4 and 3/4 at half size: 3/8 and 5/8 on average."""
    runtime = Runtime(lambda x: np.full(x.shape[:2], np.log(3) if len(x) == 5 else 0.0))
    found = TTA((1.0, 0.5)).probabilities(photo(10, 12), runtime.logits)
    assert runtime.sizes == [(10, 12), (5, 6)]
    assert np.allclose(found[:, 3, 4], [3 / 8, 5 / 8])
    predicted = Predictor(runtime, CLASSES, options=InferenceOptions(scales=(1, 0.5)))(
        photo(10, 12)
    )
    assert np.allclose(predicted.probabilities, found, atol=1e-6)
    assert (predicted.labels == 1).all()


def test_the_output_of_a_mirrored_view_is_mirrored_back() -> None:
    """A network that returns the column: for a mirrored image, W - 1 - x instead of x."""
    runtime = Runtime(lambda x: np.broadcast_to(np.arange(x.shape[1]), x.shape[:2]))
    found = TTA(flip=True).probabilities(photo(3, 8), runtime.logits)
    columns = np.arange(8)
    one, other = (1 / (1 + np.exp(-x)) for x in (columns, columns[::-1]))
    assert np.allclose(found[1], (one + other) / 2, atol=1e-6)


def test_views_are_aligned() -> None:
    """A network that returns the brightness, on a gradient, at every scale and mirrored."""
    gradient = np.repeat(np.linspace(0, 255, 96)[None, :, None], 40, axis=0).repeat(3, axis=2)
    image = gradient.astype(np.uint8)
    runtime = Runtime(lambda x: x[..., 0] / 50)
    found = TTA((0.5, 1.0, 1.5), flip=True).probabilities(image, runtime.logits)
    alone = TTA().probabilities(image, runtime.logits)
    assert len(runtime.sizes) == 7
    assert np.abs(found - alone)[:, 4:-4, 4:-4].max() < 0.01


def test_a_single_view_is_the_network_itself() -> None:
    runtime = Runtime(lambda x: x[..., 0] / 50.0)
    predictor = Predictor(runtime, CLASSES)
    assert (predictor.logits(photo(5, 6)) == runtime.logits(photo(5, 6))).all()


@pytest.mark.parametrize(
    ("scales", "message"),
    [((0,), "scale 0: allowed are 0.1 to 10"), ((float("nan"),), "scale nan"), ((1, 1), "twice")],
)
def test_invalid_scales_are_refused(scales: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        InferenceOptions(scales=scales)


def test_the_commands_accept_scales_and_flip(
    tiny_bundle: Path, cli: Cli, make_folder_data: MakeData, tmp_path: Path
) -> None:
    data = make_folder_data(tmp_path / "data", splits={"train": 1, "val": 2})
    plain = cli("evaluate", tiny_bundle, data, "--json", "-")
    views = ("--scales", "0.5,1,2", "--flip")
    averaged = cli("evaluate", tiny_bundle, data, *views, "--json", "-")
    assert (plain.code, averaged.code) == (0, 0), averaged.err
    one, other = json.loads(plain.out), json.loads(averaged.out)
    assert "scales" not in one
    assert (other["scales"], other["flip"]) == ([0.5, 1, 2], True)
    shown = cli("evaluate", tiny_bundle, data, *views)
    assert "scales 0.5, 1, 2, with flip" in shown.out
    assert cli("predict", tiny_bundle, data / "images/val", *views).code == 0
    for wrong in (("--scales", "half"), ("--scales", "0"), ("--tile", "big"), ("--tile", "0")):
        result = cli("predict", tiny_bundle, data / "images/val", *wrong)
        assert result.code == 2
        assert len(result.err.splitlines()) == 1
