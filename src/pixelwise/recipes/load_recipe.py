"""Load recipes from TOML files, by the name of a shipped recipe, or from a bundle."""

from __future__ import annotations

import tomllib
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pixelwise.errors import InputError
from pixelwise.recipes.schema import MACHINE_KEYS, Recipe, ResolvedRecipe, flatten, set_value

RENAMED_KEYS = {"layout": "memory_format", "model.pretrained": "model.weights"}
"""Keys of pixelwise 0.1 and their present names."""


def load_recipe(
    source: Path | str | None = None, overrides: dict[str, Any] | None = None
) -> Recipe:
    """Load a recipe.

    Args:
        source: A .toml file or the name of a shipped recipe. None: the default recipe.
        overrides: Values by dotted key, such as `{"optimizer.learning_rate": 0.02}`.

    Raises:
        InputError: For an unknown key or a value that is not allowed; one line per problem.
    """
    origin, values = ("recipe", {}) if source is None else _parse(source)
    for key, value in (overrides or {}).items():
        set_value(values, key, value)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise InputError(*_explain(origin, error)) from error


def load_resolved_recipe(path: Path) -> ResolvedRecipe:
    """Load the recipe that a run has saved.

    Raises:
        InputError: If pixelwise 0.1 wrote the file, or if a value is `auto` or not allowed.
    """
    _, values = _parse(path)
    if RENAMED_KEYS.keys() & flatten(values).keys():
        raise InputError(
            f"{path}: was written by pixelwise 0.1, and this version cannot use its runs: finish "
            "the run with pixelwise 0.1, or train again"
        )
    recipe = load_recipe(path)
    for key, value in recipe.flat().items():
        if value == "auto" and key not in MACHINE_KEYS:
            raise InputError(
                f"{path}: {key} is auto, but the recipe of a run contains the value that was "
                "chosen: restore the value"
            )
    return recipe.resolve({})


def load_bundle_recipe(saved: dict[str, Any]) -> Recipe:
    """Return a recipe with the seed and the data section of a bundle's, which divide its dataset.

    All other settings are the default ones, as are these if another version or a person wrote a
    value that is not valid.
    """
    try:
        return Recipe.model_validate({key: saved[key] for key in ("seed", "data") if key in saved})
    except ValidationError:
        return Recipe()


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that ship with pixelwise."""
    folder = resources.files("pixelwise") / "recipes"
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def parse_override(text: str) -> tuple[str, Any]:
    """Parse `optimizer.learning_rate=0.02` to a key and a TOML value, or else a plain string.

    Raises:
        InputError: If there is no `=`.
    """
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise InputError(f"{text!r}: write KEY=VALUE, such as optimizer.learning_rate=0.02")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _parse(source: Path | str) -> tuple[str, dict[str, Any]]:
    """Return how messages name the source, and its values."""
    # A name takes precedence over a file or folder of the same name; ./NAME is the file.
    path: Traversable = Path(source)
    if str(source) in shipped_recipes():
        path = resources.files("pixelwise") / "recipes" / f"{source}.toml"
    elif not str(source).endswith(".toml") and not path.is_file():
        raise InputError(
            f"recipe {str(source)!r}: is neither a file nor a shipped recipe: the shipped recipes "
            f"are {', '.join(shipped_recipes())}"
        )
    try:
        return str(source), tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source}: is not valid TOML ({error}): correct the line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: cannot be read ({error})") from error


def _explain(origin: str, error: ValidationError) -> list[str]:
    """Return one line per key; pydantic reports one error for each member of a union."""
    lines: dict[str, list[str]] = {}
    for fault in error.errors():
        # The location continues beyond the fields with union members and indices.
        table: Any = Recipe
        names = []
        for name in fault["loc"]:
            names.append(str(name))
            fields = getattr(table, "model_fields", {})
            if name not in fields or not hasattr(fields[name].annotation, "model_fields"):
                break
            table = fields[name].annotation
        key = ".".join(names)
        if key in RENAMED_KEYS:
            lines[f"{key} of pixelwise 0.1"] = [f"is now called {RENAMED_KEYS[key]}: rename it"]
            continue
        if fault["type"] == "extra_forbidden":
            lines[f"unknown key {key!r}"] = [f"allowed are {', '.join(table.model_fields)}"]
            continue
        text = fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        text = text.replace("greater than or equal to", "at least")
        text = text.replace("less than or equal to", "at most")
        shown = f"{key} = {fault['input']!r}" if fault["type"] != "value_error" else key
        lines.setdefault(shown, []).append(text[0].lower() + text[1:])
    return [f"{origin}: {shown}: {', or '.join(texts)}" for shown, texts in lines.items()]
