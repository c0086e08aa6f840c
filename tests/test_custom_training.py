"""Training your own module and your own dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelwise.data.custom_dataset import CustomData, from_datasets
from pixelwise.data.dataset import open_dataset
from pixelwise.data.scenes import write_scenes
from pixelwise.errors import InputError
from pixelwise.evaluation import evaluate
from pixelwise.inference import Predictor
from pixelwise.layers import BatchNorm2d
from pixelwise.training import (
    Callback,
    Recipe,
    TrainingStoppedError,
    load_custom_model,
    load_recipe,
    plan_training,
    resume,
    train,
)
from pixelwise.weights.bundle import Bundle

CLASSES = ["ground", "left", "right"]
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class UserNet(nn.Module):
    """Logits at stride 4, with batch normalization, dropout and a parameter of its own."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8, momentum=0.3), nn.ReLU()
        )
        self.scale = nn.Parameter(torch.ones(1))
        self.drop = nn.Dropout(0.2)
        self.classify = nn.Conv2d(8, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.drop(self.scale * self.stem(images)))
        return logits


class UserDataset(torch.utils.data.Dataset[Pair]):
    """Colored rectangles on noise; a torch dataset that is independent of pixelwise."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Pair:
        rng = np.random.default_rng((self.seed, index))
        mask = np.zeros((32, 40), np.uint8)
        mask[8:24, 4:16], mask[8:24, 24:36], mask[0] = 1, 2, 255
        colors = np.array([[90, 90, 90], [200, 40, 40], [40, 40, 200]])
        image = colors[np.where(mask == 255, 0, mask)] + rng.normal(0, 10, (32, 40, 3))
        return image.clip(0, 255).astype(np.uint8), mask


def make_data(**changes: Any) -> CustomData:
    pairs: dict[str, Any] = {"train": UserDataset(6, 0), "val": UserDataset(2, 1), **changes}
    return from_datasets(classes=CLASSES, **pairs)


def make_recipe(**overrides: Any) -> Recipe:
    settings = {"memory_format": "channels_last", "kernels": "plain", "device": "cpu"}
    settings |= {"epochs": 3, "batch_size": 2, "checkpoint_minutes": 100}
    return load_recipe(None, settings | overrides)


def make_model() -> UserNet:
    torch.manual_seed(5)
    return UserNet()


class StopAt(Callback):
    """Raise SIGTERM after a step."""

    def __init__(self, epoch: int, step: int) -> None:
        self.position = (epoch, step)

    def on_step(self, *, epoch: int, step: int, **_: Any) -> None:
        import os
        import signal

        if (epoch, step) == self.position:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_resumed_run_of_a_user_module_ends_with_the_same_bits(tmp_path: Path) -> None:
    recipe = make_recipe(**{"optimizer.ema_decay": 0.9})
    uninterrupted = train(make_data(), tmp_path / "uninterrupted", recipe, model=make_model())
    out = tmp_path / "run"
    with pytest.raises(TrainingStoppedError) as stopped:
        train(make_data(), out, recipe, model=make_model(), callback=StopAt(2, 2))
    assert str(stopped.value).endswith(f"`pixelwise.resume({str(out)!r}, data=..., model=...)`")
    resumed = resume(out, data=make_data(), model=UserNet())  # any weights: they are restored
    for name in ("best.safetensors", "last.safetensors"):
        assert (out / name).read_bytes() == (uninterrupted.folder / name).read_bytes()
    assert resumed.recipe.model.name == "custom"


def test_the_bundle_gives_the_scores_of_training_back_with_the_module(tmp_path: Path) -> None:
    data = make_data()
    run = train(data, tmp_path / "run", make_recipe(epochs=4), model=make_model())
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert run.facts["model"].startswith("UserNet (your own module)")
    predictor = load_custom_model(run.best, UserNet(), device="cpu")
    assert evaluate(predictor, data, "val").scores.mean_iou == run.progress.best
    image, _ = data.read(data.splits["val"][0])
    assert predictor(image).labels.shape == (32, 40)
    module = UserNet()
    module.load_state_dict(dict(Bundle.load(run.last).weights))  # the module's own names
    assert module.stem[1].momentum == 0.3
    with pytest.raises(InputError, match=r"best\.safetensors.*load_custom_model") as error:
        Predictor.load(run.best)
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("resolution", ["image", "map"])
def test_a_user_module_trains_on_a_folder(resolution: str, tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "scenes", train=3, val=1, height=33, width=49)
    data = open_dataset(folder)  # more splits than training needs, and opened by the caller
    pixels, splits = data.pixels, dict(data.splits)
    recipe = make_recipe(epochs=1, **{"loss.resolution": resolution})
    run = train(data, tmp_path / "run", recipe, model=UserNet(len(data.classes)))
    assert (data.pixels, data.splits) == (pixels, splits)
    assert resume(run.folder, model=UserNet(len(data.classes))).history == run.history


def test_a_user_dataset_trains_a_network_of_pixelwise(tmp_path: Path) -> None:
    recipe = make_recipe(**{"model.options.backbone": "tiny", "model.weights": "none"})
    run = train(make_data(), tmp_path / "run", recipe)
    assert run.recipe.augmentation.crop == (32, 32)  # planned from the sizes of the arrays
    again = Predictor.load(run.best, runtime="torch", device="cpu")
    assert evaluate(again, make_data(), "val").scores.mean_iou == run.progress.best


def test_resuming_names_what_has_to_be_passed(tmp_path: Path) -> None:
    recipe = make_recipe(epochs=1)
    train(make_data(), tmp_path / "run", recipe, model=make_model())
    with pytest.raises(InputError, match=r"pass it with resume\(folder, data=\.\.\.\)"):
        resume(tmp_path / "run", model=UserNet())
    with pytest.raises(InputError, match=r"pass it with resume\(folder, model=\.\.\.\)"):
        resume(tmp_path / "run", data=make_data())
    with pytest.raises(InputError, match=r"do not fit UserNet .*: pass the module"):
        resume(tmp_path / "run", data=make_data(), model=UserNet(7))
    with pytest.raises(InputError, match="images of train are missing"):
        resume(tmp_path / "run", data=make_data(train=UserDataset(3, 0)), model=UserNet())
    tiny = make_recipe(epochs=1, **{"model.options.backbone": "tiny", "model.weights": "none"})
    train(make_data(), tmp_path / "tiny", tiny)
    with pytest.raises(InputError, match="was trained with deeplab_v3plus: omit model="):
        resume(tmp_path / "tiny", data=make_data(), model=UserNet())


def test_a_module_with_other_outputs_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    recipe = make_recipe(memory_format="auto")
    with pytest.raises(InputError, match=r"UserNet: returned Tensor .* \(B, 3, h, w\)") as error:
        train(make_data(), tmp_path / "run", recipe, model=UserNet(5))
    assert len(error.value.problems) == 1
    assert not (tmp_path / "run").exists()


def test_plain_batch_norm_is_refused_in_several_processes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"use pixelwise\.layers\.BatchNorm2d"):
        plan_training(make_data(), tmp_path / "run", load_recipe(), model=make_model(), processes=2)
    model = make_model()
    model.stem[1] = BatchNorm2d(8)
    run = plan_training(make_data(), tmp_path / "run", load_recipe(), model=model, processes=2)
    assert run.recipe.batch_size == 2


def test_a_user_module_can_be_planned(tmp_path: Path) -> None:
    run = plan_training(make_data(), tmp_path / "run", load_recipe(), model=make_model())
    assert run.recipe.batch_size == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda image, mask: (image.astype(np.float32), mask), "train/0: the image is float32"),
        (lambda image, mask: (image[..., 0], mask), r"the image is uint8 \(32, 40\)"),
        (lambda image, mask: (image, mask[:-1]), r"the mask is uint8 \(31, 40\)"),
        (lambda image, mask: (image, mask.astype(np.int64)), "the mask is int64"),
        (lambda image, mask: (image, mask + 1), "holds class index 3: allowed are 0 to 2"),
    ],
)
def test_a_pair_with_a_fault_is_refused_in_one_line(change: Callable[..., Any], said: str) -> None:
    class Faulty(UserDataset):
        def __getitem__(self, index: int) -> Any:
            return change(*super().__getitem__(index))

    with pytest.raises(InputError, match=said) as error:
        make_data(train=Faulty(2, 0))
    assert len(error.value.problems) == 1
    with pytest.raises(InputError, match="the val split is empty"):
        make_data(val=[])
