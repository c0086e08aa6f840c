"""ONNX Runtime: the portable runtime."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pixelwise.data.pixel_format import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.export_manifest import ExportManifest
from pixelwise.inference.runtimes.graph_tiling import GraphTiling, Inputs
from pixelwise.inference.runtimes.onnx.onnx_tile_graphs import PartGraphs, open_session
from pixelwise.inference.runtimes.tile_geometry import Geometry, Size
from pixelwise.inference.tiling.tiling_requirements import TilingRequirements
from pixelwise.process_settings import cores


class ONNXRuntime:
    """A model in ONNX's format, on the CPU."""

    def __init__(self, export: ExportManifest) -> None:
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
        """threads: of one image; 0 for all cores. Raises InputError where it cannot be read."""
        try:
            return open_session(self._path, threads=threads)
        except Exception as error:  # its exceptions have no common class of their own
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{self._path}: ONNX Runtime cannot read it ({reason})") from error


def _infer(session: onnxruntime.InferenceSession, image: Pixels, output: str) -> NDArray[Any]:
    (found,) = session.run([output], {"image": np.ascontiguousarray(image)[None]})
    result: NDArray[Any] = found[0]
    return result


class TilingONNXRuntime(GraphTiling, ONNXRuntime):
    """The same for an export that says what tiles need: a `TilingRuntime`."""

    def __init__(self, export: ExportManifest, requirements: TilingRequirements) -> None:
        super().__init__(export)
        # Its memory is that of PyTorch, or three quarters of it: measured.
        self.requirements = replace(requirements, rounded=export.precision == "int8")
        self._graphs: PartGraphs = PartGraphs(export.path)
        self._geometry = Geometry(self._graphs.sizes)
        self._part: tuple[int | None, onnxruntime.InferenceSession] | None = None

    def _infer_tile(self, size: Size, pooling: int | None, given: Inputs) -> NDArray[Any]:
        if self._part is None or self._part[0] != pooling:
            self._part = None  # its memory goes before the next one's is taken
            graphs = self._graphs
            model = graphs.for_logits() if pooling is None else graphs.for_sums(pooling)
            self._part = (pooling, open_session(model))
        session = self._part[1]
        (found,) = session.run(None, {one.name: given[one.name] for one in session.get_inputs()})
        result: NDArray[Any] = found
        return result


def open_export(export: ExportManifest) -> ONNXRuntime:
    """The runtime for an export; tiles are parts of their image unless it is of an earlier
    version, or the package onnx is missing. Raises InputError where ONNX Runtime cannot read it."""
    if export.requirements is None or find_spec("onnx") is None:
        return ONNXRuntime(export)
    return TilingONNXRuntime(export, export.requirements)
