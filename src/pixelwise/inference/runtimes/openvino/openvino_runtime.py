"""OpenVINO: the fast runtime on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from pixelwise.data.pixel_format import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.export_manifest import ExportManifest
from pixelwise.inference.runtimes.compiled_cache import CompiledCache
from pixelwise.inference.runtimes.graph_tiling import GraphTiling, Inputs, size_of
from pixelwise.inference.runtimes.openvino.dilated_convolutions import (
    crop_dilated,
    is_split,
    split_dilated,
)
from pixelwise.inference.runtimes.openvino.openvino_tile_graphs import PartGraphs
from pixelwise.inference.runtimes.openvino.winograd import halve_multiplications
from pixelwise.inference.runtimes.tile_geometry import Geometry, Size
from pixelwise.inference.tiling.tiling_requirements import TilingRequirements
from pixelwise.process_settings import cores

LATENCY = {"PERFORMANCE_HINT": "LATENCY"}
# Of the memory that PyTorch takes at its peak. Measured: 0.5 to 0.75, and 0.27 to 0.32.
MEMORY, LABEL_MEMORY = 0.75, 0.32


class OpenVINORuntime:
    """A model in OpenVINO's format, compiled for the CPU.

    It is compiled for sizes as `CompiledCache` says; for one image after the other, and for several at
    once, which then have a core each, apart.

    precision: "f32", or "bf16", which processors with AMX compute several times faster and which
    keeps 8 bits of the 24 of a number.
    """

    def __init__(self, export: ExportManifest, *, precision: str = "f32") -> None:
        self.name = export.name if precision == "f32" else f"{export.name}-{precision}"
        self._core = ov.Core()
        try:
            self._model = self._core.read_model(export.path)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"{export.path}: OpenVINO cannot read it ({reason})") from error
        self._precision = precision
        self._streams = cores()
        # One more image than streams, so that none of these waits for its next one.
        self.concurrency = self._streams + 1 if self._streams > 1 else 1
        # With AMX OpenVINO 2026.4 dies of graphs in 8 bits that are compiled for any size:
        # https://github.com/openvinotoolkit/openvino/issues/37577.
        # Split convolutions round otherwise: masks are not to depend on what came before.
        any_size = export.precision != "int8" and not (
            precision == "bf16" and is_split(self._model)
        )
        self._one = CompiledCache[ov.InferRequest](any_size=any_size)
        self._several = CompiledCache[SimpleQueue[ov.InferRequest]](any_size=any_size)

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """(H, W, N) in units of 0..255 to (C, H, W) float32."""
        return self._run(image, "logits")

    def classify(self, image: Pixels) -> NDArray[np.uint8]:
        """(H, W, N) in units of 0..255 to (H, W) class indices."""
        return self._run(image, "labels")

    def classify_concurrently(self, image: Pixels) -> NDArray[np.uint8]:
        """The same on a core, as `ConcurrentRuntime` has it."""
        requests = self._several.get(size_of(image), "labels", self._requests)
        request = requests.get()
        try:
            return _infer(request, image)
        finally:
            requests.put(request)

    def _run(self, image: Pixels, output: str) -> NDArray[Any]:
        return _infer(self._one.get(size_of(image), output, self._request), image)

    def _request(self, output: str, size: Size | None) -> ov.InferRequest:
        """For one image at a time, by all cores."""
        return self._compiled(self._sized(output, size)).create_infer_request()

    def _requests(self, output: str, size: Size | None) -> SimpleQueue[ov.InferRequest]:
        """For several at once: as many requests, of one compiled model."""
        options = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self._streams}
        model = self._compiled(self._sized(output, size), options)
        requests: SimpleQueue[ov.InferRequest] = SimpleQueue()
        for _ in range(self.concurrency):
            requests.put(model.create_infer_request())
        return requests

    def _sized(self, output: str, size: Size | None) -> ov.Model:
        model = self._for(output)
        if size is not None:
            channels = model.input(0).partial_shape[3].get_length()
            model.reshape([1, *size, channels])
        return model

    def _for(self, output: str) -> ov.Model:
        """The graph without its other output, and the work that only that needs."""
        model = self._model.clone()
        results = [one for one in model.results if output in one.output(0).names]
        return ov.Model(results, model.get_parameters(), "pixelwise")

    def _compiled(self, model: ov.Model, options: Mapping[str, Any] = LATENCY) -> ov.CompiledModel:
        if self._precision == "f32":
            halve_multiplications(model)
        if not model.is_dynamic():
            crop_dilated(model)
            if self._precision == "bf16":
                split_dilated(model)
        precision = {"INFERENCE_PRECISION_HINT": self._precision}
        return self._core.compile_model(model, "CPU", {**options, **precision})


class TilingOpenVINORuntime(GraphTiling, OpenVINORuntime):
    """The same for an export that says what tiles need: a `TilingRuntime`."""

    def __init__(
        self, export: ExportManifest, requirements: TilingRequirements, *, precision: str = "f32"
    ) -> None:
        super().__init__(export, precision=precision)
        self.requirements = replace(
            requirements,
            bytes_per_pixel=MEMORY * requirements.bytes_per_pixel,
            label_bytes_per_pixel=LABEL_MEMORY * requirements.label_bytes_per_pixel,
            rounded=export.precision == "int8",
        )
        self._graphs: PartGraphs = PartGraphs(self._for("logits"))
        self._geometry = Geometry(self._graphs.sizes)
        self._part: tuple[tuple[Size, int | None], ov.InferRequest] | None = None

    def _infer_tile(self, size: Size, pooling: int | None, given: Inputs) -> NDArray[Any]:
        key = (size, pooling)
        if self._part is None or self._part[0] != key:
            self._part = None  # its memory goes before the next one's is taken
            graphs = self._graphs
            model = graphs.for_logits(size) if pooling is None else graphs.for_sums(size, pooling)
            self._part = (key, self._compiled(model).create_infer_request())
        request = self._part[1]
        asked = {name for port in request.model_inputs for name in port.names}
        request.infer({name: given[name] for name in asked}, share_inputs=True)
        found: NDArray[Any] = request.get_output_tensor(0).data
        return found


def open_export(export: ExportManifest, *, precision: str = "f32") -> OpenVINORuntime:
    """The runtime for an export. Raises InputError where OpenVINO cannot read it."""
    if export.requirements is None:  # it is of an earlier version
        return OpenVINORuntime(export, precision=precision)
    return TilingOpenVINORuntime(export, export.requirements, precision=precision)


def _infer(request: ov.InferRequest, image: Pixels) -> NDArray[Any]:
    """Its one output for one image, the batch's axis taken off."""
    request.infer({0: np.ascontiguousarray(image)[None]}, share_inputs=True)
    found: NDArray[Any] = request.get_output_tensor(0).data[0].copy()
    return found
