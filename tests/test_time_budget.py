"""Fitting a run into a number of minutes, with speeds that the tests invent."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import pixelwise
from fixture_types import Cli
from pixelwise.data.scenes import write_scenes
from pixelwise.errors import InputError
from pixelwise.models import count_parameters, create_model
from pixelwise.planning.time_budget import (
    MAX_EPOCHS,
    MIN_STEPS,
    OVERHEAD,
    VALIDATION,
    TimePlan,
    Workload,
    fit_minutes,
    smaller_crops,
)
from pixelwise.training import load_recipe, plan_training
from pixelwise.training.kernel_selection import KERNEL_CONFIGS, KernelChoice
from pixelwise.training.time_budget import plan_timed_run

CROP = (352, 480)
WORK = Workload(train=367, batch=8, val=101, val_pixels=360 * 480)
TINY = {"model.weights": "none", "model.options.backbone": "tiny", "memory_format": "contiguous"}


def plan(minutes: float, speeds: dict[str, float], work: Workload = WORK) -> TimePlan:
    """Plan with seconds per image of CROP by backbone; smaller crops take less in proportion."""
    return fit_minutes(
        minutes,
        work,
        backbones=list(speeds),
        crops=smaller_crops(CROP),
        measure=lambda name, crop: speeds[name] * crop[0] * crop[1] / (CROP[0] * CROP[1]),
    )


def test_an_epoch_takes_the_training_images_and_the_validation_images() -> None:
    work = Workload(train=100, batch=8, val=50, val_pixels=2 * 64 * 64)
    expected = OVERHEAD * 100 * 0.5 + 50 * 2 * 0.5 * VALIDATION
    assert work.epoch_seconds((64, 64), 0.5) == pytest.approx(expected)
    assert work.steps(100) == 1300


@pytest.mark.parametrize("minutes", [10, 30, 90.5])
def test_the_epochs_fill_the_time_and_do_not_exceed_it(minutes: float) -> None:
    chosen = plan(minutes, {"one": 0.1})
    epoch = WORK.epoch_seconds(CROP, 0.1)
    assert chosen.epochs * epoch <= 60 * minutes < (chosen.epochs + 1) * epoch
    assert (chosen.backbone, chosen.crop) == ("one", CROP)
    assert f"{minutes:g} minutes" in chosen.reason


def test_little_time_takes_a_faster_backbone_and_then_a_smaller_crop() -> None:
    speeds = {"strong": 0.4, "fast": 0.2}
    assert plan(90, speeds).backbone == "strong"
    chosen = plan(12, speeds)
    assert (chosen.backbone, chosen.crop) == ("fast", CROP)
    chosen = plan(4, speeds)
    assert chosen.crop == (352, 224)
    assert WORK.steps(chosen.epochs) >= MIN_STEPS
    assert plan(2, speeds).crop == (160, 224)  # too few steps, but the most that fit


def test_little_time_takes_smaller_batches_for_more_steps() -> None:
    assert [WORK.batch_size(epochs) for epochs in (24, 12, 11, 7, 1)] == [8, 8, 4, 4, 4]
    assert WORK.steps(7) == 7 * 92
    given = Workload(train=367, batch=8, val=101, val_pixels=1.0, smallest_batch=8)
    assert (given.batch_size(7), given.steps(7)) == (8, 7 * 46)
    assert (plan(60, {"one": 0.2}).batch_size, plan(14, {"one": 0.2}).batch_size) == (8, 4)


def test_the_longest_run_is_limited_and_the_shortest_refused() -> None:
    few = Workload(train=4, batch=2, val=2, val_pixels=64 * 64)
    assert plan(500, {"one": 0.01}, few).epochs == MAX_EPOCHS
    with pytest.raises(InputError, match=r"minutes = 0\.5: one epoch takes about .* give more"):
        plan(0.5, {"one": 1.0})


@pytest.mark.parametrize("crop", [(352, 480), (512, 512), (64, 64), (96, 320)])
def test_smaller_crops_are_valid_crops(crop: tuple[int, int]) -> None:
    crops = smaller_crops(crop)
    assert crops[0] == crop
    for larger, smaller in pairwise(crops):
        assert smaller[0] * smaller[1] <= larger[0] * larger[1] / 2
        assert all(side % 32 == 0 and side >= 32 for side in smaller)


# --- Runs


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), train=8, val=2, height=64, width=96)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Let every image take a second; return the crops that were timed."""
    crops = []

    def select(model: object, *, crop: tuple[int, int], **options: Any) -> KernelChoice:
        assert options["measure"]
        crops.append(crop)
        return KernelChoice(KERNEL_CONFIGS[0], "invented", 1.0)

    monkeypatch.setattr("pixelwise.training.time_budget.select_kernels", select)
    return crops


def test_a_run_is_planned_by_the_measured_speed(
    scenes: Path, tmp_path: Path, timed: list[tuple[int, int]]
) -> None:
    run = plan_training(scenes, tmp_path / "run", load_recipe(None, {**TINY, "minutes": 60}))
    # 8 training images with overhead, 2 validation images.
    assert run.recipe.epochs == int(3600 / (OVERHEAD * 8 + 2 * VALIDATION))
    assert run.recipe.minutes == 0  # a resumed run keeps the epochs
    assert run.recipe.augmentation.crop == (64, 96)
    assert run.recipe.batch_size == 2  # several steps per epoch with 8 images
    assert timed == [(64, 96)]
    assert "60 minutes" in run.facts["epochs"]


def test_a_given_crop_and_network_are_kept(
    scenes: Path, tmp_path: Path, timed: list[tuple[int, int]]
) -> None:
    settings = {**TINY, "minutes": 0.5, "augmentation.crop": [64, 64], "batch_size": 2}
    run = plan_training(scenes, tmp_path / "run", load_recipe(None, settings))
    assert (run.recipe.epochs, run.recipe.augmentation.crop) == (2, (64, 64))
    assert run.recipe.model.options["backbone"] == "tiny"
    with pytest.raises(InputError, match="one epoch takes about"):
        plan_training(scenes, tmp_path / "run", load_recipe(None, {**settings, "minutes": 0.1}))


def test_an_open_network_gets_a_backbone_that_fits(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def select(model: Any, *, crop: tuple[int, int], **options: Any) -> KernelChoice:
        is_tiny = count_parameters(model) < 2_000_000
        return KernelChoice(KERNEL_CONFIGS[0], "invented", 0.1 if is_tiny else 10.0)

    monkeypatch.setattr("pixelwise.training.time_budget.select_kernels", select)
    monkeypatch.setattr("pixelwise.training.time_budget.BACKBONES", ("mobilenet_v2", "tiny"))
    monkeypatch.setattr("pixelwise.training.time_budget.find_imagenet_weights", str)
    data = pixelwise.open_dataset(scenes)
    for minutes, backbone in ((60 * 24, "mobilenet_v2"), (10, "tiny")):
        recipe, _ = plan_timed_run(
            load_recipe(None, {"minutes": minutes}),
            data,
            torch.device("cpu"),
            make_network=lambda model: create_model(
                model.name, num_classes=len(data.classes), **model.options
            ),
        )
        assert recipe.model.options.get("backbone", "mobilenet_v2") == backbone
        assert recipe.augmentation.crop == (64, 96)


def test_minutes_exclude_epochs(scenes: Path, cli: Cli) -> None:
    refused = cli("train", scenes, "--minutes", "5", "--epochs", "3")
    assert (refused.code, "minutes = 5 with epochs = 3" in refused.err) == (2, True)
    refused = cli("train", "--resume", "run", "--minutes", "5")
    assert (refused.code, "omit --minutes" in refused.err) == (2, True)
