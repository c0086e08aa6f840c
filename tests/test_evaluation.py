"""Metrics compared with values computed by hand, plain loops and torchmetrics."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelwise.data.classes import IGNORE
from pixelwise.errors import InputError
from pixelwise.evaluation import ConfusionMatrix, ImageCounts
from pixelwise.evaluation.bootstrap import interval, resampled_sums, score_intervals
from pixelwise.evaluation.boundary import BAND, TOLERANCE, boundary_scores, count_boundary
from pixelwise.evaluation.calibration import Calibration, confident_errors
from pixelwise.evaluation.confusion import ratios
from pixelwise.evaluation.image_counts import load_image_counts


def test_scores_match_values_computed_by_hand() -> None:
    matrix = ConfusionMatrix(3)
    truth = np.array([[0, 0, 0, 0, 1, 1, IGNORE, IGNORE]], dtype=np.uint8)
    predicted = np.array([[0, 0, 0, 1, 1, 0, 2, 0]], dtype=np.uint8)
    matrix.update(truth, predicted)
    assert matrix.counts.tolist() == [[3, 1, 0], [1, 1, 0], [0, 0, 0]]
    scores = matrix.scores()
    # IoU: class 0: 3 / (4 + 4 - 3), class 1: 1 / (2 + 2 - 1), class 2: neither true nor predicted.
    assert scores.iou[:2] == pytest.approx([3 / 5, 1 / 3])
    assert np.isnan(scores.iou[2])
    assert scores.mean_iou == pytest.approx((3 / 5 + 1 / 3) / 2)
    assert scores.pixel_accuracy == pytest.approx(4 / 6)
    assert scores.mean_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores.frequency_weighted_iou == pytest.approx(4 / 6 * 3 / 5 + 2 / 6 * 1 / 3)
    assert scores.pixels == 6
    # Dice: 2 * 3 / (4 + 4), 2 * 1 / (2 + 2). Precision: 3 / 4, 1 / 2, undefined for class 2.
    assert scores.dice[:2] == pytest.approx([6 / 8, 2 / 4])
    assert scores.mean_dice == pytest.approx((6 / 8 + 2 / 4) / 2)
    assert scores.precision[:2] == pytest.approx([3 / 4, 1 / 2])
    assert np.isnan(scores.dice[2])
    assert np.isnan(scores.precision[2])


def test_a_class_that_is_only_predicted_has_iou_zero() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.zeros((1, 4), np.uint8), np.array([[0, 0, 0, 1]], np.uint8))
    scores = matrix.scores()
    assert scores.iou.tolist() == [0.75, 0.0]
    assert scores.mean_iou == 0.375
    assert np.isnan(scores.accuracy[1])


def test_an_ignored_image_has_no_scores_and_valid_json() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.full((2, 2), IGNORE, np.uint8), np.zeros((2, 2), np.uint8))
    scores = matrix.scores()
    assert math.isnan(scores.mean_iou)
    plain = scores.to_json(("a", "b"))
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["classes"]["a"]["iou"] is None


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_the_matrix_matches_a_plain_loop_and_sums_over_images(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    matrix, expected = ConfusionMatrix(classes), np.zeros((classes, classes), np.int64)
    for _ in range(2):
        truth = rng.integers(0, classes, (5, 7)).astype(np.uint8)
        truth[rng.random(truth.shape) < 0.2] = IGNORE
        predicted = rng.integers(0, classes, (5, 7)).astype(np.uint8)
        matrix.update(truth, predicted)
        for t, p in zip(truth.ravel(), predicted.ravel(), strict=True):
            if t != IGNORE:
                expected[t, p] += 1
    assert (matrix.counts == expected).all()


def test_other_shapes_and_unknown_class_indices_raise_value_errors() -> None:
    matrix = ConfusionMatrix(2)
    with pytest.raises(ValueError, match="prediction"):
        matrix.update(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match="index"):
        matrix.update(np.zeros((2, 2), np.uint8), np.full((2, 2), 2, np.uint8))


# --- Counts by image, and the bootstrap


def random_pair(rng: np.random.Generator, *size: int, classes: int = 3) -> tuple[np.ndarray, ...]:
    """Return a mask of 2x2 blocks with ignored pixels, and a prediction that is half correct."""
    truth = rng.integers(0, classes, size).astype(np.uint8).repeat(2, 0).repeat(2, 1)
    predicted = np.where(
        rng.random(truth.shape) < 0.5, truth, rng.integers(0, classes, truth.shape)
    )
    truth[rng.random(truth.shape) < 0.15] = IGNORE
    return truth, predicted.astype(np.uint8)


def test_counts_of_images_sum_to_the_scores_of_the_split(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole, counts = ConfusionMatrix(3), []
    for _ in range(4):
        own = ConfusionMatrix(3)
        own.update(*random_pair(rng, 4, 5))
        whole.counts += own.counts
        counts.append(own.class_counts())
    image_counts = ImageCounts(("a", "b", "c", "d"), np.stack(counts))
    summed, scores = ratios(image_counts.counts.sum(axis=0)), whole.scores()
    assert summed["mean_iou"] == scores.mean_iou
    assert summed["precision"].tolist() == scores.precision.tolist()
    first = ConfusionMatrix(3)
    rng = np.random.default_rng(0)
    first.update(*random_pair(rng, 4, 5))
    assert image_counts.mean_iou["a"] == first.scores().mean_iou
    path = tmp_path / "images.safetensors"
    image_counts.save(path, classes=("sky", "road", "car"), split="val")
    read = load_image_counts(path)
    assert (read.classes, read.split) == (("sky", "road", "car"), "val")
    assert read.image_counts.names == image_counts.names
    assert (read.image_counts.counts == image_counts.counts).all()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="damaged"):
        load_image_counts(path)


def test_resamples_have_as_many_images_as_the_split_and_are_reproducible() -> None:
    counts = 100 ** np.arange(5)[:, None]  # each image uses two decimal digits of its own
    sums = resampled_sums(counts, resamples=120, seed=3)
    assert sums.shape == (120, 1)
    times = (sums // counts.T % 100).astype(int)
    assert (times.sum(axis=1) == 5).all()
    assert len(np.unique(times, axis=0)) > 50
    assert (sums == resampled_sums(counts, resamples=120, seed=3)).all()
    paired = resampled_sums(np.stack([counts, counts + 1], axis=1), resamples=120, seed=3)
    assert (paired[:, 1] - paired[:, 0] == 5).all()  # both used the same resamples


def test_intervals_contain_the_score_and_shrink_with_the_square_root_of_the_images() -> None:
    rng = np.random.default_rng(0)

    def accuracy(images: int) -> tuple[float, float]:
        correct = rng.binomial(1000, rng.beta(8, 2, images))  # on average 800 of 1000 pixels
        counts = np.zeros((images, 3, 2), dtype=np.int64)
        counts[:, 0, 0], counts[:, 1:, 0] = correct, 1000
        low, high = score_intervals(counts).values["pixel_accuracy"]
        assert low < correct.mean() / 1000 < high
        return low, high

    few, many = accuracy(50), accuracy(5000)
    # The interval of a mean is 2 * 1.96 standard errors wide.
    assert few[1] - few[0] == pytest.approx(2 * 1.96 * 0.121 / 50**0.5, rel=0.25)
    assert (few[1] - few[0]) / (many[1] - many[0]) == pytest.approx(10, rel=0.3)


def test_an_absent_class_has_no_interval() -> None:
    counts = np.array([[[3, 0], [4, 0], [5, 0]], [[1, 0], [2, 0], [2, 0]]])
    plain = score_intervals(counts).to_json(("a", "b"))
    assert plain["classes"]["b"]["iou"] is None
    low, high = plain["classes"]["a"]["iou"]
    # A quarter of the resamples has the first image twice, another quarter the second.
    assert (low, high) == pytest.approx((1 / 3, 3 / 6))
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert interval(np.array([0.0, 1, 2, 3, 4]), level=0.5).tolist() == [1, 3]


# --- Boundaries


def slow_boundary(
    truth: np.ndarray, predicted: np.ndarray, classes: int
) -> tuple[list[float], list[int], list[int]]:
    """Apply the definition in the docstring pixel by pixel."""
    predicted = np.where(truth == IGNORE, IGNORE, predicted)
    height, width = truth.shape
    diagonal = math.hypot(height, width)
    radius, band = max(1.0, TOLERANCE * diagonal), max(1, round(BAND * diagonal))
    pixels = list(np.ndindex(height, width))

    def boundary(mask: np.ndarray, number: int) -> list[tuple[int, ...]]:
        found = []
        for row, column in pixels:
            beside = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
            others = {int(mask[p]) for p in beside if 0 <= p[0] < height and 0 <= p[1] < width}
            if mask[row, column] == number and others - {number, IGNORE}:
                found.append((row, column))
        return found

    def in_band(mask: np.ndarray, number: int) -> set[tuple[int, ...]]:
        found = set()
        for row, column in pixels:
            rows, columns = (slice(max(0, c - band), c + band + 1) for c in (row, column))
            cut = row < band or column < band or row >= height - band or column >= width - band
            others = set(mask[rows, columns].ravel().tolist()) - {number, IGNORE}
            if mask[row, column] == number and (others or cut):
                found.add((row, column))
        return found

    f1, intersection, union = [], [], []
    for number in range(classes):
        ours, theirs = boundary(predicted, number), boundary(truth, number)
        matched = [
            [any(math.dist(p, q) <= radius for q in other) for p in own]
            for own, other in ((ours, theirs), (theirs, ours))
        ]
        if not ours and not theirs:
            f1.append(math.nan)
        elif not ours or not theirs:
            f1.append(0.0)
        else:
            precision, recall = (sum(hits) / len(hits) for hits in matched)
            both = precision + recall
            f1.append(2 * precision * recall / both if both else 0.0)
        bands = in_band(predicted, number), in_band(truth, number)
        intersection.append(len(bands[0] & bands[1]))
        union.append(len(bands[0] | bands[1]))
    return f1, intersection, union


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_boundary_counts_match_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = random_pair(rng, int(rng.integers(1, 8)), int(rng.integers(1, 8)))
    counts = count_boundary(truth, predicted, classes=3)
    f1, intersection, union = slow_boundary(truth, predicted, 3)
    assert counts.f1 == pytest.approx(f1, nan_ok=True)
    assert counts.intersection.tolist() == intersection
    assert counts.union.tolist() == union


def test_boundary_tolerance_grows_with_the_image() -> None:
    # A 300x400 image has a diagonal of 500: a tolerance of 3.75 pixels and a band of 10.
    truth = np.zeros((300, 400), np.uint8)
    truth[:, 200:] = 1
    scores = []
    for shift in (0, 4, 5):
        predicted = np.zeros_like(truth)
        predicted[:, 200 + shift :] = 1
        scores.append(count_boundary(truth, predicted, classes=2))
    # The boundary pixels of class 0 are in columns 199 and 199 + shift. 4 exceeds 3.75.
    assert scores[0].f1.tolist() == [1, 1]
    assert scores[1].f1.tolist() == [0, 0]
    predicted = np.zeros_like(truth)
    predicted[:, 203:] = 1
    assert count_boundary(truth, predicted, classes=2).f1.tolist() == [1, 1]
    # The band of class 0 has columns 190..199 in the truth and 195..204 in the prediction, and a
    # frame of 10 pixels along three sides, which differs in five columns.
    frame = 2 * 10 * 200 + 280 * 10
    intersection = frame + 280 * 5
    union = frame + 2 * 10 * 5 + 280 * 15
    assert (scores[2].intersection[0], scores[2].union[0]) == (intersection, union)


@pytest.mark.parametrize("classes", [8, 9, 64, 65, 150])
def test_boundary_counts_distinguish_many_classes(classes: int) -> None:
    rng = np.random.default_rng(classes)
    truth = rng.integers(classes - 3, classes, (6, 6)).astype(np.uint8).repeat(3, 0).repeat(3, 1)
    predicted = truth.copy()
    predicted[4:9, 2:11] = classes - 1
    few = count_boundary(truth - (classes - 3), predicted - (classes - 3), classes=3)
    many = count_boundary(truth, predicted, classes=classes)
    assert many.f1[-3:].tolist() == few.f1.tolist()
    assert many.intersection[-3:].tolist() == few.intersection.tolist()
    assert many.union[-3:].tolist() == few.union.tolist()
    assert np.isnan(many.f1[:-3]).all()


def test_boundary_scores_average_over_a_split() -> None:
    truth = np.zeros((8, 8), np.uint8)
    truth[:, 4:] = 1
    wrong = np.zeros((8, 8), np.uint8)
    counts = [count_boundary(truth, p, classes=3) for p in (truth, wrong)]
    scores = boundary_scores([*counts, count_boundary(wrong, wrong, classes=3)])
    # The third image has no boundary and does not affect F1.
    assert scores.f1[:2].tolist() == [0.5, 0.5]
    assert np.isnan(scores.f1[2])
    assert scores.mean_f1 == 0.5
    intersection = sum(c.intersection[1] for c in counts)
    assert scores.iou[1] == intersection / sum(c.union[1] for c in counts)
    assert scores.to_json(("a", "b", "c"))["classes"]["c"] == {
        "boundary_f1": None,
        "boundary_iou": None,
    }


# --- Calibration


def test_calibration_matches_values_computed_by_hand() -> None:
    calibration = Calibration()
    truth = np.array([[0, 0, 1, 1, IGNORE]], np.uint8)
    predicted = np.array([[0, 1, 1, 1, 0]], np.uint8)
    confidence = np.array([[0.95, 0.95, 0.97, 0.5, 0.99]], np.float32)
    calibration.update(truth, predicted, confidence)
    # The last of 15 bins has 0.95, 0.95 and 0.97, two of them correct. The bin up to 8/15 has 0.5.
    assert calibration.error == pytest.approx((abs(2 - 2.87) + abs(1 - 0.5)) / 4)
    rows = calibration.to_json()["reliability"]
    assert [row["pixels"] for row in rows] == [0] * 7 + [1] + [0] * 6 + [3]
    assert rows[-1]["accuracy"] == pytest.approx(2 / 3)
    assert rows[-1]["confidence"] == pytest.approx(2.87 / 3)
    assert rows[0]["accuracy"] is None
    assert confident_errors(truth, predicted, confidence).tolist() == [[False, True] + [False] * 3]
    assert math.isnan(Calibration().error)


def test_calibration_error_matches_torchmetrics() -> None:
    # torchmetrics 1.9.0: calibration_error(task="multiclass", n_bins=15, norm="l1").
    numbers = np.arange(400)
    confidence = (0.34 + 0.65 * (numbers * 37 % 101) / 101).astype(np.float32).reshape(20, 20)
    truth = np.zeros((20, 20), np.uint8)
    predicted = ((numbers * 13 % 7) < 2).astype(np.uint8).reshape(20, 20)
    calibration = Calibration()
    calibration.update(truth, predicted, confidence)
    assert calibration.error == pytest.approx(0.1603629, abs=1e-6)


def test_a_split_without_labeled_pixels_cannot_be_scored(
    make_folder_data: Any, tiny_bundle: Path, tmp_path: Path, cli: Any
) -> None:
    data = make_folder_data(tmp_path / "data", splits={"val": 2})
    for path in (data / "masks" / "val").iterdir():
        Image.fromarray(np.full((24, 32), IGNORE, np.uint8)).save(path)
    result = cli("evaluate", tiny_bundle, data, "--split", "val")
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert "no pixel of the 2 masks of val belongs to a class" in line
