"""Find, read and verify exports. Nothing here needs PyTorch.

An export is a folder with the model in its runtime's own format and a manifest, `export.json`,
which describes the model and holds the SHA-256 of each file. The exports of a bundle
RUN/best.safetensors are RUN/best-openvino, RUN/best-openvino-int8, RUN/best-onnx and so on. An
export belongs to one version of its bundle: once the bundle has changed, it is stale and refused.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelwise.data.classes import Classes
from pixelwise.data.pixel_format import RGB, PixelFormat
from pixelwise.errors import InputError
from pixelwise.file_io import sha256
from pixelwise.inference.tiling.tiling_requirements import TilingRequirements

MANIFEST = "export.json"
FORMAT = 2
NAMES = ("target", "precision", "file", "bundle", "model")  # attributes that are plain text
REMEDY = "export it again with `pixelwise export`"


@dataclass(frozen=True)
class ExportManifest:
    """The description of an exported network.

    Args:
        folder: The export's folder.
        file: The name of the model file in it.
        target: openvino, onnx, tflite or torch-export.
        precision: float32 or int8.
        bundle: The digest of the bundle that was exported.
        model: The network's name in the registry.
        classes: The classes that the network distinguishes.
        recipe: The recipe of its training, as plain JSON.
        pixels: The format of its images.
        requirements: What tiles of images must satisfy; None if the export cannot tell.
        checks: Measurements of the export (parity, speed, scores), as plain JSON.
    """

    folder: Path
    file: str
    target: str
    precision: str
    bundle: str
    model: str
    classes: Classes
    recipe: dict[str, Any]
    pixels: PixelFormat = RGB
    requirements: TilingRequirements | None = None
    checks: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"ExportManifest({str(self.path)!r}, {self.model}, {len(self.classes)} classes)"

    @property
    def name(self) -> str:
        """The export's name for `--runtime`, such as openvino or openvino-int8."""
        return self.target if self.precision == "float32" else f"{self.target}-{self.precision}"

    @property
    def path(self) -> Path:
        return self.folder / self.file

    def save(self) -> None:
        """Write `export.json` with the SHA-256 of each file in the folder."""
        files = [file for file in sorted(self.folder.iterdir()) if file.name != MANIFEST]
        content = {
            "format": FORMAT,
            **{key: getattr(self, key) for key in (*NAMES, "recipe", "checks")},
            "classes": self.classes.to_json(),
            "pixels": self.pixels.to_json(),
            "requirements": None if self.requirements is None else self.requirements.to_json(),
            "files": {file.name: sha256(file) for file in files},
        }
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        (self.folder / MANIFEST).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> ExportManifest:
        """Read the manifest in `folder` and verify every file of the export.

        Raises:
            InputError: If the folder is not an export, is damaged, or has another format version.
        """
        path = folder / MANIFEST
        damaged = InputError(f"{path}: is damaged: {REMEDY}")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise InputError(
                    f"{folder}: has export format {content['format']}, written by an older or "
                    f"newer version of pixelwise; this version reads {FORMAT}: {REMEDY}"
                )
            needs = content.get("requirements")
            names: dict[str, Any] = {key: str(content[key]) for key in NAMES}
            export = cls(
                folder=folder,
                **names,
                classes=Classes.from_json(content["classes"]),
                recipe=dict(content["recipe"]),
                pixels=PixelFormat.from_json(content.get("pixels", RGB.to_json())),
                requirements=needs if needs is None else TilingRequirements.from_json(needs),
                checks=dict(content["checks"]),
            )
            files = dict(content["files"])
        except OSError as error:
            raise InputError(f"{folder}: is not an export (no {MANIFEST}): {REMEDY}") from error
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise damaged from error
        if export.file not in files:
            raise damaged
        for name, digest in files.items():
            file = folder / Path(name).name  # never outside the folder
            if not file.is_file():
                raise InputError(f"{file}: does not exist: {REMEDY}")
            if sha256(file) != digest:
                raise InputError(f"{file}: is damaged (its SHA-256 differs): {REMEDY}")
        return export

    def unchanged_path(self) -> Path:
        """Return the model's file; raise InputError if the export is not what was loaded."""
        if ExportManifest.load(self.folder) != self:
            raise InputError(
                f"{self.folder}: has changed since the predictor was loaded: load the predictor "
                "again"
            )
        return self.path


def is_export(path: Path) -> bool:
    return (path / MANIFEST).is_file()


def scoring_runtime(paths: Sequence[str | Path]) -> str:
    """Return the runtime that keeps the precision of the files: PyTorch for bundles."""
    return "auto" if all(is_export(Path(path)) for path in paths) else "torch"


def manifest_files(folder: Path) -> dict[str, str] | None:
    """Return the SHA-256 of each file of an export, of any version; None if it is no export."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {str(name): str(digest) for name, digest in content["files"].items()}
    except (OSError, KeyError, TypeError, AttributeError, ValueError):
        return None


def export_folder(bundle: Path, name: str) -> Path:
    """Return the default folder for the export `name` of a bundle."""
    return bundle.with_name(f"{bundle.stem}-{name}")


def find_exports(bundle: Path) -> dict[str, Path]:
    """Return the folders next to a bundle that contain its exports, by name, without opening."""
    prefix = f"{bundle.stem}-"
    return {
        folder.name.removeprefix(prefix): folder
        for folder in sorted(bundle.parent.glob(f"{glob.escape(prefix)}*"))
        if is_export(folder)
    }
