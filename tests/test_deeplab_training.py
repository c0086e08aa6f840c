"""Training options of DeepLab: frozen batch norm, learning rate stages, loss resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pixelwise.data.scenes import write_scenes
from pixelwise.models import create_model
from pixelwise.recipes.load_recipe import load_resolved_recipe
from pixelwise.training import load_recipe, train
from pixelwise.training.losses.segmentation_loss import subsample
from pixelwise.training.optimizer import make_optimizer, make_schedule
from pixelwise.weights.bundle import Bundle

QUICK = {"memory_format": "contiguous", "device": "cpu", "epochs": 1, "model.weights": "none"}
TINY = {**QUICK, "model.options.backbone": "tiny", "batch_size": 2}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), train=4, val=1, height=33, width=41)


def weights_after(scenes: Path, out: Path, **overrides: Any) -> dict[str, torch.Tensor]:
    return Bundle.load(train(scenes, out, load_recipe(None, {**TINY, **overrides})).last).weights


def test_frozen_batch_norm_does_not_change(scenes: Path, tmp_path: Path) -> None:
    frozen = weights_after(scenes, tmp_path / "a", **{"model.freeze_batch_norm": True})
    trained = weights_after(scenes, tmp_path / "b")
    torch.manual_seed(0)
    model = create_model("deeplab_v3plus", num_classes=8, backbone="tiny", stride_2_skip=True)
    norms = [
        f"{name}.{key}"
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for key in module.state_dict()
    ]
    for name in norms:  # initially ones and zeros
        assert torch.equal(frozen[name], model.state_dict()[name])
    assert not any(torch.equal(frozen[n], trained[n]) for n in norms if "running" in n)
    kernels = [name for name in frozen if name not in norms]
    start = weights_after(
        scenes, tmp_path / "c", **{"optimizer.learning_rate": 1e-30, "optimizer.weight_decay": 0}
    )
    assert not any(torch.equal(frozen[name], start[name]) for name in kernels)


def test_batch_norm_has_the_momentum_of_the_recipe(scenes: Path, tmp_path: Path) -> None:
    slow = weights_after(scenes, tmp_path / "a", **{"model.batch_norm_momentum": 1e-12})
    assert slow["backbone.stages.0.1.running_mean"].abs().max() < 1e-9


def test_the_learning_rate_falls_to_a_tenth_after_each_stage() -> None:
    recipe = load_recipe("deeplab_v1")
    model = create_model("deeplab_v1", num_classes=2, width=1 / 32, hidden=8)
    optimizer = make_optimizer(model, recipe)
    schedule = make_schedule(optimizer, recipe, steps=6000)
    rates = []
    for _ in range(6000):
        rates.append(schedule.get_last_lr())
        optimizer.step()
        schedule.step()
    kernels, biases = 0, 1  # groups of the backbone; the head has groups 3 and 4
    for step, rate in ((0, 1e-3), (1999, 1e-3), (2000, 1e-4), (3999, 1e-4), (4000, 1e-5)):
        assert rates[step][kernels] == pytest.approx(rate)
        assert rates[step][biases] == pytest.approx(2 * rate)
        assert rates[step][3:5] == pytest.approx([10 * rate, 20 * rate])
    assert rates[-1][kernels] == pytest.approx(1e-5)
    assert schedule.get_last_lr()[kernels] == pytest.approx(1e-5)


def test_labels_are_subsampled_to_every_eighth_pixel() -> None:
    labels = torch.arange(321 * 321).view(1, 321, 321)
    assert torch.equal(subsample(labels, size=(41, 41)), labels[:, ::8, ::8])
    assert torch.equal(subsample(labels, size=(1, 1)), labels[:, :1, :1])
    assert torch.equal(subsample(labels, size=(321, 321)), labels)


@pytest.mark.parametrize("resolution", ["image", "map"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deeplab_v1", {"width": 1 / 32, "hidden": 8}),
        ("deeplab_v2", {"backbone": "vgg16", "width": 1 / 32}),
        ("deeplab_v3", {"backbone": "tiny", "auxiliary": True}),
    ],
)
def test_losses_at_both_resolutions_and_of_several_outputs(
    name: str, options: dict[str, Any], resolution: str, scenes: Path, tmp_path: Path
) -> None:
    overrides = {
        **QUICK,
        "model.name": name,
        "model.options": options,
        "loss.resolution": resolution,
        "loss.auxiliary_weight": 1.0,
    }
    run = train(scenes, tmp_path, load_recipe(None, overrides))
    assert 0 < run.history[0]["loss"] < 20
    assert load_resolved_recipe(run.folder / "recipe.toml") == run.recipe
