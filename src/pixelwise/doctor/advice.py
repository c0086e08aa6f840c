"""What `train` would choose for the folder, as the flags that set it."""

from __future__ import annotations

from typing import Any

from pixelwise.doctor.checks import classes as by_class
from pixelwise.doctor.dataset_scan import DatasetScan
from pixelwise.doctor.diagnosis import Suggestion
from pixelwise.planning import BATCH_SIZE, EPOCHS, DatasetStats, make_plan, this_machine

_FLAGS = {BATCH_SIZE: "--batch-size", EPOCHS: "--epochs"}


def suggestions(scan: DatasetScan) -> list[Suggestion]:
    """The plan for training on this machine, without a GPU; empty where nothing can be read."""
    sizes = [s.image.size for s in scan.usable()]
    if not sizes or scan.classes is None:
        return []
    dataset_stats = DatasetStats(
        train=sum(1 for _ in scan.usable("train")),
        sizes=sizes,
        pixels=by_class.pixels(scan, "train")[:-1].tolist(),
    )
    found = []
    for choice in make_plan(dataset_stats, this_machine()):
        value = list(choice.value) if isinstance(choice.value, tuple) else choice.value
        found.append(Suggestion(choice.key, value, _flag(choice.key, value), choice.reason))
    return found


def _flag(key: str, value: Any) -> str:
    if key in _FLAGS:
        return f"{_FLAGS[key]} {value}"
    return f'--set {key}="{value}"' if isinstance(value, list) else f"--set {key}={value}"
