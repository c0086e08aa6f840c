"""What runs a network: one file a runtime. The Predictor sees this contract and nothing else."""

from pixelwise.inference.runtimes.runtime import Runtime

__all__ = ["Runtime"]
