"""TensorBoard events: every step and epoch once, also after a run was stopped and resumed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pixelwise.data.scenes import write_scenes
from pixelwise.errors import InputError
from pixelwise.training import Callback, load_recipe, resume, train
from settings import TINY

pytest.importorskip("tensorboard")

RECIPE = load_recipe(None, {**TINY, "epochs": 3, "batch_size": 2, "tensorboard": True})


class Halt(Exception):  # noqa: N818
    """Stands for the end of the process."""


class HaltingCallback(Callback):
    def on_step(self, *, epoch: int, step: int, **rest: Any) -> None:
        if (epoch, step) == (2, 2):
            raise Halt


def scalars(run: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_steps_and_epochs_are_recorded_once(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data", train=4, val=1, height=32, width=32)
    uninterrupted = train(data, tmp_path / "uninterrupted", RECIPE)
    with pytest.raises(Halt):
        train(data, tmp_path / "cut", RECIPE, callback=HaltingCallback())
    resume(tmp_path / "cut")
    expected = [row["val_mean_iou"] for row in uninterrupted.history]
    for run in (tmp_path / "uninterrupted", tmp_path / "cut"):
        assert [step for step, _ in scalars(run, "step/loss")] == [1, 2, 3, 4, 5, 6]
        steps, scores = zip(*scalars(run, "epoch/val_mean_iou"), strict=True)
        assert steps == (2, 4, 6)
        assert scores == pytest.approx(expected)
        assert [s for s, _ in scalars(run, "epoch/learning_rate")] == [2, 4, 6]


def test_a_missing_package_is_reported_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'tensorboard>=2\.20'"):
        train(tmp_path / "data", tmp_path / "run", RECIPE)
    assert not (tmp_path / "run").exists()
