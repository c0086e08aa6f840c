"""Dense CRF (arXiv:1210.5644): a network's probabilities, sharpened along the picture's edges.

    refined = dense_crf(image, probabilities, "camvid")

Importing this needs NumPy only; the first call needs numba and compiles for this machine.
"""

from pixelwise.crf.meanfield import dense_crf, dense_crfs, require_numba
from pixelwise.crf.parameters import (
    DEFAULT_PARAMETERS,
    PARAMETER_SETS,
    CRFParameters,
    find_parameters,
)

__all__ = [
    "DEFAULT_PARAMETERS",
    "PARAMETER_SETS",
    "CRFParameters",
    "dense_crf",
    "dense_crfs",
    "find_parameters",
    "require_numba",
]
