"""The export formats: one file per format and one line in `FORMATS`."""

from __future__ import annotations

import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch.export import ExportedProgram

from pixelwise.data.pixel_format import Pixels
from pixelwise.errors import InputError
from pixelwise.inference.export_manifest import ExportManifest
from pixelwise.inference.runtimes import Runtime, open_export
from pixelwise.process_settings import without_telemetry

OUTPUTS = ("labels", "logits")

Labels = NDArray[np.uint8]


FORMATS: dict[str, tuple[str, ...]] = {
    "openvino": ("openvino",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "tflite": ("litert_torch", "ai_edge_litert"),
    "torch-export": (),
}
"""The packages besides PyTorch that writing each format needs."""
CONVERTER_VARIABLE = "PIXELWISE_LITERT_PYTHON"
"""Environment variable with the Python in whose environment litert-torch is installed."""


class ExportFormat(ABC):
    """A file format for a network.

    Attributes:
        has_fixed_size: Whether its models take images of one size only.
    """

    has_fixed_size = False

    @abstractmethod
    def write(self, program: ExportedProgram, folder: Path) -> str:
        """Convert a captured program, write it to a folder and return the model file's name."""

    def open(self, export: ExportManifest) -> Runtime:
        """Open an export to verify it."""
        return open_export(export)


@runtime_checkable
class QuantizableFormat(Protocol):
    """What int8 quantization with NNCF needs to know about the models of a format.

    Attributes:
        corrects_all_biases: Whether NNCF can correct the bias of every layer. For this it extracts
            subgraphs of ONNX models, and fails if an input has several consumers, as the image has.
    """

    corrects_all_biases: bool

    def read(self, path: Path) -> Any:
        """Read a model from a file."""

    def save(self, model: Any, folder: Path) -> str:
        """Write a model to a folder and return the file's name."""

    def classifier(self, model: Any) -> Callable[[Pixels], Labels]:
        """Return a function from images (H, W, N) to labels (H, W) for a model that NNCF passes."""

    def float_layers(self, model: Any) -> list[str]:
        """Return the names of the convolutions and matrix products that are not quantized."""


def load_format(name: str) -> ExportFormat:
    """Import an export format: NAME_format.py of this package defines it as `FORMAT`."""
    with without_telemetry():
        module: Any = import_module(f"pixelwise.exporters.{name.replace('-', '_')}_format")
    loaded: ExportFormat = module.FORMAT
    return loaded


def require_packages(packages: tuple[str, ...], *, purpose: str) -> None:
    """Check that packages are installed.

    Raises:
        InputError: If one is missing, with the `pip install` command.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if os.environ.get(CONVERTER_VARIABLE) and "litert_torch" in missing:
        missing.remove("litert_torch")
    if "litert_torch" in missing:
        raise InputError(
            f"{purpose}: needs litert-torch, not installed: `pip install 'pixelwise[tflite]'`, or "
            f"set {CONVERTER_VARIABLE} to the python of an environment that has it"
        )
    if missing:
        names = " ".join(missing)
        raise InputError(f"{purpose}: needs {names}, not installed: `pip install {names}`")


@contextmanager
def silence_converters() -> Iterator[None]:
    """Suppress the converters' warnings, log messages and usage reports."""
    disabled_level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with without_telemetry(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled_level)
