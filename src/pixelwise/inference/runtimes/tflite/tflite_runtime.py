"""LiteRT, formerly TensorFlow Lite: the runtime of phones. It takes images of one size."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from pixelwise.data.pixel_format import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.export_manifest import ExportManifest
from pixelwise.inference.runtimes import reopen_export
from pixelwise.inference.runtimes.forking import Latest, ProcessLock
from pixelwise.process_settings import cores, thread_limit


class TFLiteRuntime:
    """Run a TFLite model on the CPU, one image at a time.

    Raises:
        InputError: If LiteRT cannot read the model.
    """

    def __init__(self, export: ExportManifest) -> None:
        self.name = export.name
        self._export = export
        self._lock = ProcessLock()
        self._runners = Latest[Any]()
        details = self._runner().get_input_details()["image"]
        _, self.height, self.width, _ = (int(side) for side in details["shape"])

    def __reduce__(self) -> tuple[Any, ...]:
        return reopen_export, (self._export, self.name)

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """Return the logits (C, H, W) of an image (H, W, N). Raises InputError for other sizes."""
        return self._run(image, "logits")

    def predict_labels(self, image: Pixels) -> NDArray[np.uint8]:
        """Return the class indices (H, W) of an image (H, W, N).

        Raises:
            InputError: If the image has another size than the model.
        """
        return self._run(image, "labels")

    def _run(self, image: Pixels, output: str) -> NDArray[Any]:
        height, width, _ = image.shape
        if (height, width) != (self.height, self.width):
            raise InputError(
                f"{self._export.folder}: takes images of {self.height}x{self.width} pixels, not "
                f"{height}x{width}: resize the image, or export again with --size {height}x{width}"
            )
        with self._lock:
            results = self._runner()(image=np.ascontiguousarray(image)[None])
        result: NDArray[Any] = results[output][0]
        return result

    def _runner(self) -> Any:
        return self._runners.get(None, self._open)

    def _open(self) -> Any:
        path = self._export.unchanged_path()
        try:
            interpreter = Interpreter(str(path), num_threads=thread_limit() or cores())
            return interpreter.get_signature_runner()
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{path}: LiteRT cannot read it ({reason})") from error


def open_export(export: ExportManifest) -> TFLiteRuntime:
    """Open a TFLite export.

    Raises:
        InputError: If LiteRT cannot read the model.
    """
    return TFLiteRuntime(export)
