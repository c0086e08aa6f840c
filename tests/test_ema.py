"""The moving average of the weights: its definition, and that it is validated and saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pixelwise.data.dataset import open_dataset
from pixelwise.data.scenes import write_scenes
from pixelwise.evaluation import evaluate
from pixelwise.inference import Predictor
from pixelwise.training import load_recipe, train
from pixelwise.training.ema import ema_decay, make_ema
from pixelwise.training.resume_state import load_newest_checkpoint
from pixelwise.weights.bundle import Bundle
from settings import TINY


def test_the_decay_warms_up() -> None:
    assert [ema_decay(0.5, t) for t in (1, 2, 7, 8, 100)] == [2 / 11, 3 / 12, 8 / 17, 0.5, 0.5]


def test_a_decay_of_0_disables_the_average() -> None:
    assert make_ema(nn.Linear(1, 1), max_decay=0) is None


def test_weights_and_running_statistics_are_averaged_by_hand() -> None:
    model = nn.BatchNorm2d(1)
    average = make_ema(model, max_decay=0.2)
    assert average is not None
    for update, value in enumerate((3.0, 5.0, -2.0), start=1):
        for tensor in (model.weight, model.running_mean):
            tensor.data.fill_(value)  # type: ignore[union-attr]
        model.num_batches_tracked.fill_(update)  # type: ignore[union-attr]
        average.update_parameters(model)
    expected = 0.2 * (2 / 11 * 3 + 9 / 11 * 5) + 0.8 * -2  # 2 / 11 < 0.2 < 3 / 12
    averaged = average.module.state_dict()
    assert averaged["weight"].item() == pytest.approx(expected)
    assert averaged["running_mean"].item() == pytest.approx(expected)
    assert averaged["num_batches_tracked"].item() == 3
    assert averaged["bias"].item() == 0


def test_the_average_is_validated_and_saved(tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path / "scenes", train=4, val=2, height=32, width=48)
    settings = {**TINY, "epochs": 2, "batch_size": 2, "optimizer.ema_decay": 0.9}
    run = train(scenes, tmp_path / "run", load_recipe(None, settings))
    bundle, checkpoint = Bundle.load(run.last), load_newest_checkpoint(run.folder)[0]
    assert checkpoint.header["averaged"] == 4  # updates
    for name, tensor in bundle.weights.items():
        assert torch.equal(tensor, checkpoint.tensors[f"average.{name}"]), name
    weights = checkpoint.tensors
    assert any(not torch.equal(t, weights[f"model.{name}"]) for name, t in bundle.weights.items())
    evaluation = evaluate(
        Predictor.load(run.last, runtime="torch", device="cpu"),
        open_dataset(scenes, splits=("val",)),
        "val",
    )
    assert evaluation.scores.mean_iou == run.history[-1]["val_mean_iou"]
