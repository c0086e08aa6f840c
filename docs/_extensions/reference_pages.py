"""Fill the placeholders of the reference pages from the code, so that they cannot become stale.

A page holds a line `<!-- generated: NAME -->`, which is replaced while Sphinx reads the page, with
everything up to `<!-- end -->`: a note for those who read the source of the page on a forge.

    command-line    every command with its arguments and options, from the typer application
    recipe          every recipe key, from the pydantic schema
    recipes         the shipped recipes with the comment that heads each
    networks        what `pixelwise models` prints
    published-data  what `pixelwise data list` prints
    python-api      the names of `pixelwise.__all__`, as autodoc directives
    doctor          the kinds of findings

A line `<!-- object: package.module.name -->` is replaced by an autodoc directive.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import resources
from typing import TYPE_CHECKING, Any

from docutils import nodes

import pixelwise

if TYPE_CHECKING:
    import click
    from sphinx.application import Sphinx

PLACEHOLDER = re.compile(
    r"^<!-- generated: ([a-z-]+) -->\n.*?^<!-- end -->$", flags=re.MULTILINE | re.DOTALL
)
HIDDEN_OPTIONS = {"help"}


def command_line() -> str:
    """Return a section for each command: usage, description, and a table of its parameters."""
    from typer.main import get_command

    from pixelwise.cli import app

    return "\n".join(_command_sections(get_command(app), "pixelwise"))


def _command_sections(command: click.Command, path: str) -> Iterator[str]:
    commands = getattr(command, "commands", None)
    if commands is not None:
        for name, inner in commands.items():
            yield from _command_sections(inner, f"{path} {name}")
        return
    parameters = [p for p in command.params if p.name not in HIDDEN_OPTIONS]
    arguments = [p for p in parameters if p.param_type_name == "argument"]
    options = [p for p in parameters if p.param_type_name == "option"]
    usage = " ".join([path, *map(_argument_usage, arguments), *(["[OPTIONS]"] if options else [])])
    yield f"## {path}\n"
    yield f"```text\n{usage}\n```\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    for argument in arguments:
        yield f"`{_name(argument)}`: {_help(argument)}\n"
    if options:
        rows = [[_option_names(o), _default(o), _help(o)] for o in options]
        yield _table(["option", "default", "meaning"], rows)


def _argument_usage(argument: Any) -> str:
    name = _name(argument) + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name).strip("{}[]").upper()


def _help(parameter: Any) -> str:
    return " ".join((getattr(parameter, "help", None) or "").split())


def _option_names(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    if option.is_flag:
        return names
    return f"{names} `{option.metavar or _type_name(option)}`"


def _type_name(option: Any) -> str:
    """Return the type of a value, as typer and click (older versions of typer) know it."""
    descriptor = getattr(option, "type_descriptor", None)
    if descriptor is None:
        return str(option.type.name).upper()
    name = getattr(descriptor.annotation, "__name__", str(descriptor.annotation))
    return {"str": "TEXT", "int": "INTEGER", "float": "NUMBER", "list": "TEXT"}.get(
        name, name.upper()
    )


def _default(option: Any) -> str:
    if isinstance(option.show_default, str):
        return option.show_default
    if option.required:
        return "required"
    if option.is_flag:
        return "on" if option.default is True else "off"
    if option.default in (None, (), [], ""):
        return ""
    return f"`{option.default}`"


def recipe_keys() -> str:
    """Return a table of keys for each table of a recipe, with types and defaults."""
    from pixelwise.recipes.schema import Recipe

    schema = Recipe.model_json_schema()
    sections = [_recipe_table("", Recipe, schema, schema)]
    for name, field in Recipe.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            own = _resolve(schema["properties"][name], schema)
            sections += [f"## {name}\n", _recipe_table(f"{name}.", field.annotation, own, schema)]
    return "\n".join(sections)


def _recipe_table(prefix: str, model: Any, own: dict[str, Any], schema: dict[str, Any]) -> str:
    rows = []
    for name, field in model.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            continue
        default = field.get_default(call_default_factory=True)
        allowed = _allowed(own["properties"][name], schema)
        rows.append([f"`{prefix}{name}`", f"`{_toml(default)}`", allowed, field.description or ""])
    text = inspect.cleandoc(model.__doc__ or "").replace("\n", " \n")
    return text + "\n\n" + _table(["key", "default", "allowed", "meaning"], rows)


def _resolve(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in part:
        return dict(schema["$defs"][part["$ref"].rpartition("/")[2]])
    return part


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return str(value)


def _allowed(part: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return what a JSON schema allows, in words."""
    part = _resolve(part, schema)
    for key in ("anyOf", "oneOf"):
        if key in part:
            return ", or ".join(_allowed(one, schema) for one in part[key])
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    if "const" in part:
        return f"`{part['const']}`"
    kind = part.get("type", "")
    if kind == "array":
        items = part.get("prefixItems")
        one = _allowed((items or [part.get("items", {})])[0], schema)
        return f"{len(items)} values, each {one}" if items else f"list of {one}"
    words = {
        "integer": "integer", "number": "number", "string": "text",
        "boolean": "`true`, `false`", "object": "table",
    }.get(kind, kind)  # fmt: skip
    limits = [
        f"{symbol} {part[key]}"
        for key, symbol in (
            ("minimum", "≥"), ("exclusiveMinimum", ">"),
            ("maximum", "≤"), ("exclusiveMaximum", "<"),
        )
        if key in part
    ]  # fmt: skip
    return " ".join([words, " and ".join(limits)]).rstrip()


def shipped_recipes() -> str:
    """Return a table of the shipped recipes: the name and the comment at the top of the file."""
    rows = []
    folder = resources.files("pixelwise") / "recipes"
    for name in sorted(file.name for file in folder.iterdir() if file.name.endswith(".toml")):
        text = (folder / name).read_text("utf-8")
        lines = []
        for line in text.splitlines():
            if not line.startswith("#"):
                break
            lines.append(line.removeprefix("#").strip())
        rows.append([f"`{name.removesuffix('.toml')}`", " ".join(lines)])
    return _table(["recipe", "what it does"], rows)


def printed(*arguments: str) -> str:
    """Return what a command prints, as a block."""
    done = subprocess.run(
        [sys.executable, "-m", "pixelwise", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "92", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return "```text\n" + "\n".join(lines) + "\n```\n"


def doctor_kinds() -> str:
    """Return a table of the kinds of findings, in the order of the checks' modules."""
    from pixelwise.doctor import checks
    from pixelwise.doctor.diagnosis import Kind

    rows: dict[str, list[str]] = {}
    for module in pkgutil.iter_modules(checks.__path__):
        loaded = importlib.import_module(f"{checks.__name__}.{module.name}")
        for kind in vars(loaded).values():
            if isinstance(kind, Kind):
                stops = "yes" if kind.stops else ""
                rows[kind.id] = [f"`{kind.id}`", str(kind.severity), stops, kind.title]
    return _table(["id", "severity", "stops training", "finding"], list(rows.values()))


def python_api() -> str:
    """Return an autodoc directive for each public name of the package."""
    sections = []
    for name in sorted(pixelwise.__all__, key=str.casefold):
        if name.startswith("__"):
            continue
        value = getattr(pixelwise, name)
        sections.append(_autodoc(value.__module__, value.__name__, value, title=name))
    return "\n".join(sections)


def python_object(path: str) -> str:
    """Return an autodoc directive for `package.module.name`."""
    module, _, name = path.rpartition(".")
    value = getattr(importlib.import_module(module), name)
    return _autodoc(value.__module__, name, value, title=name)


def _autodoc(module: str, name: str, value: Any, *, title: str) -> str:
    kind = "autofunction"
    if isinstance(value, type):
        kind = "autoexception" if issubclass(value, Exception) else "autoclass"
    return f"## {title}\n\n```{{eval-rst}}\n.. {kind}:: {module}.{name}\n```\n"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(_cell, line)) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


GENERATORS: dict[str, Callable[[], str]] = {
    "command-line": command_line,
    "recipe": recipe_keys,
    "recipes": shipped_recipes,
    "networks": lambda: printed("models"),
    "published-data": lambda: printed("data", "list"),
    "python-api": python_api,
    "doctor": doctor_kinds,
}

OBJECT = re.compile(r"^<!-- object: ([\w.]+) -->$", flags=re.M)


def _fill(app: Sphinx, docname: str, source: list[str]) -> None:
    text = PLACEHOLDER.sub(lambda match: GENERATORS[match[1]](), source[0])
    source[0] = OBJECT.sub(lambda match: python_object(match[1]), text)


ARRAY = re.compile(
    r"~?numpy\.ndarray\[tuple\[~?typing\.Any, \.\.\.\], ~?numpy\.dtype\[~?(?:\w+\.)*(\w+)\]\]"
)
STARS = re.compile(r"(?<![\\*\w`])(\*{1,2})(?=\w)(?![^`]*`)(?!\w+\*)")


def _escape_stars(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Keep `**options` and `*paths` in docstrings from being read as markup."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith(("* ", ":")):
            lines[number] = STARS.sub(r"\\\1", line)


def _shorten_types(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returned: str
) -> tuple[str | None, str | None] | None:
    """Write `NDArray[uint8]` as the source does, and leave out what `docs/recipe.md` tells."""
    if not signature:
        return None
    if isinstance(obj, type) and hasattr(obj, "model_fields"):
        return "(**settings)", None

    def shorten(text: str | None) -> str | None:
        return text and ARRAY.sub(r"NDArray[\1]", text.replace("<factory>", "..."))

    return shorten(signature), shorten(returned)


def _write_dashes(app: Sphinx, doctree: Any) -> None:
    """Put a colon between a parameter and its meaning, where Sphinx writes two hyphens."""
    for text in list(doctree.findall(nodes.Text)):
        if str(text) == " -- ":
            text.parent.replace(text, nodes.Text(": "))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.connect("source-read", _fill)
    app.connect("autodoc-process-docstring", _escape_stars)
    app.connect("autodoc-process-signature", _shorten_types)
    app.connect("doctree-read", _write_dashes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
