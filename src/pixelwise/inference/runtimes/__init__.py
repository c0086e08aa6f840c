"""What runs a network: a file a runtime, and a line here. The Predictor sees their contract only.

A runtime for exports is opened with an `Export`; `torch` is opened with a bundle and stands apart,
since it is the one that needs no export.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from pixelwise.errors import InputError
from pixelwise.inference.export_manifest import ExportManifest
from pixelwise.inference.runtimes.runtime import (
    ConcurrentRuntime,
    Runtime,
    TilingRuntime,
    View,
    runs_concurrently,
    supports_tiling,
)
from pixelwise.inference.tiling.tiling_requirements import TilingRequirements

__all__ = [
    "EXPORTED",
    "TORCH",
    "ConcurrentRuntime",
    "ExportedEntry",
    "Runtime",
    "TilingRequirements",
    "TilingRuntime",
    "View",
    "installed",
    "open_export",
    "runs_concurrently",
    "supports_tiling",
]

TORCH = "torch"


@dataclass(frozen=True)
class ExportedEntry:
    """A way to run an export.

    package: what must be installed. module: of this package, with `open_export(export, **options)`.
    export: the name of the export that it runs.
    """

    package: str
    module: str
    export: str
    options: tuple[tuple[str, str], ...] = ()


EXPORTED = {
    "openvino": ExportedEntry("openvino", "openvino", "openvino"),
    "openvino-bf16": ExportedEntry(
        "openvino", "openvino", "openvino", options=(("precision", "bf16"),)
    ),
    "openvino-int8": ExportedEntry("openvino", "openvino", "openvino-int8"),
    "onnx": ExportedEntry("onnxruntime", "onnx", "onnx"),
    "onnx-int8": ExportedEntry("onnxruntime", "onnx", "onnx-int8"),
}


def installed(package: str) -> str | None:
    """The version of a package, None where it is not installed. Nothing is imported."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def open_export(export: ExportManifest, name: str | None = None) -> Runtime:
    """The runtime `name`, or the one that the export is for, ready to run.

    Raises InputError where there is no such runtime for it or its package is missing.
    """
    name = export.name if name is None else name
    entry = EXPORTED.get(name)
    if entry is None or entry.export != export.name:
        fitting = [key for key, one in EXPORTED.items() if one.export == export.name]
        way = f"use --runtime {' or '.join(fitting)}" if fitting else "it is for other programs"
        raise InputError(f"{export.folder}: is no export for runtime {name!r}: {way}")
    if installed(entry.package) is None:
        raise InputError(
            f"{export.folder}: needs {entry.package}, which is not installed: "
            f"`pip install {entry.package}`"
        )
    module = import_module(f"pixelwise.inference.runtimes.{entry.module}.{entry.module}_runtime")
    opened: Callable[..., Runtime] = module.open_export
    return opened(export, **dict(entry.options))
