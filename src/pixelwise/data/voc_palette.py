"""PASCAL VOC's 21 classes with the colors of its palette PNG files."""

from __future__ import annotations

from pixelwise.data.classes import Classes, Color

VOC_NAMES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def voc_color(value: int) -> Color:
    """The RGB color of a mask value (0..255) in the development kit's color map.

    Of the value's bits, every third goes to red, the next to green, the next to blue; the lowest
    becomes the highest of its channel.
    """
    red, green, blue = (
        sum((value >> (3 * place + channel) & 1) << (7 - place) for place in range(3))
        for channel in range(3)
    )
    return red, green, blue


VOC_CLASSES = Classes.make(
    VOC_NAMES,
    colors=[voc_color(value) for value in range(len(VOC_NAMES))],
    ignore=255,
    ignore_color=voc_color(255),
)
