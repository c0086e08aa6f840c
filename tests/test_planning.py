"""The plan: settings that are chosen from the data and the machine."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pixelwise.planning.machine as machine_module
from fixture_types import Cli
from pixelwise.data.scenes import write_scenes
from pixelwise.doctor import examine
from pixelwise.errors import InputError
from pixelwise.models import count_activations, create_model
from pixelwise.planning.machine import Machine, this_machine
from pixelwise.planning.plan import (
    BATCH_SIZE,
    CLASS_WEIGHTS,
    CROP,
    EPOCHS,
    MAX_BATCH,
    MAX_EPOCHS,
    MIN_EPOCHS,
    PLANNED,
    STEPS,
    USABLE,
    DatasetStats,
    Network,
    make_plan,
)
from pixelwise.recipes.load_recipe import load_resolved_recipe, shipped_recipes
from pixelwise.recipes.schema import ModelRecipe
from pixelwise.training import Callback, load_recipe, plan_training, resume, train
from pixelwise.training.apply_plan import estimate_memory
from pixelwise.training.losses.segmentation_loss import make_class_weights

GIB = 2**30
LAPTOP = Machine(cores=2, memory=24 * GIB)
# Pixels of CamVid's train split: sky, building, pole, road, pavement, tree, sign symbol, fence,
# car, pedestrian, bicyclist.
CAMVID = DatasetStats(
    train=367,
    sizes=[(360, 480)] * 468,
    pixels=[
        10682767, 14750079, 623349, 20076880, 2845085, 6166762,
        743859, 714595, 3719877, 405385, 184967,
    ],
)  # fmt: skip

TINY = {"model.weights": "none", "model.options.backbone": "tiny", "memory_format": "contiguous"}


def values(
    dataset_stats: DatasetStats, machine: Machine = LAPTOP, **options: Any
) -> dict[str, Any]:
    return {value.key: value.value for value in make_plan(dataset_stats, machine, **options)}


# --- The rules


def test_camvid_gets_the_settings_its_score_was_measured_with() -> None:
    assert values(CAMVID) == {CROP: (352, 480), BATCH_SIZE: 8, EPOCHS: 24, CLASS_WEIGHTS: "none"}
    gpu = replace(LAPTOP, gpu="a GPU", gpu_memory=16 * GIB)
    assert values(CAMVID, gpu) == values(CAMVID)


@pytest.mark.parametrize(
    ("memory", "batch", "crop"),
    [
        # 3100 bytes for each of 352 * 480 pixels are 500 MiB per image; half of the memory is used.
        (24 * GIB, 8, (352, 480)),
        (8 * GIB, 4, (352, 480)),
        (4 * GIB, 2, (352, 480)),
        (2 * GIB, 2, (352, 224)),
        (None, 8, (352, 480)),
    ],
)
def test_little_memory_reduces_the_batch_and_then_the_crop(
    memory: int | None, batch: int, crop: tuple[int, int]
) -> None:
    planned = values(CAMVID, replace(LAPTOP, memory=memory))
    assert (planned[BATCH_SIZE], planned[CROP]) == (batch, crop)


def test_the_memory_of_the_gpu_counts_instead_of_the_machine_s() -> None:
    gpu = Machine(cores=2, memory=64 * GIB, gpu="small", gpu_memory=4 * GIB)
    assert values(CAMVID, gpu)[BATCH_SIZE] == 2
    shared = Machine(cores=2, memory=8 * GIB, gpu="mps")
    assert values(CAMVID, shared)[BATCH_SIZE] == 4


@pytest.mark.parametrize(
    ("train", "batch", "epochs"),
    [
        (2, 2, 200),  # one step per epoch: the maximum number of epochs
        (10, 2, 200),
        (20, 4, 200),
        (40, 8, 200),
        (100, 8, 85),  # 13 steps per epoch: 1105
        (367, 8, 24),
        (600, 8, 15),
        (1464, 8, 12),
        (118287, 8, 12),
    ],
)
def test_small_datasets_get_more_epochs_and_smaller_batches(
    train: int, batch: int, epochs: int
) -> None:
    planned = values(replace(CAMVID, train=train))
    assert (planned[BATCH_SIZE], planned[EPOCHS]) == (batch, epochs)


def test_a_gpu_gets_more_epochs_of_a_large_dataset() -> None:
    large = replace(CAMVID, train=10_000)
    gpu = replace(LAPTOP, gpu="a GPU", gpu_memory=16 * GIB)
    assert (values(large)[EPOCHS], values(large, gpu)[EPOCHS]) == (12, 24)


@pytest.mark.parametrize(
    ("pixels", "weights"),
    [
        ([90, 5, 5], "root_median_frequency"),
        ([89, 6, 5], "none"),
        ([96, 0, 4], "root_median_frequency"),
        ([100, 0], "none"),
        ([0, 0], "none"),
    ],
)
def test_class_weights_are_planned_if_one_class_covers_nearly_all_pixels(
    pixels: list[int], weights: Any
) -> None:
    assert values(replace(CAMVID, pixels=pixels))[CLASS_WEIGHTS] == weights


def test_fixed_values_are_not_planned_and_influence_the_others() -> None:
    fixed = {CROP: (64, 64), BATCH_SIZE: 4}
    planned = values(CAMVID, fixed=fixed)
    assert planned == {
        EPOCHS: 12,
        CLASS_WEIGHTS: "none",
    }  # 92 steps per epoch: as many steps in total
    assert values(CAMVID, fixed={CROP: "image"})[BATCH_SIZE] == 1
    assert make_plan(CAMVID, LAPTOP, fixed=dict.fromkeys(PLANNED, 1)) == []


DATASETS = st.builds(
    DatasetStats,
    train=st.integers(1, 200_000),
    sizes=st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=5),
    pixels=st.lists(st.integers(0, 10**12), min_size=1, max_size=20),
)
MACHINES = st.builds(
    Machine,
    cores=st.integers(1, 256),
    memory=st.none() | st.integers(GIB // 2, 1024 * GIB),
    gpu=st.sampled_from(["", "a GPU"]),
    gpu_memory=st.none(),
)


@settings(max_examples=200)
@given(DATASETS, MACHINES)
def test_every_plan_is_valid(dataset_stats: DatasetStats, machine: Machine) -> None:
    plan = make_plan(dataset_stats, machine)
    assert [value.key for value in plan] == list(PLANNED)
    assert all(value.reason for value in plan)
    planned = {value.key: value.value for value in plan}
    recipe = load_recipe(None, planned)
    assert all(recipe.value(key) == value for key, value in planned.items())
    height, width = planned[CROP]
    batch, epochs = planned[BATCH_SIZE], planned[EPOCHS]
    assert height % 32 == width % 32 == 0
    assert 2 <= batch <= MAX_BATCH
    assert MIN_EPOCHS <= epochs <= MAX_EPOCHS
    network = Network()
    used = network.base + network.per_pixel * batch * height * width
    smallest = batch == 2 and (height, width) == (32, 32)
    assert machine.memory is None or smallest or used <= USABLE * machine.memory
    steps = math.ceil(dataset_stats.train / batch)
    if MIN_EPOCHS * 2 < epochs < MAX_EPOCHS:
        assert abs(steps * epochs - STEPS) <= steps / 2
    assert planned[CLASS_WEIGHTS] in ("none", "root_median_frequency")


@given(DATASETS, st.integers(1, 100_000))
def test_more_images_never_mean_much_fewer_steps_than_are_sufficient(
    dataset_stats: DatasetStats, more: int
) -> None:
    def steps(train: int) -> int:
        planned = values(replace(dataset_stats, train=train))
        return math.ceil(train / planned[BATCH_SIZE]) * int(planned[EPOCHS])

    assert steps(dataset_stats.train + more) >= min(steps(dataset_stats.train), 0.9 * STEPS)


# --- The machine and the network


def test_the_memory_limit_of_a_container_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine_module, "_LIMITS", (limit,))
    unlimited = this_machine().memory
    assert unlimited is None or unlimited > 2**28
    limit.write_text("268435456\n")
    assert this_machine().memory == 2**28
    limit.write_text("max\n")
    assert this_machine().memory == unlimited
    assert this_machine().cores >= 1


def test_activations_are_counted_by_hand() -> None:
    convolutions = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1, stride=2)
    )
    assert count_activations(convolutions, height=6, width=8) == 2 * 4 * 48 + 2 * 12


def test_a_larger_network_needs_more_memory_and_a_smaller_batch() -> None:
    assert estimate_memory(ModelRecipe(name="deeplab_v3plus")) == Network()
    larger = estimate_memory(ModelRecipe(options={"backbone": "resnet101"}))
    finer = estimate_memory(ModelRecipe(options={"output_stride": 8}))
    assert larger.per_pixel > 1.5 * Network().per_pixel
    assert larger.per_pixel > finer.per_pixel > Network().per_pixel
    assert values(CAMVID, replace(LAPTOP, memory=12 * GIB), network=larger)[BATCH_SIZE] == 4


def test_measuring_a_network_changes_neither_it_nor_the_random_state() -> None:
    before = torch.get_rng_state()
    estimate_memory(ModelRecipe(options={"backbone": "tiny"}))
    assert torch.equal(before, torch.get_rng_state())
    model = create_model("deeplab_v3plus", num_classes=2, backbone="tiny").train()
    count_activations(model, height=32, width=32)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


# --- Recipes and runs


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_state_their_whole_schedule(name: str) -> None:
    recipe = load_recipe(name)
    assert "auto" not in (recipe.epochs, recipe.batch_size, recipe.loss.class_weights)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), train=6, val=2, height=48, width=64)


def test_a_run_saves_the_plan_and_resume_does_not_plan_again(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(scenes, tmp_path / "run", load_recipe(None, {**TINY, "epochs": 1}))
    saved = load_resolved_recipe(tmp_path / "run" / "recipe.toml")
    assert saved == run.recipe
    assert [saved.value(key) for key in PLANNED] == [(32, 64), 2, 1, "none"]
    assert run.facts["batch"].startswith("2: several steps per epoch")
    assert run.facts["epochs"] == "1: set by you"
    assert repr(run).startswith(f"Run({str(run.folder)!r}: 1 of 1 epochs, best val mIoU ")
    monkeypatch.setattr("pixelwise.training.setup.plan_timed_run", None)
    again = resume(tmp_path / "run")
    assert again.recipe == run.recipe
    assert again.facts["batch"] == run.facts["batch"]
    assert again.facts["resumed"] == "the run is finished"
    path = tmp_path / "run" / "recipe.toml"
    path.write_text(path.read_text().replace("epochs = 1", 'epochs = "auto"'))
    with pytest.raises(InputError, match=r"recipe\.toml: epochs is auto"):
        resume(tmp_path / "run")


def test_plan_training_resolves_the_recipe_and_writes_nothing(scenes: Path, tmp_path: Path) -> None:
    recipe = load_recipe(None, {**TINY, "batch_size": 3})
    callback, statuses = Callback(), list[str]()
    callback.on_status = statuses.append  # type: ignore[method-assign]
    planned = plan_training(scenes, tmp_path / "run", recipe, callback=callback)
    assert statuses == ["timing the training kernels"]
    assert not (tmp_path / "run").exists()
    assert planned.recipe.value(EPOCHS) == MAX_EPOCHS
    assert planned.facts["batch"] == "3: set by you"


def test_the_doctor_suggests_the_values_that_train_chooses(scenes: Path, tmp_path: Path) -> None:
    planned = plan_training(scenes, tmp_path / "run", load_recipe(None, {**TINY, "device": "cpu"}))
    default = {s.key: s.value for s in examine(scenes).suggestions}
    chosen = {key: planned.recipe.value(key) for key in PLANNED}
    assert {key: tuple(v) if isinstance(v, list) else v for key, v in default.items()} == chosen


def test_planned_class_weights_reach_the_loss(tmp_path: Path, make_folder_data: Any) -> None:
    from PIL import Image

    root = make_folder_data(tmp_path / "data", splits={"train": 4, "val": 2}, classes=None)
    for path in root.glob("masks/*/*.png"):
        mask = np.zeros((24, 32), dtype=np.uint8)
        mask[0, :10] = 1
        Image.fromarray(mask).save(path)
    run = plan_training(root, tmp_path / "run", load_recipe(None, dict(TINY)))
    frequency = 10 / (24 * 32)
    expected = [math.sqrt(0.5 / (1 - frequency)), math.sqrt(0.5 / frequency)]
    weights = make_class_weights(run.recipe.loss.class_weights, run.data.pixel_counts["train"])
    assert weights is not None
    assert weights.tolist() == pytest.approx(expected, abs=1e-3)
    assert "would dominate the loss" in run.facts["class weights"]


def test_plan_only_prints_the_plan_and_stops(scenes: Path, tmp_path: Path, cli: Cli) -> None:
    tiny = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
    done = cli("train", scenes, "--out", "run", "--plan-only", "--batch-size", "4", *tiny)
    assert (done.code, done.err) == (0, "")
    rows = {line.split("  ")[0]: line for line in done.out.splitlines()}
    assert {"crop", "batch", "epochs", "class weights"} <= set(rows)
    assert "4: set by you" in rows["batch"]
    assert not (tmp_path / "run").exists()


def test_plan_only_raises_the_errors_of_training(scenes: Path, tmp_path: Path, cli: Cli) -> None:
    assert cli("train", "absent", "--plan-only").code == 2
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text("")
    used = cli("train", scenes, "--out", "run", "--plan-only")
    assert (used.code, "holds a run already" in used.err) == (2, True)
    (tmp_path / "file").write_text("")
    below = cli("train", scenes, "--out", "file/run", "--plan-only")
    assert (below.code, "Not a directory" in below.err) == (2, True)
    together = cli("train", "--resume", "run", "--plan-only")
    assert (together.code, "its own settings: omit --plan-only" in together.err) == (2, True)
