"""The batch size that fits into the memory, and the message if a batch does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixelwise.data.scenes import write_scenes
from pixelwise.models import Segmenter, create_model
from pixelwise.training import TrainingError, load_recipe, plan_training, train
from pixelwise.training.batch_probe import find_batch_size

CPU = torch.device("cpu")
QUICK = {
    "model.name": "fcn32s",
    "model.options": {"width": 1 / 16},
    "model.weights": "none",
    "loss.reduction": "mean",
    "augmentation.crop": [32, 32],
    "memory_format": "contiguous",
    "kernels": "plain",
    "device": "cpu",
    "epochs": 1,
}


def limit_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let training steps with more than `most` images run out of memory; returns those tried."""
    tried: list[int] = []
    original = Segmenter.training_logits

    def limited(self: Segmenter, images: Tensor, **options: Any) -> tuple[Tensor, ...]:
        tried.append(len(images))
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return original(self, images, **options)

    monkeypatch.setattr(Segmenter, "training_logits", limited)
    return tried


@pytest.mark.parametrize(("most", "found"), [(100, 12), (12, 12), (11, 6), (5, 3), (1, 1), (0, 0)])
def test_the_batch_is_halved_until_it_fits(
    most: int, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_memory(monkeypatch, most)
    model = create_model("fcn32s", num_classes=3, width=1 / 32)
    before = torch.get_rng_state()
    size = find_batch_size(model, batch=12, crop=(32, 32), num_classes=3, device=CPU)
    assert size == found
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    model = create_model("fcn32s", num_classes=3, in_channels=1, width=1 / 32)
    with pytest.raises(RuntimeError, match="channels"):
        find_batch_size(model, batch=2, crop=(32, 32), num_classes=3, device=CPU)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "data", train=16, val=1, height=32, width=32)


def test_the_plan_tries_batches_on_the_device(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {key: value for key, value in QUICK.items() if key != "epochs"}
    by_estimate = plan_training(scenes, tmp_path / "run", load_recipe(None, recipe))
    assert by_estimate.recipe.batch_size == 4  # several steps per epoch with 16 images
    monkeypatch.setattr("pixelwise.training.time_budget.PROBED_DEVICES", ("cpu",))
    tried = limit_memory(monkeypatch, 3)
    run = plan_training(scenes, tmp_path / "run", load_recipe(None, recipe))
    assert (tried, run.recipe.batch_size) == ([4, 2], 2)
    assert "tried on the device, with crops of 32x32" in run.facts["batch"]
    assert run.recipe.epochs > by_estimate.recipe.epochs / 2
    tried.clear()
    fixed = plan_training(scenes, tmp_path / "run", load_recipe(None, {**recipe, "batch_size": 6}))
    assert (tried, fixed.recipe.batch_size) == ([], 6)


def test_running_out_of_memory_names_a_batch_size_that_fits(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_memory(monkeypatch, 3)
    recipe = load_recipe(None, {**QUICK, "batch_size": 8})
    with pytest.raises(TrainingError) as caught:
        train(scenes, tmp_path / "run", recipe)
    (line,) = caught.value.problems
    assert line == (
        "cpu ran out of memory in epoch 1, step 1, with batch_size = 8 and crops of 32x32: "
        "batch_size = 2 fits: train again with --batch-size 2, and with "
        "--set optimizer.accumulate=4 for gradients of 8 images"
    )
    train(scenes, tmp_path / "run", load_recipe(None, {**QUICK, "batch_size": 2}), overwrite=True)


def test_a_single_image_that_does_not_fit_is_said_to(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_memory(monkeypatch, 0)
    with pytest.raises(TrainingError, match="not even one such image fits: use a smaller --crop"):
        train(scenes, tmp_path / "run", load_recipe(None, {**QUICK, "batch_size": 4}))


def test_the_memory_of_an_optimizer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(3))

    def fail(*_: object) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(torch, "empty_like", fail)
    assert find_batch_size(model, batch=2, crop=(32, 32), num_classes=3, device=CPU) == 0
