"""Callbacks that report the progress of a run, for the command line or for a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pixelwise.evaluation.examples import Example
from pixelwise.interrupts import Answer

if TYPE_CHECKING:
    from pixelwise.training.run_folder import Run


class Callback:
    """Receives the events of a run. Override the methods that you need.

    In a run of several processes only the first one calls them. An exception that a method raises
    ends the run, which can be resumed from its last checkpoint.
    """

    def on_dataset_progress(self, done: int, total: int) -> None:
        """Called after each file of the dataset is checked."""

    def on_status(self, text: str) -> None:
        """Called before a step of the preparation that takes a while, with its description."""

    def on_plan(self, facts: Mapping[str, str], *, epochs: int) -> None:
        """Called once before the first step, with descriptions of the data and the settings."""

    def on_start(self, run: Run) -> None:
        """Called once before the first step, after `on_plan`.

        Args:
            run: The run with its folder, its recipe and its data. Its `history` grows with each
                epoch, and holds the earlier ones if the run is resumed.
        """

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

    def on_examples(self, epoch: int, examples: Sequence[Example]) -> None:
        """Called after each validation with the same few val images and their predictions."""

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        """Called after each validated epoch with its row of metrics.jsonl."""

    def on_interrupt(self) -> Answer | None:
        """Called after the step in which Ctrl-C was pressed, when a checkpoint is saved.

        Returns:
            "stop" to stop now, so that the run can be resumed; "finish" to end the run after this
            epoch; "continue" to ignore Ctrl-C. None leaves it to the other callbacks; if all return
            None, the run stops.
        """
        return None

    def on_stop(self, reason: str) -> None:
        """Called when the run stops and can be resumed, with one line that says how."""

    def on_end(self, ended_early: str) -> None:
        """Called when the run has ended.

        Args:
            ended_early: Why it ended before its last epoch; empty if it did not.
        """


class CallbackList(Callback):
    """Calls several callbacks in order. None is skipped.

    The result of an event is the first one that is not None.
    """

    def __init__(self, *callbacks: Callback | None) -> None:
        self.callbacks = [callback for callback in callbacks if callback is not None]
        for event in vars(Callback):
            if event.startswith("on_"):
                setattr(self, event, partial(self._call, event))

    def _call(self, event: str, *args: Any, **kwargs: Any) -> Any:
        results = [getattr(callback, event)(*args, **kwargs) for callback in self.callbacks]
        return next((result for result in results if result is not None), None)
