"""ONNX Runtime: the portable runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pixelwise.data.pixels import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.exported import Export


class ONNXRuntime:
    """A model in ONNX's format, on the CPU."""

    def __init__(self, export: Export) -> None:
        self.name = export.name
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only; they come as exceptions too
        try:
            self._session = onnxruntime.InferenceSession(
                export.path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions have no common class of their own
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{export.path}: ONNX Runtime cannot read it ({reason})") from error

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """(H, W, N) in units of 0..255 to (C, H, W) float32."""
        return self._run(image, "logits")

    def classify(self, image: Pixels) -> NDArray[np.uint8]:
        """(H, W, N) in units of 0..255 to (H, W) class indices."""
        return self._run(image, "labels")

    def _run(self, image: Pixels, output: str) -> NDArray[Any]:
        (found,) = self._session.run([output], {"image": np.ascontiguousarray(image)[None]})
        result: NDArray[Any] = found[0]
        return result


def open_export(export: Export) -> ONNXRuntime:
    """The runtime for an export. Raises InputError where ONNX Runtime cannot read it."""
    return ONNXRuntime(export)
