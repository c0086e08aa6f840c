"""Initial weights of a network, and the training options of FCN's recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pixelwise.data.classes import IGNORE, Classes
from pixelwise.data.scenes import SCENE_CLASSES, write_scenes
from pixelwise.errors import InputError
from pixelwise.models import create_model
from pixelwise.recipes.load_recipe import load_resolved_recipe, shipped_recipes
from pixelwise.recipes.schema import ModelRecipe, Recipe
from pixelwise.training import load_recipe, train
from pixelwise.training.initial_model import create_initial_model
from pixelwise.training.losses import cross_entropy
from pixelwise.training.optimizer import make_optimizer
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.normalization import IMAGENET

SMALL = {"width": 1 / 16}
QUICK = {"memory_format": "contiguous", "device": "cpu", "epochs": 1, "model.weights": "none"}


def trained(name: str, path: Path, *, classes: Classes = SCENE_CLASSES, **options: Any) -> Bundle:
    """Save a bundle of a network whose head has no zero weights."""
    torch.manual_seed(1)
    model = create_model(name, num_classes=len(classes), **options)
    for parameter in model.head.parameters():
        nn.init.normal_(parameter, std=0.1)
    bundle = Bundle(name, options, classes, IMAGENET, model.state_dict())
    bundle.save(path)
    return bundle


def start(name: str, path: Path, classes: Classes = SCENE_CLASSES, **options: Any) -> Any:
    return create_initial_model(ModelRecipe(name=name, weights=str(path), options=options), classes)


@pytest.mark.parametrize(("finer", "coarser"), [("fcn16s", "fcn32s"), ("fcn8s", "fcn16s")])
def test_a_finer_network_starts_with_the_output_of_the_coarser_one(
    finer: str, coarser: str, tmp_path: Path
) -> None:
    path = tmp_path / "coarser.safetensors"
    coarse = trained(coarser, path, **SMALL).build()
    initial = start(finer, path, **SMALL)
    image = 50 * torch.randn(1, 3, 97, 161, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = coarse(image), initial.model.eval()(image)
        scores = coarse.coarse_logits(image)
        doubled = initial.model.head.doubling["c4" if finer == "fcn16s" else "c3"](scores)
        # The coarse logits are bit-identical. Upsampled in two steps they differ a little at the
        # kinks of the interpolation, as in the authors' code.
        assert torch.equal(initial.model.coarse_logits(image), doubled)
    scale = (before.max() - before.min()).item()
    assert (before - after).abs().max().item() < 0.1 * scale
    assert (before.argmax(1) == after.argmax(1)).float().mean().item() > 0.95
    assert "head.skips" in initial.origin


def test_training_starts_from_the_coarser_bundle(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data", train=2, val=1, height=33, width=47)
    trained("fcn32s", tmp_path / "coarse.safetensors", **SMALL)
    recipe = load_recipe(
        "fcn16s",
        {
            **QUICK,
            "model.weights": str(tmp_path / "coarse.safetensors"),
            "model.options": SMALL,
            "optimizer.learning_rate": 1e-30,  # nothing changes
        },
    )
    run = train(data, tmp_path / "run", recipe)
    before, after = Bundle.load(tmp_path / "coarse.safetensors"), Bundle.load(run.last)
    for name, tensor in before.weights.items():
        torch.testing.assert_close(after.weights[name], tensor, rtol=0, atol=1e-20)
    assert after.weights["head.skips.c4.weight"].abs().max() < 1e-20
    assert "coarse.safetensors" in run.facts["model"]


def test_a_bundle_with_other_classes_gives_only_its_backbone(tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    bundle = trained("fcn32s", path, **SMALL)
    other = Classes.make([f"class {i}" for i in range(len(SCENE_CLASSES))])
    initial = start("fcn32s", path, other, **SMALL)
    state = initial.model.state_dict()
    assert not state["head.score.weight"].any()
    for name, tensor in bundle.weights.items():
        if name.startswith("backbone."):
            assert torch.equal(state[name], tensor)
    assert "head.score.weight" in initial.origin


def test_a_bundle_of_another_backbone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    trained("deeplab_v3plus", path, backbone="tiny")
    with pytest.raises(InputError, match=r"start\.safetensors: no weights of its backbone fit"):
        start("fcn32s", path, **SMALL)


def test_the_summed_loss_is_the_mean_times_the_number_of_pixels() -> None:
    logits = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(3, (2, 5, 7))
    labels[0, :2] = IGNORE
    valid = (labels != IGNORE).sum()
    total = cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(total, valid * cross_entropy(logits, labels))
    ignored = torch.full_like(labels, IGNORE)
    assert cross_entropy(logits, ignored, reduction="sum") == 0


def test_the_recipes_with_sum_and_mean_are_equivalent() -> None:
    pixels = 500 * 375
    summed, mean = load_recipe("fcn32s").optimizer, load_recipe("fcn32s_mean").optimizer
    assert mean.learning_rate == pytest.approx(summed.learning_rate * pixels, rel=0.02)
    assert mean.weight_decay == pytest.approx(summed.weight_decay / pixels, rel=0.02)
    assert mean.momentum == summed.momentum == 0.99


def test_biases_have_twice_the_learning_rate_and_do_not_decay() -> None:
    model = create_model("fcn8s", num_classes=2, **SMALL)
    recipe = load_recipe("fcn8s")
    optimizer = make_optimizer(model, recipe)
    setting = {
        id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]
    }
    assert len(setting) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        bias = name.endswith("bias")
        assert setting[id(parameter)] == (2e-14 if bias else 1e-14, 0 if bias else 5e-4)


def test_an_auxiliary_head_has_its_own_learning_rate() -> None:
    model = create_model("fcn_resnet_dilated", num_classes=2, backbone="resnet18")
    optimizer = make_optimizer(model, load_recipe("fcn_resnet50"))
    rate = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        assert rate[id(parameter)] == pytest.approx(0.2 if name.startswith("auxiliary") else 0.02)


def test_an_auxiliary_head_is_trained(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data", train=2, val=1, height=32, width=32)
    runs = [
        train(
            data,
            tmp_path / str(weight),
            load_recipe(
                None,
                {
                    **QUICK,
                    "model.name": "fcn_resnet_dilated",
                    "model.options.backbone": "resnet18",
                    "loss.auxiliary_weight": weight,
                    "optimizer.weight_decay": 0,
                },
            ),
        )
        for weight in (0, 1)
    ]
    name = "auxiliary.4.weight"
    assert not torch.equal(*(Bundle.load(run.last).weights[name] for run in runs))


def test_gradients_of_several_batches_are_accumulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, x: x)  # the dropout masks would differ
    data = write_scenes(tmp_path / "data", train=4, val=1, height=32, width=32)
    plain = {
        **QUICK,
        "model.name": "fcn32s",
        "model.options": SMALL,
        "augmentation.scale": [1, 1],
        "augmentation.crop": [32, 32],
        "loss.name": "cross_entropy",  # the mean over pixels
        "loss.reduction": "mean",
        "optimizer.name": "sgd",  # AdamW would turn rounding errors into steps
    }
    four = train(data, tmp_path / "four", load_recipe(None, {**plain, "batch_size": 4}))
    single = {**plain, "batch_size": 1, "optimizer.accumulate": 4}
    one = train(data, tmp_path / "one", load_recipe(None, single))
    expected, weights = Bundle.load(four.last).weights, Bundle.load(one.last).weights
    for name, tensor in expected.items():
        # One averages over images, the other over pixels; few pixels are ignored.
        torch.testing.assert_close(weights[name], tensor, rtol=2e-2, atol=2e-3)
    assert any(tensor.any() for name, tensor in weights.items() if name.startswith("head."))


def test_uncropped_images_of_different_sizes_can_be_trained_on(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        for split in ("train", "val"):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, sizes in (("train", [(33, 47), (60, 20)]), ("val", [(25, 31)])):
        for number, (height, width) in enumerate(sizes):
            image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            mask = rng.integers(0, 2, (height, width), dtype=np.uint8)
            name = f"{number}.png"
            Image.fromarray(image).save(tmp_path / "data/images" / split / name)
            Image.fromarray(mask).save(tmp_path / "data/masks" / split / name)
    overrides = {**QUICK, "model.options": SMALL}
    run = train(tmp_path / "data", tmp_path / "run", load_recipe("fcn32s", overrides))
    assert run.recipe.augmentation.crop == "image"
    assert load_resolved_recipe(run.folder / "recipe.toml") == run.recipe
    with pytest.raises(InputError, match="set batch_size = 1"):
        load_recipe("fcn32s", {"batch_size": 2})


@pytest.mark.parametrize("name", shipped_recipes())
def test_each_shipped_recipe_names_an_existing_network(name: str) -> None:
    recipe = load_recipe(name)
    with torch.device("meta"):
        model = create_model(recipe.model.name, num_classes=21, **recipe.model.options)
    assert make_optimizer(model, recipe).param_groups


def test_a_model_by_name_needs_no_options() -> None:
    assert load_recipe(None, {"model.name": "fcn8s"}) == Recipe(model=ModelRecipe(name="fcn8s"))
