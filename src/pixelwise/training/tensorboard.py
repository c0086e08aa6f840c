"""A run's numbers as TensorBoard reads them: RUN/tensorboard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelwise.errors import InputError
from pixelwise.training.callbacks import Callback, CallbackList

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Callback):
    """The loss of each step; loss, rate, scores and speed of each epoch.

    folder: of the event files. Of a run that was stopped, what was written beyond the place from
    which it goes on is taken back.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: SummaryWriter | None = None
        self.steps = 1

    def step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        place = (epoch - 1) * steps + step
        if self.writer is None:  # now it is known where a resumed run goes on
            self.writer = summary_writer()(str(self.folder), purge_step=place)
        self.steps = steps
        self.writer.add_scalar("step/loss", loss, place)

    def epoch_ended(self, row: Mapping[str, Any]) -> None:
        assert self.writer is not None
        for key, value in row.items():
            if key != "epoch" and value is not None:
                self.writer.add_scalar(f"epoch/{key}", value, row["epoch"] * self.steps)
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


@contextmanager
def recording(callback: Callback, run: Path, *, wanted: bool) -> Iterator[Callback]:
    """The listener, and TensorBoard's beside it where that is wanted."""
    if not wanted:
        yield callback
        return
    board = TensorBoard(run / "tensorboard")
    try:
        yield CallbackList(callback, board)
    finally:
        board.close()


def summary_writer() -> type[SummaryWriter]:
    """PyTorch's writer. Raises InputError where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "tensorboard = true needs TensorBoard, which is not installed: "
            "pip install 'tensorboard>=2.20'"
        ) from error
    return SummaryWriter
