"""Types of the fixtures in conftest.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Cli = Callable[..., Any]
MakeData = Callable[..., Path]
