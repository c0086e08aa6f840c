"""Weights on disk: the bundle, and where published weights are found, read and converted."""

from pixelwise.checkpoints.bundle import Bundle
from pixelwise.checkpoints.convert import Conversion, convert
from pixelwise.checkpoints.normalisation import CAFFE, GOOGLENET, IMAGENET, Normalisation
from pixelwise.checkpoints.pretrained import find_imagenet_weights, load_backbone
from pixelwise.checkpoints.widening import widen

__all__ = [
    "CAFFE",
    "GOOGLENET",
    "IMAGENET",
    "Bundle",
    "Conversion",
    "Normalisation",
    "convert",
    "find_imagenet_weights",
    "load_backbone",
    "widen",
]
