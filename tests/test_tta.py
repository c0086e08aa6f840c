"""Several looks at an image: what is averaged, and from what sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import Result
from pixelwise.data.classes import Classes
from pixelwise.errors import InputError
from pixelwise.inference import Predictor
from pixelwise.inference.tta import TTA

CLASSES = Classes.make(["one", "two"])


class Runtime:
    """Logits 0 for the first class; for the second what `second` makes of an image."""

    name = "made up"

    def __init__(self, second: Callable[[np.ndarray], np.ndarray]) -> None:
        self.second = second
        self.seen: list[tuple[int, int]] = []

    def logits(self, image: np.ndarray) -> np.ndarray:
        self.seen.append((image.shape[0], image.shape[1]))
        found = self.second(image).astype(np.float32)
        return np.stack([np.zeros_like(found), found])

    def classify(self, image: np.ndarray) -> np.ndarray:
        return self.logits(image).argmax(axis=0).astype(np.uint8)


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_probabilities_are_averaged_and_not_logits() -> None:
    """At its own size 1/2 and 1/2, at half the size 1/4 and 3/4: 3/8 and 5/8."""
    runtime = Runtime(lambda x: np.full(x.shape[:2], np.log(3) if len(x) == 5 else 0.0))
    found = TTA((1.0, 0.5)).probabilities(photo(10, 12), runtime.logits)
    assert runtime.seen == [(10, 12), (5, 6)]
    assert np.allclose(found[:, 3, 4], [3 / 8, 5 / 8])
    predicted = Predictor(runtime, CLASSES, scales=(1, 0.5))(photo(10, 12))
    assert np.allclose(predicted.probabilities, found, atol=1e-6)
    assert (predicted.index == 1).all()


def test_a_mirrored_look_is_turned_back() -> None:
    """A network that goes by the column: mirrored it sees column W - 1 - x where x was."""
    runtime = Runtime(lambda x: np.broadcast_to(np.arange(x.shape[1]), x.shape[:2]))
    found = TTA(flip=True).probabilities(photo(3, 8), runtime.logits)
    columns = np.arange(8)
    one, other = (1 / (1 + np.exp(-x)) for x in (columns, columns[::-1]))
    assert np.allclose(found[1], (one + other) / 2, atol=1e-6)


def test_looks_lie_upon_each_other() -> None:
    """A network that is its image's brightness, on a slope, at every scale and mirrored."""
    slope = np.repeat(np.linspace(0, 255, 96)[None, :, None], 40, axis=0).repeat(3, axis=2)
    image = slope.astype(np.uint8)
    runtime = Runtime(lambda x: x[..., 0] / 50)
    found = TTA((0.5, 1.0, 1.5), flip=True).probabilities(image, runtime.logits)
    alone = TTA().probabilities(image, runtime.logits)
    assert len(runtime.seen) == 7
    assert np.abs(found - alone)[:, 4:-4, 4:-4].max() < 0.01


def test_one_look_is_the_network_itself() -> None:
    runtime = Runtime(lambda x: x[..., 0] / 50.0)
    predictor = Predictor(runtime, CLASSES)
    assert (predictor.logits(photo(5, 6)) == runtime.logits(photo(5, 6))).all()


@pytest.mark.parametrize(
    ("scales", "message"),
    [((0,), "scale 0: allowed are 0.1 to 10"), ((float("nan"),), "scale nan"), ((1, 1), "twice")],
)
def test_other_scales_are_refused(scales: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Predictor(Runtime(lambda x: x[..., 0]), CLASSES, scales=scales)


def test_the_commands_take_several_looks(
    tiny_bundle: Path,
    cli: Callable[..., Result],
    make_folder_data: Callable[..., Path],
    tmp_path: Path,
) -> None:
    data = make_folder_data(tmp_path / "data", splits={"train": 1, "val": 2})
    plain = cli("evaluate", tiny_bundle, data, "--json", "-")
    looks = ("--scales", "0.5,1,2", "--flip")
    several = cli("evaluate", tiny_bundle, data, *looks, "--json", "-")
    assert (plain.code, several.code) == (0, 0), several.err
    one, other = json.loads(plain.out), json.loads(several.out)
    assert "scales" not in one
    assert (other["scales"], other["flip"]) == ([0.5, 1, 2], True)
    shown = cli("evaluate", tiny_bundle, data, *looks)
    assert "scales 0.5, 1, 2, mirrored too" in shown.out
    assert cli("predict", tiny_bundle, data / "images/val", *looks).code == 0
    for wrong in (("--scales", "half"), ("--scales", "0"), ("--window", "big"), ("--window", "0")):
        result = cli("predict", tiny_bundle, data / "images/val", *wrong)
        assert result.code == 2
        assert len(result.err.splitlines()) == 1
