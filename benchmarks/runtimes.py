"""Latency of the exported networks beside PyTorch eager, each at the size it is known by.

    python benchmarks/runtimes.py [--network NAME] [--rounds N] [--folder FOLDER]

The weights are random, since speed does not depend on them, and so are the masks that calibrate
int8: its limit on the score is off here, and on for every bundle that a person exports. What the
ratios mean is said in pixelwise.benchmark: each runtime in processes of its own that take turns,
eager as a plain script runs it, in the faster of its two memory formats.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import date
from pathlib import Path

import harness
import torch

from pixelwise.benchmark import benchmark
from pixelwise.checkpoints import IMAGENET, Bundle
from pixelwise.data.dataset import open_dataset
from pixelwise.data.scenes import SCENE_CLASSES, write_scenes
from pixelwise.data.voc import VOC_CLASSES
from pixelwise.export import export
from pixelwise.export.int8 import Int8Settings
from pixelwise.models import create_model

# name: network, options, classes, rows and columns
NETWORKS = {
    "DeepLabV3+ MobileNetV2": ("deeplab_v3plus", {}, 11, (360, 480)),
    "DeepLabV3 ResNet-50": ("deeplab_v3", {"backbone": "resnet50", "output_stride": 8}, 21, (520, 520)),
    "FCN ResNet-50": ("fcn_resnet_dilated", {"backbone": "resnet50"}, 21, (520, 520)),
    "FCN-8s": ("fcn8s", {}, 21, (500, 500)),
}
CALIBRATION = 6
