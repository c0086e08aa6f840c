"""Show the progress of a study: one bar for all of its trainings."""

from __future__ import annotations

from rich.console import Console

from pixelwise.progress import Clock, duration
from pixelwise.study.curve_results import FinishedTraining
from pixelwise.study.learning_curve import StudyCallback
from pixelwise.training.display import Display


class StudyDisplay(StudyCallback, Display):
    """The progress of the steps of all trainings.

    Args:
        console: Where to draw. By default standard error.
        quiet: Whether to show nothing at all.
        lines: Whether to print a line for each finished training.
    """

    def __init__(
        self, console: Console | None = None, *, quiet: bool = False, lines: bool = False
    ) -> None:
        Display.__init__(self, console, quiet=quiet)
        self.console = console or Console(stderr=True)
        self.lines = lines and not quiet
        self.title = ""
        self.before, self.total = 0, 1

    def on_status(self, text: str) -> None:
        self.dataset_bar.__exit__()
        self.bar.describe(self.title or text, unit=text if self.title else "")
        self.bar.progress.start()

    def on_training_begin(self, number: int, total: int, images: int, seed: int) -> None:
        self.before, self.total = number - 1, total
        self.title = f"training {number}/{total}: {images} images, seed {seed}"
        self.on_status("starting")

    def on_step(self, *, epoch: int, step: int, steps: int, loss: float, images: int) -> None:
        done = self.before + step / steps
        if self.is_first_step:  # earlier trainings took none of this clock's time
            self.clock, self.is_first_step = Clock(done), False
        left = duration(self.clock.left(done, self.total))
        self.bar.describe(self.title, unit=f"loss {loss:.3f} {left} left")
        self.bar(self.before * steps + step, self.total * steps)

    def on_validation_progress(self, done: int, total: int) -> None:
        self.bar.describe(self.title, unit=f"val {done}/{total}")

    def on_training_end(self, training: FinishedTraining) -> None:
        if self.lines:
            text = f"{training.images} images, seed {training.seed}"
            score = f"{100 * training.mean_iou:.1f} % val mIoU"
            self.console.print(f"{text}: {score} after {duration(training.seconds)}")
