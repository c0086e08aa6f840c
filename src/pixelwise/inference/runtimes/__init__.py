"""What runs a network: one file a runtime. The Predictor sees this contract and nothing else."""

from pixelwise.inference.runtimes.runtime import PartRuntime, Runtime, Traits, View

__all__ = ["PartRuntime", "Runtime", "Traits", "View"]
