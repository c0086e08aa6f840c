"""Mean field inference in a fully connected CRF (Kraehenbuehl and Koltun, arXiv:1210.5644).

The energy of a labelling is a unary term, minus the logarithm of the network's probabilities, and
a Potts term between all pairs of pixels, weighted by two Gaussian kernels: one of position, one of
position and color. Each iteration filters the probabilities by both kernels, adds the result to
the logits and takes the softmax (algorithm 1).
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
"""How far from 1 the probabilities of a pixel may sum: half precision is let through."""

_MIN_SHARED = 8192  # fewer pixels than this are quicker done by one thread


def dense_crf(
    image: Image,
    probabilities: NDArray[Any],
    parameters: CRFParameters | str = DEFAULT_PARAMETERS,
) -> Floats:
    """Probabilities (C, H, W) float32 after mean field, summing to one over the classes.

    image: (H, W, 3) uint8 RGB.
    probabilities: (C, H, W) float, 0..1, summing to one over the classes; values under 1e-5 count
        as 1e-5, as with pydensecrf's `unary_from_softmax`, whose results these are.
    parameters: numbers, the name of a paper's set, or a file of `pixelwise tune-crf`.

    Raises InputError, a ValueError, for arrays of other types, shapes or values and for bad
    parameters; and where numba is not installed.
    """
    return next(dense_crfs(image, probabilities, [find_parameters(parameters)]))


def dense_crfs(
    image: Image, probabilities: NDArray[Any], sets: Iterable[CRFParameters]
) -> Iterator[Floats]:
    """`dense_crf` for several parameters in turn.

    A lattice is built anew only where its standard stds differ from those before, so sets
    that differ in weights alone belong side by side.
    """
    _check(image, probabilities)
    require_numba("the dense CRF")
    from pixelwise.crf.lattice import Lattice
    from pixelwise.ops.threads import Threads

    flat = np.ascontiguousarray(probabilities, dtype=np.float32).reshape(len(probabilities), -1)
    bilateral: tuple[tuple[float, float], Lattice] | None = None
    position: tuple[float, Lattice] | None = None
    with Threads(1 if flat.shape[1] < _MIN_SHARED else None) as threads:
        for chosen in sets:
            color = (chosen.bi_xy, chosen.bi_rgb)
            if bilateral is None or bilateral[0] != color:
                bilateral = None  # its memory goes before the next takes as much
                features = _bilateral_features(image, *color)
                bilateral = color, Lattice(features, threads=threads)
            if position is None or position[0] != chosen.pos_xy:
                height, width = image.shape[:2]
                features = _position_features(height, width, chosen.pos_xy)
                position = chosen.pos_xy, Lattice(features, threads=threads)
            refined = _mean_field(flat, chosen, bilateral[1], position[1], threads)
            yield refined.reshape(probabilities.shape)


def _mean_field(
    probabilities: Floats,
    parameters: CRFParameters,
    bilateral: Lattice,
    position: Lattice,
    threads: Threads,
) -> Floats:
    """(C, N) to (C, N)."""
    from pixelwise.crf import kernels
    from pixelwise.crf.lattice import padded

    classes, count = probabilities.shape
    width = padded(classes)
    logits = np.empty(count * width, np.float32)
    threads.share(kernels.logits_from, count, probabilities, width, logits)
    bilateral_sums, bilateral_values, bilateral_spare = bilateral.buffers(width)
    position_sums, position_values, position_spare = position.buffers(width)
    bilateral_blurred, position_blurred = bilateral_values, position_values
    for iteration in range(parameters.iterations + 1):
        final = iteration == parameters.iterations
        threads.share(
            kernels.update,
            bilateral.strips,
            bilateral.bounds,
            width,
            logits,
            iteration > 0,
            final,
            bilateral.row_starts,
            bilateral.rows,
            bilateral.points,
            bilateral.weights,
            np.float32(parameters.bi_w * bilateral.scale),
            bilateral_blurred,
            bilateral_sums,
            position.row_starts,
            position.rows,
            position.points,
            position.weights,
            np.float32(parameters.pos_w * position.scale),
            position_blurred,
            position_sums,
        )
        if not final:
            bilateral_blurred = bilateral.blur(
                width, bilateral_sums, bilateral_values, bilateral_spare
            )
            position_blurred = position.blur(width, position_sums, position_values, position_spare)
    refined = np.empty_like(probabilities)
    threads.share(kernels.classes_first, count, logits, width, refined)
    return refined


def _position_features(height: int, width: int, std: float) -> Floats:
    """(2, H * W): x and y in standard stds."""
    features = np.empty((2, height, width), np.float32)
    features[0] = np.arange(width, dtype=np.float32) / np.float32(std)
    features[1] = (np.arange(height, dtype=np.float32) / np.float32(std))[:, None]
    return features.reshape(2, -1)


def _bilateral_features(image: Image, position: float, color: float) -> Floats:
    """(5, H * W): x, y, red, green and blue in standard stds."""
    height, width = image.shape[:2]
    features = np.empty((5, height * width), np.float32)
    features[:2] = _position_features(height, width, position)
    np.divide(image.reshape(-1, 3).T, np.float32(color), out=features[2:], dtype=np.float32)
    return features


def compile_dense_crf() -> None:
    """Compile what `dense_crf` runs, or load what an earlier process compiled.

    `dense_crf` does it itself at its first call; a service or a progress bar wants it done before.
    Raises InputError where numba is not installed.
    """
    dense_crf(np.zeros((1, 1, 3), np.uint8), np.ones((1, 1, 1), np.float32))


def _check(image: Image, probabilities: NDArray[Any]) -> None:
    """Raise InputError that says which value is wrong and what is allowed."""
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or 0 in image.shape
    ):
        raise InputError(
            f"image of {_described(image)}: has to be a uint8 array of shape (H, W, 3) in RGB"
        )
    if (
        not isinstance(probabilities, np.ndarray)
        or not np.issubdtype(probabilities.dtype, np.floating)
        or probabilities.ndim != 3
        or 0 in probabilities.shape
    ):
        raise InputError(
            f"probabilities of {_described(probabilities)}: have to be a float array of shape "
            "(classes, H, W)"
        )
    if probabilities.shape[1:] != image.shape[:2]:
        raise InputError(
            f"probabilities of {probabilities.shape[1]}x{probabilities.shape[2]} (height x width) "
            f"do not fit the image of {image.shape[0]}x{image.shape[1]}: make them the same size"
        )
    totals = probabilities.sum(axis=0, dtype=np.float32)
    wrong = ~(np.abs(totals - 1) <= SUM_TOLERANCE)  # NaN compares false, so it is wrong too
    if wrong.any():
        y, x = np.argwhere(wrong)[0]
        raise InputError(
            f"probabilities of the pixel in row {y}, column {x} sum to {totals[y, x]:g}: they have "
            "to sum to 1 over the classes, without NaN (take the softmax of logits)"
        )
    if probabilities.min() < 0:
        c, y, x = np.unravel_index(probabilities.argmin(), probabilities.shape)
        raise InputError(
            f"probability {probabilities[c, y, x]:g} of class {c} in row {y}, column {x}: has to "
            "be in 0..1 (take the softmax of logits)"
        )


def _described(value: object) -> str:
    kind, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    return f"type {type(value).__name__}" if kind is None else f"dtype {kind}, shape {shape}"
