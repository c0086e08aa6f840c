"""Keep training and the program that calls it apart.

A training seeds the global random generators and computes gradients in float32 on the devices that
it names. The program may have configured PyTorch otherwise, and must find everything as it was.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar, cast

import numpy as np
import torch

from pixelwise.training.callbacks import Callback
from pixelwise.worker_start import end_import_by_child

P = ParamSpec("P")
R = TypeVar("R")
_one_at_a_time = threading.RLock()


def isolated(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function with the keyword argument `callback` to run in `isolated_training`."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        end_import_by_child()
        with isolated_training(cast(Callback | None, kwargs.get("callback"))):
            return function(*args, **kwargs)

    return wrapper


@contextmanager
def isolated_training(callback: Callback | None) -> Iterator[None]:
    """Run a training with PyTorch's default settings, and restore the program's afterwards.

    Restored are the random states of PyTorch, NumPy and Python, the default type, the number of
    threads, and the level of Fabric's logger. Gradients are enabled, and autocast, inference mode
    and a default device are disabled. Since the random states belong to the whole program, a second
    training in another thread waits for the first.

    Args:
        callback: Receives a status if the training has to wait.
    """
    if not _one_at_a_time.acquire(blocking=False):
        if callback is not None:
            callback.on_status("waiting for another training of this program")
        _one_at_a_time.acquire()
    try:
        with ExitStack() as stack:
            _restore_at_exit(stack)
            torch.set_default_dtype(torch.float32)
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for device_type in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device_type):
                    stack.enter_context(torch.autocast(device_type, enabled=False))
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            yield
    finally:
        _one_at_a_time.release()


def _restore_at_exit(stack: ExitStack) -> None:
    fabric_log = logging.getLogger("lightning_fabric")
    stack.callback(fabric_log.setLevel, fabric_log.level)
    stack.callback(_set_threads, torch.get_num_threads())
    stack.callback(torch.set_default_dtype, torch.get_default_dtype())
    stack.callback(random.setstate, random.getstate())
    stack.callback(np.random.set_state, np.random.get_state())
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        stack.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
    else:  # the GPUs' generators are still as the last call of manual_seed has left them
        stack.callback(lambda: torch.cuda.manual_seed_all(torch.initial_seed()))
    stack.callback(torch.set_rng_state, torch.get_rng_state())


def _set_threads(count: int) -> None:
    if torch.get_num_threads() != count:  # setting it may start threads
        torch.set_num_threads(count)
