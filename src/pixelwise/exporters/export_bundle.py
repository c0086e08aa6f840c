"""`pixelwise export`: write an export, verify it, and only then put it in place."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from pixelwise.data.dataset import SegmentationData
from pixelwise.errors import InputError, PixelwiseError
from pixelwise.evaluation.open_splits import open_splits
from pixelwise.exporters.capture import capture
from pixelwise.exporters.formats import FORMATS, load_format, require_packages, silence_converters
from pixelwise.exporters.int8 import Int8Settings, quantize
from pixelwise.exporters.parity import MAX_DIFFERENCE, SIZES, compare, compare_tiles
from pixelwise.file_io import atomic_folder, sha256
from pixelwise.inference.export_manifest import (
    MANIFEST,
    ExportManifest,
    export_folder,
    manifest_files,
)
from pixelwise.inference.runtimes import EXPORTED, installed, supports_tiling
from pixelwise.inference.runtimes.torch.torch_runtime import TorchRuntime
from pixelwise.overwriting import files_of_others
from pixelwise.processor import missing_instructions
from pixelwise.weights.bundle import Bundle
from pixelwise.weights.bundle_header import bundle_digest
from pixelwise.weights.published.catalog import find_bundle
from pixelwise.weights.stored_calibration import FILE, read_calibration, write_calibration

PACKAGES = ("torch", "openvino", "onnx", "onnxruntime", "nncf", "ai-edge-litert")
MIN_SIDE = 32


def export(
    bundle: str | Path,
    *,
    to: str = "openvino",
    out: str | Path | None = None,
    size: tuple[int, int] | None = None,
    int8: bool = False,
    data: str | Path | SegmentationData | None = None,
    max_drop: float = 0.3,
    calibration: int = 100,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> ExportManifest:
    """Export a bundle to the format of another runtime.

    The export is compared with the bundle on generated images, and nothing is written if they
    differ. An earlier export in the same folder is replaced. Int8 is possible for OpenVINO and
    ONNX. For the other arguments, the result and errors see `pixelwise.export`.

    Args:
        progress: Called with a line of text at each stage.
        note: Called with a line of text that should stay visible, such as that this processor has
            no 8-bit instructions, before anything is calibrated.
    """
    path, target = find_bundle(Path(bundle)), to.replace("_", "-")
    name = f"{target}-int8" if int8 else target
    folder = export_folder(path, name) if out is None else Path(out)
    settings = Int8Settings(max_drop, calibration)
    _check_request(path, target, int8, data, size)
    _check_folder(folder, overwrite=overwrite)
    if int8 and note and (missing := missing_instructions("int8")):
        note(f"{missing}; it is written anyway, since other machines may have them")
    exporter = _Exporter(path, target, int8, size, progress or (lambda text: None))
    if data is None:
        with atomic_folder(folder) as temporary:
            exporter.write_float(temporary)
            _copy_calibration(path, temporary)
            _check_folder(folder, overwrite=overwrite)  # it may have changed meanwhile
    else:
        if not isinstance(data, SegmentationData):
            exporter.progress("checking the data")
            data = open_splits(exporter.bundle, Path(data), "train", "val")
        with tempfile.TemporaryDirectory(prefix="pixelwise-export-") as float_folder:
            float_export = exporter.write_float(Path(float_folder))
            with atomic_folder(folder) as temporary, silence_converters():
                quantize(
                    float_export,
                    temporary,
                    data,
                    settings,
                    describe=exporter.describe,
                    progress=exporter.progress,
                )
                _copy_calibration(path, temporary)
                _check_folder(folder, overwrite=overwrite)
    return ExportManifest.load(folder)


def _check_request(
    path: Path, target: str, int8: bool, data: object, size: tuple[int, int] | None
) -> None:
    """Raise an InputError for a request that would fail later."""
    if target not in FORMATS:
        raise InputError(f"export format {target!r}: choose one of {', '.join(FORMATS)}")
    if size is not None and target != "tflite":
        raise InputError(f"--size: {target} takes images of any size: leave --size out")
    if size is not None and min(size) < MIN_SIDE:
        raise InputError(f"--size {size[0]}x{size[1]}: both sides must be at least {MIN_SIDE}")
    require_packages(FORMATS[target], purpose=f"export to {target}")
    if int8:
        if f"{target}-int8" not in EXPORTED:
            raise InputError(f"int8: is not available for {target}: choose openvino or onnx")
        require_packages(("nncf",), purpose="int8")
        if data is None:
            raise InputError("int8: needs images and masks for calibration: give --data DATA")
    elif data is not None:
        raise InputError("--data: is used with --int8 only: add --int8 or leave --data out")
    bundle_digest(path)


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise InputError if `folder` exists and is not an export, or has files of others."""
    if not os.path.lexists(folder):
        return
    files = manifest_files(folder)
    if files is None:
        raise InputError(f"{folder}: exists and is not an export: choose another --out")
    inside = [path for path in sorted(folder.iterdir()) if path.name not in {MANIFEST, FILE}]
    others = [path for path in inside if path.name not in files]
    if others:
        raise InputError(
            f"{folder}: holds {others[0].name}, which is no part of the export: move it away, or "
            "choose another --out"
        )
    changed = [path for path in inside if sha256(path) != files[path.name]]
    if changed and not overwrite:
        raise files_of_others(changed, folder)


def _copy_calibration(bundle: Path, folder: Path) -> None:
    """Copy the calibration of a bundle, which no digest includes, to its complete export."""
    calibration = read_calibration(bundle)
    if calibration is not None:
        write_calibration(folder, calibration)


class _Exporter:
    """Write exports of one bundle in one format."""

    def __init__(
        self,
        path: Path,
        target: str,
        quantizable: bool,
        size: tuple[int, int] | None,
        progress: Callable[[str], None],
    ) -> None:
        self.path, self.target = path, target
        self.quantizable, self.progress = quantizable, progress
        self.bundle, self.digest = Bundle.load(path), bundle_digest(path)
        self.reference = TorchRuntime(self.bundle.build(), self.bundle.normalization)
        self.format = load_format(target)
        self.size = size or self._crop() if self.format.has_fixed_size else None

    def _crop(self) -> tuple[int, int]:
        """Return the crop of the training."""
        crop = self.bundle.recipe.get("augmentation", {}).get("crop")
        if not isinstance(crop, Sequence) or isinstance(crop, str):
            raise InputError(
                f"{self.path}: {self.target} takes images of one size, and the bundle has no "
                "training crop: give their size with --size HEIGHTxWIDTH"
            )
        height, width = crop
        return int(height), int(width)

    def write_float(self, folder: Path) -> ExportManifest:
        """Write and verify the float32 export."""
        self.progress(f"capturing {self.bundle.model}")
        with silence_converters():
            program = capture(self.bundle, size=self.size, quantizable=self.quantizable)
            self.progress(f"writing it for {self.target}")
            file = self.format.write(program, folder)
        export = self.describe(folder, file, "float32", {})
        self.progress("comparing it with PyTorch")
        return self.describe(folder, file, "float32", self._verify(export))

    def _verify(self, export: ExportManifest) -> dict[str, object]:
        """Compare an export with the bundle and return the measurements."""
        runtime = self.format.open(export)
        sizes = SIZES if self.size is None else [self.size] * len(SIZES)
        results = compare(runtime, self.reference, self.bundle.pixels, sizes)
        checks: dict[str, object] = {"parity": [parity.to_json() for parity in results]}
        if supports_tiling(runtime):
            tile = compare_tiles(runtime, self.reference, self.bundle.pixels)
            checks["tile"] = tile.to_json()
            results.append(tile)
        worst = max(results, key=lambda parity: parity.difference)
        if not worst.holds:
            height, width = worst.size
            raise PixelwiseError(
                f"{self.path}: not exported to {self.target}: at {height}x{width} its logits "
                f"differ from PyTorch's by {worst.difference:.1e} of their range (allowed: "
                f"{MAX_DIFFERENCE:.0e}): report this bug of pixelwise or of the converter"
            )
        return checks

    def describe(
        self, folder: Path, file: str, precision: str, checks: dict[str, object]
    ) -> ExportManifest:
        """Write the manifest of an export."""
        export = ExportManifest(
            folder=folder,
            file=file,
            target=self.target,
            precision=precision,
            bundle=self.digest,
            model=self.bundle.model,
            classes=self.bundle.classes,
            recipe=self.bundle.recipe,
            pixels=self.bundle.pixels,
            requirements=(self.reference.requirements if supports_tiling(self.reference) else None),
            checks={**checks, "made with": {name: installed(name) for name in PACKAGES}},
        )
        export.save()
        return export
