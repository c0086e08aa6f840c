"""Comparison of runs: differences, and whether they exceed chance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fixture_types import Cli
from pixelwise.data.scenes import write_scenes
from pixelwise.errors import InputError
from pixelwise.evaluation import ImageCounts
from pixelwise.evaluation.paired_comparison import paired_difference
from pixelwise.report.run_comparison import compare
from pixelwise.training import load_recipe, train
from settings import TINY

CLASSES = ("road", "car")


def image_counts(correct: list[int], *, names: str = "abcdefgh", pixels: int = 100) -> ImageCounts:
    """Counts of images with `pixels` pixels, half road and half car, and `correct` road pixels."""
    counts = [[[hit, pixels // 2], [pixels // 2] * 2, [hit, pixels - hit]] for hit in correct]
    return ImageCounts(tuple(names), np.array(counts, dtype=np.int64))


def save(path: Path, *args: object, classes: tuple[str, ...] = CLASSES, **kwargs: object) -> Path:
    image_counts(*args, **kwargs).save(path, classes=classes, split="val")  # type: ignore[arg-type]
    return path


def test_a_difference_matches_values_computed_by_hand() -> None:
    one = image_counts([10, 20, 30, 40, 10, 20, 30, 40])
    two = image_counts([15, 25, 35, 45, 15, 25, 35, 45])
    found = paired_difference(one, two)
    # Road: correct / (true + predicted - correct) = 200 / 400 and 240 / 400.
    # Car: 400 / (400 + 800 - 200 - 400) and 400 / (400 + 800 - 240 - 400).
    assert found.by_class == pytest.approx([0.1, 400 / 560 - 400 / 600])
    assert found.mean == pytest.approx(found.by_class.mean())
    low, high = found.mean_interval
    # Each score alone varies far more than this, because the resamples are paired.
    assert 0 < low < found.mean < high < 2 * found.mean
    assert found.is_significant
    assert found.images == 8
    few = [ImageCounts(side.names[:5], side.counts[:5]) for side in (one, two)]
    assert not paired_difference(*few).is_significant  # five heads in a row are not rare
    back = paired_difference(two, one)
    assert back.mean == -found.mean
    assert back.mean_interval == pytest.approx([-high, -low])


def test_a_difference_in_one_image_is_not_significant() -> None:
    one, two = image_counts([40] * 8), image_counts([45] + [40] * 7)
    found = paired_difference(one, two)
    assert found.mean > 0
    assert not found.is_significant  # a third of the resamples lacks the image
    same = paired_difference(one, one)
    assert (same.mean, same.is_significant) == (0, False)


def test_equal_networks_differ_significantly_in_about_5_percent_of_comparisons() -> None:
    rng = np.random.default_rng(0)
    significant = 0
    for _ in range(150):
        one, two = rng.integers(10, 50, (2, 40))
        names = [str(i) for i in range(40)]
        pair = [image_counts(list(hits), names=names) for hits in (one, two)]  # type: ignore[arg-type]
        significant += paired_difference(*pair).is_significant
    assert 1 <= significant <= 18


def test_images_are_matched_by_name() -> None:
    hits = [10, 20, 30, 40, 10, 20, 30, 40]
    found = paired_difference(image_counts(hits), image_counts(hits[::-1], names="hgfedcba"))
    assert found.mean == 0
    assert found.mean_interval.tolist() == [0, 0]


def test_runs_that_cannot_be_compared_are_refused_in_one_line(tmp_path: Path) -> None:
    one = save(tmp_path / "one.safetensors", [10] * 8)
    for other, message in (
        (
            save(tmp_path / "two.safetensors", [10] * 8, names="abcdefgx"),
            "the images differ, for example h",
        ),
        (
            save(tmp_path / "three.safetensors", [10] * 8, pixels=80),
            "the masks differ, for example that of a",
        ),
        (
            save(tmp_path / "four.safetensors", [10] * 8, classes=("road", "bus")),
            r"its classes differ \(road, bus\)",
        ),
        (tmp_path, "has no val_images.safetensors"),
        (tmp_path / "nothing", "has no val_images.safetensors"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            compare([one, other])
        assert len(caught.value.problems) == 1


def test_verdicts_name_the_better_run(tmp_path: Path) -> None:
    one = save(tmp_path / "one.safetensors", [30] * 8)
    two = save(tmp_path / "two.safetensors", [35] * 8)
    three = save(tmp_path / "three.safetensors", [30] * 7 + [32])
    found = compare([one, two, three])
    points = 100 * found.differences[0].mean
    assert found.verdicts[0] == (
        f"{two} is better than {one} by {points:.1f} points of mean IoU "
        f"(95 % interval: {points:.1f} to {points:.1f})"
    )
    assert found.verdicts[1].startswith(f"{one} and {three} do not differ significantly on 8 im")
    assert "is worse than" in compare([two, one]).verdicts[0]


def test_the_command_shows_recipe_differences_scores_and_verdict(tmp_path: Path, cli: Cli) -> None:
    data = write_scenes(tmp_path / "scenes", train=2, val=3, height=32, width=48)
    for name, rate in (("one", 0.001), ("two", 0.002)):
        settings = {**TINY, "epochs": 1, "optimizer.learning_rate": rate, "batch_size": 2}
        train(data, tmp_path / name, load_recipe(None, settings))
    result = cli("compare", "one", "two", "--json", "compared.json")
    assert result.code == 0, result.err  # type: ignore[attr-defined]
    out = " ".join(result.out.split())  # type: ignore[attr-defined]
    assert "optimizer.learning_rate │ 0.001 │ 0.002" in out
    assert "epochs" not in out.split("IoU")[0]  # the same in both
    assert "points of mean IoU, which may be chance: score at least 6 images, not 3" in out
    written = json.loads((tmp_path / "compared.json").read_text())
    assert written["recipe_differences"] == {"optimizer.learning_rate": [0.001, 0.002]}
    assert [run["name"] for run in written["runs"]] == ["one", "two"]
    assert written["verdicts"][0] in out
    assert all(run["seconds"] > 0 and run["best_epoch"] == 1 for run in written["runs"])
    alone = cli("compare", "one")
    assert alone.code == 2  # type: ignore[attr-defined]
    assert "is the only run" in alone.err  # type: ignore[attr-defined]


def test_an_evaluation_equals_the_scores_of_its_run(tmp_path: Path, cli: Cli) -> None:
    data = write_scenes(tmp_path / "scenes", train=2, val=2, height=32, width=48)
    train(data, tmp_path / "run", load_recipe(None, {**TINY, "epochs": 1, "batch_size": 2}))
    scored = cli(
        "evaluate", "run/best.safetensors", "scenes", "--image-scores", "images.safetensors"
    )
    assert scored.code == 0, scored.err  # type: ignore[attr-defined]
    for word in ("95 % interval", "prec.", "mean boundary IoU", "calibration error"):
        assert word in scored.out  # type: ignore[attr-defined]
    result = cli("compare", "run", "images.safetensors", "--json", "-")
    found = json.loads(result.out)  # type: ignore[attr-defined]
    assert found["differences"][0]["mean_iou"] == 0
    shown = cli("compare", "run", "images.safetensors").out  # type: ignore[attr-defined]
    assert "0.0 (0.0 to 0.0)" in shown
    assert "+0.0 (" not in shown
    assert "-0.0" not in shown
    assert found["differences"][0]["is_significant"] is False
