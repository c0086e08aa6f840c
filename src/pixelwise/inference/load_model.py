"""Load a network from a bundle or an export, and choose the runtime for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pixelwise.data.classes import Classes
from pixelwise.data.pixel_format import PixelFormat
from pixelwise.errors import InputError
from pixelwise.file_io import sha256
from pixelwise.inference.export_manifest import (
    MANIFEST,
    REMEDY,
    ExportManifest,
    find_exports,
    is_export,
)
from pixelwise.inference.inference_options import AUTO, InferenceOptions
from pixelwise.inference.runtimes import (
    EXPORTED,
    TORCH,
    Runtime,
    available,
    installed,
    open_export,
    supports_tiling,
)
from pixelwise.inference.runtimes.autoselect import latency, select_fastest
from pixelwise.inference.runtimes.tile_geometry import Size
from pixelwise.weights.bundle_header import bundle_digest
from pixelwise.weights.published.catalog import find_bundle
from pixelwise.weights.stored_calibration import StoredCalibration, read_calibration

# Runtimes that "auto" leaves out: the cost of bfloat16's rounding has not been measured, and TFLite
# takes images of one size.
NOT_MEASURED = ("openvino-bf16", "tflite")


@dataclass(frozen=True)
class LoadedModel:
    """A network that is ready to run, with the metadata of its file.

    Args:
        runtime: Runs the network.
        network_id: Identifies the weights and the device: results with the same one are equal.
        classes: The classes that the network distinguishes.
        recipe: The recipe of its training, as plain JSON.
        pixels: The format of its images.
        calibration: What `pixelwise calibrate` stored with the file, or None.
    """

    runtime: Runtime
    network_id: str
    classes: Classes
    recipe: dict[str, Any]
    pixels: PixelFormat
    calibration: StoredCalibration | None


def load_model(
    path: Path,
    options: InferenceOptions,
    *,
    prefer_tiling: bool = False,
    image_size: Size | None = None,
) -> LoadedModel:
    """Load the network that `Predictor.from_options` runs; see there for arguments and errors."""
    path, runtime, device = find_bundle(path), options.runtime, options.device
    if is_export(path):
        if runtime == TORCH or device is not None:
            raise InputError(f"{path}: is an export: give the bundle to run it with PyTorch")
        export = ExportManifest.load(path)
        return _load_export(export, None if runtime == AUTO else runtime)
    if device is not None or runtime == TORCH:
        return _load_torch(path, device)
    exports = find_exports(path)
    if runtime == AUTO and not exports:
        return _load_torch(path, None)
    if runtime == AUTO:
        return _load_fastest(path, exports, prefer_tiling=prefer_tiling, size=image_size)
    entry = EXPORTED[runtime]
    if entry.export not in exports:
        target, _, precision = entry.export.partition("-")
        data = " --int8 --data DATA" if precision else ""
        raise InputError(
            f"{path}: has no export for runtime {runtime}: create it with `pixelwise export "
            f"{path} --to {target}{data}`"
        )
    return _load_fresh(exports[entry.export], path, bundle_digest(path), runtime)


def _load_fastest(
    path: Path, exports: dict[str, Path], *, prefer_tiling: bool, size: Size | None
) -> LoadedModel:
    """Load the bundle with the fastest of the runtimes that are installed and exported for."""
    digest = bundle_digest(path)
    loaders: dict[str, Callable[[], LoadedModel]] = {
        name: partial(_load_fresh, exports[EXPORTED[name].export], path, digest, name)
        for name in available(exports)
        if name not in NOT_MEASURED
    }
    if installed("torch"):
        loaders[TORCH] = partial(_load_torch, path, None)
    if not loaders:
        packages = sorted({e.package for e in EXPORTED.values() if e.export in exports})
        raise InputError(
            f"{path}: no runtime for it is installed: `pip install {' or '.join(packages)}`"
        )
    if prefer_tiling:
        tiling = {
            name: loader
            for name, loader in loaders.items()
            if name == TORCH or supports_tiling(loader().runtime)
        }
        loaders = tiling or loaders

    def measure(model: LoadedModel, measured: Size) -> float:
        return latency(model.runtime, model.pixels, measured)

    folders = [exports[EXPORTED[name].export] for name in loaders if name != TORCH]
    manifests = [sha256(folder / MANIFEST) for folder in folders]
    fastest = select_fastest("|".join([digest, *manifests]), loaders, measure, size=size)
    name, model = fastest
    return model or loaders[name]()


def _load_fresh(folder: Path, bundle: Path, digest: str, runtime: str) -> LoadedModel:
    """Load an export; raise InputError unless it was made from this version of the bundle."""
    export = ExportManifest.load(folder)
    if export.bundle != digest:
        raise InputError(
            f"{folder}: was made from another version of {bundle.name}: {REMEDY}, or "
            "predict with --runtime torch"
        )
    model = _load_export(export, runtime)
    # An export of an earlier version has none.
    return replace(model, calibration=model.calibration or read_calibration(bundle))


def _load_export(export: ExportManifest, runtime: str | None) -> LoadedModel:
    return LoadedModel(
        open_export(export, runtime),
        sha256(export.folder / MANIFEST),
        export.classes,
        export.recipe,
        export.pixels,
        read_calibration(export.folder),
    )


def _load_torch(path: Path, device: str | None) -> LoadedModel:
    import torch

    from pixelwise.inference.runtimes.torch.torch_runtime import TorchRuntime, find_device
    from pixelwise.weights.bundle import Bundle

    chosen = find_device(device)  # reports an unknown device before the bundle is read
    bundle = Bundle.load(path)
    with torch.random.fork_rng(devices=[]):  # the random numbers of the program stay the same
        model = bundle.build()
    runtime = TorchRuntime(model, bundle.normalization, device=chosen)
    network_id = f"{bundle_digest(path)} on {chosen}"
    return LoadedModel(
        runtime, network_id, bundle.classes, bundle.recipe, bundle.pixels, read_calibration(path)
    )
