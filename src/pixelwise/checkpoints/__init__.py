"""Weights on disk: the bundle, and where published weights are found."""

from pixelwise.checkpoints.bundle import Bundle
from pixelwise.checkpoints.normalisation import IMAGENET, Normalisation
from pixelwise.checkpoints.pretrained import find_imagenet_weights, load_backbone

__all__ = ["IMAGENET", "Bundle", "Normalisation", "find_imagenet_weights", "load_backbone"]
