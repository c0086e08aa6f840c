"""Suggest the settings that `train` would choose for the dataset, as flags."""

from __future__ import annotations

from typing import Any

from pixelwise.doctor.checks.classes import count_pixels
from pixelwise.doctor.diagnosis import Suggestion
from pixelwise.doctor.pair_inspection import Scan
from pixelwise.planning.machine import this_machine
from pixelwise.planning.plan import BATCH_SIZE, EPOCHS, DatasetStats, make_plan

_FLAGS = {BATCH_SIZE: "--batch-size", EPOCHS: "--epochs"}


def suggest_settings(scan: Scan) -> list[Suggestion]:
    """Plan training on this machine, without a GPU. Returns [] if no pair can be used."""
    sizes = [pair.image.size for pair in scan.usable()]
    if not sizes or scan.classes is None:
        return []
    dataset_stats = DatasetStats(
        train=sum(1 for _ in scan.usable("train")),
        sizes=sizes,
        pixels=count_pixels(scan, "train")[: len(scan.classes)].tolist(),
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
