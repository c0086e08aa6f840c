"""Choose training settings from the data and the machine. Free of PyTorch: the doctor uses it."""

from pixelwise.planning.machine import Machine, this_machine
from pixelwise.planning.plan import (
    BATCH_SIZE,
    CLASS_WEIGHTS,
    CROP,
    EPOCHS,
    PLANNED,
    DatasetStats,
    Network,
    PlannedValue,
    make_plan,
)

__all__ = [
    "BATCH_SIZE",
    "CLASS_WEIGHTS",
    "CROP",
    "EPOCHS",
    "PLANNED",
    "DatasetStats",
    "Machine",
    "Network",
    "PlannedValue",
    "make_plan",
    "this_machine",
]
