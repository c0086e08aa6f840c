"""Scores against numbers worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.data.classes import IGNORE
from pixelwise.evaluation import ConfusionMatrix


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
