"""All networks by name. To add one, write a file in this folder and add an entry to MODELS."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import filter as filter_names
from typing import Any, get_args

from pixelwise.errors import InputError
from pixelwise.models.deeplab_v1 import deeplab_v1
from pixelwise.models.deeplab_v2 import deeplab_v2
from pixelwise.models.deeplab_v3 import TORCHVISION, deeplab_v3, deeplab_v3_cascade
from pixelwise.models.deeplab_v3plus import deeplab_v3plus
from pixelwise.models.fcn import fcn8s, fcn8s_atonce, fcn16s, fcn32s, fcn_alexnet, fcn_googlenet
from pixelwise.models.fcn_resnet import fcn_resnet, fcn_resnet_dilated
from pixelwise.models.lraspp import lraspp
from pixelwise.models.segmenter import Segmenter

MAX_CLASSES = 255
# What each type of option accepts, for error messages.
OPTION_TYPES = {str: "a string", bool: "true or false", int: "an integer", float: "a number"}


@dataclass(frozen=True)
class Variant:
    """One row in the list of networks.

    Attributes:
        backbone: Name of the backbone.
        stride: Output stride.
        options: Options of `create_model` for this variant.
        voc: Published mean IoU on PASCAL VOC in percent, with the split and the source; empty if
            none is published.
        note: How the network differs from the one in the paper; empty if it does not.
    """

    backbone: str
    stride: int
    options: Mapping[str, Any] = field(default_factory=dict)
    voc: str = ""
    note: str = ""


@dataclass(frozen=True)
class ModelEntry:
    """How to build a network, and its description.

    Attributes:
        build: Function with the keyword arguments `num_classes`, `in_channels` and the options of
            the network, whose annotations are keys of OPTION_TYPES, optionally with `| None`.
        title: Name of the network in its paper.
        paper: arXiv number of the paper, or another source.
        variants: Variants to list; the first has the default backbone.
        size: Side of the square image for which multiply-adds are listed, as used in the paper.
    """

    build: Callable[..., Segmenter]
    title: str
    paper: str
    variants: tuple[Variant, ...]
    size: int = 513

    def option_types(self) -> dict[str, tuple[type, ...]]:
        """Return the types that each option accepts, by name."""
        parameters = inspect.signature(self.build, eval_str=True).parameters
        return {
            name: get_args(parameter.annotation) or (parameter.annotation,)
            for name, parameter in parameters.items()
            if name not in {"num_classes", "in_channels"}
        }


def _fcn_vgg16(build: Callable[..., Segmenter], title: str, stride: int, miou: str) -> ModelEntry:
    variant = Variant("vgg16", stride, voc=f"{miou} seg11valid (authors' code)")
    return ModelEntry(build, title, "arXiv:1411.4038", (variant,), 500)


def _field_of_view(kernel_size: int, rate: int, voc: str) -> Variant:
    """DeepLab v1 with one of the fields of view with 4096 channels."""
    options = {"kernel_size": kernel_size, "rate": rate, "hidden": 4096, "average_pool": False}
    return Variant("vgg16", 8, options, voc)


def _variant(backbone: str, output_stride: int, voc: str = "", **options: Any) -> Variant:
    """A variant of a network that has the options `backbone` and `output_stride`."""
    options = {"backbone": backbone, "output_stride": output_stride, **options}
    return Variant(backbone, output_stride, options, voc)


MODELS: dict[str, ModelEntry] = {
    "fcn32s": _fcn_vgg16(fcn32s, "FCN-32s", 32, "63.6"),
    "fcn16s": _fcn_vgg16(fcn16s, "FCN-16s", 16, "65.0"),
    "fcn8s": _fcn_vgg16(fcn8s, "FCN-8s", 8, "65.5"),
    "fcn8s_atonce": _fcn_vgg16(fcn8s_atonce, "FCN-8s at once", 8, "65.4"),
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
        (
            Variant(
                "googlenet",
                32,
                {},
                "42.5 VOC 2011 val (paper, table 1)",
                "torchvision's GoogLeNet with batch normalization; the paper's, with this score, "
                "has none",
            ),
        ),
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
            _field_of_view(7, 4, "64.38 val, with CRF 67.64 (paper)"),
            _field_of_view(4, 4, "59.80 val, with CRF 63.74 (paper)"),
            _field_of_view(4, 8, "with CRF 67.14 val (paper)"),
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
                "76.35 val, with CRF 77.69 (paper; pretrained on COCO)",
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
            _variant("resnet101", 16, "77.21 val (paper)"),
            _variant("resnet101", 8, "78.51 val, trained at 16 (paper)"),
            _variant("resnet50", 16),
            _variant("resnet50", 8),
            _variant("resnet50", 8, "66.4 COCO val2017, VOC classes (torchvision)", **TORCHVISION),
            _variant("resnet101", 8, "67.4 COCO val2017, VOC classes (torchvision)", **TORCHVISION),
            _variant(
                "mobilenet_v3_large",
                16,
                "60.3 COCO val2017, VOC classes (torchvision)",
                **TORCHVISION,
                wide_rates=True,
            ),
        ),
    ),
    "lraspp": ModelEntry(
        lraspp,
        "LR-ASPP",
        "arXiv:1905.02244",
        (_variant("mobilenet_v3_large", 16, "57.9 COCO val2017, VOC classes (torchvision)"),),
    ),
    "deeplab_v3_cascade": ModelEntry(
        deeplab_v3_cascade,
        "DeepLabV3 in cascade",
        "arXiv:1706.05587",
        (
            _variant("resnet101", 16, "76.66 val (paper)"),
            _variant("resnet101", 8),
            _variant("resnet50", 16),
        ),
    ),
    "deeplab_v3plus": ModelEntry(
        deeplab_v3plus,
        "DeepLabV3+",
        "arXiv:1802.02611",
        (
            _variant("mobilenet_v2", 16),
            _variant("mobilenet_v2", 8),
            _variant(
                "mobilenet_v2",
                16,
                "75.32 val, pretrained on COCO (authors' code)",
                decoder=False,
                aspp=False,
            ),
            *(_variant(f"efficientnet_lite{n}", 16) for n in (0, 1, 2)),
            _variant("efficientnet_lite0", 8),
            _variant("xception65", 16, "79.79 val; 82.20 pretrained on COCO (paper)"),
            _variant("xception65", 16, "79.93 val (paper)", separable=False),
            _variant("xception65", 16, "79.17 val (paper)", separable=False, decoder=False),
            _variant("xception65", 8),
            _variant("resnet101", 16, "78.85 val (paper)"),
            _variant("resnet101", 8),
            _variant("resnet50", 16),
        ),
    ),
}


def list_models(pattern: str = "*") -> list[str]:
    """List the names of all networks.

    Args:
        pattern: Shell-style pattern, such as "deeplab*" or "fcn*s".

    Returns:
        The matching names, FCN first and then DeepLab v1 to v3+; empty if none matches.

    Example:
        >>> list_models("deeplab_v3*")
        ['deeplab_v3', 'deeplab_v3_cascade', 'deeplab_v3plus']
    """
    return filter_names(MODELS, pattern)


def find_model(name: str) -> ModelEntry:
    """Return the entry of a network.

    Raises:
        InputError: If the name is unknown; the message suggests similar names.
    """
    if name not in MODELS:
        raise InputError(
            f"model {name!r} is unknown{_suggestion(name, MODELS)}: must be one of "
            f"{', '.join(MODELS)}"
        )
    return MODELS[name]


def _suggestion(name: str, known: Iterable[str]) -> str:
    similar = get_close_matches(name, known)
    return f" (did you mean {' or '.join(similar)}?)" if similar else ""


def backbone_name(name: str, options: Mapping[str, Any]) -> str:
    """Return the name of the backbone that `create_model` uses with these options."""
    return str(options.get("backbone", find_model(name).variants[0].backbone))


def create_model(name: str, *, num_classes: int, in_channels: int = 3, **options: Any) -> Segmenter:
    """Create a network with random weights.

    `pixelwise.create_model` does the same and can load published weights into the backbone.

    Args:
        name: Name of the network; see `list_models`.
        num_classes: Number of classes, 1 to 255.
        in_channels: Number of image channels.
        options: Options of the network, such as `backbone` and `output_stride`.

    Returns:
        The network, in training mode.

    Raises:
        InputError: If the name, an option or a value is not allowed.

    Example:
        >>> model = create_model("deeplab_v3plus", num_classes=11, output_stride=8)
    """
    entry = find_model(name)
    if not 1 <= num_classes <= MAX_CLASSES:
        raise InputError(f"num_classes {num_classes}: must be 1 to {MAX_CLASSES}")
    if in_channels < 1:
        raise InputError(f"in_channels {in_channels}: must be 1 or more")
    types = entry.option_types()
    for key, value in options.items():
        if key not in types:
            raise InputError(
                f"model {name!r} has no option {key!r}{_suggestion(key, types)}: its options are "
                f"{', '.join(types)}"
            )
        # Compares exact types, because True is an instance of int.
        if type(value) not in types[key] and not (type(value) is int and float in types[key]):
            allowed = " or ".join(OPTION_TYPES[t] for t in types[key] if t in OPTION_TYPES)
            raise InputError(f"model {name!r}: option {key} = {value!r}: must be {allowed}")
    return entry.build(num_classes=num_classes, in_channels=in_channels, **options)
