"""A training process that kills itself at a given place, for test_resume.py."""

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
    """Train, or resume if there is a checkpoint, and create OUT.done.

    The process kills itself the second time it reaches `place`; with "" it does not.
    """
    torch.set_num_threads(1)
    # In this process it would be forkserver, whose first process imports everything again.
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
    elif place == "bundle":  # at the end of an epoch: last.safetensors is new, best is not
        Bundle.save = dying(Bundle.save, times=2, after=True)  # type: ignore[method-assign]
    elif place == "before_flush":  # during a checkpoint: its temporary file is incomplete
        write = pixelwise.training.resume_state.write_tensor_file
        os_fsync = os.fsync

        def armed(*args: Any, **kwargs: Any) -> None:
            pixelwise.file_io.os.fsync = dying(os_fsync, times=1) if due() else os_fsync
            write(*args, **kwargs)

        calls = iter(range(1000))

        def due() -> bool:
            return next(calls) >= 1

        pixelwise.training.resume_state.write_tensor_file = armed
    elif place == "after_rename":  # the new checkpoint exists, the oldest is not removed yet
        pixelwise.training.resume_state.list_checkpoints = dying(
            pixelwise.training.resume_state.list_checkpoints, times=3
        )
