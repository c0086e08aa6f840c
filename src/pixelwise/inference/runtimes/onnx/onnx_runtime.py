"""ONNX Runtime: the portable runtime."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pixelwise.data.pixel_format import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.export_manifest import ExportManifest
from pixelwise.inference.runtimes import reopen_export
from pixelwise.inference.runtimes.forking import Latest
from pixelwise.inference.runtimes.onnx.onnx_tile_graphs import ONNXTileGraphs, open_session
from pixelwise.inference.runtimes.tile_geometry import Size, TileGeometry
from pixelwise.inference.runtimes.tile_graphs import GraphTiling, Inputs
from pixelwise.inference.tiling.tiling_requirements import TilingRequirements
from pixelwise.process_settings import cores


class ONNXRuntime:
    """Run an ONNX model on the CPU.

    Raises:
        InputError: If ONNX Runtime cannot read the model.
    """

    def __init__(self, export: ExportManifest) -> None:
        self.name = export.name
        self.concurrency = cores()
        self._export = export
        self._sessions = Latest[onnxruntime.InferenceSession]()
        self._single_core_sessions = Latest[onnxruntime.InferenceSession]()
        self._sessions.get(None, lambda: self._open_session(export.path))

    def __reduce__(self) -> tuple[Any, ...]:
        return reopen_export, (self._export, self.name)

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """Return the logits (C, H, W) of an image (H, W, N)."""
        return infer(self._session(), image, "logits")

    def predict_labels(self, image: Pixels) -> NDArray[np.uint8]:
        """Return the class indices (H, W) of an image (H, W, N)."""
        return infer(self._session(), image, "labels")

    def predict_labels_concurrently(self, image: Pixels) -> NDArray[np.uint8]:
        """Return the class indices on a single core, see `ConcurrentRuntime`."""
        session = self._single_core_sessions.get(
            None, lambda: self._open_session(self._export.unchanged_path(), threads=1)
        )
        return infer(session, image, "labels")

    def _session(self) -> onnxruntime.InferenceSession:
        return self._sessions.get(
            None, lambda: self._open_session(self._export.unchanged_path())
        )  # of a forked process

    def _open_session(self, path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
        try:
            return open_session(path, threads=threads)
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{path}: ONNX Runtime cannot read it ({reason})") from error


def infer(session: onnxruntime.InferenceSession, image: Pixels, output: str) -> NDArray[Any]:
    """Return one output for an image (H, W, N), without the batch axis."""
    (batch,) = session.run([output], {"image": np.ascontiguousarray(image)[None]})
    result: NDArray[Any] = batch[0]
    return result


class TilingONNXRuntime(GraphTiling, ONNXRuntime):
    """An `ONNXRuntime` that supports tiling, for an export that contains its requirements."""

    def __init__(self, export: ExportManifest, requirements: TilingRequirements) -> None:
        super().__init__(export)
        # Measured: it needs three quarters of PyTorch's memory, or as much.
        self.requirements = replace(requirements, rounded=export.precision == "int8")
        self._graphs: ONNXTileGraphs = ONNXTileGraphs(export)
        self._geometry = TileGeometry(self._graphs.sizes)
        self._tile_sessions = Latest[onnxruntime.InferenceSession]()

    def _infer_tile(self, size: Size, pooling: int | None, inputs: Inputs) -> NDArray[Any]:
        session = self._tile_sessions.get(
            pooling, lambda: open_session(self._graphs.model(pooling))
        )
        (output,) = session.run(
            None, {port.name: inputs[port.name] for port in session.get_inputs()}
        )
        result: NDArray[Any] = output
        return result


def open_export(export: ExportManifest) -> ONNXRuntime:
    """Open an ONNX export.

    The runtime is a `TilingRuntime` unless an earlier version wrote the export or the package onnx
    is not installed.

    Raises:
        InputError: If ONNX Runtime cannot read the model.
    """
    if export.requirements is None or find_spec("onnx") is None:
        return ONNXRuntime(export)
    return TilingONNXRuntime(export, export.requirements)
