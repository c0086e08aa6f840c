"""Runtimes that execute a network: one file per runtime and one registry line below.

The predictor knows only the `Runtime` protocol. The runtimes in `EXPORTED` open an export; `torch`
opens a bundle and therefore is not in the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from pixelwise.errors import InputError
from pixelwise.inference.export_manifest import ExportManifest
from pixelwise.inference.runtimes.runtime import (
    Runtime,
    TileView,
    TilingRuntime,
    runs_concurrently,
    supports_tiling,
)
from pixelwise.inference.tiling.tiling_requirements import TilingRequirements
from pixelwise.process_settings import without_telemetry

__all__ = [
    "EXPORTED",
    "TORCH",
    "Runtime",
    "TileView",
    "TilingRequirements",
    "TilingRuntime",
    "available",
    "installed",
    "open_export",
    "reopen_export",
    "runs_concurrently",
    "supports_tiling",
]

TORCH = "torch"


@dataclass(frozen=True)
class ExportedEntry:
    """A runtime for exports.

    Attributes:
        package: Python package that must be installed.
        module: Folder below this package whose `{module}_runtime.py` defines
            `open_export(export, **options)`.
        export: Name of the export that the runtime executes.
        options: Keyword arguments of `open_export`.
    """

    package: str
    module: str
    export: str
    options: dict[str, str] = field(default_factory=dict)


EXPORTED = {
    "openvino": ExportedEntry("openvino", "openvino", "openvino"),
    "openvino-bf16": ExportedEntry("openvino", "openvino", "openvino", {"precision": "bf16"}),
    "openvino-int8": ExportedEntry("openvino", "openvino", "openvino-int8"),
    "onnx": ExportedEntry("onnxruntime", "onnx", "onnx"),
    "onnx-int8": ExportedEntry("onnxruntime", "onnx", "onnx-int8"),
    "tflite": ExportedEntry("ai-edge-litert", "tflite", "tflite"),
}


def installed(package: str) -> str | None:
    """Return the version of a package without importing it, or None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def available(exports: Container[str]) -> list[str]:
    """Return the runtimes that are installed and that execute one of these exports, by name."""
    return [
        name
        for name, entry in EXPORTED.items()
        if entry.export in exports and installed(entry.package)
    ]


def open_export(export: ExportManifest, name: str | None = None) -> Runtime:
    """Open an export for prediction.

    Args:
        export: The export.
        name: Runtime to use. Defaults to the runtime named after the export.

    Raises:
        InputError: If the runtime does not execute this export or its package is not installed.
    """
    name = export.name if name is None else name
    entry = EXPORTED.get(name)
    if entry is None or entry.export != export.name:
        matching = [key for key, other in EXPORTED.items() if other.export == export.name]
        remedy = (
            f"use --runtime {' or '.join(matching)}" if matching else "it is for other programs"
        )
        raise InputError(f"{export.folder}: runtime {name!r} cannot run this export: {remedy}")
    if installed(entry.package) is None:
        raise InputError(
            f"{export.folder}: needs {entry.package}, which is not installed: "
            f"`pip install {entry.package}`"
        )
    with without_telemetry():
        module = import_module(
            f"pixelwise.inference.runtimes.{entry.module}.{entry.module}_runtime"
        )
    open_with_options: Callable[..., Runtime] = module.open_export
    absolute = replace(export, folder=export.folder.absolute())  # the program may change its folder
    return open_with_options(absolute, **entry.options)


def reopen_export(export: ExportManifest, name: str) -> Runtime:
    """Open the export of a runtime that was pickled or copied.

    Raises:
        InputError: If the export has changed since, besides the errors of `open_export`.
    """
    export.unchanged_path()
    return open_export(export, name)
