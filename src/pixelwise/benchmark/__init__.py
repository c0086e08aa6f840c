"""Measure the latency of a bundle on this machine with every available runtime."""

from pixelwise.benchmark.runtime_benchmark import Measurement, benchmark

__all__ = ["Measurement", "benchmark"]
