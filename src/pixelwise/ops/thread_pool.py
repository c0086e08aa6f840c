"""The threads of the compiled gradients: this process's own, kept from step to step."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from pixelwise.ops.threads import Threads

_threads: Threads | None = None


def share(function: Callable[..., None], parts: int, *arguments: Any) -> None:
    """function(begin, end, *arguments) over range(parts), on as many threads as PyTorch uses."""
    global _threads
    count = torch.get_num_threads()
    if _threads is None or _threads.count != count:
        if _threads is not None:
            _threads.__exit__(None, None, None)
        _threads = Threads(count).__enter__()
    _threads.share(function, parts, *arguments)


def _forget() -> None:
    """A fork has none of its parent's threads."""
    global _threads
    _threads = None


if hasattr(os, "register_at_fork"):  # where processes can fork
    os.register_at_fork(after_in_child=_forget)
