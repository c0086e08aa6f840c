"""Who published segmentation networks, and how their files are laid out: one file a publisher.

A new one is a file here, with a function that makes a Publication of a file or says None, and an
entry in PUBLISHERS. FCN by its authors, torchvision and classifiers, whose names are ours up to
their beginnings, are in `convert` and `pretrained`.
"""

from __future__ import annotations

from collections.abc import Callable

from pixelwise.weights.import_weights import ImportedWeights
from pixelwise.weights.publishers.kazuto1011 import kazuto1011
from pixelwise.weights.publishers.publication import Publication
from pixelwise.weights.publishers.tensorflow_deeplab import tensorflow

PUBLISHERS: tuple[Callable[[ImportedWeights], Publication | None], ...] = (kazuto1011, tensorflow)


def find_publication(imported: ImportedWeights) -> Publication | None:
    """The first that knows the file; None where none does.

    Raises InputError for a file that is a publisher's, and of a network that is not known.
    """
    for publisher in PUBLISHERS:
        publication = publisher(imported)
        if publication is not None:
            return publication
    return None


__all__ = ["PUBLISHERS", "Publication", "find_publication"]
