"""JSON and YAML files of annotation tools: read whole, or recognized by their first lines."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any

from pixelwise.errors import InputError
from pixelwise.file_io import check_regular

HEAD = 1 << 16
"""Characters that a quick look reads of a file."""


def brief(value: Any) -> str:
    """What a document holds, for a message: the beginning of what is large."""
    return _BRIEF.repr(value)


_BRIEF = reprlib.Repr()
_BRIEF.maxstring, _BRIEF.maxlist, _BRIEF.maxdict, _BRIEF.maxlevel = 200, 3, 3, 2


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises InputError where it is none."""
    try:
        check_regular(path)
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the file") from error
    except (ValueError, RecursionError) as error:  # also of numbers of thousands of digits
        raise InputError(
            f"{path}: is not whole JSON ({error}): export or download it again"
        ) from error


def top_keys(path: Path) -> set[str]:
    """The keys of the outermost object that the start of a JSON file shows.

    Of a list: those of its first object, and "[]" with them. Empty for what is no JSON object.
    """
    try:
        check_regular(path)
        with path.open(encoding="utf-8-sig") as stream:
            text = stream.read(HEAD)
    except (OSError, UnicodeDecodeError):
        return set()
    keys: set[str] = set()
    start = text.lstrip()
    wanted = 1
    if start.startswith("["):
        keys.add("[]")
        wanted = 2
    elif not start.startswith("{"):
        return keys
    depth, at = 0, 0
    while at < len(text):
        character = text[at]
        if character == '"':
            end = at + 1
            while end < len(text) and text[end] != '"':
                end += 2 if text[end] == "\\" else 1
            if depth == wanted and text[end + 1 : end + 20].lstrip().startswith(":"):
                keys.add(text[at + 1 : end])
            at = end
        elif character in "{[":
            depth += 1
        elif character in "}]":
            depth -= 1
            if depth < wanted and wanted == 2:
                break  # the first object of a list has ended
        at += 1
    return keys


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a YAML file that is a mapping. Raises InputError where it is none."""
    import yaml

    try:
        check_regular(path)
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check the file") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: is not YAML ({reason}): correct the line") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no keys: write at least `names: [first, second]`")
    return content


def field(path: Path, entry: Any, key: str, kind: type | tuple[type, ...], what: str) -> Any:
    """`entry[key]`, checked to be of `kind`. Raises InputError that names the file and `what`."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{path}: {what}: {key} = {brief(value)}: export the file again")
    return value
