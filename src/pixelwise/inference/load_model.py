"""From a path to a network that is ready to run: a bundle or an export, and the runtime for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from pixelwise.data.classes import Classes
from pixelwise.data.pixel_format import PixelFormat
from pixelwise.errors import InputError
from pixelwise.file_io import sha256
from pixelwise.inference.export_manifest import (
    DESCRIPTION,
    ExportManifest,
    find_exports,
    is_export,
    load_fresh,
)
from pixelwise.inference.runtimes import (
    EXPORTED,
    TORCH,
    Runtime,
    installed,
    open_export,
    supports_tiling,
)
from pixelwise.inference.runtimes.autoselect import select_fastest
from pixelwise.weights.bundle_header import bundle_digest

AUTO = "auto"
NAMES = (AUTO, TORCH, *EXPORTED)
# What `auto` leaves out: nothing has measured what its rounding costs this network.
UNPROVEN = ("openvino-bf16",)


@dataclass(frozen=True)
class Opened:
    """A runtime, with what its network knows of itself.

    network_id: tells what is run from anything that could give other numbers.
    """

    runtime: Runtime
    network_id: str
    classes: Classes
    recipe: dict[str, Any]
    pixels: PixelFormat


def open_network(
    path: Path, *, runtime: str = AUTO, device: str | None = None, parts: bool = False
) -> Opened:
    """What `Predictor.load` opens; arguments and errors as there."""
    if runtime not in NAMES:
        raise InputError(f"runtime {runtime!r}: allowed are {', '.join(NAMES)}")
    if device is not None and runtime not in {AUTO, TORCH}:
        raise InputError(
            f"device {device!r}: is one of PyTorch's, and runtime {runtime} runs on the CPU: leave "
            "one of the two out"
        )
    if is_export(path):
        if runtime == TORCH or device is not None:
            raise InputError(f"{path}: is an export: give the bundle to run it by PyTorch")
        export = ExportManifest.load(path)
        return _opened(export, None if runtime == AUTO else runtime)
    if device is not None or runtime == TORCH:
        return _open_torch(path, device)
    return _open_bundle(path, runtime, parts=parts)


def _open_bundle(path: Path, name: str, *, parts: bool) -> Opened:
    beside = find_exports(path)
    if name == AUTO and not beside:
        return _open_torch(path, None)
    digest = bundle_digest(path)
    if name != AUTO:
        entry = EXPORTED[name]
        if entry.export not in beside:
            target, _, precision = entry.export.partition("-")
            data = " --int8 --data DATA" if precision else ""
            raise InputError(
                f"{path}: has no export for runtime {name}: make it with `pixelwise export {path} "
                f"--to {target}{data}`"
            )
        return _opened(load_fresh(beside[entry.export], bundle=path, digest=digest), name)

    ways: dict[str, Callable[[], Opened]] = {}
    for candidate, entry in EXPORTED.items():
        if candidate in UNPROVEN or entry.export not in beside or not installed(entry.package):
            continue
        folder = beside[entry.export]
        ways[candidate] = partial(_open_fresh, folder, path, digest, candidate)
    if installed("torch"):
        ways[TORCH] = partial(_open_torch, path, None)
    if not ways:
        packages = sorted({EXPORTED[n].package for n in EXPORTED if EXPORTED[n].export in beside})
        raise InputError(
            f"{path}: no runtime for it is installed: `pip install {' or '.join(packages)}`"
        )
    if parts:
        agreeing = {
            candidate: make
            for candidate, make in ways.items()
            if candidate == TORCH or supports_tiling(make().runtime)
        }
        ways = agreeing or ways
    best, opened = select_fastest(
        digest, ways, runtime=attrgetter("runtime"), pixels=attrgetter("pixels")
    )
    return opened or ways[best]()


def _open_fresh(folder: Path, bundle: Path, digest: str, name: str) -> Opened:
    return _opened(load_fresh(folder, bundle=bundle, digest=digest), name)


def _opened(export: ExportManifest, name: str | None) -> Opened:
    return Opened(
        open_export(export, name),
        sha256(export.folder / DESCRIPTION),
        export.classes,
        export.recipe,
        export.pixels,
    )


def _open_torch(path: Path, device: str | None) -> Opened:
    from pixelwise.inference.runtimes.torch.torch_runtime import TorchRuntime, find_device
    from pixelwise.weights.bundle import Bundle

    chosen = find_device(device)  # its faults are told before the bundle is read
    bundle = Bundle.load(path)
    runtime = TorchRuntime(bundle.build(), bundle.normalization, device=chosen)
    network_id = f"{bundle_digest(path)} on {chosen}"
    return Opened(runtime, network_id, bundle.classes, bundle.recipe, bundle.pixels)
