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
from pixelwise.inference.runtimes.openvino.dilated_convolutions import (
    crop_dilated_kernels,
    has_slow_convolutions,
    split_dilated_convolutions,
)
from pixelwise.inference.runtimes.openvino.openvino_tile_graphs import OpenVINOTileGraphs
from pixelwise.inference.runtimes.openvino.winograd import apply_winograd
from pixelwise.inference.runtimes.tile_geometry import Size, TileGeometry, size_of
from pixelwise.inference.runtimes.tile_graphs import GraphTiling, Inputs
from pixelwise.inference.tiling.tiling_requirements import TilingRequirements
from pixelwise.process_settings import cores

LATENCY = {"PERFORMANCE_HINT": "LATENCY"}
# Peak memory relative to PyTorch's, with and without logits. Measured: 0.5 to 0.75, 0.27 to 0.32.
MEMORY_RATIO, LABEL_MEMORY_RATIO = 0.75, 0.32


class OpenVINORuntime:
    """Run an OpenVINO model on the CPU.

    Models are compiled for image sizes as `CompiledCache` decides: once for all cores working on
    one image, and once for several images in parallel with one core each.

    Args:
        export: The export.
        precision: "f32", or "bf16", which is several times faster on processors with AMX and keeps
            8 of the 24 significant bits of a number.

    Raises:
        InputError: If OpenVINO cannot read the model.
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
        # One more image than streams, so that no stream waits for its next image.
        self.concurrency = self._streams + 1 if self._streams > 1 else 1
        # With AMX, OpenVINO 2026.4 crashes on int8 graphs that are compiled for any size:
        # https://github.com/openvinotoolkit/openvino/issues/37577.
        # Split convolutions round differently, and they need a known size: with a dynamic model,
        # masks would depend on which sizes came before.
        any_size = export.precision != "int8" and not (
            precision == "bf16" and has_slow_convolutions(self._model)
        )
        self._single = CompiledCache[ov.InferRequest](any_size=any_size)
        self._concurrent = CompiledCache[SimpleQueue[ov.InferRequest]](any_size=any_size)

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """Return the logits (C, H, W) of an image (H, W, N)."""
        return self._run(image, "logits")

    def predict_labels(self, image: Pixels) -> NDArray[np.uint8]:
        """Return the class indices (H, W) of an image (H, W, N)."""
        return self._run(image, "labels")

    def predict_labels_concurrently(self, image: Pixels) -> NDArray[np.uint8]:
        """Return the class indices on a single core, see `ConcurrentRuntime`."""
        requests = self._concurrent.get(size_of(image), "labels", self._create_requests)
        request = requests.get()
        try:
            return _infer(request, image)
        finally:
            requests.put(request)

    def _run(self, image: Pixels, output: str) -> NDArray[Any]:
        return _infer(self._single.get(size_of(image), output, self._create_request), image)

    def _create_request(self, output: str, size: Size | None) -> ov.InferRequest:
        """Compile a model that uses all cores for one image."""
        return self._compile(self._model_for(output, size)).create_infer_request()

    def _create_requests(self, output: str, size: Size | None) -> SimpleQueue[ov.InferRequest]:
        """Compile a model for several images in parallel, with a request for each."""
        options = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self._streams}
        model = self._compile(self._model_for(output, size), options)
        requests: SimpleQueue[ov.InferRequest] = SimpleQueue()
        for _ in range(self.concurrency):
            requests.put(model.create_infer_request())
        return requests

    def _model_for(self, output: str, size: Size | None) -> ov.Model:
        """Return the graph that computes only `output`, for one size or for any."""
        clone = self._model.clone()
        results = [result for result in clone.results if output in result.output(0).names]
        model = ov.Model(results, clone.get_parameters(), "pixelwise")
        if size is not None:
            channels = model.input(0).partial_shape[3].get_length()
            model.reshape([1, *size, channels])
        return model

    def _compile(self, model: ov.Model, options: Mapping[str, Any] = LATENCY) -> ov.CompiledModel:
        if self._precision == "f32":
            apply_winograd(model)
        if not model.is_dynamic():
            crop_dilated_kernels(model)
            if self._precision == "bf16":
                split_dilated_convolutions(model)
        precision = {"INFERENCE_PRECISION_HINT": self._precision}
        return self._core.compile_model(model, "CPU", {**options, **precision})


class TilingOpenVINORuntime(GraphTiling, OpenVINORuntime):
    """An `OpenVINORuntime` that supports tiling, for an export that contains its requirements."""

    def __init__(
        self, export: ExportManifest, requirements: TilingRequirements, *, precision: str = "f32"
    ) -> None:
        super().__init__(export, precision=precision)
        self.requirements = replace(
            requirements,
            bytes_per_pixel=MEMORY_RATIO * requirements.bytes_per_pixel,
            label_bytes_per_pixel=LABEL_MEMORY_RATIO * requirements.label_bytes_per_pixel,
            rounded=export.precision == "int8",
        )
        self._graphs: OpenVINOTileGraphs = OpenVINOTileGraphs(self._model_for("logits", None))
        self._geometry = TileGeometry(self._graphs.sizes)
        self._tile_request: tuple[tuple[Size, int | None], ov.InferRequest] | None = None

    def _infer_tile(self, size: Size, pooling: int | None, inputs: Inputs) -> NDArray[Any]:
        key = (size, pooling)
        if self._tile_request is None or self._tile_request[0] != key:
            self._tile_request = None  # free its memory before the next one is compiled
            model = self._graphs.model(size, pooling)
            self._tile_request = (key, self._compile(model).create_infer_request())
        request = self._tile_request[1]
        names = {name for port in request.model_inputs for name in port.names}
        request.infer({name: inputs[name] for name in names}, share_inputs=True)
        output: NDArray[Any] = request.get_output_tensor(0).data
        return output


def open_export(export: ExportManifest, *, precision: str = "f32") -> OpenVINORuntime:
    """Open an OpenVINO export.

    The runtime is a `TilingRuntime` unless an earlier version wrote the export.

    Raises:
        InputError: If OpenVINO cannot read the model.
    """
    if export.requirements is None:
        return OpenVINORuntime(export, precision=precision)
    return TilingOpenVINORuntime(export, export.requirements, precision=precision)


def _infer(request: ov.InferRequest, image: Pixels) -> NDArray[Any]:
    """Return the request's only output for one image, without the batch axis."""
    request.infer({0: np.ascontiguousarray(image)[None]}, share_inputs=True)
    output: NDArray[Any] = request.get_output_tensor(0).data[0].copy()
    return output
