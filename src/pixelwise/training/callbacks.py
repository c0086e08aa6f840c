"""What a run tells while it goes on. The command line draws it; a program may listen or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Callback:
    """Silent; override what you want to hear."""

    def checking(self, done: int, total: int) -> None:
        """Files of the data set that were opened."""

    def planned(self, facts: Mapping[str, str], *, epochs: int) -> None:
        """What was found, assumed and chosen, before the first step of a run of `epochs`."""

    def step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        """A step was made: `step` of `steps` in this epoch, over `images` images."""

    def validating(self, done: int, total: int) -> None:
        """Images of the val split that were scored."""

    def epoch_ended(self, row: Mapping[str, Any]) -> None:
        """The row that was written to metrics.jsonl."""


class CallbackList(Callback):
    """Tells several, in order."""

    def __init__(self, *callbacks: Callback) -> None:
        self.callbacks = callbacks

    def checking(self, done: int, total: int) -> None:
        for callback in self.callbacks:
            callback.checking(done, total)

    def planned(self, facts: Mapping[str, str], *, epochs: int) -> None:
        for callback in self.callbacks:
            callback.planned(facts, epochs=epochs)

    def step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        for callback in self.callbacks:
            callback.step(epoch=epoch, step=step, steps=steps, loss=loss, images=images)

    def validating(self, done: int, total: int) -> None:
        for callback in self.callbacks:
            callback.validating(done, total)

    def epoch_ended(self, row: Mapping[str, Any]) -> None:
        for callback in self.callbacks:
            callback.epoch_ended(row)
