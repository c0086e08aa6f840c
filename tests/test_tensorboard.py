"""TensorBoard's files: every step and epoch, and none twice after a run was stopped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pixelwise.data.scenes import write_scenes
from pixelwise.errors import InputError
from pixelwise.training import Callback, load_recipe, resume, train

pytest.importorskip("tensorboard")

RECIPE = load_recipe(
    None,
    {
        "model.weights": "none",
        "model.options.backbone": "tiny",
        "memory_format": "contiguous",
        "device": "cpu",
        "epochs": 3,
        "batch_size": 2,
        "tensorboard": True,
    },
)


class Halt(Exception):  # noqa: N818
    """A process that is gone, as far as the run can tell."""


class HaltingListener(Callback):
    def on_step(self, *, epoch: int, step: int, **rest: Any) -> None:
        if (epoch, step) == (2, 2):
            raise Halt


def scalars(run: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars(name)]


def test_steps_and_epochs_are_shown_once(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data", train=4, val=1, height=32, width=32)
    whole = train(data, tmp_path / "whole", RECIPE)
    with pytest.raises(Halt):
        train(data, tmp_path / "cut", RECIPE, callback=HaltingListener())
    resume(tmp_path / "cut")
    expected = [row["val_mean_iou"] for row in whole.history]
    for run in (tmp_path / "whole", tmp_path / "cut"):
        assert [step for step, _ in scalars(run, "step/loss")] == [1, 2, 3, 4, 5, 6]
        steps, scores = zip(*scalars(run, "epoch/val_mean_iou"), strict=True)
        assert steps == (2, 4, 6)
        assert scores == pytest.approx(expected)
        assert [s for s, _ in scalars(run, "epoch/learning_rate")] == [2, 4, 6]


def test_without_the_package_the_remedy_is_named_before_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'tensorboard>=2\.20'"):
        train(tmp_path / "data", tmp_path / "run", RECIPE)
    assert not (tmp_path / "run").exists()
