"""Map the stored values or colors of masks to classes, as stated in data.toml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.classes import (
    IGNORE,
    MAX_VALUE,
    Classes,
    distinct_colors,
    listed,
    pack_rgb,
    unpack_rgb,
)
from pixelwise.data.image_files import MASK_SUFFIXES, mask_palette
from pixelwise.data.source import NO_DATA, MaskSource, Source
from pixelwise.errors import InputError

IGNORED = "ignore"
"""What a value is mapped to so that loss and scores leave it out."""

_UNMAPPED = -1
_RANGE = re.compile(r"(\d*)\s*(\.\.)?\s*(\d*)")
_COLOR = re.compile(r"#([0-9a-fA-F]{6})|(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})")


@dataclass(frozen=True, eq=False)
class ValueTable:
    """What each stored value or color becomes.

    Attributes:
        origin: The file that states it, for messages.
        values: (65536,) class value of each stored value, or -1.
        colors: Class value of each packed color; None if colors are read by `base`.
        base: The layout's own classes, by which its RGB masks are read.
        allowed: The stated values, for messages.
    """

    origin: Path
    values: NDArray[np.int32]
    colors: Mapping[int, int] | None
    base: Classes | None
    allowed: str


@dataclass(frozen=True)
class MappedMask:
    """A mask whose values are mapped when it is read; implements `MaskSource`."""

    mask: MaskSource
    table: ValueTable = field(compare=False)

    @property
    def path(self) -> Path:
        return self.mask.path

    def read(self, size: tuple[int, int]) -> NDArray[Any]:
        stored = self.mask.read(size)
        table = self.table
        if table.colors is not None:
            mapped = self._from_colors(_as_colors(stored, self.path), table.colors)
        else:
            mapped = self._from_values(stored)
        return mapped.astype(np.uint16 if mapped.max(initial=0) > 255 else np.uint8)

    def _from_values(self, stored: NDArray[Any]) -> NDArray[np.int32]:
        table = self.table
        if stored.ndim == 3 and table.base is not None:
            index = table.base.rgb_to_index(stored)
            ignored = IGNORE if table.base.ignore is None else table.base.ignore
            values = np.append(np.array(table.base.values), ignored)
            stored = values[np.where(index == IGNORE, len(table.base), index)]
        elif stored.ndim == 3:
            if (stored != stored[..., :1]).any():
                raise InputError(
                    f"{self.path}: the mask is RGB, but {table.origin} maps values: state "
                    '[colors], such as "255,0,0" = "NAME"'
                )
            stored = stored[..., 0]
        mapped = table.values[stored]
        if mapped.size and mapped.min() == _UNMAPPED:
            unknown = listed(np.unique(stored[mapped == _UNMAPPED]).tolist())
            raise InputError(
                f"{self.path}: mask value {unknown} is not in [values] of {table.origin} "
                f'({table.allowed}): add it there, as a class or as "{IGNORED}"'
            )
        return np.asarray(mapped)

    def _from_colors(
        self, colors: NDArray[np.uint8], mapping: Mapping[int, int]
    ) -> NDArray[np.int32]:
        present, inverse = np.unique(pack_rgb(colors), return_inverse=True)
        mapped = np.array([mapping.get(int(c), _UNMAPPED) for c in present], dtype=np.int32)
        if (mapped == _UNMAPPED).any():
            color = unpack_rgb(present[mapped == _UNMAPPED])[0]
            raise InputError(
                f"{self.path}: color {color} is not in [colors] of {self.table.origin}: add it "
                f'there, as a class or as "{IGNORED}"'
            )
        return mapped[inverse].reshape(colors.shape[:2])


def _as_colors(stored: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """The colors (H, W, 3) of a mask: its own, those of its palette, or grays."""
    if stored.ndim == 3:
        return stored
    palette = mask_palette(path) if path.suffix.lower() in MASK_SUFFIXES else None
    if palette is not None and stored.max(initial=0) < len(palette):
        return np.asarray(palette[stored])
    return np.repeat(stored.astype(np.uint8)[..., None], 3, axis=2)


@dataclass(frozen=True)
class _Range:
    """The values `low` to `high`, which `key` maps to the class `name`."""

    key: str
    name: str
    low: int
    high: int


@dataclass(frozen=True)
class StatedValues:
    """The mapping that data.toml states.

    Attributes:
        origin: The file.
        values: Class name of each value, range such as `1..`, or name of a class of the layout.
        colors: Class name of each color, `255,0,0` or `#ff0000`.
        classes: Stated classes, in data.toml or classes.toml; None to take them from the mapping.
        explicit: Value of each class for which the class table states one.
    """

    origin: Path
    values: Mapping[str, str]
    colors: Mapping[str, str]
    classes: Classes | None = None
    explicit: Mapping[str, int] = field(default_factory=dict)

    def apply(self, source: Source) -> None:
        """Map the masks of a source, and set its classes.

        Raises:
            InputError: If a key is no value, two keys overlap, or a class is unknown.
        """
        ranges = self._ranges(source.classes)
        colors = self._colors()
        classes = self._classes(ranges, colors)
        value_of = dict(zip(classes.names, classes.values, strict=True))
        value_of[IGNORED] = classes.file_ignore
        self._check_ranges(ranges)
        table = np.full(MAX_VALUE + 1, _UNMAPPED, dtype=np.int32)
        for each in sorted(ranges, key=lambda each: each.low - each.high):  # the widest first
            table[each.low : each.high + 1] = value_of[each.name]
        if self.classes is not None and self.classes.ignore is not None:
            ignored = [self.classes.ignore, *self.classes.also_ignored]
            free = [value for value in ignored if table[value] == _UNMAPPED]
            table[free] = value_of[IGNORED]
        if source.has_no_data:
            table[NO_DATA] = NO_DATA
        values = ValueTable(
            self.origin,
            table,
            {color: value_of[name] for color, name in colors.items()} if colors else None,
            source.classes if source.rgb_allowed else None,
            ", ".join(self.values),
        )
        source.splits = {
            split: [replace(sample, mask=MappedMask(sample.mask, values)) for sample in samples]
            for split, samples in source.splits.items()
        }
        source.classes, source.rgb_allowed = classes, False
        source.notes.append(f"{len(classes)} classes from {self.origin}")

    def _ranges(self, layout: Classes | None) -> list[_Range]:
        return [
            _Range(key, name, low, high)
            for key, name in self.values.items()
            for low, high in self._parse(key, layout)
        ]

    def _parse(self, key: str, layout: Classes | None) -> list[tuple[int, int]]:
        if layout is not None and key in layout.names:
            value = layout.values[layout.names.index(key)]
            return [(value, value)]
        parsed = []
        for part in key.split(","):
            match = _RANGE.fullmatch(part.strip())
            if not match or not (match[1] or match[3]):
                known = "" if layout is None else f" or a class ({listed(layout.names)})"
                raise self._error(f'values."{key}"', f"write a value, a range such as 1..{known}")
            low = int(match[1] or 0)
            high = int(match[3]) if match[3] else MAX_VALUE if match[2] else low
            if not low <= high <= MAX_VALUE:
                raise self._error(
                    f'values."{key}"', f"is no range of mask values: 0 to {MAX_VALUE} are allowed"
                )
            parsed.append((low, high))
        return parsed

    def _colors(self) -> dict[int, str]:
        colors: dict[int, str] = {}
        for key, name in self.colors.items():
            match = _COLOR.fullmatch(key.strip())
            rgb = [int(cell) for cell in match.groups()[1:]] if match and not match[1] else [0]
            if not match or max(rgb) > 255:
                raise self._error(f'colors."{key}"', "write red, green, blue, such as 255,0,0")
            packed = int(match[1], 16) if match[1] else rgb[0] << 16 | rgb[1] << 8 | rgb[2]
            if colors.setdefault(packed, name) != name:
                raise self._error(f'colors."{key}"', "is mapped to two classes: keep one line")
        return colors

    def _classes(self, ranges: list[_Range], colors: dict[int, str]) -> Classes:
        names = list(dict.fromkeys([*self.values.values(), *self.colors.values()]))
        if self.classes is not None:
            for name in names:
                if name not in (*self.classes.names, IGNORED):
                    allowed = listed([*self.classes.names, IGNORED])
                    raise self._error(repr(name), f"is not in the class table: {allowed} are")
            return self.classes
        has_ignored = IGNORED in names
        names = [name for name in names if name != IGNORED]
        lowest = {each.name: each.low for each in sorted(ranges, key=lambda each: -each.low)}
        values = [lowest[n] for n in names] if lowest.keys() >= set(names) else range(len(names))
        color_of = dict(zip(names, distinct_colors(len(names)), strict=True))
        color_of |= {name: unpack_rgb(np.array([c]))[0] for c, name in reversed(colors.items())}
        void = [each for each in ranges if each.name == IGNORED]
        ignore = None
        if has_ignored:
            ignore = void[0].low if void and all(each.high < 255 for each in void) else 255
        try:
            return Classes.make(
                names, colors=[color_of[n] for n in names], values=list(values), ignore=ignore
            )
        except InputError as error:
            raise InputError(*(f"{self.origin}: {line}" for line in error.problems)) from error

    def _check_ranges(self, ranges: list[_Range]) -> None:
        """Raise InputError if a value belongs to two classes; a range may hold narrower ones."""
        for number, one in enumerate(ranges):
            for other in ranges[:number]:
                apart = one.high < other.low or other.high < one.low
                nested = (one.low >= other.low and one.high <= other.high) or (
                    other.low >= one.low and other.high <= one.high
                )
                equal = (one.low, one.high) == (other.low, other.high)
                if one.name != other.name and not apart and (equal or not nested):
                    raise self._error(
                        f'values."{one.key}"', f'overlaps "{other.key}": map each value once'
                    )
            for name, value in self.explicit.items():
                if one.low == one.high == value and name != one.name:
                    raise self._error(
                        f'values."{one.key}"',
                        f"maps {value} to {one.name!r}, but it is the value of {name!r} in the "
                        "class table: correct one of them",
                    )

    def _error(self, what: str, remedy: str) -> InputError:
        return InputError(f"{self.origin}: {what}: {remedy}")
