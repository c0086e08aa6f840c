"""OpenVINO: the fast runtime on a CPU."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from pixelwise.data.pixels import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.exported import Export

Size = tuple[int, int]
KEPT = 2  # compiled sizes; each has a copy of the weights
WORTH = 3  # pictures of a size after which it is compiled for itself


class OpenVINORuntime:
    """A model in OpenVINO's format, compiled for the CPU.

    A model compiled for one size is faster than one for any: the first picture's size and every
    one that comes often are compiled for themselves, and the last two of them are kept.

    precision: "f32", or "bf16", which processors with AMX compute several times faster and which
    keeps 8 bits of the 24 of a number.
    """

    def __init__(self, export: Export, *, precision: str = "f32") -> None:
        self.name = export.name if precision == "f32" else f"{export.name}-{precision}"
        self._core = ov.Core()
        try:
            self._model = self._core.read_model(export.path)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"{export.path}: OpenVINO cannot read it ({reason})") from error
        self._precision = precision
        self._seen: Counter[Size] = Counter()
        self._static: OrderedDict[tuple[Size, str], ov.InferRequest] = OrderedDict()
        self._dynamic: dict[str, ov.InferRequest] = {}

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """(H, W, N) in units of 0..255 to (C, H, W) float32."""
        return self._run(image, "logits")

    def classify(self, image: Pixels) -> NDArray[np.uint8]:
        """(H, W, N) in units of 0..255 to (H, W) class indices."""
        return self._run(image, "labels")

    def _run(self, image: Pixels, output: str) -> NDArray[Any]:
        request = self._request((image.shape[0], image.shape[1]), output)
        request.infer({0: np.ascontiguousarray(image)[None]}, share_inputs=True)
        found: NDArray[Any] = request.get_output_tensor(0).data[0].copy()
        return found

    def _request(self, size: Size, output: str) -> ov.InferRequest:
        self._seen[size] += 1
        key = (size, output)
        if key in self._static:
            self._static.move_to_end(key)
            return self._static[key]
        if len(self._seen) == 1 or self._seen[size] >= WORTH:
            while len(self._static) >= KEPT:
                self._static.popitem(last=False)
            self._static[key] = self._compile(output, size)
            return self._static[key]
        if output not in self._dynamic:
            self._dynamic[output] = self._compile(output, None)
        return self._dynamic[output]

    def _compile(self, output: str, size: Size | None) -> ov.InferRequest:
        model = self._model.clone()
        # The other output goes, with the work that only it needs.
        results = [one for one in model.results if output in one.output(0).names]
        model = ov.Model(results, model.get_parameters(), "pixelwise")
        if size is not None:
            channels = model.input(0).partial_shape[3].get_length()
            model.reshape([1, *size, channels])
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self._precision}
        return self._core.compile_model(model, "CPU", options).create_infer_request()


def open_export(export: Export, *, precision: str = "f32") -> OpenVINORuntime:
    """The runtime for an export. Raises InputError where OpenVINO cannot read it."""
    return OpenVINORuntime(export, precision=precision)
