"""Recipes, loading, the optimizer, kernel selection, and runs from end to end."""

from __future__ import annotations

import copy
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import pixelwise
from pixelwise.data.dataset import open_dataset
from pixelwise.data.dataset_statistics import median_frequency, root_median_frequency
from pixelwise.data.distortion import Distortion
from pixelwise.data.scenes import write_scenes
from pixelwise.data.transforms import Augmentation
from pixelwise.errors import InputError
from pixelwise.models import create_model
from pixelwise.recipes.load_recipe import (
    load_bundle_recipe,
    load_resolved_recipe,
    parse_override,
    shipped_recipes,
)
from pixelwise.recipes.schema import Recipe, ResolvedRecipe
from pixelwise.training import TrainingError, load_recipe, train
from pixelwise.training.kernel_selection import KERNEL_CONFIGS, KernelConfig, select_kernels
from pixelwise.training.loading import AugmentedSplit, BatchOrder, iterate, make_loader
from pixelwise.training.optimizer import make_optimizer, make_schedule
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.published.fetch import find_imagenet_weights
from settings import TINY

DIVERGING = {"optimizer.name": "sgd", "optimizer.learning_rate": 1e30}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), train=5, val=2, height=48, width=64)


# --- Recipe


def test_a_recipe_round_trips_through_toml(tmp_path: Path) -> None:
    recipe = load_recipe(
        None, {"epochs": 3, "augmentation.crop": [64, 96], "loss.class_weights": [1, 2.5]}
    )
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml())
    assert load_recipe(path) == recipe


def test_overrides_take_precedence_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("epochs = 7\n[optimizer]\nlearning_rate = 0.003\nmomentum = 0.1\n")
    recipe = load_recipe(path, {"optimizer.learning_rate": 0.002})
    assert (recipe.epochs, recipe.optimizer.learning_rate) == (7, 0.002)
    assert recipe.optimizer.momentum == 0.1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"epoch": 3}, "unknown key 'epoch': allowed are epochs"),
        ({"optimizer.rate": 3}, "unknown key 'optimizer.rate': allowed are name, learning_rate"),
        ({"epochs": 0}, "epochs = 0"),
        ({"epochs": "many"}, "epochs = 'many'"),
        ({"augmentation.scale": [2, 1]}, "ascending order"),
        ({"augmentation.crop": [0, 5]}, "at least 8 pixels"),
        ({"augmentation.crop": [7, 64]}, "at least 8 pixels"),
        ({"epochs": 2, "epochs.x": 1}, "epochs is a value"),
        ({"optimizer": 3}, "optimizer = 3"),
        ({"data.workers": -3}, "data.workers = -3"),
        ({"seed": 10**22}, "seed = "),
        ({"optimizer.learning_rate": math.inf}, "optimizer.learning_rate = inf"),
        ({"augmentation.scale": [1, math.inf]}, "augmentation.scale = inf"),
        ({"augmentation.crop": "large"}, "augmentation.crop = 'large'"),
        ({"device": "abacus"}, "device = 'abacus'"),
    ],
)
def test_an_invalid_recipe_raises_a_one_line_error(
    overrides: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(None, overrides)
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)


def test_keys_of_pixelwise_0_1_are_refused_with_their_new_names(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text('layout = "contiguous"\n[model]\npretrained = "none"\n')
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert caught.value.problems == (
        f"{path}: model.pretrained of pixelwise 0.1: is now called model.weights: rename it",
        f"{path}: layout of pixelwise 0.1: is now called memory_format: rename it",
    )
    with pytest.raises(InputError, match=r"was written by pixelwise 0\.1") as caught:
        load_resolved_recipe(path)
    assert len(caught.value.problems) == 1


def test_the_recipe_of_a_bundle_of_pixelwise_0_1_is_read() -> None:
    saved = load_recipe(None, {"seed": 7, "data.val_fraction": 0.4}).to_json()
    saved["layout"] = saved.pop("memory_format")
    saved["model"]["pretrained"] = saved["model"].pop("weights")
    assert load_bundle_recipe(saved) == load_recipe(None, {"seed": 7, "data.val_fraction": 0.4})
    assert load_bundle_recipe({"seed": "odd"}) == load_recipe()


@pytest.mark.parametrize(
    "key",
    [
        "epochs",
        "batch_size",
        "augmentation.crop",
        "loss.class_weights",
        "memory_format",
        "kernels",
        "data.channels",
        "data.value_range",
    ],
)
def test_a_resolved_recipe_holds_no_auto(key: str, tmp_path: Path) -> None:
    recipe = load_recipe(
        None,
        {
            "epochs": 1,
            "batch_size": 2,
            "augmentation.crop": [32, 32],
            "loss.class_weights": "none",
            "memory_format": "channels_last",
            "kernels": "plain",
            "data.channels": 3,
            "data.value_range": [0, 255],
        },
    ).resolve({})
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml())
    assert load_resolved_recipe(path) == recipe
    path.write_text(recipe.replace({key: "auto"}).to_toml())
    with pytest.raises(InputError, match=rf"recipe\.toml: {key} is auto"):
        load_resolved_recipe(path)
    with pytest.raises(ValueError, match=key):
        recipe.resolve({key: "auto"})


def test_shipped_recipes_are_valid() -> None:
    assert "demo" in shipped_recipes()
    for name in shipped_recipes():
        assert isinstance(load_recipe(name), Recipe)


@pytest.mark.parametrize(
    ("text", "value"),
    [("a.b=3", 3), ("a.b=[1, 2]", [1, 2]), ("a.b=true", True), ("a.b=none", "none"), ("a.b=", "")],
)
def test_an_override_is_a_toml_value_or_a_string(text: str, value: object) -> None:
    assert parse_override(text) == ("a.b", value)


def test_median_frequency_by_hand() -> None:
    # Frequencies 0.1, 0.2, 0.7: the median is 0.2. An absent class has weight 1.
    assert median_frequency(np.array([10, 20, 70])) == pytest.approx([2, 1, 2 / 7])
    assert median_frequency(np.array([10, 0, 30])) == pytest.approx([2, 1, 2 / 3])


@pytest.mark.parametrize(
    ("pixels", "weights"),
    [
        ([90, 5, 5], [math.sqrt(5 / 90), 1, 1]),
        # The median of two frequencies is their mean: 0.5, over 0.96 and 0.04.
        ([96, 4], [math.sqrt(0.5 / 0.96), math.sqrt(0.5 / 0.04)]),
        ([96, 0, 4], [0.722, 1, 3.536]),  # an absent class
        ([999_999, 1], [math.sqrt(0.5), 10]),
    ],
)
def test_root_median_frequency_by_hand(pixels: list[int], weights: list[float]) -> None:
    assert root_median_frequency(np.array(pixels)) == pytest.approx(weights, abs=1e-3)


# --- Batch order and loading


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 12), st.integers(0, 3), st.integers(1, 3))
def test_an_epoch_holds_each_image_once_in_batches_of_similar_size(
    count: int, batch_size: int, seed: int, epoch: int
) -> None:
    order = BatchOrder(count, batch_size=batch_size, seed=seed)
    order.begin(epoch)
    batches = list(order)
    assert len(batches) == len(order) == math.ceil(count / batch_size)
    assert sorted(index for batch in batches for _, index in batch) == list(range(count))
    sizes = {len(batch) for batch in batches}
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert batches == list(order)  # depends on seed and epoch only


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a single core
def test_batches_do_not_depend_on_the_number_of_workers(scenes: Path) -> None:
    data = open_dataset(scenes, splits=("train",))
    augmentation = Augmentation(
        crop=(32, 48), distortion=Distortion(brightness=0.2, saturation=0.2, noise=4)
    )
    results = []
    for workers in (0, 2):
        order = BatchOrder(5, batch_size=2, seed=4)
        order.begin(3)
        dataset = AugmentedSplit(data, "train", augmentation, seed=4)
        results.append(list(iterate(make_loader(dataset, order, workers=workers))))
    for (images, masks), (other_images, other_masks) in zip(*results, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(masks, other_masks)


# --- Optimizer


@pytest.mark.parametrize(("name", "multiple"), [("adamw", 5), ("sgd", 10)])
def test_the_head_has_a_multiple_of_the_learning_rate_and_only_kernels_decay(
    name: str, multiple: float
) -> None:
    model = create_model("deeplab_v3plus", num_classes=2, backbone="tiny")
    recipe = load_recipe(None, {"optimizer.name": name, "optimizer.learning_rate": 0.002})
    optimizer = make_optimizer(model, recipe)
    setting = {
        id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]
    }
    for name, parameter in model.named_parameters():
        rate, decay = setting[id(parameter)]
        assert rate == pytest.approx(0.002 * (multiple if name.startswith("head.") else 1))
        assert decay == (recipe.optimizer.weight_decay if parameter.ndim > 1 else 0)


def test_the_learning_rate_follows_the_polynomial() -> None:
    model = create_model("deeplab_v3plus", num_classes=2, backbone="tiny")
    recipe = load_recipe(None, {"optimizer.name": "sgd"})
    optimizer = make_optimizer(model, recipe)
    schedule = make_schedule(optimizer, recipe, steps=10)
    for step in range(10):
        assert schedule.get_last_lr()[0] == pytest.approx(0.01 * (1 - step / 10) ** 0.9)
        optimizer.step()
        schedule.step()


def test_the_learning_rate_follows_half_a_cosine() -> None:
    model = create_model("deeplab_v3plus", num_classes=2, backbone="tiny")
    recipe = load_recipe()
    optimizer = make_optimizer(model, recipe)
    schedule = make_schedule(optimizer, recipe, steps=8)
    rates = []
    for _ in range(9):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.001)
    assert rates[4] == pytest.approx(0.0005)
    assert rates[8] == pytest.approx(0, abs=1e-12)
    drops = np.diff(rates)
    assert drops.argmin() in (3, 4)  # steepest in the middle
    assert (drops < 0).all()


def test_adamw_decays_kernels_and_needs_a_small_rate() -> None:
    model = create_model("deeplab_v3plus", num_classes=2, backbone="tiny")
    optimizer = make_optimizer(model, load_recipe())
    assert type(optimizer) is torch.optim.AdamW
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.01}
    assert {group["lr"] for group in optimizer.param_groups} == {0.001, 0.005}
    with pytest.raises(InputError, match=r"learning_rate = 0\.01: must be at most 0\.003"):
        load_recipe(None, {"optimizer.learning_rate": 0.01})


def test_defaults_depend_on_the_optimizer_and_on_whether_a_network_is_named() -> None:
    for recipe in (
        load_recipe(None, {"optimizer.name": "sgd"}),
        load_recipe().replace({"optimizer.name": "sgd"}),
    ):
        found = recipe.optimizer
        assert (found.learning_rate, found.head_multiplier, found.schedule) == (0.01, 10, "poly")
        assert load_recipe(None, recipe.flat()) == recipe
    assert load_recipe().model.options == {"stride_2_skip": True}
    assert load_recipe(None, {"model.options.backbone": "tiny"}).model.options == {
        "stride_2_skip": True,
        "backbone": "tiny",
    }
    for name in ("deeplab_v3plus", "fcn8s"):
        assert not load_recipe(None, {"model.name": name}).model.options
        assert not load_recipe().replace({"model.name": name}).model.options


def test_kernel_selection_changes_neither_model_nor_random_state() -> None:
    torch.manual_seed(3)
    model = create_model("deeplab_v3plus", num_classes=2, backbone="tiny")
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    choice = select_kernels(model, crop=(32, 32), num_classes=2, device=torch.device("cpu"))
    assert choice.kernel_config in KERNEL_CONFIGS
    assert choice.seconds is not None
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_a_timed_choice_of_kernels_is_recorded_with_a_warning(scenes: Path, tmp_path: Path) -> None:
    settings = {**TINY, "memory_format": "auto", "epochs": 1}
    run = train(scenes, tmp_path / "run", load_recipe(None, settings))
    assert "an equal run may choose others and round differently" in run.facts["kernels"]
    start = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[0])
    assert start["kernels"] == run.facts["kernels"]
    repeated = load_recipe(run.folder / "recipe.toml")
    assert (repeated.memory_format, repeated.kernels) == (
        run.recipe.memory_format,
        run.recipe.kernels,
    )
    again = train(scenes, tmp_path / "again", repeated)
    assert again.last.read_bytes() == run.last.read_bytes()
    assert "may choose" not in again.facts["kernels"]


def test_kernels_that_the_recipe_states_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(**stated: Any) -> KernelConfig:
        model = create_model("deeplab_v3plus", num_classes=2, backbone="tiny")
        device = torch.device("cpu")
        choice = select_kernels(model, crop=(32, 32), num_classes=2, device=device, **stated)
        assert (choice.seconds is None) == ("auto" not in stated.values())
        return choice.kernel_config

    assert choose(memory_format="channels_last", kernels="plain") == KernelConfig("channels_last")
    assert choose(memory_format="channels_last", kernels="compiled").kernels == "compiled"
    assert choose(memory_format="auto", kernels="plain").kernels == "plain"
    with pytest.raises(InputError, match=r"kernels = 'compiled': need a CPU .* bf16-mixed"):
        choose(memory_format="channels_last", kernels="compiled", precision="bf16-mixed")
    with pytest.raises(InputError, match="memory_format = 'contiguous'"):
        load_recipe(None, {"memory_format": "contiguous", "kernels": "compiled"})

    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(InputError, match="pip install numba"):
        KernelConfig("channels_last", "compiled").apply(torch.nn.Identity())


# --- Runs


def test_a_run_writes_all_its_files(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = train(scenes, out, load_recipe(None, {**TINY, "epochs": 2, "batch_size": 2}))
    assert {p.name for p in out.iterdir()} == {
        "recipe.toml",
        "data.json",
        "metrics.jsonl",
        "best.safetensors",
        "last.safetensors",
        "val_images.safetensors",
        "checkpoints",
    }
    assert load_resolved_recipe(out / "recipe.toml") == run.recipe
    assert run.recipe.augmentation.crop == (32, 64)  # "auto", resolved
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "step", "epoch", "epoch", "end"]
    dataset = json.loads((out / "data.json").read_text())
    assert {s: len(samples) for s, samples in dataset["splits"].items()} == {"train": 5, "val": 2}
    best, last = Bundle.load(run.best), Bundle.load(run.last)
    assert best.scores["mean_iou"] == max(row["val_mean_iou"] for row in run.history)
    assert last.scores["epoch"] == 2
    assert best.classes == run.data.classes
    assert ResolvedRecipe.model_validate(best.recipe) == run.recipe


def test_validation_may_be_rare_and_the_weights_are_the_same(scenes: Path, tmp_path: Path) -> None:
    always = train(scenes, tmp_path / "always", load_recipe(None, {**TINY, "epochs": 5}))
    settings = {**TINY, "epochs": 5, "validate_every": 2}
    rarely = train(scenes, tmp_path / "rarely", load_recipe(None, settings))
    assert [row["epoch"] for row in rarely.history] == [2, 4, 5]
    assert rarely.history == [
        {**row, **{key: rare[key] for key in row if "second" in key}}
        for rare in rarely.history
        for row in always.history
        if row["epoch"] == rare["epoch"]
    ]
    assert repr(rarely).count("5 of 5 epochs") == 1


@pytest.mark.parametrize("kernels", ["plain", "compiled"])
def test_the_same_seed_gives_the_same_bits(scenes: Path, tmp_path: Path, kernels: str) -> None:
    memory_format = "contiguous" if kernels == "plain" else "channels_last"
    overrides = {**TINY, "memory_format": memory_format, "kernels": kernels}
    recipe = load_recipe(None, {**overrides, "epochs": 2, "batch_size": 3})
    one, two = (train(scenes, tmp_path / name, recipe) for name in ("one", "two"))
    assert one.last.read_bytes() == two.last.read_bytes()
    other = train(
        scenes, tmp_path / "three", load_recipe(None, {**overrides, "seed": 1, "epochs": 2})
    )
    assert other.last.read_bytes() != one.last.read_bytes()


# --- Classes without pixels


def label(data: Path, split: str, values: dict[int, int]) -> None:
    """Replace values in the masks of a split."""
    for path in (data / "masks" / split).iterdir():
        mask = np.array(Image.open(path))
        Image.fromarray(np.array([values.get(v, v) for v in range(256)], np.uint8)[mask]).save(path)


@pytest.mark.parametrize(
    ("split", "values", "message"),
    [
        ("train", {0: 255, 1: 255, 2: 255}, "no pixel of the 3 masks of train belongs to a class"),
        ("val", {0: 255, 1: 255, 2: 255}, "no pixel of the 1 masks of val belongs to a class"),
        ("train", {1: 255, 2: 255}, "every labeled pixel of train is sky: nothing can be learned"),
        ("train", {1: 0, 2: 0}, "every labeled pixel of train is sky: nothing can be learned"),
    ],
)
def test_a_dataset_from_which_nothing_can_be_learned_is_refused(
    split: str, values: dict[int, int], message: str, make_folder_data: Any, tmp_path: Path
) -> None:
    data = make_folder_data(tmp_path / "data", splits={"train": 3, "val": 1})
    label(data, split, values)
    with pytest.raises(InputError) as raised:
        train(data, tmp_path / "run", load_recipe(None, {**TINY, "epochs": 1}))
    (line,) = raised.value.problems
    assert message in line
    ignored = 255 in values.values() and split == "train"
    assert ("if their mask value is a class, change `ignore` in classes.toml" in line) == ignored
    assert not (tmp_path / "run").exists()


def test_a_class_without_a_training_pixel_is_reported(
    make_folder_data: Any, tmp_path: Path
) -> None:
    data = make_folder_data(tmp_path / "data", splits={"train": 3, "val": 1})
    recipe = load_recipe(None, {**TINY, "epochs": 1})
    assert train(data, tmp_path / "all", recipe).facts["absent"] == ""
    label(data, "train", {2: 1})
    run = train(data, tmp_path / "run", recipe)
    assert run.facts["absent"] == "no training mask has a pixel of car: this is not learned"
    assert run.evaluation is not None
    assert np.isfinite(run.evaluation.scores.mean_iou)


def test_a_run_is_replaced_only_with_overwrite(scenes: Path, tmp_path: Path) -> None:
    recipe = load_recipe(None, {**TINY, "epochs": 1})
    run = train(scenes, tmp_path, recipe)
    before = run.best.read_bytes()
    with pytest.raises(InputError, match="--overwrite"):
        train(scenes, tmp_path, recipe)
    assert run.best.read_bytes() == before
    train(scenes, tmp_path, recipe, overwrite=True)


def test_one_training_image_is_enough(tmp_path: Path) -> None:
    write_scenes(tmp_path / "data", train=1, val=1, height=32, width=32)
    run = train(tmp_path / "data", tmp_path / "run", load_recipe(None, {**TINY, "epochs": 2}))
    assert all(math.isfinite(row["loss"]) for row in run.history)


def test_a_loss_that_is_not_finite_stops_the_run(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"lower optimizer\.learning_rate"):
        train(scenes, tmp_path, load_recipe(None, {**TINY, **DIVERGING}))


def test_training_from_python_takes_recipe_keys(scenes: Path, tmp_path: Path) -> None:
    run = pixelwise.train(
        scenes,
        out=tmp_path,
        epochs=1,
        weights="none",
        backbone="tiny",
        settings={"memory_format": "contiguous"},
        quiet=True,
    )
    assert run.recipe.epochs == 1
    assert run.best.exists()


# --- The command


def test_flags_set_their_recipe_keys(scenes: Path, cli: Any, tmp_path: Path) -> None:
    flags = ["--model", "deeplab_v3", "--backbone", "tiny", "--output-stride", "8"]
    flags += ["--weights", "none", "--crop", "32x64", "--set", "augmentation.crop=[32, 64]"]
    done = cli("train", scenes, "--plan-only", *flags)
    assert (done.code, done.err) == (0, "")
    assert "deeplab_v3 (backbone tiny, output_stride 8)" in " ".join(done.out.split())
    assert "32x64: set by you" in done.out
    done = cli("train", scenes, "--plan-only", *flags[:8], "--crop", "image")
    assert "uncropped images: set by you" in done.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--backbone", "tiny", "--set", "model.options.backbone=resnet18"],
            "--backbone contradicts --set model.options.backbone=resnet18: give only one of them",
        ),
        (
            ["--crop", "image", "--set", "augmentation.crop=[32, 32]"],
            "--crop contradicts --set augmentation.crop=[32, 32]: give only one of them",
        ),
        (["--epochs", "3", "--set", "epochs=4"], "--epochs contradicts --set epochs=4"),
        (["--crop", "large"], "--crop large: allowed are HEIGHTxWIDTH, such as 352x480, image"),
        (["--crop", "0x32"], "crop [0, 32]: must be two sizes of at least 8 pixels"),
        (["--crop", "1x1"], "crop [1, 1]: must be two sizes of at least 8 pixels"),
        (["--crop", "7"], "crop [7, 7]: must be two sizes of at least 8 pixels"),
        (["--batch-size", "0"], "batch_size = 0: must be at least 1, or must be 'auto'"),
    ],
)
def test_contradicting_or_invalid_flags_raise_a_one_line_error(
    flags: list[str], message: str, scenes: Path, cli: Any
) -> None:
    done = cli("train", scenes, "--plan-only", *flags)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert message in line


# --- Learning


def write_shapes(root: Path, *, height: int, width: int) -> Path:
    """Write four images of a rectangle and a disk on a noisy background, for train and for val.

    The shapes are large compared with the decoder's stride of 4. Thin objects, such as the poles of
    scenes, would take longer to memorize.
    """
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
    for number in range(4):
        mask = np.zeros((height, width), dtype=np.uint8)
        top, left = rng.integers(8, height // 2 - 8), rng.integers(8, width // 2 - 8)
        mask[top : top + height // 3, left : left + width // 3] = 1
        middle = rng.integers(height // 3, height - height // 3), rng.integers(width // 2, width)
        mask[np.hypot(rows - middle[0], columns - middle[1]) < height / 4] = 2
        colors = rng.integers(
            40, 216, (3, 3)
        )  # different colors in each image: the color does not give the class
        image = np.clip(colors[mask] + rng.normal(0, 15, (height, width, 3)), 0, 255)
        for split in ("train", "val"):
            Image.fromarray(image.astype(np.uint8)).save(root / f"images/{split}/{number}.png")
            Image.fromarray(mask).save(root / f"masks/{split}/{number}.png")
    return root


@pytest.mark.parametrize(
    ("height", "width", "epochs", "score", "faster"),
    [
        # In small images more of the pixels lie on boundaries, which take longest.
        (96, 120, 30, 0.85, {"model.batch_norm_momentum": 0.2}),
        pytest.param(192, 240, 48, 0.95, {}, marks=pytest.mark.slow),
    ],
)
def test_the_default_network_memorizes_four_images(
    height: int, width: int, epochs: int, score: float, faster: dict[str, float], tmp_path: Path
) -> None:
    try:
        find_imagenet_weights("mobilenet_v2")
    except InputError as error:
        pytest.skip(str(error))  # random weights would take too long
    data = write_shapes(tmp_path / "data", height=height, width=width)
    overrides = {
        "epochs": epochs,
        "batch_size": 2,
        "memory_format": "channels_last",
        "optimizer.weight_decay": 0,
        "augmentation.crop": [height, width],
        "augmentation.scale": [1, 1],
        "augmentation.flip": 0,
        "augmentation.brightness": 0,
        "augmentation.contrast": 0,
        "augmentation.saturation": 0,
        **faster,
    }
    run = train(data, tmp_path / "run", load_recipe(None, overrides))
    assert run.evaluation is not None
    assert run.evaluation.scores.mean_iou > score
