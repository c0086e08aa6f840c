"""Dense CRF (arXiv:1210.5644): a network's probabilities, sharpened along the image's edges.

    refined = dense_crf(image, probabilities, "camvid")

Importing this needs NumPy only. Calling needs numba, which compiles for this machine at the first
call of all, some seconds, and keeps that for later processes.
"""

from pixelwise.crf.meanfield import compile_dense_crf, dense_crf, dense_crfs
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
    "compile_dense_crf",
    "dense_crf",
    "dense_crfs",
    "find_parameters",
]
