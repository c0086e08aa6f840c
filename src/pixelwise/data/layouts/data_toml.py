"""data.toml: what a user states about the dataset that contains it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pixelwise.data.class_tables import find_table
from pixelwise.data.classes import parse_class_tables
from pixelwise.data.source import Source
from pixelwise.data.value_mapping import StatedValues
from pixelwise.errors import InputError
from pixelwise.file_io import read_text

FILE_NAME = "data.toml"

_LABELS = 'write a file, or a table such as { path = "a.gpkg", attribute = "kind" }, or several'
_CLASS_KEYS = ("class", "ignore", "ignore_color")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class StatedLabels(_Table):
    """A file of labels: see docs/rasters.md."""

    path: str = Field(min_length=1)
    layer: str | None = None
    attribute: str | None = None
    name: str | None = Field(default=None, alias="class", min_length=1)
    crs: str | None = None


class StatedRaster(_Table):
    """An entry [[rasters]]: see docs/rasters.md."""

    image: str = Field(min_length=1)
    labels: str | StatedLabels | list[StatedLabels]
    crs: str | None = None
    area: str | None = None
    split: Literal["train", "val", "test"] | None = None


class StatedWindows(_Table):
    """The table [windows]: see docs/rasters.md."""

    size: int | None = Field(default=None, ge=32, le=8192)
    block: int | None = Field(default=None, ge=1, le=1024)
    gap: float = Field(default=0, ge=0)


class _Content(_Table):
    images: str | None = Field(default=None, min_length=1)
    masks: str | None = Field(default=None, min_length=1)
    variable: str | None = Field(default=None, min_length=1)
    splits: dict[str, str | list[str]] | str | None = None
    values: dict[str, str] = Field(default_factory=dict)
    colors: dict[str, str] = Field(default_factory=dict)
    rasters: list[StatedRaster] = Field(default_factory=list)
    windows: StatedWindows | None = None


@dataclass(frozen=True)
class DataToml:
    """The content of a data.toml.

    Attributes:
        path: The file.
        images: Pattern or folder of the images; None to detect it.
        masks: Pattern or folder of the masks; None to detect it.
        variable: Variable of .mat and .npz masks.
        splits: Where the images of each split are named; None to detect the splits.
        values: Class name of each mask value, range of values, or class of the layout.
        colors: Class name of each color.
        class_tables: The tables of classes.toml, if the file holds them.
        rasters: The georeferenced rasters of which windows are the images.
        windows: How these are divided.
    """

    path: Path
    images: str | None
    masks: str | None
    variable: str | None
    splits: dict[str, str | list[str]] | str | None
    values: dict[str, str]
    colors: dict[str, str]
    class_tables: dict[str, Any]
    rasters: tuple[StatedRaster, ...]
    windows: StatedWindows

    def set_classes(self, source: Source) -> None:
        """Give a source the stated classes, and map its masks to them.

        Raises:
            InputError: If data.toml and classes.toml contradict each other, or the mapping is
                wrong.
        """
        own = None
        if "class" in self.class_tables:
            own = parse_class_tables(self.path, self.class_tables)
        table_path = self.path.with_name("classes.toml")
        table = find_table(self.path.parent) if table_path.is_file() else None
        if own is not None and table is not None and own != table.classes:
            raise InputError(
                f"{self.path}: states other classes than {table_path.name} beside it: keep the "
                "classes in one of the two files"
            )
        tables, path = (self.class_tables, self.path) if own else (_load(table_path), table_path)
        classes = own or (table.classes if table else None)
        explicit = {
            entry["name"]: entry["value"] for entry in tables.get("class", ()) if "value" in entry
        }
        values = dict(self.values)
        if own is None and "ignore" in self.class_tables:
            values |= self._ignored_values()
        if values or self.colors:
            StatedValues(self.path, values, self.colors, classes, explicit).apply(source)
        elif own is not None:
            source.classes = own
            source.rgb_allowed = all("color" in entry for entry in tables["class"])
            source.notes.append(f"{len(own)} classes from {path}")

    def _ignored_values(self) -> dict[str, str]:
        """`ignore` beside [values], as lines of that table."""
        ignored = self.class_tables["ignore"]
        return {str(value): "ignore" for value in (ignored if type(ignored) is list else [ignored])}

    def to_json(self) -> dict[str, Any]:
        """The content as plain values, which a run records."""
        content = {
            "images": self.images,
            "masks": self.masks,
            "variable": self.variable,
            "splits": self.splits,
            "values": self.values,
            "colors": self.colors,
            "rasters": [r.model_dump(by_alias=True, exclude_none=True) for r in self.rasters],
            "windows": self.windows.model_dump(exclude_defaults=True),
            **self.class_tables,
        }
        return {key: value for key, value in content.items() if value}


def read_data_toml(root: Path) -> DataToml | None:
    """Read ROOT/data.toml; None if there is none.

    Raises:
        InputError: For a key or a value that is not allowed; one line per problem.
    """
    path = root / FILE_NAME
    if not path.is_file():
        return None
    content = _load(path)
    class_tables = {key: content.pop(key) for key in _CLASS_KEYS if key in content}
    try:
        stated = _Content.model_validate(content)
    except ValidationError as error:
        lines = dict.fromkeys(_explain(path, fault) for fault in error.errors())
        # A fault in one form of `labels` is reported for the other forms as well.
        specific = [line for line in lines if not line.endswith(_LABELS)]
        raise InputError(*(specific or lines)) from error
    if class_tables and "class" not in class_tables and not (stated.values or stated.colors):
        raise InputError(
            f"{path}: ignore has no effect without [values], [colors] or class tables: write them "
            "too, or remove it"
        )
    _check_rasters(path, stated)
    keys = ("images", "masks", "variable", "splits", "values", "colors")
    return DataToml(
        path=path,
        class_tables=class_tables,
        **{key: getattr(stated, key) for key in keys},
        rasters=tuple(stated.rasters),
        windows=stated.windows or StatedWindows(),
    )


def _check_rasters(path: Path, stated: _Content) -> None:
    """Raise InputError for keys that make no sense together."""
    if not stated.rasters:
        if stated.windows is not None:
            raise InputError(f"{path}: windows: has no effect without [[rasters]]: remove it")
        return
    for key in ("images", "masks", "variable", "splits", "colors"):
        if getattr(stated, key):
            remedy = "write `split` in [[rasters]]" if key == "splits" else "keep one of the two"
            raise InputError(f"{path}: {key}: cannot be combined with [[rasters]]: {remedy}")


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: invalid TOML ({error}): correct the line") from error


def _explain(path: Path, fault: Any) -> str:
    """One line for a fault that pydantic found."""
    key = ".".join(str(part) for part in fault["loc"])
    if fault["loc"][0] in ("rasters", "windows"):
        return _explain_raster(path, fault)
    if fault["type"] == "extra_forbidden":
        allowed = ", ".join((*_Content.model_fields, *_CLASS_KEYS))
        return f"{path}: unknown key {key!r}: allowed are {allowed}"
    forms = {
        "images": 'a folder or a pattern, such as "images/{id}.png"',
        "masks": 'a folder or a pattern, such as "masks/{id}.png"',
        "variable": 'the name of a variable, such as "groundTruth.Segmentation"',
        "splits": "a folder, a list file, or a list of image names for each split",
        "values": 'a class name for each value, such as 1 = "person"',
        "colors": 'a class name for each color, such as "255,0,0" = "person"',
    }
    return f"{path}: {key}: is {fault['input']!r}: write {forms[str(fault['loc'][0])]}"


def _explain_raster(path: Path, fault: Any) -> str:
    """One line for a fault in [[rasters]] or [windows]."""
    forms = {"str", "StatedLabels", "list[StatedLabels]"}
    parts = [part for part in fault["loc"] if part not in forms]
    key = ".".join(str(part) for part in parts)
    if fault["type"] == "missing":
        return f"{path}: {key}: is missing: write it"
    if fault["type"] == "extra_forbidden":
        table: type[_Table] = StatedWindows if parts[0] == "windows" else StatedRaster
        table = StatedLabels if "labels" in parts[:-1] else table
        names = (field.alias or name for name, field in table.model_fields.items())
        return f"{path}: unknown key {key!r}: allowed are {', '.join(names)}"
    remedy = fault["msg"].lower()
    if parts[-1] == "labels":
        remedy = _LABELS
    elif parts == ["rasters"]:
        remedy = "begin each raster with a line [[rasters]], in two brackets"
    return f"{path}: {key}: is {fault['input']!r}: {remedy}"
