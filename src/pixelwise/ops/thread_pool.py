"""The threads of the compiled training kernels, which this process keeps from step to step."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from pixelwise.ops.threads import Threads

_threads: Threads | None = None


def run_parallel(function: Callable[..., None], items: int, *arguments: Any) -> None:
    """Call function(begin, end, *arguments) for ranges of items, on PyTorch's number of threads."""
    global _threads
    count = torch.get_num_threads()
    if _threads is None or _threads.count != count:
        if _threads is not None:
            _threads.__exit__()
        _threads = Threads(count).__enter__()
    _threads.run(function, items, *arguments)


def _forget_threads() -> None:
    global _threads
    _threads = None


if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=_forget_threads)
