"""OpenVINO: the fast runtime on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from queue import LifoQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

import openvino as ov
from pixelwise.data.pixel_format import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.export_manifest import ExportManifest
from pixelwise.inference.runtimes import reopen_export
from pixelwise.inference.runtimes.compiled_cache import CompiledCache
from pixelwise.inference.runtimes.forking import Latest, ProcessLock
from pixelwise.inference.runtimes.openvino.dilated_convolutions import (
    crop_dilated_kernels,
    has_slow_convolutions,
    split_dilated_convolutions,
)
from pixelwise.inference.runtimes.openvino.kernel_choice import (
    is_separable,
    prefers_blocked_kernels,
    read_with_blocked_kernels,
)
from pixelwise.inference.runtimes.openvino.openvino_tile_graphs import OpenVINOTileGraphs
from pixelwise.inference.runtimes.openvino.winograd import apply_winograd
from pixelwise.inference.runtimes.tile_geometry import Size, TileGeometry, size_of
from pixelwise.inference.runtimes.tile_graphs import GraphTiling, Inputs
from pixelwise.inference.tiling.tiling_requirements import TilingRequirements
from pixelwise.process_settings import cores, thread_limit

LATENCY = {"PERFORMANCE_HINT": "LATENCY"}
KEPT_KERNELS = 1200
"""Kernels that a model for any size keeps, over all streams: about 150 MiB. By default OpenVINO
keeps 5,000 for each stream: 1 GiB and more on two cores, if each image has another size."""
WAITING = 1  # images that wait for a stream with their input ready, so that it is never idle
# Peak memory relative to PyTorch's, with and without logits. Measured: 0.5 to 0.75, 0.27 to 0.32.
MEMORY_RATIO, LABEL_MEMORY_RATIO = 0.75, 0.32


@cache
def shared_core() -> ov.Core:
    """Return the core of all models of this process.

    The first compiled model of a core gives the thread an alternate signal stack, which is freed
    with the core. If there were several cores, a thread could be left with a freed one, and the
    next signal, such as the end of a child process, would kill the process.
    """
    return ov.Core()


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
        self._export = export
        self._core = shared_core()
        self._cloning = ProcessLock()
        float32 = export.precision == "float32" and precision == "f32"
        try:
            self._model = self._core.read_model(export.path)
            if float32 and prefers_blocked_kernels() and is_separable(self._model):
                self._model = read_with_blocked_kernels(self._core, export.path)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"{export.path}: OpenVINO cannot read it ({reason})") from error
        self._precision = precision
        self._streams = cores()
        self.concurrency = self._streams + WAITING if self._streams > 1 else 1
        # With AMX, OpenVINO 2026.4 crashes on int8 graphs that are compiled for any size:
        # https://github.com/openvinotoolkit/openvino/issues/37577.
        # Split convolutions round differently, and they need a known size: with a dynamic model,
        # masks would depend on which sizes came before.
        any_size = export.precision != "int8" and not (
            precision == "bf16" and has_slow_convolutions(self._model)
        )
        self._single = CompiledCache[_Requests](any_size=any_size)
        self._concurrent = CompiledCache[_Requests](any_size=any_size)

    def __reduce__(self) -> tuple[Any, ...]:
        return reopen_export, (self._export, self.name)

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """Return the logits (C, H, W) of an image (H, W, N)."""
        return self._run(image, "logits")

    def predict_labels(self, image: Pixels) -> NDArray[np.uint8]:
        """Return the class indices (H, W) of an image (H, W, N)."""
        return self._run(image, "labels")

    def predict_labels_concurrently(self, image: Pixels) -> NDArray[np.uint8]:
        """Return the class indices on a single core, see `ConcurrentRuntime`."""
        requests = self._concurrent.get(size_of(image), "labels", self._compile_for_streams)
        return requests.infer(image)

    def _run(self, image: Pixels, output: str) -> NDArray[Any]:
        return self._single.get(size_of(image), output, self._compile_for_one).infer(image)

    def _compile_for_one(self, output: str, size: Size | None) -> _Requests:
        """Compile a model that uses all cores for one image."""
        return _Requests(self._compile(self._model_for(output, size)), 1 + WAITING)

    def _compile_for_streams(self, output: str, size: Size | None) -> _Requests:
        """Compile a model for several images in parallel."""
        options = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self._streams}
        return _Requests(self._compile(self._model_for(output, size), options), self.concurrency)

    def _model_for(self, output: str, size: Size | None) -> ov.Model:
        """Return the graph that computes only `output`, for one size or for any."""
        with self._cloning:
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
        settings: dict[str, Any] = {**options, "INFERENCE_PRECISION_HINT": self._precision}
        if model.is_dynamic():
            settings["CPU_RUNTIME_CACHE_CAPACITY"] = KEPT_KERNELS // options.get("NUM_STREAMS", 1)
        if limit := thread_limit():
            settings["INFERENCE_NUM_THREADS"] = limit
        return self._core.compile_model(model, "CPU", settings)


class _Requests:
    """The inference requests of a compiled model, each of which serves one thread at a time.

    Args:
        model: The compiled model.
        most: The number of requests. They are created when threads need them.
    """

    def __init__(self, model: ov.CompiledModel, most: int) -> None:
        self._model = model
        self._free: LifoQueue[ov.InferRequest | None] = LifoQueue()
        for _ in range(most):
            self._free.put(None)

    def infer(self, image: Pixels) -> NDArray[Any]:
        """Return the model's only output for one image, without the batch axis."""
        request = self._free.get()
        try:
            if request is None:
                request = self._model.create_infer_request()
            request.infer({0: np.ascontiguousarray(image)[None]}, share_inputs=True)
            output: NDArray[Any] = request.get_output_tensor(0).data[0].copy()
            return output
        finally:
            self._free.put(request)


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
        self._tile_request = Latest[ov.InferRequest]()

    def _infer_tile(self, size: Size, pooling: int | None, inputs: Inputs) -> NDArray[Any]:
        request = self._tile_request.get(
            (size, pooling),
            lambda: self._compile(self._graphs.model(size, pooling)).create_infer_request(),
        )
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
