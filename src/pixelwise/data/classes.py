"""Class tables: names, colors and mask values of the classes, and which values are ignored.

In memory a mask holds class indices 0..C-1 and IGNORE (255); in files it holds the values that the
user's masks hold. `Classes` is the only place that translates between the two, for training,
evaluation and prediction, so that predicted masks use the same values as the training masks.
"""

from __future__ import annotations

import colorsys
import json
import tomllib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError
from pixelwise.file_io import check_regular

IGNORE = 255
"""Class index of pixels that loss and metrics leave out."""
UNKNOWN = -1
"""What `find_values` and `find_colors` return for a value that is neither a class nor ignored."""

MAX_CLASSES = 255
MAX_VALUE = 65535

Color = tuple[int, int, int]


def distinct_colors(count: int) -> tuple[Color, ...]:
    """Return `count` well-distinguishable RGB colors (0..255), the same at every call."""
    colors = []
    for i in range(count):
        hue = (0.58 + i * 0.618034) % 1.0  # steps of the golden ratio never repeat a hue
        lightness = (0.55, 0.38, 0.70)[i % 3]
        red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.75)
        colors.append((round(red * 255), round(green * 255), round(blue * 255)))
    return tuple(colors)


def normalize_name(name: str) -> str:
    """Return a class name in composed Unicode form, with single spaces and none at the ends.

    Names that look the same are then the same class.
    """
    return " ".join(unicodedata.normalize("NFC", name).split())


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset, ordered by index.

    Values over 255 occur in 16-bit masks only. Written masks have 8 bits: for classes with such
    values they hold the class indices instead, and 255 for ignored pixels.

    Args:
        names: Name of each class, unique and not empty; stored as `normalize_name` returns it.
        colors: RGB color of each class, 0..255; used for palettes, overlays and RGB masks.
        values: Value of each class in mask files, 0..MAX_VALUE, unique.
        ignore: Mask value that loss and metrics leave out, or None.
        ignore_color: Color of ignored pixels in RGB masks and palettes.
        also_ignored: Further mask values that are ignored (Cityscapes has many); requires `ignore`.

    Raises:
        InputError: If the table is inconsistent.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    values: tuple[int, ...]
    ignore: int | None = None
    ignore_color: Color = (0, 0, 0)
    also_ignored: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        names = (normalize_name(name) if isinstance(name, str) else name for name in self.names)
        object.__setattr__(self, "names", tuple(names))
        if not 1 <= len(self.names) <= MAX_CLASSES:
            raise InputError(f"{len(self.names)} classes: 1 to {MAX_CLASSES} are allowed")
        if not len(self.names) == len(self.colors) == len(self.values):
            raise InputError(
                f"{len(self.names)} names, {len(self.colors)} colors and {len(self.values)} "
                "values: give one of each for every class"
            )
        for what, items in (("name", self.names), ("value", self.values)):
            twice = {item for item in items if items.count(item) > 1}
            if twice:
                raise InputError(
                    f"class {what} {sorted(twice)[0]!r} is used twice: give each class its own"
                )
        for name in self.names:
            if not isinstance(name, str) or not name:
                raise InputError(f"class name {name!r}: give every class a name, as a string")
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise InputError(
                    f"class name {name!r} is not valid text: rename the class"
                ) from error
        for value in (*self.values, *self._ignored):
            if not _is_integer(value, MAX_VALUE):
                raise InputError(
                    f"mask value {value!r}: integers from 0 to 255 are allowed, in 16-bit masks up "
                    f"to {MAX_VALUE}"
                )
        for color in (*self.colors, self.ignore_color):
            if len(color) != 3 or not all(_is_integer(channel, 255) for channel in color):
                raise InputError(f"color {color}: write three integers from 0 to 255")
        for value in self._ignored:
            if value in self.values:
                raise InputError(
                    f"mask value {value} is both a class and ignored: remove one of the two"
                )
        if self.also_ignored and self.ignore is None:
            raise InputError("also_ignored without ignore: set `ignore` to the value to write")

    @classmethod
    def make(
        cls,
        names: list[str] | tuple[str, ...],
        *,
        colors: list[Color] | tuple[Color, ...] | None = None,
        values: list[int] | tuple[int, ...] | None = None,
        ignore: int | None = None,
        ignore_color: Color = (0, 0, 0),
        also_ignored: tuple[int, ...] = (),
    ) -> Classes:
        """Create classes with defaults: distinct colors, values 0..C-1."""
        return cls(
            names=tuple(names),
            colors=tuple(colors) if colors else distinct_colors(len(names)),
            values=tuple(values) if values else tuple(range(len(names))),
            ignore=ignore,
            ignore_color=ignore_color,
            also_ignored=also_ignored,
        )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def _ignored(self) -> tuple[int, ...]:
        return self.also_ignored if self.ignore is None else (self.ignore, *self.also_ignored)

    @property
    def written_values(self) -> tuple[int, ...]:
        """Value of each class in written masks (`values` if they fit into 8 bits, else indices)."""
        fits = max((*self.values, self.ignore or 0)) <= 255
        return self.values if fits else tuple(range(len(self)))

    @property
    def file_ignore(self) -> int:
        """Value of ignored pixels in written masks (`ignore` if possible, else an unused value)."""
        if self.ignore is not None and self.written_values is self.values:
            return self.ignore
        return next(value for value in range(255, -1, -1) if value not in self.written_values)

    @cached_property
    def _to_index(self) -> NDArray[np.int16]:
        table = np.full(MAX_VALUE + 1, UNKNOWN, dtype=np.int16)
        table[list(self.values)] = np.arange(len(self))
        table[list(self._ignored)] = IGNORE
        return table

    @cached_property
    def _to_value(self) -> NDArray[np.uint8]:
        table = np.zeros(256, dtype=np.uint8)
        table[: len(self)] = self.written_values
        table[IGNORE] = self.file_ignore
        return table

    def indexed(self) -> Classes:
        """Return the same classes for masks that hold 0..C-1, and 255 for ignored pixels."""
        ignore = None if self.ignore is None else IGNORE
        return Classes.make(
            self.names, colors=self.colors, ignore=ignore, ignore_color=self.ignore_color
        )

    def ignoring(self, value: int) -> Classes:
        """Return the same classes for masks in which a further value is ignored.

        Raises:
            InputError: If it is the value of a class.
        """
        if value == self.ignore or value in self.also_ignored:
            return self
        if self.ignore is None and self.written_values is not self.values:
            return replace(self, ignore=value)
        return replace(self, ignore=self.file_ignore, also_ignored=(*self.also_ignored, value))

    def find_values(self, values: NDArray[Any]) -> NDArray[np.int16]:
        """Return the class index, IGNORE or UNKNOWN of each mask value, in the same shape."""
        return np.asarray(self._to_index[values])

    def find_colors(self, packed: NDArray[np.uint32]) -> NDArray[np.int16]:
        """Return the class index, IGNORE or UNKNOWN of each packed color, in the same shape.

        All colors are UNKNOWN if two classes share a color.
        """
        keys, indices = self._colors_to_index
        position = np.searchsorted(keys, packed).clip(max=len(keys) - 1)
        return np.where(keys[position] == packed, indices[position], np.int16(UNKNOWN))

    @cached_property
    def _colors_to_index(self) -> tuple[NDArray[np.uint32], NDArray[np.int16]]:
        """Packed colors in ascending order, and the index of each."""
        colors = [*self.colors, *([self.ignore_color] if self.ignore is not None else [])]
        indices = np.array([*range(len(self)), IGNORE][: len(colors)], dtype=np.int16)
        if len(set(self.colors)) < len(self):
            indices[:] = UNKNOWN
        keys = pack_rgb(np.array(colors, dtype=np.uint8))
        order = np.argsort(keys, kind="stable")  # a class precedes an ignore_color equal to it
        return keys[order], indices[order]

    def to_index(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        """Translate mask values, 8 or 16 bits, to class indices 0..C-1 and IGNORE.

        Raises:
            InputError: If a value is neither a class nor ignored.
        """
        index = self._to_index[mask]
        if index.size and index.min() < 0:
            unknown = listed(np.unique(mask[index < 0]).tolist())
            raise InputError(f"mask value {unknown} is not among the classes ({self.allowed()})")
        return np.asarray(index, dtype=np.uint8)

    def to_value(self, index: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Translate class indices 0..C-1 and IGNORE (H, W) to the values that mask files hold."""
        # Several times as fast as indexing, which matters beside a fast network.
        values = bytearray(index.tobytes()).translate(self._to_value.tobytes())
        return np.frombuffer(values, np.uint8).reshape(index.shape)

    def rgb_to_index(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Translate an RGB mask (H, W, 3) to class indices (H, W) by the color table.

        Raises:
            InputError: If a color is not in the table, or two classes share a color.
        """
        return self.colors_to_index(pack_rgb(mask))

    def colors_to_index(self, packed: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """Translate packed colors like `rgb_to_index`."""
        if len(set(self.colors)) < len(self):
            shared = next(color for color in self.colors if self.colors.count(color) > 1)
            pairs = zip(self.names, self.colors, strict=True)
            names = " and ".join(repr(name) for name, color in pairs if color == shared)
            raise InputError(
                f"classes {names} share the color {shared}, so that an RGB mask cannot "
                "distinguish them: give each its own color in classes.toml"
            )
        index = self.find_colors(packed)
        if (index < 0).any():
            color = unpack_rgb(packed[index < 0][:1])[0]
            raise InputError(
                f"color {color} is not in the class table: add it to classes.toml, as a class or "
                "as ignore_color"
            )
        return index.astype(np.uint8)

    def allowed(self) -> str:
        """Describe the valid mask values for messages: `0..10, 11 ignored`."""
        low, high = min(self.values), max(self.values)
        if self.values == tuple(range(low, high + 1)) and high > low:
            text = f"{low}..{high}"
        else:
            text = ", ".join(map(str, sorted(self.values)))
        return f"{text}, {listed(self._ignored)} ignored" if self._ignored else text

    def palette(self) -> bytes:
        """Return the color of each mask value for palette PNG files: 768 bytes of RGB."""
        table = np.zeros((256, 3), dtype=np.uint8)
        table[list(self.written_values)] = self.colors
        table[self.file_ignore] = self.ignore_color
        return table.tobytes()

    def color_table(self) -> NDArray[np.uint8]:
        """Return (256, 3) RGB: the color of each class index, including IGNORE."""
        table = np.zeros((256, 3), dtype=np.uint8)
        table[: len(self)] = self.colors
        table[IGNORE] = self.ignore_color
        return table

    def to_json(self) -> dict[str, Any]:
        """Return a dict that `from_json` turns back into an equal object."""
        return {
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "values": list(self.values),
            "ignore": self.ignore,
            "ignore_color": list(self.ignore_color),
            "also_ignored": list(self.also_ignored),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Classes:
        """Read the output of `to_json`. Raises KeyError or TypeError for another dict."""
        return cls(
            names=tuple(data["names"]),
            colors=tuple(_color(color) for color in data["colors"]),
            values=tuple(data["values"]),
            ignore=data["ignore"],
            ignore_color=_color(data["ignore_color"]),
            also_ignored=tuple(data.get("also_ignored", ())),  # bundles of 0.1 have none
        )


def listed(items: Sequence[object], *, most: int = 12) -> str:
    """Format items as `a, b, c`, or the first `most` and the number of the others."""
    text = ", ".join(map(str, items[:most]))
    return text if len(items) <= most else f"{text} and {len(items) - most} more"


def pack_rgb(rgb: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Pack colors (..., 3) into one number each (...): red << 16 | green << 8 | blue."""
    wide = rgb.astype(np.uint32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], dtype=np.uint32)


def unpack_rgb(packed: NDArray[np.uint32]) -> list[Color]:
    """Return the RGB colors of packed ones (K,)."""
    return [(color >> 16, color >> 8 & 255, color & 255) for color in packed.tolist()]


def _color(value: Any) -> Color:
    red, green, blue = value
    return red, green, blue


def _is_integer(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit


TOML_EXAMPLE = 'class = [{name = "sky", color = [128, 128, 128]}]'


def read_classes_toml(path: Path) -> Classes:
    """Read a classes.toml:

        ignore = 255                 # optional: mask value that loss and metrics leave out, or a
                                     # list, [255, 0]: masks are written with the first
        ignore_color = [0, 0, 0]     # optional: color of ignored pixels in RGB masks

        [[class]]
        name = "sky"
        color = [128, 128, 128]      # optional for index masks
        value = 0                    # optional: the default is the position in the list

    Raises:
        InputError: With the file and the remedy, if the file does not have this form.
    """
    try:
        check_regular(path)
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: invalid TOML ({error}): correct the line") from error
    return parse_class_tables(path, data)


def parse_class_tables(path: Path, data: dict[str, Any]) -> Classes:
    """Make classes from the content of a classes.toml, or from the same tables in another file.

    Raises:
        InputError: As `read_classes_toml`.
    """
    _check_keys(path, data, ("class", "ignore", "ignore_color"))
    entries = data.get("class")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: no classes: write one table per class, as {TOML_EXAMPLE}")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise InputError(f"{path}: class {number} has no name: write {TOML_EXAMPLE}")
        _check_keys(path, entry, ("name", "color", "value"), f"class {entry['name']!r}: ")
    defaults = distinct_colors(len(entries))
    ignored = data.get("ignore", [])
    ignored = ignored if isinstance(ignored, list) else [ignored]
    try:
        classes = Classes(
            names=tuple(entry["name"] for entry in entries),
            colors=tuple(
                _color(entry.get("color", default))
                for entry, default in zip(entries, defaults, strict=True)
            ),
            values=tuple(entry.get("value", i) for i, entry in enumerate(entries)),
            ignore=ignored[0] if ignored else None,
            also_ignored=tuple(ignored[1:]),
            ignore_color=_color(data.get("ignore_color", (0, 0, 0))),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: a color is three numbers: write {TOML_EXAMPLE}") from error
    return classes


def _check_keys(
    path: Path, table: dict[str, Any], allowed: tuple[str, ...], where: str = ""
) -> None:
    for key in sorted(set(table) - set(allowed)):
        american = key.replace("colour", "color")
        remedy = f"allowed are {', '.join(allowed)}"
        if american in allowed:  # the spelling of version 0.1
            remedy = f"rename the key to `{american}`"
        raise InputError(f"{path}: {where}unknown key {key!r}: {remedy}")


def toml_has_colors(path: Path) -> bool:
    """Return whether every class of a valid classes.toml has a color (for RGB masks)."""
    return all("color" in entry for entry in tomllib.loads(path.read_text("utf-8-sig"))["class"])


def write_classes_toml(path: Path, classes: Classes) -> None:
    """Write `classes` so that `read_classes_toml` returns equal ones."""
    lines = [f"ignore_color = {list(classes.ignore_color)}"]
    if classes.ignore is not None:
        ignored = [classes.ignore, *classes.also_ignored]
        lines.insert(0, f"ignore = {ignored if classes.also_ignored else classes.ignore}")
    for name, color, value in zip(classes.names, classes.colors, classes.values, strict=True):
        # A JSON string is a valid TOML string except for DEL and escaped non-BMP characters.
        quoted = json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
        lines += ["", "[[class]]", f"name = {quoted}", f"color = {list(color)}"]
        lines += [f"value = {value}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
