"""Networks by name. A new one is a file in this folder and a line in MODELS."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pixelwise.errors import InputError
from pixelwise.models.deeplab_v3plus import deeplab_v3plus
from pixelwise.models.fcn import (
    fcn8s,
    fcn8s_atonce,
    fcn16s,
    fcn32s,
    fcn_alexnet,
    fcn_googlenet,
)
from pixelwise.models.fcn_resnet import fcn_resnet, fcn_resnet_dilated
from pixelwise.models.segmenter import Segmenter


@dataclass(frozen=True)
class Variant:
    """One row of the list of networks.

    options: what `create_model` takes for it. voc: the published mean IoU on PASCAL VOC in
    percent, with the set it was measured on and who says so; empty where there is none.
    """

    backbone: str
    stride: int
    options: Mapping[str, Any] = field(default_factory=dict)
    voc: str = ""


@dataclass(frozen=True)
class ModelEntry:
    """How to build a network and what to say about it.

    size: the square image that its multiply-adds are given for, as in its paper's time.
    """

    build: Callable[..., Segmenter]
    title: str
    paper: str
    variants: tuple[Variant, ...]
    size: int = 513


def _on_vgg16(
    build: Callable[..., Segmenter], title: str, stride: int, seg11valid: str
) -> ModelEntry:
    voc = f"{seg11valid} seg11valid (authors' code)"
    return ModelEntry(build, title, "arXiv:1411.4038", (Variant("vgg16", stride, voc=voc),), 500)


MODELS: dict[str, ModelEntry] = {
    "fcn32s": _on_vgg16(fcn32s, "FCN-32s", 32, "63.6"),
    "fcn16s": _on_vgg16(fcn16s, "FCN-16s", 16, "65.0"),
    "fcn8s": _on_vgg16(fcn8s, "FCN-8s", 8, "65.5"),
    "fcn8s_atonce": _on_vgg16(fcn8s_atonce, "FCN-8s at once", 8, "65.4"),
    "fcn_alexnet": ModelEntry(
        fcn_alexnet,
        "FCN-AlexNet",
        "arXiv:1411.4038",
        (
            Variant("caffenet", 32, {}, "48.0 seg11valid (authors' code)"),
            Variant("alexnet", 32, {"backbone": "alexnet"}),
        ),
        500,
    ),
    "fcn_googlenet": ModelEntry(
        fcn_googlenet,
        "FCN-GoogLeNet",
        "arXiv:1411.4038",
        (Variant("googlenet", 32, {}, "42.5 VOC 2011 val (paper, table 1)"),),
        500,
    ),
    "fcn_resnet": ModelEntry(
        fcn_resnet,
        "FCN on ResNet",
        "textbooks",
        tuple(
            Variant(f"resnet{depth}", 32, {"backbone": f"resnet{depth}"})
            for depth in (18, 34, 50, 101, 152)
        ),
    ),
    "fcn_resnet_dilated": ModelEntry(
        fcn_resnet_dilated,
        "FCN on dilated ResNet",
        "torchvision",
        tuple(
            Variant(f"resnet{depth}", 8, {"backbone": f"resnet{depth}"}, voc)
            for depth, voc in (
                (18, ""),
                (34, ""),
                (50, "60.5 COCO val2017, VOC classes (torchvision)"),
                (101, "63.7 COCO val2017, VOC classes (torchvision)"),
                (152, ""),
            )
        ),
    ),
    "deeplab_v3plus": ModelEntry(
        deeplab_v3plus,
        "DeepLabV3+",
        "arXiv:1802.02611",
        tuple(
            Variant("mobilenet_v2", stride, {"backbone": "mobilenet_v2", "output_stride": stride})
            for stride in (16, 8)
        ),
    ),
}


def backbone_name(name: str, options: Mapping[str, Any]) -> str:
    """The backbone that `create_model` gives the network: the option's, or the default one."""
    return str(options.get("backbone", MODELS[name].variants[0].backbone))


def create_model(name: str, *, num_classes: int, **options: Any) -> Segmenter:
    """A network with random weights: `create_model("deeplab_v3plus", num_classes=11)`.

    options: those of the network, such as `backbone` and `output_stride`. Raises InputError for an
    unknown name, an option that the network does not have, or a value that it does not allow.
    """
    if name not in MODELS:
        raise InputError(f"model {name!r} is unknown: there are {', '.join(MODELS)}")
    if not 1 <= num_classes <= 255:
        raise InputError(f"num_classes {num_classes}: allowed are 1 to 255")
    build = MODELS[name].build
    allowed = [key for key in inspect.signature(build).parameters if key != "num_classes"]
    for key, value in options.items():
        if key not in allowed:
            raise InputError(f"model {name!r} has no option {key!r}: it has {', '.join(allowed)}")
        if not isinstance(value, str | int | float | bool):
            raise InputError(f"model {name!r}: {key} = {value!r}: a number or a word is allowed")
    return build(num_classes=num_classes, **options)
