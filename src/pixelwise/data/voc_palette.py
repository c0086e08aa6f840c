"""The 21 classes of PASCAL VOC, with the colors of its palette PNG files."""

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
    """Return the RGB color of a mask value (0..255) in the color map of the development kit.

    Bits 0, 3 and 6 of the value go to red, bits 1, 4 and 7 to green, bits 2 and 5 to blue; the
    lowest bit becomes the most significant bit of its channel.
    """
    red, green, blue = (
        sum((value >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3))
        for channel in range(3)
    )
    return red, green, blue


VOC_CLASSES = Classes.make(
    VOC_NAMES,
    colors=[voc_color(value) for value in range(len(VOC_NAMES))],
    ignore=255,
    ignore_color=voc_color(255),
)
