"""How published segmentation networks are stored: one file per publisher.

To add a publisher whose names differ from ours throughout, write a file with a function that
returns a Publication for its files and None for others, and add the function to PUBLISHERS. The
names of FCN's authors (`fcn_caffe`) and of torchvision (`torchvision_segmentation`) differ from
ours only in their prefixes; `convert_weights` uses their tables directly.
"""

from __future__ import annotations

from collections.abc import Callable

from pixelwise.weights.import_weights import ImportedWeights
from pixelwise.weights.publishers.deeplab_caffe import deeplab_caffe
from pixelwise.weights.publishers.kazuto1011 import kazuto1011
from pixelwise.weights.publishers.publication import Publication
from pixelwise.weights.publishers.tensorflow_deeplab import tensorflow

PUBLISHERS: tuple[Callable[[ImportedWeights], Publication | None], ...] = (
    deeplab_caffe,
    kazuto1011,
    tensorflow,
)


def find_publication(imported: ImportedWeights) -> Publication | None:
    """Return the publication that a file belongs to, or None if no publisher recognizes it.

    Raises:
        InputError: If a publisher recognizes the file, but not the network in it.
    """
    publications = (publisher(imported) for publisher in PUBLISHERS)
    return next((found for found in publications if found is not None), None)


__all__ = ["PUBLISHERS", "Publication", "find_publication"]
