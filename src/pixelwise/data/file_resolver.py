"""Find the file that an annotation refers to: exactly one, or an error that names the candidates.

Annotations name files by the paths and addresses of the machine that wrote them. A reference may be
a path of any operating system or a URL; its folders, suffix, letter case or Unicode form may differ
from those of the file. Each reading is tried over all files before a looser one, and a reading that
fits several files is never decided by a guess.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from pixelwise.data.image_files import IMAGE_SUFFIXES
from pixelwise.errors import InputError
from pixelwise.file_io import is_file

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:", re.IGNORECASE)
_LEAVES = re.compile(r"^[/\\]|:|\.\.")
"""What a path contains that leads out of the folder that it is relative to."""
_EXAMPLES = 3


def nfc(text: str) -> str:
    """Return `text` in the composed Unicode form, as other systems than macOS write it."""
    return unicodedata.normalize("NFC", text)


def fold(text: str) -> str:
    """Return the form in which names are equal that differ in letter case or Unicode form."""
    return nfc(nfc(text).casefold())


_Form = Callable[[str], str]

_FORMS: tuple[_Form, ...] = (nfc, fold)
"""The forms in which names are compared, from strict to loose."""

_Index = tuple[dict[str, list[Path]], dict[str, list[Path]]]
"""Files by path, and files by name."""


class FileResolver:
    """The files of a dataset that annotations may refer to.

    Args:
        root: Folder of the dataset.
        files: All candidates, as listed by `folder_listing`.
        kind: What the files are, for messages: "image" or "mask".
    """

    def __init__(self, root: Path, files: Iterable[Path], kind: str = "image") -> None:
        self.root = root
        self.files = tuple(files)
        self.kind = kind
        self._index = cache(self._make_index)
        self._folder_names = {fold(file.parent.name) for file in self.files}

    def find(self, reference: str, *near: Sequence[Path]) -> Path:
        """Return the one file that a reference names; see `candidates`.

        Raises:
            InputError: Without the name of the annotation, if no file or several files fit.
        """
        found = self.candidates(reference, *near)
        if len(found) > 1:
            raise InputError(self.ambiguous(reference, found))
        if not found:
            raise InputError(
                f"{self.kind} {reference!r} is not in {self.root}: add it, or remove the reference"
            )
        return found[0]

    def candidates(self, reference: str, *near: Sequence[Path]) -> list[Path]:
        """Return the files that a reference can name by the first reading that fits any.

        The readings, in this order: the path relative to a folder of `near`; the file with the same
        name whose path ends like the reference for the most folders. Both are tried in the exact
        spelling or another Unicode form, then in any letter case; then again without the suffix.

        Args:
            reference: A path of any operating system, a URL, or a name, with or without suffix.
            near: Groups of folders that the reference may be relative to. A file in an earlier
                group is preferred to one in a later group.
        """
        outside = self._outside(reference, near)
        if outside is not None:
            return [outside]
        texts = reference_paths(reference)
        for without_suffix in (False, True):
            for form in _FORMS:
                for match in (self._match_near, self._match_end):
                    found: dict[Path, None] = {}
                    for text in texts:
                        found |= dict.fromkeys(match(text, near, form, without_suffix))
                    if found:
                        return _in_exact_form(list(found), texts)
        return []

    def check_namesake(self, annotation: Path, named: Path) -> None:
        """Check that no other image beside the one that an annotation names has its own name.

        Where files were renamed, the name inside the annotation may be that of another image now.

        Raises:
            InputError: If there is one, so that it is not clear which image is described.
        """
        if fold(annotation.stem) == fold(named.stem):
            return
        own = self.candidates(annotation.stem, [named.parent])
        if own and own[0].parent == named.parent:
            raise InputError(
                f"{annotation}: names the image {named.name}, but {own[0].name} has the name of "
                "the file: correct the name inside, or rename the file"
            )

    def ambiguous(self, reference: str, files: Sequence[Path]) -> str:
        """Return the message for a reference that several files fit."""
        names = [str(file) for file in files[:_EXAMPLES]]
        more = f" and {len(files) - _EXAMPLES} more" if len(files) > _EXAMPLES else ""
        return (
            f"{self.kind} {reference!r} can be {' or '.join(names)}{more}: remove or rename all "
            "but one"
        )

    def _outside(self, reference: str, near: Sequence[Sequence[Path]]) -> Path | None:
        """The existing file outside the dataset that a literal path names, or None."""
        if not _LEAVES.search(reference):  # cheap for the many references that do not
            return None
        folders = [folder for group in near for folder in group] or [self.root]
        for folder in folders[:1] if Path(reference).is_absolute() else folders:
            file = Path(os.path.normpath(folder / reference))
            if not file.is_relative_to(self.root) and is_file(file):
                same = (f for f in self._index(nfc, False)[1].get(nfc(file.name), []))
                return next((f for f in same if f.resolve() == file.resolve()), file)
        return None

    def _make_index(self, form: _Form, without_suffix: bool) -> _Index:
        by_path: dict[str, list[Path]] = defaultdict(list)
        by_name: dict[str, list[Path]] = defaultdict(list)
        for file in self.files:
            named = file.with_suffix("") if without_suffix else file
            by_path[form(_join(named, ""))].append(file)
            by_name[form(named.name)].append(file)
        return by_path, by_name

    def _match_near(
        self, text: str, near: Sequence[Sequence[Path]], form: _Form, without_suffix: bool
    ) -> list[Path]:
        """The files at a path relative to a folder of the first group in which there is one."""
        by_path, _ = self._index(form, without_suffix)
        for group in near:
            paths = _texts(text, without_suffix)
            joined = {_join(folder, path) for folder in group for path in paths}
            found = [file for path in sorted(joined) for file in by_path.get(form(path), [])]
            if found:
                return found
        return []

    def _match_end(
        self, text: str, near: Sequence[Sequence[Path]], form: _Form, without_suffix: bool
    ) -> list[Path]:
        """The files of the same name that share the most trailing folders with the reference."""
        _, by_name = self._index(form, without_suffix)
        best: list[Path] = []
        longest = (0, 0)
        for path in _texts(text, without_suffix):
            *folders, name = path_parts(path) or [""]
            # If the folder exists and the file is not in it, a file elsewhere is another file.
            least = int(any(fold(folder) in self._folder_names for folder in folders[-1:]))
            for file in by_name.get(form(name), []):
                parents = file.parent.parts
                loose = _common_end(folders, parents, fold)
                length = (loose, _common_end(folders, parents, form))
                if loose >= least and length >= longest:
                    best = [*best, file] if length == longest else [file]
                    longest = length
        return best


class Claims:
    """Which annotation or image each file belongs to: to one at most."""

    def __init__(self) -> None:
        self._owners: dict[Path, str] = {}

    def add(self, file: Path, owner: str) -> None:
        """Note that `file` belongs to `owner`, an annotation or an image.

        Raises:
            InputError: If `file` already belongs to another owner.
        """
        first = self._owners.setdefault(file, owner)
        if first != owner:
            raise InputError(
                f"{file}: belongs to {first} and to {owner}: keep one of them, or correct the names"
            )

    def __contains__(self, file: Path) -> bool:
        return file in self._owners


def reference_paths(reference: str) -> list[str]:
    """Return the paths that a reference may mean, with forward slashes: in URLs, decoded."""
    texts = [reference, unquote(reference)]
    if _URL.match(reference) or "?" in reference:
        texts += _paths_in_url(reference)
    texts = [text.replace("\\", "/") for text in texts]
    return list(dict.fromkeys(text for each in texts for text in (each, each.strip()) if text))


def _paths_in_url(reference: str) -> list[str]:
    """The path of a URL, or the paths in its query that Label Studio writes for stored files."""
    try:
        url = urlsplit(reference)
        query = parse_qs(url.query)
    except ValueError:
        return []
    paths = [unquote(path) for path in query.get("d", [])]
    for code in query.get("fileuri", []):
        try:
            paths.append(base64.b64decode(code + "=" * (-len(code) % 4)).decode())
        except (binascii.Error, ValueError):
            continue
    return paths or [unquote(url.path)]


def path_parts(path: str) -> list[str]:
    """Return the parts of a path with forward slashes, without drive, `.` and `..`."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."} and not _DRIVE.fullmatch(part):
            parts.append(part)
    return parts


def _in_exact_form(files: list[Path], texts: Collection[str]) -> list[Path]:
    """Of files whose names differ in the Unicode form alone, those with the form of the texts."""
    if len(files) < 2 or len({nfc(str(file)) for file in files}) > 1:
        return files
    return [f for f in files if any(f.stem in text for text in texts)] or files


def _texts(path: str, without_suffix: bool) -> list[str]:
    """The path, and that without suffix. Names contain dots too: only those of images count."""
    stem, dot, suffix = path.rpartition(".")
    return [path, stem] if without_suffix and dot + suffix.lower() in IMAGE_SUFFIXES else [path]


def _join(folder: Path, path: str) -> str:
    """The normalized text of a path; several times as fast as joining paths."""
    return os.path.normpath(path if path.startswith("/") else f"{folder}/{path}")


def _common_end(folders: Collection[str], others: Sequence[str], form: _Form) -> int:
    """How many of the last folders are the same."""
    length = 0
    for one, other in zip(reversed([*folders]), reversed(others), strict=False):
        if form(one) != form(other):
            break
        length += 1
    return length
