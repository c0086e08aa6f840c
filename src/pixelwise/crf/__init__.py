"""Dense CRF (arXiv:1210.5644): refine a network's probabilities along the edges of the image.

    refined = dense_crf(image, probabilities, "camvid")

Importing this package needs only NumPy. Calling it needs numba, which compiles for this machine at
the very first call, within some seconds, and caches the result for later processes.
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
