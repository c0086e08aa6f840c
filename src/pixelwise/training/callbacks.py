"""Callbacks that report the progress of a run, for the command line or for a program."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any


class Callback:
    """Receives the events of a run. Override the methods that you need."""

    def on_dataset_progress(self, done: int, total: int) -> None:
        """Called after each file of the dataset is checked."""

    def on_status(self, text: str) -> None:
        """Called before a step of the preparation that takes a while, with its description."""

    def on_plan(self, facts: Mapping[str, str], *, epochs: int) -> None:
        """Called once before the first step, with descriptions of the data and the settings."""

    def on_step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        """Called after each training step.

        Args:
            epoch: The epoch, from 1.
            step: The step in this epoch, from 1.
            steps: Number of steps per epoch.
            loss: Loss of the batch.
            images: Number of images of the batch, over all processes.
        """

    def on_validation_progress(self, done: int, total: int) -> None:
        """Called after each validation image."""

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        """Called after each validated epoch with its row of metrics.jsonl."""


class CallbackList(Callback):
    """Calls several callbacks in order. None is skipped."""

    def __init__(self, *callbacks: Callback | None) -> None:
        self.callbacks = [callback for callback in callbacks if callback is not None]
        for event in vars(Callback):
            if event.startswith("on_"):
                setattr(self, event, partial(self._call, event))

    def _call(self, event: str, *args: Any, **kwargs: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(*args, **kwargs)
