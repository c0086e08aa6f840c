"""Scores against numbers worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.data.classes import IGNORE
from pixelwise.errors import InputError
from pixelwise.evaluation import ConfusionMatrix, Tallies
from pixelwise.evaluation.bootstrap import drawn_sums, interval, score_intervals
from pixelwise.evaluation.boundary import BAND, TOLERANCE, boundary_scores, boundary_tally
from pixelwise.evaluation.calibration import Calibration, sure_and_wrong
from pixelwise.evaluation.confusion import ratios
from pixelwise.evaluation.image_counts import load_tallies


def test_the_four_scores_by_hand() -> None:
    matrix = ConfusionMatrix(3)
    truth = np.array([[0, 0, 0, 0, 1, 1, IGNORE, IGNORE]], dtype=np.uint8)
    predicted = np.array([[0, 0, 0, 1, 1, 0, 2, 0]], dtype=np.uint8)
    matrix.update(truth, predicted)
    assert matrix.counts.tolist() == [[3, 1, 0], [1, 1, 0], [0, 0, 0]]
    scores = matrix.scores()
    # IoU: class 0: 3 / (4 + 4 - 3); class 1: 1 / (2 + 2 - 1); class 2 neither there nor predicted.
    assert scores.iou[:2] == pytest.approx([3 / 5, 1 / 3])
    assert np.isnan(scores.iou[2])
    assert scores.mean_iou == pytest.approx((3 / 5 + 1 / 3) / 2)
    assert scores.pixel_accuracy == pytest.approx(4 / 6)
    assert scores.mean_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores.frequency_weighted_iou == pytest.approx(4 / 6 * 3 / 5 + 2 / 6 * 1 / 3)
    assert scores.pixels == 6
    # Dice: 2 * 3 / (4 + 4), 2 * 1 / (2 + 2). Precision: 3 / 4, 1 / 2, and none of class 2.
    assert scores.dice[:2] == pytest.approx([6 / 8, 2 / 4])
    assert scores.mean_dice == pytest.approx((6 / 8 + 2 / 4) / 2)
    assert scores.precision[:2] == pytest.approx([3 / 4, 1 / 2])
    assert np.isnan(scores.dice[2])
    assert np.isnan(scores.precision[2])


def test_a_class_only_predicted_counts_as_zero() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.zeros((1, 4), np.uint8), np.array([[0, 0, 0, 1]], np.uint8))
    scores = matrix.scores()
    assert scores.iou.tolist() == [0.75, 0.0]
    assert scores.mean_iou == 0.375
    assert np.isnan(scores.accuracy[1])


def test_all_void_has_no_scores_and_is_still_json() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.full((2, 2), IGNORE, np.uint8), np.zeros((2, 2), np.uint8))
    scores = matrix.scores()
    assert math.isnan(scores.mean_iou)
    plain = scores.to_json(("a", "b"))
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["classes"]["a"]["iou"] is None


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_the_matrix_equals_a_plain_loop_and_images_add_up(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    whole, parts = ConfusionMatrix(classes), np.zeros((classes, classes), np.int64)
    for _ in range(2):
        truth = rng.integers(0, classes, (5, 7)).astype(np.uint8)
        truth[rng.random(truth.shape) < 0.2] = IGNORE
        predicted = rng.integers(0, classes, (5, 7)).astype(np.uint8)
        whole.update(truth, predicted)
        for t, p in zip(truth.ravel(), predicted.ravel(), strict=True):
            if t != IGNORE:
                parts[t, p] += 1
    assert (whole.counts == parts).all()


def test_a_mask_of_another_shape_or_an_unknown_index_is_our_bug_and_says_so() -> None:
    matrix = ConfusionMatrix(2)
    with pytest.raises(ValueError, match="prediction"):
        matrix.update(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match="index"):
        matrix.update(np.zeros((2, 2), np.uint8), np.full((2, 2), 2, np.uint8))


# --- By image, and drawn anew


def random_pair(rng: np.random.Generator, *size: int, classes: int = 3) -> tuple[np.ndarray, ...]:
    """Truth with void, and a prediction that is right in about half of it; blocks of 2 pixels."""
    truth = rng.integers(0, classes, size).astype(np.uint8).repeat(2, 0).repeat(2, 1)
    predicted = np.where(
        rng.random(truth.shape) < 0.5, truth, rng.integers(0, classes, truth.shape)
    )
    truth[rng.random(truth.shape) < 0.15] = IGNORE
    return truth, predicted.astype(np.uint8)


def test_tallies_of_images_add_up_to_the_scores_of_the_split(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole, counts = ConfusionMatrix(3), []
    for _ in range(4):
        own = ConfusionMatrix(3)
        own.update(*random_pair(rng, 4, 5))
        whole.counts += own.counts
        counts.append(own.tally())
    tallies = Tallies(("a", "b", "c", "d"), np.stack(counts))
    summed, scores = ratios(tallies.counts.sum(axis=0)), whole.scores()
    assert summed["mean_iou"] == scores.mean_iou
    assert summed["precision"].tolist() == scores.precision.tolist()
    first = ConfusionMatrix(3)
    rng = np.random.default_rng(0)
    first.update(*random_pair(rng, 4, 5))
    assert tallies.mean_iou["a"] == first.scores().mean_iou
    path = tmp_path / "images.safetensors"
    tallies.save(path, classes=("sky", "road", "car"), split="val")
    read = load_tallies(path)
    assert (read.classes, read.split) == (("sky", "road", "car"), "val")
    assert read.tallies.names == tallies.names
    assert (read.tallies.counts == tallies.counts).all()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="damaged"):
        load_tallies(path)


def test_draws_are_sums_of_as_many_images_as_there_are_and_repeat() -> None:
    counts = 100 ** np.arange(5)[:, None]  # each image has two digits of its own
    drawn = drawn_sums(counts, draws=120, seed=3)
    assert drawn.shape == (120, 1)
    times = (drawn // counts.T % 100).astype(int)
    assert (times.sum(axis=1) == 5).all()
    assert len(np.unique(times, axis=0)) > 50
    assert (drawn == drawn_sums(counts, draws=120, seed=3)).all()
    paired = drawn_sums(np.stack([counts, counts + 1], axis=1), draws=120, seed=3)
    assert (paired[:, 1] - paired[:, 0] == 5).all()  # both saw the same images


def test_intervals_hold_the_score_and_shrink_with_the_root_of_the_images() -> None:
    rng = np.random.default_rng(0)

    def accuracy(images: int) -> tuple[float, float]:
        right = rng.binomial(1000, rng.beta(8, 2, images))  # 0.8 of 1000 pixels, by image
        counts = np.zeros((images, 3, 2), dtype=np.int64)
        counts[:, 0, 0], counts[:, 1:, 0] = right, 1000
        low, high = score_intervals(counts).values["pixel_accuracy"]
        assert low < right.mean() / 1000 < high
        return low, high

    few, many = accuracy(50), accuracy(5000)
    # Of a mean: 2 * 1.96 standard errors.
    assert few[1] - few[0] == pytest.approx(2 * 1.96 * 0.121 / 50**0.5, rel=0.25)
    assert (few[1] - few[0]) / (many[1] - many[0]) == pytest.approx(10, rel=0.3)


def test_a_class_that_is_nowhere_has_no_interval() -> None:
    counts = np.array([[[3, 0], [4, 0], [5, 0]], [[1, 0], [2, 0], [2, 0]]])
    plain = score_intervals(counts).to_json(("a", "b"))
    assert plain["classes"]["b"]["iou"] is None
    low, high = plain["classes"]["a"]["iou"]
    # Both the first image, or both the second, is drawn in a quarter of the cases.
    assert (low, high) == pytest.approx((1 / 3, 3 / 6))
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert interval(np.array([0.0, 1, 2, 3, 4]), level=0.5).tolist() == [1, 3]


# --- Borders


def slow_boundary(
    truth: np.ndarray, predicted: np.ndarray, classes: int
) -> tuple[list[float], list[int], list[int]]:
    """As the docstring says it, pixel by pixel."""
    predicted = np.where(truth == IGNORE, IGNORE, predicted)
    height, width = truth.shape
    diagonal = math.hypot(height, width)
    reach, band = max(1.0, TOLERANCE * diagonal), max(1, round(BAND * diagonal))
    pixels = list(np.ndindex(height, width))

    def border(mask: np.ndarray, number: int) -> list[tuple[int, ...]]:
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

    f1, right, either = [], [], []
    for number in range(classes):
        ours, theirs = border(predicted, number), border(truth, number)
        shares = [
            [any(math.dist(p, q) <= reach for q in other) for p in own]
            for own, other in ((ours, theirs), (theirs, ours))
        ]
        if not ours and not theirs:
            f1.append(math.nan)
        elif not ours or not theirs:
            f1.append(0.0)
        else:
            precision, recall = (sum(share) / len(share) for share in shares)
            both = precision + recall
            f1.append(2 * precision * recall / both if both else 0.0)
        bands = in_band(predicted, number), in_band(truth, number)
        right.append(len(bands[0] & bands[1]))
        either.append(len(bands[0] | bands[1]))
    return f1, right, either


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_boundary_scores_are_those_of_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = random_pair(rng, int(rng.integers(1, 8)), int(rng.integers(1, 8)))
    tally = boundary_tally(truth, predicted, classes=3)
    f1, right, either = slow_boundary(truth, predicted, 3)
    assert tally.f1 == pytest.approx(f1, nan_ok=True)
    assert tally.band_right.tolist() == right
    assert tally.band_either.tolist() == either


def test_boundary_scores_reach_further_in_larger_images() -> None:
    # 300 x 400 has a diagonal of 500: 3.75 pixels of tolerance, a band of 10.
    truth = np.zeros((300, 400), np.uint8)
    truth[:, 200:] = 1
    scores = []
    for shift in (0, 4, 5):
        predicted = np.zeros_like(truth)
        predicted[:, 200 + shift :] = 1
        scores.append(boundary_tally(truth, predicted, classes=2))
    # The border's pixels of class 0 are 199 and 199 + shift: 4 is too far by a quarter.
    assert scores[0].f1.tolist() == [1, 1]
    assert scores[1].f1.tolist() == [0, 0]
    predicted = np.zeros_like(truth)
    predicted[:, 203:] = 1
    assert boundary_tally(truth, predicted, classes=2).f1.tolist() == [1, 1]
    # Band of class 0 beside the border: columns 190..199 in truth, 195..204 predicted; and the
    # rim of 10 pixels along three sides, which both share but for the five columns.
    rim = 2 * 10 * 200 + 280 * 10
    right = rim + 280 * 5
    either = rim + 2 * 10 * 5 + 280 * 15
    assert (scores[2].band_right[0], scores[2].band_either[0]) == (right, either)


@pytest.mark.parametrize("classes", [8, 9, 64, 65, 150])
def test_boundary_scores_tell_many_classes_apart(classes: int) -> None:
    rng = np.random.default_rng(classes)
    truth = rng.integers(classes - 3, classes, (6, 6)).astype(np.uint8).repeat(3, 0).repeat(3, 1)
    predicted = truth.copy()
    predicted[4:9, 2:11] = classes - 1
    few = boundary_tally(truth - (classes - 3), predicted - (classes - 3), classes=3)
    many = boundary_tally(truth, predicted, classes=classes)
    assert many.f1[-3:].tolist() == few.f1.tolist()
    assert many.band_right[-3:].tolist() == few.band_right.tolist()
    assert many.band_either[-3:].tolist() == few.band_either.tolist()
    assert np.isnan(many.f1[:-3]).all()


def test_boundary_scores_of_a_split() -> None:
    truth = np.zeros((8, 8), np.uint8)
    truth[:, 4:] = 1
    wrong = np.zeros((8, 8), np.uint8)
    tallies = [boundary_tally(truth, p, classes=3) for p in (truth, wrong)]
    scores = boundary_scores([*tallies, boundary_tally(wrong, wrong, classes=3)])
    # The third image has no border, and no say in F1.
    assert scores.f1[:2].tolist() == [0.5, 0.5]
    assert np.isnan(scores.f1[2])
    assert scores.mean_f1 == 0.5
    right = sum(t.band_right[1] for t in tallies)
    assert scores.iou[1] == right / sum(t.band_either[1] for t in tallies)
    assert scores.to_json(("a", "b", "c"))["classes"]["c"] == {
        "boundary_f1": None,
        "boundary_iou": None,
    }


# --- Calibration


def test_calibration_by_hand() -> None:
    calibration = Calibration()
    truth = np.array([[0, 0, 1, 1, IGNORE]], np.uint8)
    predicted = np.array([[0, 1, 1, 1, 0]], np.uint8)
    confidence = np.array([[0.95, 0.95, 0.97, 0.5, 0.99]], np.float32)
    calibration.update(truth, predicted, confidence)
    # The last of 15 bins: 0.95, 0.95, 0.97, of which two are right; the one to 8/15: 0.5, right.
    assert calibration.error == pytest.approx((abs(2 - 2.87) + abs(1 - 0.5)) / 4)
    rows = calibration.to_json()["reliability"]
    assert [row["pixels"] for row in rows] == [0] * 7 + [1] + [0] * 6 + [3]
    assert rows[-1]["accuracy"] == pytest.approx(2 / 3)
    assert rows[-1]["confidence"] == pytest.approx(2.87 / 3)
    assert rows[0]["accuracy"] is None
    assert sure_and_wrong(truth, predicted, confidence).tolist() == [[False, True] + [False] * 3]
    assert math.isnan(Calibration().error)


def test_calibration_as_torchmetrics_has_it() -> None:
    # torchmetrics 1.9.0: calibration_error(task="multiclass", n_bins=15, norm="l1").
    numbers = np.arange(400)
    confidence = (0.34 + 0.65 * (numbers * 37 % 101) / 101).astype(np.float32).reshape(20, 20)
    truth = np.zeros((20, 20), np.uint8)
    predicted = ((numbers * 13 % 7) < 2).astype(np.uint8).reshape(20, 20)
    calibration = Calibration()
    calibration.update(truth, predicted, confidence)
    assert calibration.error == pytest.approx(0.1603629, abs=1e-6)
