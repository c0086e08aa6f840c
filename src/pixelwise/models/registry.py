"""Networks by name. A new one is a file in this folder and a line in MODELS."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pixelwise.errors import InputError
from pixelwise.models.deeplab_v1 import deeplab_v1
from pixelwise.models.deeplab_v2 import deeplab_v2
from pixelwise.models.deeplab_v3 import deeplab_v3, deeplab_v3_cascade
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


def _field(kernel_size: int, rate: int) -> dict[str, Any]:
    """DeepLab v1's options for a field of view with 4096 channels."""
    return {"kernel_size": kernel_size, "rate": rate, "hidden": 4096, "average_pool": False}


def _on(backbone: str, output_stride: int) -> dict[str, Any]:
    return {"backbone": backbone, "output_stride": output_stride}


# What torchvision's DeepLabV3 has otherwise than the paper's, at output stride 8.
TORCHVISION = {"multi_grid": False, "dropout": 0.5, "refine": True, "auxiliary": True}

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
    "deeplab_v1": ModelEntry(
        deeplab_v1,
        "DeepLab v1",
        "arXiv:1412.7062",
        (
            Variant("vgg16", 8, {}, "62.25 val, with CRF 67.64 (paper)"),
            Variant("vgg16", 8, {"multi_scale": True}, "64.21 val, with CRF 68.70 (paper)"),
            Variant("vgg16", 8, _field(7, 4), "64.38 val, with CRF 67.64 (paper)"),
            Variant("vgg16", 8, _field(4, 4), "59.80 val, with CRF 63.74 (paper)"),
            Variant("vgg16", 8, _field(4, 8), "with CRF 67.14 val (paper)"),
        ),
    ),
    "deeplab_v2": ModelEntry(
        deeplab_v2,
        "DeepLab v2",
        "arXiv:1606.00915",
        (
            Variant(
                "resnet101",
                8,
                {"backbone": "resnet101"},
                "76.35 val, with CRF 77.69 (paper; COCO before)",
            ),
            *(
                Variant(
                    "vgg16",
                    8,
                    {"backbone": "vgg16", "aspp": aspp, "multi_scale": False},
                    f"{voc} (paper)",
                )
                for aspp, voc in (
                    ("S", "66.98 val, with CRF 69.73"),
                    ("L", "68.96 val, with CRF 71.57"),
                )
            ),
        ),
    ),
    "deeplab_v3": ModelEntry(
        deeplab_v3,
        "DeepLabV3",
        "arXiv:1706.05587",
        (
            *(
                Variant(f"resnet{depth}", stride, _on(f"resnet{depth}", stride), voc)
                for depth, stride, voc in (
                    (101, 16, "77.21 val (paper)"),
                    (101, 8, "78.51 val, trained at 16 (paper)"),
                    (50, 16, ""),
                    (50, 8, ""),
                )
            ),
            *(
                Variant(f"resnet{depth}", 8, {**_on(f"resnet{depth}", 8), **TORCHVISION}, voc)
                for depth, voc in (
                    (50, "66.4 COCO val2017, VOC classes (torchvision)"),
                    (101, "67.4 COCO val2017, VOC classes (torchvision)"),
                )
            ),
        ),
    ),
    "deeplab_v3_cascade": ModelEntry(
        deeplab_v3_cascade,
        "DeepLabV3 in cascade",
        "arXiv:1706.05587",
        (
            Variant("resnet101", 16, _on("resnet101", 16), "76.66 val (paper)"),
            Variant("resnet101", 8, _on("resnet101", 8)),
            Variant("resnet50", 16, _on("resnet50", 16)),
        ),
    ),
    "deeplab_v3plus": ModelEntry(
        deeplab_v3plus,
        "DeepLabV3+",
        "arXiv:1802.02611",
        (
            Variant("mobilenet_v2", 16, _on("mobilenet_v2", 16)),
            Variant("mobilenet_v2", 8, _on("mobilenet_v2", 8)),
            Variant(
                "mobilenet_v2",
                16,
                {**_on("mobilenet_v2", 16), "decoder": False, "aspp": False},
                "75.32 val, with COCO before (authors' code)",
            ),
            Variant(
                "xception65",
                16,
                _on("xception65", 16),
                "79.79 val; 82.20 with COCO before (paper)",
            ),
            Variant(
                "xception65",
                16,
                {**_on("xception65", 16), "separable": False},
                "79.93 val (paper)",
            ),
            Variant(
                "xception65",
                16,
                {**_on("xception65", 16), "separable": False, "decoder": False},
                "79.17 val (paper)",
            ),
            Variant("xception65", 8, _on("xception65", 8)),
            Variant("resnet101", 16, _on("resnet101", 16), "78.85 val (paper)"),
            Variant("resnet101", 8, _on("resnet101", 8)),
            Variant("resnet50", 16, _on("resnet50", 16)),
        ),
    ),
}


# What the options of a network may be, by their annotation; True is no number here.
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a word"),
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
}


def backbone_name(name: str, options: Mapping[str, Any]) -> str:
    """The backbone that `create_model` gives the network: the option's, or the default one."""
    return str(options.get("backbone", MODELS[name].variants[0].backbone))


def create_model(name: str, *, num_classes: int, in_channels: int = 3, **options: Any) -> Segmenter:
    """A network with random weights: `create_model("deeplab_v3plus", num_classes=11)`.

    in_channels: of the images. options: those of the network, such as `backbone` and
    `output_stride`. Raises InputError for an
    unknown name, an option that the network does not have, or a value that it does not allow.
    """
    if name not in MODELS:
        raise InputError(f"model {name!r} is unknown: there are {', '.join(MODELS)}")
    if not 1 <= num_classes <= 255:
        raise InputError(f"num_classes {num_classes}: allowed are 1 to 255")
    if in_channels < 1:
        raise InputError(f"in_channels {in_channels}: allowed are 1 and more")
    build = MODELS[name].build
    allowed = {
        key: str(parameter.annotation).removesuffix(" | None")
        for key, parameter in inspect.signature(build).parameters.items()
        if key not in {"num_classes", "in_channels"}
    }
    for key, value in options.items():
        if key not in allowed:
            raise InputError(f"model {name!r} has no option {key!r}: it has {', '.join(allowed)}")
        types, meaning = KINDS[allowed[key]]
        if type(value) not in types:
            raise InputError(f"model {name!r}: {key} = {value!r}: {meaning} is allowed")
    return build(num_classes=num_classes, in_channels=in_channels, **options)
