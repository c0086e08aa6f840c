"""Runs side by side: what differs, and whether it is more than chance."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pixelwise.data.scenes import write_scenes
from pixelwise.errors import InputError
from pixelwise.evaluation import Tallies
from pixelwise.evaluation.paired_comparison import paired_difference
from pixelwise.report.run_comparison import compare
from pixelwise.training import load_recipe, train

CLASSES = ("road", "car")
TINY = {
    "model.weights": "none",
    "model.options.backbone": "tiny",
    "memory_format": "contiguous",
    "device": "cpu",
    "epochs": 1,
}


def tallies(right: list[int], *, names: str = "abcdefgh", pixels: int = 100) -> Tallies:
    """Images of `pixels` pixels, half of each class, of whose roads so many are right."""
    counts = [[[hit, pixels // 2], [pixels // 2] * 2, [hit, pixels - hit]] for hit in right]
    return Tallies(tuple(names), np.array(counts, dtype=np.int64))


def save(path: Path, *args: object, classes: tuple[str, ...] = CLASSES, **kwargs: object) -> Path:
    tallies(*args, **kwargs).save(path, classes=classes, split="val")  # type: ignore[arg-type]
    return path


def test_a_difference_by_hand() -> None:
    one = tallies([10, 20, 30, 40, 10, 20, 30, 40])
    two = tallies([15, 25, 35, 45, 15, 25, 35, 45])
    found = paired_difference(one, two)
    # Road: right / (true + predicted - right) = 200 / 400 and 240 / 400. Car: 400 / (400 + 800 -
    # 200 - 400) and 400 / (400 + 800 - 240 - 400).
    assert found.by_class == pytest.approx([0.1, 400 / 560 - 400 / 600])
    assert found.mean == pytest.approx(found.by_class.mean())
    low, high = found.mean_interval
    # Alone each varies by far more than this: the draws are paired.
    assert 0 < low < found.mean < high < 2 * found.mean
    assert found.is_shown
    assert found.images == 8
    few = [Tallies(side.names[:5], side.counts[:5]) for side in (one, two)]
    assert not paired_difference(*few).is_shown  # five heads in a row are no rarity
    back = paired_difference(two, one)
    assert back.mean == -found.mean
    assert back.mean_interval == pytest.approx([-high, -low])


def test_a_difference_of_one_image_is_not_shown() -> None:
    one, two = tallies([40] * 8), tallies([45] + [40] * 7)
    found = paired_difference(one, two)
    assert found.mean > 0
    assert not found.is_shown  # in a third of the draws the image is not
    same = paired_difference(one, one)
    assert (same.mean, same.is_shown) == (0, False)


def test_how_often_chance_looks_like_a_difference() -> None:
    # Two networks of one quality: about 5 in 100 comparisons are to say that there is a difference.
    rng = np.random.default_rng(0)
    shown = 0
    for _ in range(150):
        one, two = rng.integers(10, 50, (2, 40))
        names = [str(i) for i in range(40)]
        pair = [tallies(list(hits), names=names) for hits in (one, two)]  # type: ignore[arg-type]
        shown += paired_difference(*pair).is_shown
    assert 1 <= shown <= 18


def test_images_are_matched_by_name() -> None:
    hits = [10, 20, 30, 40, 10, 20, 30, 40]
    found = paired_difference(tallies(hits), tallies(hits[::-1], names="hgfedcba"))
    assert found.mean == 0
    assert found.mean_interval.tolist() == [0, 0]


def test_what_cannot_be_compared_is_said_in_one_line(tmp_path: Path) -> None:
    one = save(tmp_path / "one.safetensors", [10] * 8)
    for other, said in (
        (
            save(tmp_path / "two.safetensors", [10] * 8, names="abcdefgx"),
            "of different images, as h",
        ),
        (save(tmp_path / "three.safetensors", [10] * 8, pixels=80), "with different masks of a"),
        (
            save(tmp_path / "four.safetensors", [10] * 8, classes=("road", "bus")),
            "of other classes, road, bus",
        ),
        (tmp_path, "holds no val_images.safetensors"),
        (tmp_path / "nothing", "holds no val_images.safetensors"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            compare([one, other])
        assert len(caught.value.problems) == 1


def test_verdicts_are_plain(tmp_path: Path) -> None:
    one = save(tmp_path / "one.safetensors", [30] * 8)
    two = save(tmp_path / "two.safetensors", [35] * 8)
    three = save(tmp_path / "three.safetensors", [30] * 7 + [32])
    found = compare([one, two, three])
    points = 100 * found.differences[0].mean
    assert found.verdicts[0] == (
        f"{two} is better than {one} by {points:.1f} points of mean IoU "
        f"(95%: {points:.1f} to {points:.1f})"
    )
    assert found.verdicts[1].startswith(f"no difference between {one} and {three} that these 8 ima")
    assert "is worse than" in compare([two, one]).verdicts[0]


def test_the_command_shows_recipes_scores_and_verdict(
    tmp_path: Path, cli: Callable[..., object]
) -> None:
    data = write_scenes(tmp_path / "scenes", train=2, val=3, height=32, width=48)
    for name, rate in (("one", 0.01), ("two", 0.02)):
        settings = {**TINY, "optimizer.learning_rate": rate, "batch_size": 2}
        train(data, tmp_path / name, load_recipe(None, settings))
    result = cli("compare", "one", "two", "--json", "compared.json")
    assert result.code == 0, result.err  # type: ignore[attr-defined]
    out = " ".join(result.out.split())  # type: ignore[attr-defined]
    assert "optimizer.learning_rate │ 0.01 │ 0.02" in out
    assert "epochs" not in out.split("IoU")[0]  # equal in both
    assert "points of mean IoU, and 3 images are too few to say whether by chance" in out
    written = json.loads((tmp_path / "compared.json").read_text())
    assert written["recipe_differences"] == {"optimizer.learning_rate": [0.01, 0.02]}
    assert [run["name"] for run in written["runs"]] == ["one", "two"]
    assert written["verdicts"][0] in out
    assert all(run["seconds"] > 0 and run["best_epoch"] == 1 for run in written["runs"])
    alone = cli("compare", "one")
    assert alone.code == 2  # type: ignore[attr-defined]
    assert "is alone" in alone.err  # type: ignore[attr-defined]


def test_an_evaluation_is_compared_with_its_run(tmp_path: Path, cli: Callable[..., object]) -> None:
    data = write_scenes(tmp_path / "scenes", train=2, val=2, height=32, width=48)
    train(data, tmp_path / "run", load_recipe(None, {**TINY, "batch_size": 2}))
    scored = cli("evaluate", "run/best.safetensors", "scenes", "--images", "images.safetensors")
    assert scored.code == 0, scored.err  # type: ignore[attr-defined]
    for word in ("in 95 %", "prec.", "mean border IoU", "calibration error"):
        assert word in scored.out  # type: ignore[attr-defined]
    result = cli("compare", "run", "images.safetensors", "--json", "-")
    found = json.loads(result.out)  # type: ignore[attr-defined]
    assert found["differences"][0]["mean_iou"] == 0
    assert found["differences"][0]["is_shown"] is False
