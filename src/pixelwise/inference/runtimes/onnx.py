"""ONNX Runtime: the portable runtime."""

from __future__ import annotations

from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pixelwise.data.pixels import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.exported import Export
from pixelwise.process import cores


class ONNXRuntime:
    """A model in ONNX's format, on the CPU."""

    def __init__(self, export: Export) -> None:
        self.name = export.name
        self.concurrency = cores()
        self._path = export.path
        self._session = self._opened()
        self._opening = Lock()

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """(H, W, N) in units of 0..255 to (C, H, W) float32."""
        return self._run(image, "logits")

    def classify(self, image: Pixels) -> NDArray[np.uint8]:
        """(H, W, N) in units of 0..255 to (H, W) class indices."""
        return self._run(image, "labels")

    def classify_concurrently(self, image: Pixels) -> NDArray[np.uint8]:
        """The same on a core, as `ConcurrentRuntime` has it."""
        with self._opening:
            session = self._on_one_core
        return _infer(session, image, "labels")

    @cached_property
    def _on_one_core(self) -> onnxruntime.InferenceSession:
        return self._opened(threads=1)

    def _run(self, image: Pixels, output: str) -> NDArray[Any]:
        return _infer(self._session, image, output)

    def _opened(self, threads: int = 0) -> onnxruntime.InferenceSession:
        """threads: of one picture; 0 for all cores. Raises InputError where it cannot be read."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only; they come as exceptions too
        options.intra_op_num_threads = threads
        try:
            return onnxruntime.InferenceSession(
                self._path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions have no common class of their own
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{self._path}: ONNX Runtime cannot read it ({reason})") from error


def _infer(session: onnxruntime.InferenceSession, image: Pixels, output: str) -> NDArray[Any]:
    (found,) = session.run([output], {"image": np.ascontiguousarray(image)[None]})
    result: NDArray[Any] = found[0]
    return result


def open_export(export: Export) -> ONNXRuntime:
    """The runtime for an export. Raises InputError where ONNX Runtime cannot read it."""
    return ONNXRuntime(export)
