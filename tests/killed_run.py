"""A training process that kills itself at a given place. Not a test: test_resume.py starts it."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import torch

import pixelwise.file_io
import pixelwise.training.resume_state
from dying import dying
from pixelwise.training import Trainer, load_recipe, resume, train
from pixelwise.weights.bundle import Bundle


def work(data: str, out: str, recipe: str, place: str) -> None:
    """Train, or go on where there is a checkpoint, and leave OUT.done. The process dies at `place`,
    the second time that it comes there; with "" it lives."""
    torch.set_num_threads(1)
    # Here it would be the forkserver, whose first process imports everything anew.
    multiprocessing.set_start_method("fork", force=True)
    _arm(place)
    folder = Path(out)
    if any((folder / "checkpoints").glob("step-*.safetensors")):
        resume(folder)
    else:
        file = folder.with_suffix(".toml")
        file.write_text(recipe)
        train(Path(data), folder, load_recipe(file), overwrite=True)
    folder.with_suffix(".done").touch()


def _arm(place: str) -> None:
    if place == "epoch_end":  # the bundles are written, the checkpoint is not
        Trainer._write_epoch = dying(Trainer._write_epoch, times=2, after=True)
    elif place == "bundle":  # amid an epoch's end: last.safetensors is new, best is not
        Bundle.save = dying(Bundle.save, times=2, after=True)  # type: ignore[method-assign]
    elif place == "before_flush":  # amid a checkpoint: its side file is there, in part
        write = pixelwise.training.resume_state.write_tensor_file
        os_fsync = os.fsync

        def armed(*args: Any, **kwargs: Any) -> None:
            pixelwise.file_io.os.fsync = dying(os_fsync, times=1) if due() else os_fsync
            write(*args, **kwargs)

        calls = iter(range(1000))

        def due() -> bool:
            return next(calls) >= 1

        pixelwise.training.resume_state.write_tensor_file = armed
    elif place == "after_rename":  # the new checkpoint is there, the oldest not yet removed
        pixelwise.training.resume_state.list_checkpoints = dying(
            pixelwise.training.resume_state.list_checkpoints, times=3
        )
