"""The sweep: its search space, its budget, pruning, and continuing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fixture_types import Cli
from pixelwise.data.dataset import open_dataset
from pixelwise.data.scenes import write_scenes
from pixelwise.errors import InputError
from pixelwise.recipes.schema import Recipe
from pixelwise.training import load_recipe, runs
from pixelwise.training import sweep as module
from pixelwise.training.sweep import (
    SearchSpace,
    SweepCallback,
    TrialResult,
    make_search_space,
    sweep,
)
from pixelwise.training.trainer import TrainingError, TrainingStoppedError
from settings import TINY

pytest.importorskip("optuna")

RECIPE = load_recipe(None, {**TINY, "epochs": 2, "batch_size": 2, "optimizer.name": "sgd"})
SPACE = SearchSpace((0.001, 0.1), ((32, 32), (32, 64)))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), train=3, val=1, height=48, width=64)


class Recorder(SweepCallback):
    def __init__(self) -> None:
        self.begins: list[tuple[int, Mapping[str, Any]]] = []
        self.results: list[TrialResult] = []

    def on_trial_begin(self, number: int, settings: Mapping[str, Any]) -> None:
        self.begins.append((number, settings))

    def on_trial_end(self, trial: TrialResult) -> None:
        self.results.append(trial)


def test_the_search_space_surrounds_the_recipe(scenes: Path) -> None:
    data = open_dataset(scenes, splits=("train", "val"))
    space = make_search_space(RECIPE, data)
    assert space.learning_rate == pytest.approx((0.001, 0.1))
    assert make_search_space(load_recipe(), data).learning_rate == pytest.approx((0.0001, 0.003))
    assert space.crops == ((32, 64), (32, 32))  # at and below the usual crop, without duplicates
    fixed = load_recipe(None, {"augmentation.crop": [320, 480]})
    assert make_search_space(fixed, data).crops == ((320, 480), (256, 352), (160, 256))


def test_trials_are_runs_and_the_best_recipe_is_written(scenes: Path, tmp_path: Path) -> None:
    out, recorder = tmp_path / "sweep", Recorder()
    result = sweep(scenes, out, RECIPE, SPACE, trials=2, callback=recorder)
    assert [number for number, _ in recorder.begins] == [0, 1]
    assert [trial.state for trial in recorder.results] == ["complete"] * 2
    for number, settings in recorder.begins:
        recipe = load_recipe(out / f"trial-{number:03d}" / "recipe.toml")
        assert recipe.optimizer.learning_rate == settings["optimizer.learning_rate"]
        assert list(recipe.augmentation.crop) == settings["augmentation.crop"]
    best = result.best
    assert best is not None
    assert best.mean_iou == max(trial.mean_iou or 0 for trial in result.trials)
    written = load_recipe(result.recipe)
    assert written.optimizer.learning_rate == best.settings["optimizer.learning_rate"]
    assert written.epochs == RECIPE.epochs
    # There are enough trials: none begins, and the result is the same.
    again = sweep(scenes, out, RECIPE, SPACE, trials=2, callback=recorder)
    assert len(recorder.begins) == 2
    assert again == result
    assert json.loads(json.dumps(again.to_json()))["best"] == best.number


class FakeRun:
    def __init__(self, history: list[dict[str, Any]]) -> None:
        self.history = history


def fake_training(
    monkeypatch: pytest.MonkeyPatch, scores: Callable[[int], list[float]]
) -> list[tuple[str, str]]:
    """Replace training by epochs with the given val mIoU per trial; return the calls."""
    calls: list[tuple[str, str]] = []

    def work(kind: str, folder: Path, callback: Any) -> FakeRun:
        calls.append((kind, folder.name))
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints" / "step-000000000.safetensors").touch()
        rows = []
        for epoch, score in enumerate(scores(int(folder.name[-3:])), start=1):
            callback.on_step(epoch=epoch, step=1, steps=1, loss=1.0, images=1)
            rows.append({"epoch": epoch, "val_mean_iou": score})
            callback.on_epoch_end(rows[-1])
        return FakeRun(rows)

    def train(root: Path, out: Path, recipe: Recipe, *, overwrite: bool, callback: Any) -> FakeRun:
        return work("train", out, callback)

    def resume(folder: Path, *, data: object, callback: Any) -> FakeRun:
        return work("resume", folder, callback)

    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(runs, "resume", resume)
    return calls


def long_recipe(epochs: int = 8) -> Recipe:
    return RECIPE.model_copy(update={"epochs": epochs})


def test_a_trial_below_the_median_is_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scores(trial: int) -> list[float]:
        return [0.1 * (trial < 4) + 0.05 * epoch for epoch in range(8)]

    fake_training(monkeypatch, scores)
    result = sweep(tmp_path, tmp_path / "out", long_recipe(), SPACE, trials=6)
    by_number = {trial.number: trial for trial in result.trials}
    assert [by_number[n].state for n in range(6)] == ["complete"] * 4 + ["pruned"] * 2
    assert by_number[4].epochs == 2  # not in the first quarter of the epochs
    assert result.best is not None
    assert result.best.number < 4


def test_a_loss_that_is_not_finite_fails_only_its_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scores(trial: int) -> list[float]:
        if trial == 0:
            raise TrainingError("the loss is nan")
        return [0.5] * 8

    fake_training(monkeypatch, scores)
    result = sweep(tmp_path, tmp_path / "out", long_recipe(), SPACE, trials=2)
    assert {trial.number: trial.state for trial in result.trials} == {0: "failed", 1: "complete"}


def test_a_stopped_sweep_continues_its_trial_with_the_same_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = True

    def scores(trial: int) -> list[float]:
        if trial == 1 and stopping:
            raise TrainingStoppedError("stopped", signal_number=2)
        return [0.5] * 8

    calls = fake_training(monkeypatch, scores)
    recorder = Recorder()
    with pytest.raises(TrainingStoppedError, match="run the same command") as caught:
        sweep(tmp_path, tmp_path / "out", long_recipe(), SPACE, trials=3, callback=recorder)
    assert caught.value.exit_code == 130
    stopping = False
    result = sweep(tmp_path, tmp_path / "out", long_recipe(), SPACE, trials=3, callback=recorder)
    assert calls == [
        ("train", "trial-000"),
        ("train", "trial-001"),
        ("resume", "trial-001"),
        ("train", "trial-002"),
    ]
    assert recorder.begins[1] == recorder.begins[2]
    assert len({str(settings) for _, settings in recorder.begins}) == 3  # no duplicates
    assert [trial.state for trial in result.trials] == ["complete"] * 3


def test_the_time_budget_ends_a_trial_between_epochs_and_it_can_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def scores(trial: int) -> Any:
        nonlocal now
        for _ in range(8):
            now += 60
            yield 0.5

    calls = fake_training(monkeypatch, scores)
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    out = tmp_path / "out"
    result = sweep(tmp_path, out, long_recipe(), SPACE, trials=2, minutes=3)
    assert [(trial.state, trial.epochs) for trial in result.trials] == [("running", 2)]
    assert result.best is None
    assert not result.recipe.exists()
    result = sweep(tmp_path, out, long_recipe(), SPACE, trials=2, minutes=100)
    assert [trial.state for trial in result.trials] == ["complete"] * 2
    assert calls[1] == ("resume", "trial-000")


def test_the_folder_of_another_sweep_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_training(monkeypatch, lambda trial: [0.5] * 8)
    sweep(tmp_path, tmp_path / "out", long_recipe(), SPACE, trials=1)
    with pytest.raises(InputError, match="holds a sweep with another recipe"):
        sweep(tmp_path, tmp_path / "out", long_recipe(9), SPACE, trials=1)
    with pytest.raises(InputError, match="holds other files"):
        sweep(tmp_path, tmp_path, long_recipe(), SPACE, trials=1)


def test_backbones_are_checked_before_the_first_trial(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="abacus"):
        sweep(
            tmp_path,
            tmp_path / "out",
            RECIPE,
            SearchSpace((1, 2), ((32, 32),), ("abacus",)),
            trials=1,
        )
    assert not (tmp_path / "out").exists()


def test_the_command_names_the_best_and_how_to_use_it(
    scenes: Path, tmp_path: Path, cli: Cli
) -> None:
    settings = ["model.weights=none", "model.options.backbone=tiny", "epochs=1", "batch_size=2"]
    flags = [part for text in settings for part in ("--set", text)]
    result = cli("sweep", scenes, "--out", "found", "--trials", 1, *flags, "--json", "found.json")
    assert result.code == 0, result.err
    assert f"use it       pixelwise train {scenes} --recipe found/best.toml" in result.out
    assert "trial-000" in result.out
    assert json.loads((tmp_path / "found.json").read_text())["best"] == 0
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setitem(__import__("sys").modules, "optuna", None)
        missing = cli("sweep", scenes, "--out", "found")
    assert missing.code == 2
    assert "pip install 'optuna>=4.2'" in missing.err
