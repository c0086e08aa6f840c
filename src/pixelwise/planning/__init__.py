"""What to train with, from the data and the machine. No PyTorch here: the doctor asks too."""

from pixelwise.planning.machine import Machine, this_machine
from pixelwise.planning.plan import (
    BATCH_SIZE,
    CLASS_WEIGHTS,
    CROP,
    EPOCHS,
    PLANNED,
    Choice,
    DatasetStats,
    Network,
    make_plan,
)

__all__ = [
    "BATCH_SIZE",
    "CLASS_WEIGHTS",
    "CROP",
    "EPOCHS",
    "PLANNED",
    "Choice",
    "DatasetStats",
    "Machine",
    "Network",
    "make_plan",
    "this_machine",
]
