"""What the numbers in a mask mean: names, colors and values of the classes, and what is ignored.

Inside pixelwise a mask holds class indices 0..C-1 and IGNORE (255). In files it holds whatever the
person's masks hold. `Classes` is the one place where the two are translated, for training, scoring
and prediction alike, so a predicted mask speaks the language of the masks it was trained on.
"""

from __future__ import annotations

import colorsys
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import InputError
from pixelwise.file_io import check_regular

IGNORE = 255
"""The index, inside pixelwise, of pixels that loss and metrics leave out."""

MAX_CLASSES = 255
MAX_VALUE = 65535

Color = tuple[int, int, int]


def distinct_colors(count: int) -> tuple[Color, ...]:
    """`count` colors that are easy to tell apart, the same ones at every call (RGB, 0..255)."""
    colors = []
    for i in range(count):
        hue = (0.58 + i * 0.618034) % 1.0  # steps of the golden ratio never come back to a hue
        lightness = (0.55, 0.38, 0.70)[i % 3]
        red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.75)
        colors.append((round(red * 255), round(green * 255), round(blue * 255)))
    return tuple(colors)


@dataclass(frozen=True)
class Classes:
    """The classes of a data set, in the order of their indices.

    names: one for each class, unique, not empty.
    colors: RGB, 0..255, one for each class; used for palettes, overlays and RGB masks.
    values: the value of each class in mask files, 0..MAX_VALUE, unique.
    ignore: the mask value that loss and metrics leave out, or None.
    ignore_color: its color in RGB masks and palettes.
    also_ignored: further mask values that are left out, as the many of Cityscapes; needs `ignore`.

    Values over 255 are read from 16-bit masks only. Masks that are written have 8 bits: with such
    values they hold the class indices instead, and 255 for what is ignored.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    values: tuple[int, ...]
    ignore: int | None = None
    ignore_color: Color = (0, 0, 0)
    also_ignored: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MAX_CLASSES:
            raise InputError(f"{len(self.names)} classes: allowed are 1 to {MAX_CLASSES}")
        if not len(self.names) == len(self.colors) == len(self.values):
            raise InputError(
                f"{len(self.names)} names, {len(self.colors)} colors and {len(self.values)} "
                "values: give one of each for every class"
            )
        for what, items in (("name", self.names), ("value", self.values)):
            twice = {item for item in items if items.count(item) > 1}
            if twice:
                raise InputError(
                    f"class {what} {sorted(twice)[0]!r} is used twice: each is one class"
                )
        for name in self.names:
            if not isinstance(name, str) or not name:
                raise InputError(f"class name {name!r}: give every class a name, as a text")
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise InputError(
                    f"class name {name!r}: is not valid text: write it anew"
                ) from error
        for value in (*self.values, *self._ignored):
            if not _is_whole(value, MAX_VALUE):
                raise InputError(
                    f"mask value {value!r}: whole numbers from 0 to 255 are allowed, in 16-bit "
                    f"masks to {MAX_VALUE}"
                )
        for color in (*self.colors, self.ignore_color):
            if len(color) != 3 or not all(_is_whole(part, 255) for part in color):
                raise InputError(f"color {color}: three whole numbers, 0 to 255, are allowed")
        for value in self._ignored:
            if value in self.values:
                raise InputError(
                    f"mask value {value} is a class and ignored at once: it can be one of them"
                )
        if self.also_ignored and self.ignore is None:
            raise InputError("also_ignored without ignore: give the value to write as `ignore`")

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
        """Classes with what is not given filled in: distinct colors, values 0..C-1."""
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
        """The value of each class in masks that are written: `values`, where 8 bits hold them."""
        wide = max((*self.values, self.ignore or 0)) > 255
        return tuple(range(len(self))) if wide else self.values

    @property
    def file_ignore(self) -> int:
        """The mask value to write for an ignored pixel: the declared one, else a free one."""
        if self.ignore is not None and self.written_values is self.values:
            return self.ignore
        return next(value for value in range(255, -1, -1) if value not in self.written_values)

    @cached_property
    def _to_index(self) -> NDArray[np.int16]:
        table = np.full(MAX_VALUE + 1, -1, dtype=np.int16)
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
        """The same classes for masks that hold 0..C-1, with 255 for what is ignored."""
        ignore = None if self.ignore is None else IGNORE
        return Classes.make(
            self.names, colors=self.colors, ignore=ignore, ignore_color=self.ignore_color
        )

    def unknown_values(self, mask: NDArray[Any]) -> list[int]:
        """The values of `mask` (H, W) that are neither a class nor ignored, in rising order."""
        present = np.flatnonzero(np.bincount(mask.reshape(-1)))
        return [int(value) for value in present[self._to_index[present] < 0]]

    def to_index(self, mask: NDArray[Any]) -> NDArray[np.uint8]:
        """File values (H, W), 8 or 16 bits, to class indices 0..C-1 and IGNORE.

        Raises InputError for a value that is neither a class nor ignored.
        """
        index = self._to_index[mask]
        if index.size and index.min() < 0:
            unknown = listed(self.unknown_values(mask))
            raise InputError(f"mask value {unknown} is not among the classes ({self.allowed()})")
        return np.asarray(index, dtype=np.uint8)

    def to_value(self, index: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Class indices 0..C-1 and IGNORE (H, W) to the values that mask files hold."""
        # Several times as fast as indexing, which is felt beside a quick network.
        values = bytearray(index.tobytes()).translate(self._to_value.tobytes())
        return np.frombuffer(values, np.uint8).reshape(index.shape)

    def rgb_to_index(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An RGB mask (H, W, 3) to class indices by the color table.

        Raises InputError for a color that is not in the table, and where two classes share one.
        """
        if len(set(self.colors)) < len(self):
            shared = next(color for color in self.colors if self.colors.count(color) > 1)
            pairs = zip(self.names, self.colors, strict=True)
            names = " and ".join(repr(name) for name, color in pairs if color == shared)
            raise InputError(
                f"classes {names} have one color, {shared}: an RGB mask cannot tell them apart: "
                "give each its own in classes.toml"
            )
        packed = pack_rgb(mask)
        colors = list(self.colors) + ([self.ignore_color] if self.ignore is not None else [])
        indices = [*range(len(self)), IGNORE][: len(colors)]
        keys = pack_rgb(np.array(colors, dtype=np.uint8)[None])[0]
        order = np.argsort(keys, kind="stable")  # a class comes before an ignore_color like it
        place = np.searchsorted(keys[order], packed).clip(max=len(keys) - 1)
        known = keys[order][place] == packed
        if not known.all():
            red, green, blue = (int(part) for part in mask[~known][0])
            raise InputError(
                f"color ({red}, {green}, {blue}) is in the mask and in no class: add it to "
                "classes.toml, as a class or as ignore_color"
            )
        index: NDArray[np.uint8] = np.array(indices, dtype=np.uint8)[order][place]
        return index

    def knows_colors(self, packed: NDArray[np.uint32]) -> bool:
        """Whether `rgb_to_index` has an index for all of these colors (as of `pack_rgb`)."""
        colors = [*self.colors, *([self.ignore_color] if self.ignore is not None else [])]
        return bool(np.isin(packed, pack_rgb(np.array(colors, dtype=np.uint8))).all())

    def allowed(self) -> str:
        """The permitted mask values in words, for messages: `0..10, 11 ignored`."""
        low, high = min(self.values), max(self.values)
        if self.values == tuple(range(low, high + 1)) and high > low:
            text = f"{low}..{high}"
        else:
            text = ", ".join(map(str, sorted(self.values)))
        return f"{text}, {listed(self._ignored)} ignored" if self._ignored else text

    def palette(self) -> bytes:
        """768 bytes of RGB: the color of each mask value, for palette PNG files."""
        table = np.zeros((256, 3), dtype=np.uint8)
        table[list(self.written_values)] = self.colors
        table[self.file_ignore] = self.ignore_color
        return table.tobytes()

    def color_table(self) -> NDArray[np.uint8]:
        """(256, 3) RGB: the color of each class index, IGNORE included."""
        table = np.zeros((256, 3), dtype=np.uint8)
        table[: len(self)] = self.colors
        table[IGNORE] = self.ignore_color
        return table

    def to_json(self) -> dict[str, Any]:
        """A plain dict that `from_json` reads back to an equal object."""
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
        """The inverse of `to_json`. Raises KeyError or TypeError where it is not such a dict."""
        return cls(
            names=tuple(data["names"]),
            colors=tuple(_color(color) for color in data["colors"]),
            values=tuple(data["values"]),
            ignore=data["ignore"],
            ignore_color=_color(data["ignore_color"]),
            also_ignored=tuple(data.get("also_ignored", ())),  # bundles of 0.1 have none
        )


def listed(items: Sequence[object], *, most: int = 12) -> str:
    """`a, b, c`, or the first of them and the number of the others."""
    text = ", ".join(map(str, items[:most]))
    return text if len(items) <= most else f"{text} and {len(items) - most} more"


def pack_rgb(rgb: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Colors (..., 3) as one number each (...): red << 16 | green << 8 | blue."""
    wide = rgb.astype(np.uint32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], dtype=np.uint32)


def _color(value: Any) -> Color:
    red, green, blue = value
    return red, green, blue


def _is_whole(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit


TOML_EXAMPLE = 'class = [{name = "sky", color = [128, 128, 128]}]'


def read_classes_toml(path: Path) -> Classes:
    """Read a classes.toml.

        ignore = 255                 # optional: a mask value left out by loss and metrics, or
                                     # several, [255, 0]: the first is what masks are written with
        ignore_color = [0, 0, 0]    # optional: its color in RGB masks

        [[class]]
        name = "sky"
        color = [128, 128, 128]     # optional for index masks
        value = 0                    # optional: the place in the list

    Raises InputError, with the file's name and the remedy, where it is not of this form.
    """
    try:
        check_regular(path)
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not TOML ({error}): correct the line") from error
    surplus = sorted(set(data) - {"class", "ignore", "ignore_color"})
    if surplus:
        raise InputError(
            f"{path}: unknown key {surplus[0]!r}: allowed are class, ignore, ignore_color"
        )
    entries = data.get("class")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: no classes in it: write one table a class, as {TOML_EXAMPLE}")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise InputError(f"{path}: class {number} has no name: write {TOML_EXAMPLE}")
        surplus = sorted(set(entry) - {"name", "color", "value"})
        if surplus:
            raise InputError(
                f"{path}: class {entry['name']!r}: unknown key {surplus[0]!r}: allowed are "
                "name, color, value"
            )
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
        raise InputError(
            f"{path}: three numbers were expected in a color: write {TOML_EXAMPLE}"
        ) from error
    return classes


def toml_has_colors(path: Path) -> bool:
    """Whether every class of this classes.toml states its color (RGB masks need that)."""
    return all("color" in entry for entry in tomllib.loads(path.read_text("utf-8"))["class"])


def write_classes_toml(path: Path, classes: Classes) -> None:
    """Write `classes` so that `read_classes_toml` gives them back equal."""
    lines = [f"ignore_color = {list(classes.ignore_color)}"]
    if classes.ignore is not None:
        ignored = [classes.ignore, *classes.also_ignored]
        lines.insert(0, f"ignore = {ignored if classes.also_ignored else classes.ignore}")
    for name, color, value in zip(classes.names, classes.colors, classes.values, strict=True):
        # A JSON string is a TOML basic string once DEL and non-BMP escapes are kept out of it.
        quoted = json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
        lines += ["", "[[class]]", f"name = {quoted}", f"color = {list(color)}"]
        lines += [f"value = {value}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
