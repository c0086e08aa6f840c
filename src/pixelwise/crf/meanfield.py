"""Mean field inference in a fully connected CRF (Kraehenbuehl and Koltun, arXiv:1210.5644).

The energy of a labeling has a unary term, the negative logarithm of the network's probabilities,
and a Potts term between all pairs of pixels, weighted by two Gaussian kernels: one of position, and
one of position and color. Each iteration filters the probabilities with both kernels, adds the
result to the logits and takes the softmax (algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf.parameters import DEFAULT_PARAMETERS, CRFParameters, find_parameters
from pixelwise.errors import InputError
from pixelwise.ops.numba_support import require_numba

if TYPE_CHECKING:
    from pixelwise.crf.lattice import Lattice
    from pixelwise.ops.threads import Threads

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]

SUM_TOLERANCE = 1e-3
"""Tolerance of a pixel's sum of probabilities around 1, which admits half precision."""

_MIN_THREADED = 8192  # pixels; smaller images are processed faster by one thread


def dense_crf(
    image: Image, probabilities: NDArray[Any], parameters: CRFParameters | str = DEFAULT_PARAMETERS
) -> Floats:
    """Refine probabilities with mean field inference in a dense CRF.

    The results equal pydensecrf's.

    Args:
        image: RGB image (H, W, 3), uint8.
        probabilities: Class probabilities (C, H, W), float, in 0..1 and summing to 1 over the
            classes. Values below 1e-5 count as 1e-5, as in pydensecrf's `unary_from_softmax`.
        parameters: Parameters, the name of a paper's set (see `PARAMETER_SETS`), or a file written
            by `pixelwise tune-crf`.

    Returns:
        Refined probabilities (C, H, W) float32, summing to 1 over the classes.

    Raises:
        InputError: If an array has a wrong type, shape or value, if a parameter is invalid, or if
            numba is not installed. An InputError is a ValueError.
    """
    return next(dense_crfs(image, probabilities, [find_parameters(parameters)]))


def dense_crfs(
    image: Image, probabilities: NDArray[Any], sets: Iterable[CRFParameters]
) -> Iterator[Floats]:
    """Yield the result of `dense_crf` for several parameter sets.

    A lattice is rebuilt only if its stds differ from the previous set's, so sets that differ
    in weights only should be consecutive.
    """
    _check(image, probabilities)
    require_numba("the dense CRF")
    from pixelwise.crf.lattice import Lattice
    from pixelwise.ops.threads import Threads

    flat = np.ascontiguousarray(probabilities, dtype=np.float32).reshape(len(probabilities), -1)
    bilateral: tuple[tuple[float, float], Lattice] | None = None
    position: tuple[float, Lattice] | None = None
    with Threads(1 if flat.shape[1] < _MIN_THREADED else None) as threads:
        for parameters in sets:
            stds = (parameters.bi_xy, parameters.bi_rgb)
            if bilateral is None or bilateral[0] != stds:
                bilateral = None  # free its memory before the next lattice is built
                features = _bilateral_features(image, *stds)
                bilateral = stds, Lattice(features, threads=threads)
            if position is None or position[0] != parameters.pos_xy:
                height, width = image.shape[:2]
                features = _position_features(height, width, parameters.pos_xy)
                position = parameters.pos_xy, Lattice(features, threads=threads)
            refined = _mean_field(flat, parameters, bilateral[1], position[1], threads)
            yield refined.reshape(probabilities.shape)


def _mean_field(
    probabilities: Floats,
    parameters: CRFParameters,
    bilateral: Lattice,
    position: Lattice,
    threads: Threads,
) -> Floats:
    """Refine probabilities (C, N)."""
    from pixelwise.crf import kernels
    from pixelwise.crf.lattice import padded_width

    classes, count = probabilities.shape
    width = padded_width(classes)
    logits = np.empty(count * width, np.float32)
    threads.run(kernels.log_probabilities, count, probabilities, width, logits)
    lattices = ((bilateral, parameters.bi_w), (position, parameters.pos_w))
    buffers = [lattice.buffers(width) for lattice, _ in lattices]
    blurred = [values for _, values, _ in buffers]
    for iteration in range(parameters.iterations + 1):
        filters = [
            lattice.arrays(values, arrays[0], weight)
            for (lattice, weight), values, arrays in zip(lattices, blurred, buffers, strict=True)
        ]
        first, final = iteration == 0, iteration == parameters.iterations
        update = (bilateral.bounds, width, logits, first, final, *filters)
        threads.run(kernels.update_probabilities, bilateral.strips, *update)
        if not final:
            blurred = [
                lattice.blur(width, *arrays)
                for (lattice, _), arrays in zip(lattices, buffers, strict=True)
            ]
    refined = np.empty_like(probabilities)
    threads.run(kernels.channels_first, count, logits, width, refined)
    return refined


def _position_features(height: int, width: int, std: float) -> Floats:
    """Return x and y of each pixel (2, H * W), divided by the std."""
    features = np.empty((2, height, width), np.float32)
    features[0] = np.arange(width, dtype=np.float32) / np.float32(std)
    features[1] = (np.arange(height, dtype=np.float32) / np.float32(std))[:, None]
    return features.reshape(2, -1)


def _bilateral_features(image: Image, xy_std: float, rgb_std: float) -> Floats:
    """Return x, y, red, green and blue of each pixel (5, H * W), divided by their stds."""
    height, width = image.shape[:2]
    features = np.empty((5, height * width), np.float32)
    features[:2] = _position_features(height, width, xy_std)
    np.divide(image.reshape(-1, 3).T, np.float32(rgb_std), out=features[2:], dtype=np.float32)
    return features


def compile_dense_crf() -> None:
    """Compile what `dense_crf` runs, or load what an earlier process compiled.

    `dense_crf` does this at its first call. A service or a progress bar wants it done before.

    Raises:
        InputError: If numba is not installed.
    """
    dense_crf(np.zeros((1, 1, 3), np.uint8), np.ones((1, 1, 1), np.float32))


def _check(image: Image, probabilities: NDArray[Any]) -> None:
    """Raise an InputError that names the invalid value and what is allowed."""
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or 0 in image.shape
    ):
        raise InputError(
            f"image of {_describe(image)}: must be a uint8 array of shape (H, W, 3) in RGB"
        )
    if (
        not isinstance(probabilities, np.ndarray)
        or not np.issubdtype(probabilities.dtype, np.floating)
        or probabilities.ndim != 3
        or 0 in probabilities.shape
    ):
        raise InputError(
            f"probabilities of {_describe(probabilities)}: must be a float array of shape "
            "(classes, H, W)"
        )
    if probabilities.shape[1:] != image.shape[:2]:
        raise InputError(
            f"probabilities of {probabilities.shape[1]}x{probabilities.shape[2]} (height x width) "
            f"do not match the image of {image.shape[0]}x{image.shape[1]}: resize one of them"
        )
    totals = probabilities.sum(axis=0, dtype=np.float32)
    wrong = ~(np.abs(totals - 1) <= SUM_TOLERANCE)  # also true for NaN
    if wrong.any():
        y, x = np.argwhere(wrong)[0]
        raise InputError(
            f"probabilities at row {y}, column {x} sum to {totals[y, x]:g}: they must sum to 1 "
            "over the classes, without NaN (take the softmax of logits)"
        )
    if probabilities.min() < 0:
        c, y, x = np.unravel_index(probabilities.argmin(), probabilities.shape)
        raise InputError(
            f"probability {probabilities[c, y, x]:g} of class {c} at row {y}, column {x}: must be "
            "in 0..1 (take the softmax of logits)"
        )


def _describe(value: object) -> str:
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    return f"type {type(value).__name__}" if dtype is None else f"dtype {dtype}, shape {shape}"
