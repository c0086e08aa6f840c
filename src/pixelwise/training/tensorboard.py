"""Write the metrics of a run for TensorBoard, to RUN/tensorboard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelwise.errors import needs_package
from pixelwise.training.callbacks import Callback

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Callback):
    """Write the loss of each step, and the loss, learning rate, scores and speed of each epoch.

    If a run is resumed, events after the step where it resumes are purged.

    Args:
        folder: Folder of the event files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: SummaryWriter | None = None
        self.steps = 1

    def on_step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        global_step = (epoch - 1) * steps + step
        if self.writer is None:  # only now the first step of a resumed run is known
            self.writer = import_summary_writer()(str(self.folder), purge_step=global_step)
        self.steps = steps
        self.writer.add_scalar("step/loss", loss, global_step)

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        assert self.writer is not None
        for key, value in row.items():
            if key != "epoch" and value is not None:
                self.writer.add_scalar(f"epoch/{key}", value, row["epoch"] * self.steps)
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def import_summary_writer() -> type[SummaryWriter]:
    """Return PyTorch's writer. Raises InputError if TensorBoard is not installed."""
    with needs_package(
        "tensorboard = true needs TensorBoard, which is not installed: "
        "pip install 'tensorboard>=2.20'"
    ):
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter
