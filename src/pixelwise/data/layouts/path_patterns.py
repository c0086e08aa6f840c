"""Patterns of file paths, such as `images/{split}/{id}_image.png`.

`{id}` and other names stand for a part of a file or folder name; an image and a mask belong
together if all names that both patterns contain have the same values. `{split}` stands for the name
of a split. `*` stands for any part of a name, and `**` for any number of folders; if both patterns
contain the same ones in the same order, they have to agree as well. A pattern without a suffix
stands for every suffix.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from pixelwise.data.folder_listing import walk_files
from pixelwise.data.layouts.split_names import ANY_SPLIT, split_of
from pixelwise.errors import InputError

_TOKEN = re.compile(r"\{(?P<name>[^{}/]*)\}|(?P<stars>\*+)|(?P<text>[^{}*]+|[{}])")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,5}")


@dataclass(frozen=True)
class Match:
    """A file that matches a pattern, with the values of its names and wildcards."""

    path: Path
    values: Mapping[str, str]

    @property
    def split(self) -> str | None:
        """The split in the path; None if the pattern has no `{split}`."""
        return split_of(self.values["split"]) if "split" in self.values else None

    def key(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The values that identify an image, in which a split has its usual name."""
        return tuple((self.split or "") if n == "split" else self.values[n] for n in names)


@dataclass(frozen=True)
class PathPattern:
    """A pattern relative to the folder of a dataset.

    Args:
        text: The pattern.
        origin: What states it, for messages: `--masks`, or a file and a key.

    Raises:
        InputError: If the pattern cannot be used.
    """

    text: str
    origin: str

    def __post_init__(self) -> None:
        if not is_pattern(self.text):
            raise self.error("has no {id}: write {id} where the names of the files differ")
        if any("**" in part and part != "**" for part in self.components):
            raise self.error("** stands for folders: write it between two slashes")
        for match in _TOKEN.finditer(self.text):
            if match["text"] in ("{", "}"):
                raise self.error("a brace has no partner: write {id}")
            if match["name"] is not None and not _NAME.fullmatch(match["name"]):
                raise self.error(f"{{{match['name']}}} is no name: write {{id}}")
        _ = self._expression

    def error(self, problem: str) -> InputError:
        """An error about this pattern: `problem` is what is wrong, a colon and the remedy."""
        return InputError(f"{self.origin} {self.text!r}: {problem}")

    @property
    def components(self) -> tuple[str, ...]:
        return tuple(part for part in self.text.replace("\\", "/").split("/") if part != ".")

    @property
    def base(self) -> PurePosixPath:
        """The folders before the first name or wildcard."""
        fixed = []
        for part in self.components[:-1]:
            if is_pattern(part):
                break
            fixed.append(part)
        return PurePosixPath("/".join(fixed) or ("/" if self.text.startswith("/") else "."))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names in the pattern, such as `id` and `split`."""
        return tuple(name for name in self._expression.groupindex if not name.startswith("_"))

    @cached_property
    def wildcards(self) -> tuple[str, ...]:
        """The wildcards, as names of groups that begin with `_`."""
        return tuple(name for name in self._expression.groupindex if name.startswith("_"))

    @cached_property
    def literals(self) -> int:
        """The number of fixed characters: of two matching patterns, the one with more counts."""
        return sum(len(match["text"] or "") for match in _TOKEN.finditer(self.text))

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        try:
            return re.compile(_translate(self.components[len(self.base.parts) :]))
        except re.error as error:
            raise self.error(f"cannot be used ({error}): write a simpler one") from error

    def find(self, root: Path) -> Iterator[Match]:
        """Yield the files that match, below the folder of the dataset.

        Raises:
            InputError: If the folder before the first name does not exist.
        """
        base = root / self.base
        if not base.is_dir():
            raise self.error(f"{base} does not exist: correct the folder")
        for path in walk_files(base):
            # File systems differ in how they store accents.
            relative = unicodedata.normalize("NFC", path.relative_to(base).as_posix())
            match = self._expression.fullmatch(relative)
            if match:
                yield Match(path, {k: v or "" for k, v in match.groupdict().items()})

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the pattern with values in place of its names."""
        return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), self.text)


def is_pattern(text: str) -> bool:
    """Whether a path contains a name in braces or a wildcard; a plain folder contains neither."""
    return any(character in text for character in "{}*")


def _translate(components: tuple[str, ...]) -> str:
    """Translate the components of a pattern to a regular expression for a relative path."""
    seen: set[str] = set()
    stars = 0
    expression = ""
    *folders, last = components
    for part in folders:
        if part == "**":
            stars += 1
            expression += f"(?:(?P<_folders{stars}>.+)/)?"
        else:
            text, stars = _translate_part(unicodedata.normalize("NFC", part), seen, stars)
            expression += f"{text}/"
    stem, suffix = _split_suffix(unicodedata.normalize("NFC", last))
    text, stars = _translate_part(stem, seen, stars)
    return expression + text + suffix


def _split_suffix(name: str) -> tuple[str, str]:
    """Split off the suffix and translate it: in any letter case, or any suffix."""
    stem, dot, suffix = name.rpartition(".")
    if dot and suffix in ("*", "{ext}"):
        return stem, r"\.[^./]+"
    if dot and _SUFFIX.fullmatch(f".{suffix}"):
        return stem, rf"(?i:\.{suffix})"
    return name, r"\.[^./]+"


def _translate_part(part: str, seen: set[str], stars: int) -> tuple[str, int]:
    expression = ""
    for match in _TOKEN.finditer(part):
        name = match["name"]
        if match["stars"]:
            stars += 1
            expression += f"(?P<_part{stars}>[^/]*)"
        elif name is None:
            expression += re.escape(match["text"])
        elif name in seen:
            expression += f"(?P={name})"
        else:
            seen.add(name)
            expression += f"(?P<{name}>{ANY_SPLIT if name == 'split' else '[^/]+'})"
    return expression, stars
