"""Layers that several networks share."""

from pixelwise.layers.aspp import ASPP, ImagePooling, image_mean
from pixelwise.layers.conv import ConvNormAct, SeparableConv, TensorFlowConv2d
from pixelwise.layers.norm import BatchNorm2d, Dropout, use_compiled
from pixelwise.layers.resize import resize, upsample_from_pixels
from pixelwise.layers.upsampling import (
    UPSAMPLING,
    Coordinates,
    LearnedUpsampling,
    bilinear_kernel,
    crop,
    make_upsampling,
)

__all__ = [
    "ASPP",
    "UPSAMPLING",
    "BatchNorm2d",
    "ConvNormAct",
    "Coordinates",
    "Dropout",
    "ImagePooling",
    "LearnedUpsampling",
    "SeparableConv",
    "TensorFlowConv2d",
    "bilinear_kernel",
    "crop",
    "image_mean",
    "make_upsampling",
    "resize",
    "upsample_from_pixels",
    "use_compiled",
]
