"""What `pixelwise export` wrote, as prediction finds and trusts it. No PyTorch is needed.

An export is a folder: the model in its runtime's own format, and `export.json`, which describes it
and holds the SHA-256 of each file. Beside a bundle RUN/best.safetensors it is RUN/best-openvino,
RUN/best-openvino-int8, RUN/best-onnx and so on, and belongs to that very bundle: when the bundle
has changed it is stale and is not used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pixelwise.data.classes import Classes
from pixelwise.data.pixel_format import RGB, PixelFormat
from pixelwise.errors import InputError
from pixelwise.file_io import sha256
from pixelwise.inference.tiling.tiling_requirements import TilingRequirements

DESCRIPTION = "export.json"
FORMAT = 1
REMEDY = "make it again with `pixelwise export`"


@dataclass(frozen=True)
class ExportManifest:
    """A network in the format of a runtime, checked against the bundle that it was made from.

    folder: where it lies; file: the model in it.
    target: openvino, onnx or torch-export; precision: float32 or int8.
    bundle: the SHA-256 that the bundle carries. model: the registry's name.
    pixels: what images have to hold.
    traits: what tiles of images need; None in exports of earlier versions.
    checks: what was measured when it was made, as plain JSON.
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

    @property
    def name(self) -> str:
        """What `--runtime` calls it: openvino, openvino-int8, onnx, ..."""
        return self.target if self.precision == "float32" else f"{self.target}-{self.precision}"

    @property
    def path(self) -> Path:
        return self.folder / self.file

    def describe(self) -> None:
        """Write `export.json` with the SHA-256 of the folder's files as they are now."""
        held = [file for file in sorted(self.folder.iterdir()) if file.name != DESCRIPTION]
        files = {file.name: sha256(file) for file in held}
        content = {
            "format": FORMAT,
            "target": self.target,
            "precision": self.precision,
            "file": self.file,
            "bundle": self.bundle,
            "model": self.model,
            "classes": self.classes.to_json(),
            "recipe": self.recipe,
            "pixels": self.pixels.to_json(),
            "requirements": None if self.requirements is None else self.requirements.to_json(),
            "checks": self.checks,
            "files": files,
        }
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        (self.folder / DESCRIPTION).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> ExportManifest:
        """The export in `folder`, each of its files checked.

        Raises InputError where it is none, is damaged, or is of another version.
        """
        try:
            content = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{folder}: holds no export ({DESCRIPTION}): {REMEDY}") from error
        except ValueError as error:
            raise InputError(f"{folder / DESCRIPTION}: is damaged: {REMEDY}") from error
        try:
            if content["format"] != FORMAT:
                raise InputError(
                    f"{folder}: has export format {content['format']}, this version reads "
                    f"{FORMAT}: {REMEDY}"
                )
            requirements = content.get("requirements")
            export = cls(
                folder=folder,
                file=str(content["file"]),
                target=str(content["target"]),
                precision=str(content["precision"]),
                bundle=str(content["bundle"]),
                model=str(content["model"]),
                classes=Classes.from_json(content["classes"]),
                recipe=dict(content["recipe"]),
                pixels=PixelFormat.from_json(content.get("pixels", RGB.to_json())),
                requirements=None
                if requirements is None
                else TilingRequirements.from_json(requirements),
                checks=dict(content["checks"]),
            )
            files = dict(content["files"])
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{folder / DESCRIPTION}: is damaged: {REMEDY}") from error
        if export.file not in files:
            raise InputError(f"{folder / DESCRIPTION}: is damaged: {REMEDY}")
        for name, digest in files.items():
            file = folder / Path(name).name  # never outside of the folder
            if not file.is_file():
                raise InputError(f"{file}: is not there: {REMEDY}")
            if sha256(file) != digest:
                raise InputError(f"{file}: is damaged (its SHA-256 differs): {REMEDY}")
        return export


def is_export(path: Path) -> bool:
    return (path / DESCRIPTION).is_file()


def export_folder(bundle: Path, name: str) -> Path:
    """Where the export `name` of a bundle lies if nothing else was said."""
    return bundle.with_name(f"{bundle.stem}-{name}")


def find_exports(bundle: Path) -> dict[str, Path]:
    """The folders beside a bundle that hold its exports, by name; none is opened yet."""
    prefix = f"{bundle.stem}-"
    return {
        folder.name.removeprefix(prefix): folder
        for folder in sorted(bundle.parent.glob(f"{_literal(prefix)}*"))
        if is_export(folder)
    }


def _literal(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def load_fresh(folder: Path, *, bundle: Path, digest: str) -> ExportManifest:
    """The export in `folder` of `bundle`, which carries `digest`. Raises InputError if stale."""
    export = ExportManifest.load(folder)
    if export.bundle != digest:
        raise InputError(
            f"{folder}: was made from another {bundle.name} than the one there now: {REMEDY}, or "
            "predict with --runtime torch"
        )
    return export
