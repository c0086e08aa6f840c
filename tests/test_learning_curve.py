"""Learning curves: subsets, the fit, the study and its budget, and continuing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fixture_types import Cli, MakeData
from pixelwise.data.classes import Classes
from pixelwise.data.scenes import write_scenes
from pixelwise.errors import InputError
from pixelwise.study import learning_curve as module
from pixelwise.study.curve_results import FinishedTraining, LearningCurve
from pixelwise.study.learning_curve import StudyCallback, learning_curve, nested_order
from pixelwise.study.power_law import fit, measure, predict_largest
from pixelwise.training import load_recipe
from pixelwise.training.run_folder import read_metrics
from pixelwise.training.trainer import TrainingStoppedError
from settings import TINY

SETTINGS = {**TINY, "kernels": "plain", "batch_size": 2}
RECIPE = load_recipe(None, SETTINGS)
FRACTIONS = (0.25, 0.5, 1.0)
NAMES = ("flat", "steep", "rare", "absent")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), train=8, val=2, height=32, width=48)


class Recorder(StudyCallback):
    def __init__(self) -> None:
        self.begun: list[tuple[int, int]] = []
        self.finished: list[FinishedTraining] = []

    def on_training_begin(self, number: int, total: int, images: int, seed: int) -> None:
        self.begun.append((images, seed))

    def on_training_end(self, training: FinishedTraining) -> None:
        self.finished.append(training)


# --- Subsets


@pytest.mark.parametrize("seed", range(20))
def test_subsets_are_random_and_the_smallest_contains_every_class(seed: int) -> None:
    pixels = np.zeros((40, 4), dtype=np.int64)
    pixels[:, 0] = 100
    pixels[[3, 17], 1] = 5  # two images
    pixels[30, 2] = 1  # a single one
    order = nested_order(pixels, seed)
    assert sorted(order) == list(range(40))
    assert (pixels[order[:3]].sum(axis=0)[:3] > 0).all()
    assert (nested_order(pixels, seed) == order).all()
    assert (nested_order(pixels, seed + 1) != order).any()


def test_images_without_a_rare_class_keep_their_random_order() -> None:
    pixels = np.ones((30, 1), dtype=np.int64)
    order = nested_order(pixels, 5)
    assert order.tolist() == np.random.default_rng(5).permutation(30).tolist()


# --- The fit


def counts_of(iou: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Counts of 60 images whose IoU is about `iou` (C,); NaN stands for an absent class."""
    truth = rng.integers(2000, 4000, (60, len(iou)))
    truth[:, np.isnan(iou)] = 0
    correct = truth * np.nan_to_num(2 * iou / (1 + iou))
    return np.stack([correct, truth, truth], axis=1).round().astype(np.int64)


def true_iou(images: float) -> NDArray[np.float64]:
    steep = 1 - 3.0 * images**-0.5 - 0.2
    return np.array([0.9, steep, 0.5 - 0.5 * images**-0.8, np.nan])


def make_curve(noise: float, sizes: tuple[int, ...] = (40, 80, 160, 320)) -> LearningCurve:
    rng = np.random.default_rng(3)
    trainings = [
        FinishedTraining(n, s, counts_of(true_iou(n) + noise * rng.standard_normal(4), rng), 1.0)
        for s in range(3)
        for n in sizes
    ]
    classes = Classes.make(list(NAMES), ignore=255)
    return LearningCurve(Path("study"), classes, sizes[-1], 10, len(trainings), trainings)


def test_the_curve_predicts_what_twice_the_data_brings() -> None:
    curve = make_curve(0.004)
    by_name = {outlook.name: outlook for outlook in curve.outlooks}
    gain = true_iou(640) - true_iou(320)
    for index, name in enumerate(NAMES[:3]):
        low, high = by_name[name].gain_interval
        assert low <= gain[index] + 0.002
        assert high >= gain[index] - 0.002
        assert high - low < 0.05
    assert by_name["steep"].verdict == "limited by data"
    assert by_name["flat"].verdict == "not limited by data"
    assert by_name["absent"].verdict == "not measured"
    assert by_name["steep"].sentence.startswith("steep: +")
    assert "not limited by data: at most +" in by_name["flat"].sentence
    mean = np.nanmean(true_iou(640)) - np.nanmean(true_iou(320))
    assert by_name["mean IoU"].gain == pytest.approx(mean, abs=0.01)


@pytest.mark.slow
def test_the_interval_of_the_largest_size_covers_it_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        exponent, floor = rng.uniform(0.3, 1.0), rng.uniform(0.1, 0.4)
        size_of_error = rng.uniform(0.2, 0.5) * 40**exponent

        def draw(n: int) -> NDArray[np.int64]:
            iou = 1 - size_of_error * n**-exponent - floor  # noqa: B023
            return counts_of(iou + 0.01 * rng.standard_normal(3), rng)  # noqa: B023

        runs = {n: [draw(n) for _ in range(3)] for n in (40, 80, 160, 320)}
        predicted = predict_largest(measure(runs))
        assert predicted is not None
        low, high = predicted[1][:, 0]
        truth = 1 - measure(runs).errors[-1, 0]
        covered += low <= truth <= high
    assert covered >= 34  # 36 are expected of a 90 % interval


def test_noise_without_a_trend_is_not_a_gain() -> None:
    rng = np.random.default_rng(0)
    flat = np.array([0.6, 0.7])
    runs = {
        n: [counts_of(flat + 0.01 * rng.standard_normal(2), rng) for _ in range(3)]
        for n in (40, 80, 160, 320)
    }
    law = fit(measure(runs))
    gain = (law.iou(640) - law.iou(320))[0]
    assert (gain >= 0).all()
    assert (gain < 0.01).all()


def test_half_of_an_odd_number_of_images_is_rounded_up() -> None:
    check = make_curve(0.004, (46, 92, 184, 367)).check
    assert check is not None
    assert check["fitted_to"] == 3


def test_scores_that_fall_with_more_images_are_reported() -> None:
    curve = make_curve(0.002)
    assert curve.caveats == []
    reversed_sizes = {40: 320, 80: 160, 160: 80, 320: 40}
    falling = [replace(each, images=reversed_sizes[each.images]) for each in curve.trainings]
    caveat = replace(curve, trainings=falling).caveats[0]
    assert "trainings of 10 steps are too short" in caveat


def test_one_seed_assumes_differences_between_trainings() -> None:
    rng = np.random.default_rng(0)
    runs = {n: [counts_of(true_iou(n)[:3], rng)] for n in (40, 80, 160)}
    measured = measure(runs)
    assert measured.std == pytest.approx(0.015, rel=0.2)
    assert measured.resampled.std(axis=0).min() > 0.01


# --- The study


def test_a_study_trains_on_nested_subsets_with_equal_steps(scenes: Path, tmp_path: Path) -> None:
    out, recorder = tmp_path / "study", Recorder()
    result = learning_curve(
        scenes, out, RECIPE, fractions=FRACTIONS, seeds=2, steps=3, callback=recorder
    )
    assert recorder.begun == [(2, 0), (4, 0), (8, 0), (2, 1), (4, 1), (8, 1)]
    assert len(recorder.finished) == len(result.trainings) == 6
    used: dict[tuple[int, int], list[str]] = {}
    for images, seed in recorder.begun:
        folder = out / f"run-{images:06d}-{seed}"
        data = json.loads((folder / "data.json").read_text())
        names = [sample["name"] for sample in data["splits"]["train"]]
        used[images, seed] = names
        assert len(names) == 6  # 3 steps of 2 images
        assert len({*names}) == min(images, 6)
        assert max(names.count(name) for name in names) <= -(-6 // images)
        (epoch,) = [row for row in read_metrics(folder) if row["event"] == "epoch"]
        assert epoch["epoch"] == 1
    for seed in (0, 1):
        assert {*used[2, seed]} <= {*used[4, seed]}
    assert {*used[4, 0]} != {*used[4, 1]}
    assert len(result.outlooks) == 1 + len(result.classes)
    written = json.loads((out / "learning_curve.json").read_text())
    assert written["trainings"][0]["mean_iou"] == pytest.approx(result.trainings[0].mean_iou)
    assert written["mean_iou"]["sentence"] in result.summary
    page = (out / "learning_curve.html").read_text()
    assert "With twice the images" in page
    assert page.count("<figure") == sum(o.verdict != "not measured" for o in result.outlooks)
    # The same call trains nothing, and another number of steps is refused.
    again = learning_curve(scenes, out, RECIPE, fractions=FRACTIONS, seeds=2, callback=recorder)
    assert len(recorder.begun) == 6
    assert again.to_json() == result.to_json()
    with pytest.raises(InputError, match=r"holds a study with another number of steps"):
        learning_curve(scenes, out, RECIPE, fractions=FRACTIONS, seeds=2, steps=4)
    other = load_recipe(None, {**SETTINGS, "optimizer.learning_rate": 0.002})
    with pytest.raises(InputError, match=r"holds a study with another recipe"):
        learning_curve(scenes, out, other, fractions=FRACTIONS, seeds=2)


def test_a_study_that_is_stopped_ends_with_the_same_table(scenes: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"fractions": FRACTIONS, "seeds": 1, "steps": 3}
    whole = learning_curve(scenes, tmp_path / "whole", RECIPE, **arguments)
    recipe = load_recipe(None, {**SETTINGS, "checkpoint_minutes": 0})
    steps = 0

    class Stops(StudyCallback):
        def on_step(self, **_: Any) -> None:
            nonlocal steps
            steps += 1
            if steps in (2, 5, 6):
                raise TrainingStoppedError("stopped", signal_number=15)

    for _ in range(3):
        with pytest.raises(TrainingStoppedError, match="run the same command to continue"):
            learning_curve(scenes, tmp_path / "cut", recipe, callback=Stops(), **arguments)
    result = learning_curve(scenes, tmp_path / "cut", recipe, **arguments)
    for left, right in zip(whole.trainings, result.trainings, strict=True):
        assert (left.counts == right.counts).all()


def test_a_spent_budget_reports_what_is_known(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, recorder = tmp_path / "study", Recorder()
    clock = iter(range(0, 100_000, 50))  # each look at the clock takes 50 s
    slow_clock = SimpleNamespace(monotonic=lambda: float(next(clock)))
    monkeypatch.setattr(module, "time", slow_clock)
    arguments: dict[str, Any] = {"fractions": FRACTIONS, "seeds": 1, "steps": 2}
    result = learning_curve(scenes, out, RECIPE, minutes=6, callback=recorder, **arguments)
    assert 1 <= len(result.trainings) < 3
    assert "of 3 trainings are finished" in result.summary[0]
    assert "the same command continues" in result.caveats[0]
    assert result.to_json()["mean_iou"] is None
    assert "of 3 trainings are finished" in (out / "learning_curve.html").read_text()
    monkeypatch.undo()
    result = learning_curve(scenes, out, RECIPE, minutes=6, **arguments)
    assert len(result.trainings) == 3


def test_the_budget_is_checked_before_each_training_and_in_it() -> None:
    deadline = module._Deadline(0.0)
    with pytest.raises(module._OutOfTimeError):
        deadline.on_step(epoch=1, step=1, steps=2, loss=1.0, images=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fractions": (0.5,)}, "fractions 0.5: give at least two"),
        ({"fractions": (0.0, 1.0)}, "fractions 0: give numbers above 0 and up to 1"),
        ({"fractions": (0.5, 1.5)}, "fractions 1.5: give numbers above 0 and up to 1"),
        ({"fractions": (0.99, 1.0)}, "are all 8 images: give fractions that differ more"),
        ({"seeds": 0}, "seeds 0: must be at least 1"),
        ({"minutes": -1}, "minutes -1: must be above 0"),
        ({"steps": 0}, "steps 0: must be at least 1"),
    ],
)
def test_bad_arguments_are_one_line(
    scenes: Path, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as raised:
        learning_curve(scenes, tmp_path / "out", RECIPE, **arguments)
    assert len(raised.value.problems) == 1
    assert not (tmp_path / "out").exists()


def test_a_subset_too_small_for_every_class_is_refused(
    tmp_path: Path, make_folder_data: MakeData
) -> None:
    data = make_folder_data(tmp_path / "data", splits={"train": 20, "val": 2}, values=(0,))
    for number, value in ((3, 1), (4, 2)):
        from PIL import Image

        path = data / "masks" / "train" / f"train_{number:03d}.png"
        Image.fromarray(np.full((24, 32), value, np.uint8)).save(path)
    with pytest.raises(InputError, match=r"smallest subset has 1 of 20 images, but every class"):
        learning_curve(data, tmp_path / "out", RECIPE, fractions=(0.05, 1.0))


def test_a_single_class_is_refused(tmp_path: Path, make_folder_data: MakeData) -> None:
    data = make_folder_data(tmp_path / "data", splits={"train": 8, "val": 2}, values=(1,))
    with pytest.raises(InputError, match="nothing can be learned from a single class"):
        learning_curve(data, tmp_path / "out", RECIPE, steps=2)


def test_the_command_prints_sentences_and_writes_json(
    scenes: Path, tmp_path: Path, cli: Cli
) -> None:
    sets = [text for key, value in SETTINGS.items() for text in ("--set", f"{key}={value}")]
    arguments = ["--fractions", "0.25,0.5,1", "--seeds", "1", "--steps", "2", *sets]
    result = cli("learning-curve", scenes, *arguments, "--out", "o", "--json", "-")
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert content["steps"] == 2
    assert len(content["trainings"]) == 3
    again = cli("learning-curve", scenes, *arguments, "--out", "o")
    assert content["mean_iou"]["sentence"] in again.out
    assert "one seed" in again.out
    wrong = cli("learning-curve", scenes, "--fractions", "half", "--out", "p")
    assert wrong.code == 2
    assert "--fractions half: give numbers separated by commas" in wrong.err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    refused = cli("learning-curve", scenes, *arguments, "--out", "full")
    assert refused.code == 2
    assert "holds other files" in refused.err
