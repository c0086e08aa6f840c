"""How fast a bundle predicts on this machine, by every runtime that it can be run by."""

from pixelwise.benchmark.measurements import Measurement, benchmark

__all__ = ["Measurement", "benchmark"]
