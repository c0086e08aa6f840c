"""torch.export: model.pt2, for `torch.export.load`, AOTInductor and ExecuTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from pixelwise.data.pixel_format import Pixels
from pixelwise.exporters.formats import ExportFormat
from pixelwise.inference.export_manifest import ExportManifest


class TorchExportFormat(ExportFormat):
    """Write models for other programs; pixelwise opens them only to verify them."""

    def write(self, program: ExportedProgram, folder: Path) -> str:
        torch.export.save(program, folder / "model.pt2")
        return "model.pt2"

    def open(self, export: ExportManifest) -> TorchExportRuntime:
        return TorchExportRuntime(export)


FORMAT = TorchExportFormat()


class TorchExportRuntime:
    """Run an exported program with PyTorch."""

    def __init__(self, export: ExportManifest) -> None:
        self.name = export.name
        self._module = torch.export.load(export.path).module()

    def logits(self, image: Pixels) -> NDArray[np.float32]:
        """Return the logits (C, H, W) of an image (H, W, N)."""
        return self._run(image)[1]

    def predict_labels(self, image: Pixels) -> NDArray[np.uint8]:
        """Return the class indices (H, W) of an image (H, W, N)."""
        return self._run(image)[0]

    @torch.no_grad()
    def _run(self, image: Pixels) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        labels, logits = self._module(torch.from_numpy(np.ascontiguousarray(image))[None])
        return labels[0].numpy(), logits[0].numpy()
