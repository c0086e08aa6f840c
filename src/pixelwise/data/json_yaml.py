"""Read the JSON and YAML files of annotation tools, or recognize them by their first lines."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any

from pixelwise.data.file_content import check_no_pointer, missing_file
from pixelwise.errors import InputError
from pixelwise.file_io import check_regular, read_text

HEAD = 1 << 16
"""Characters that `top_keys` reads."""


def brief(value: Any) -> str:
    """Format a value for a message, abbreviated if it is large."""
    return _BRIEF.repr(value)


_BRIEF = reprlib.Repr()
_BRIEF.maxstring, _BRIEF.maxlist, _BRIEF.maxdict, _BRIEF.maxlevel = 200, 3, 3, 2


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises InputError if it cannot be read."""
    text = read_text(path)
    check_no_pointer(path, text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also for numbers with thousands of digits
        raise InputError(
            f"{path}: invalid JSON ({error}): export or download the file again"
        ) from error


def top_keys(path: Path) -> set[str]:
    """Return the keys of the outermost object in the first HEAD characters of a JSON file.

    For a list: the keys of its first object, and "[]". Empty if the file is not JSON.

    Raises:
        InputError: For a link without its file, or a Git LFS pointer.
    """
    if path.is_symlink() and not path.exists():
        raise missing_file(path)
    try:
        check_regular(path)
        with path.open(encoding="utf-8-sig") as stream:
            text = stream.read(HEAD)
    except (OSError, UnicodeDecodeError):
        return set()
    check_no_pointer(path, text)
    keys: set[str] = set()
    start = text.lstrip()
    level = 1
    if start.startswith("["):
        keys.add("[]")
        level = 2
    elif not start.startswith("{"):
        return keys
    depth, at = 0, 0
    while at < len(text):
        character = text[at]
        if character == '"':
            end = at + 1
            while end < len(text) and text[end] != '"':
                end += 2 if text[end] == "\\" else 1
            if depth == level and text[end + 1 : end + 20].lstrip().startswith(":"):
                keys.add(text[at + 1 : end])
            at = end
        elif character in "{[":
            depth += 1
        elif character in "}]":
            depth -= 1
            if depth < level and level == 2:
                break  # end of the first object of the list
        at += 1
    return keys


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that is a mapping, with every scalar as the text in the file.

    YAML itself would turn the names `no`, `1.10` and `010` into False, 1.1 and 8.

    Raises:
        InputError: If the file cannot be read, or a key occurs twice.
    """
    import yaml

    class TextLoader(yaml.BaseLoader):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise yaml.YAMLError(f"the key {twice!r} occurs twice")
            return super().construct_mapping(node, deep)

    text = read_text(path)
    check_no_pointer(path, text)
    try:
        content = yaml.load(text, TextLoader)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: invalid YAML ({reason}): correct the line") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: no keys in the file: write at least `names: [first, second]`")
    return content


def image_size(entry: Any, height: str, width: str) -> tuple[int, int] | None:
    """Return the (height, width) under two keys of `entry`; None if they give no whole numbers.

    Tables write them as floating-point numbers or as text.
    """
    sides = []
    for key in (height, width):
        value = entry.get(key) if isinstance(entry, dict) else None
        text = str(value).strip().removesuffix(".0")
        if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) < 10):
            return None
        sides.append(int(text))
    return sides[0], sides[1]


def field(path: Path, entry: Any, key: str, kind: type | tuple[type, ...], what: str) -> Any:
    """Return `entry[key]` of type `kind`. Raises InputError with the file and `what` otherwise."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{path}: {what}: {key} = {brief(value)}: export the file again")
    return value
