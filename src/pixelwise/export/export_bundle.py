"""`pixelwise export`: write, check, and only then put in place."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from pixelwise.data.dataset import SegmentationData
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.export.capture import capture
from pixelwise.export.format_writers import WRITERS, quiet, require
from pixelwise.export.int8 import Int8Settings, quantize, require_nncf
from pixelwise.export.parity import LIMIT, Parity, compare, compare_tiles
from pixelwise.export.torch_export_runtime import ProgramRuntime
from pixelwise.file_io import atomic_folder
from pixelwise.inference.export_manifest import ExportManifest, export_folder, is_export
from pixelwise.inference.runtimes import EXPORTED, Runtime, installed, open_export, supports_tiling
from pixelwise.inference.runtimes.torch.torch_runtime import TorchRuntime
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.bundle_header import bundle_digest

TARGETS = tuple(WRITERS)
PACKAGES = ("torch", "openvino", "onnx", "onnxruntime", "nncf")


def export(
    path: Path,
    target: str,
    *,
    out: Path | None = None,
    int8: Int8Settings | None = None,
    data: SegmentationData | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> ExportManifest:
    """Write the bundle at `path` in the format of `target`, one of TARGETS.

    out: a folder; beside the bundle if not given, where `Predictor.load(path)` finds it.
    int8: quantize, with `data` to calibrate on (train) and to score (val).
    say: called with a line at each stage.

    Raises InputError for bad arguments and missing packages; PixelwiseError where the result is not
    the bundle's: logits further off than LIMIT, or for int8 a score below the limit or no gain in
    speed. Nothing is written then.
    """
    check_request(path, target, out=out, int8=int8 is not None)
    bundle, digest = Bundle.load(path), bundle_digest(path)
    reference = TorchRuntime(bundle.build(), bundle.normalization)

    def described(
        folder: Path, file: str, precision: str, checks: dict[str, object]
    ) -> ExportManifest:
        export = ExportManifest(
            folder=folder,
            file=file,
            target=target,
            precision=precision,
            bundle=digest,
            model=bundle.model,
            classes=bundle.classes,
            recipe=bundle.recipe,
            pixels=bundle.pixels,
            requirements=reference.requirements,
            checks={**checks, "made with": {name: installed(name) for name in PACKAGES}},
        )
        export.save()
        return export

    def write_float(folder: Path) -> ExportManifest:
        say(f"capturing {bundle.model}")
        with quiet():
            program = capture(bundle, quantizable=int8 is not None)
            say(f"writing it for {target}")
            file = WRITERS[target].write(program, folder)
        export = described(folder, file, "float32", {})
        say("comparing it with PyTorch")
        runtime = _open(export)
        found = compare(runtime, reference, bundle.pixels)
        checks: dict[str, object] = {"parity": [one.to_json() for one in found]}
        if supports_tiling(runtime):
            tile = compare_tiles(runtime, reference, bundle.pixels)
            checks["tile"] = tile.to_json()
            found.append(tile)
        _refuse_difference(path, target, found)
        return described(folder, file, "float32", checks)

    name = target if int8 is None else f"{target}-int8"
    final = out or export_folder(path, name)
    if int8 is None:
        with atomic_folder(final) as side:
            write_float(side)
    else:
        assert data is not None
        with tempfile.TemporaryDirectory(prefix="pixelwise-export-") as folder, quiet():
            exact = write_float(Path(folder))
            with atomic_folder(final) as side:
                quantized = quantize(exact, side, data, int8, describe=described, say=say)
                described(side, quantized.file, "int8", quantized.checks)
    return ExportManifest.load(final)


def check_request(path: Path, target: str, *, out: Path | None, int8: bool) -> None:
    """Raise InputError now for what could not be exported later."""
    if target not in WRITERS:
        raise InputError(f"target {target!r}: allowed are {', '.join(WRITERS)}")
    require(WRITERS[target].packages, what=f"export to {target}")
    if int8:
        if f"{target}-int8" not in EXPORTED:
            raise InputError(f"{target}: has no int8: choose openvino or onnx")
        require_nncf()
    if out is not None and out.exists() and not is_export(out):
        raise InputError(f"{out}: is there and is no export: choose another --out")
    bundle_digest(path)


def _open(export: ExportManifest) -> Runtime:
    if export.name in EXPORTED:
        return open_export(export)
    return ProgramRuntime(torch.export.load(export.path).module(), export.name)


def _refuse_difference(path: Path, target: str, found: list[Parity]) -> None:
    wrong = [one for one in found if not one.holds]
    if wrong:
        worst = max(wrong, key=lambda one: one.difference)
        raise PixelwiseError(
            f"{path}: not exported to {target}: at {worst.size[0]}x{worst.size[1]} its logits are "
            f"{worst.difference:.1e} of their range from PyTorch's (allowed {LIMIT:.0e}): this is "
            "a fault of pixelwise or of the converter: report it"
        )
