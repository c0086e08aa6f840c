"""`pixelwise recipe`."""

from __future__ import annotations

import sys
from typing import Annotated

from typer import Argument

from pixelwise.cli.console import command


@command
def recipe(
    name: Annotated[str | None, Argument(help="Name of a shipped recipe, or a .toml file.")] = None,
) -> None:
    """Print a recipe with all its keys, to save, edit and pass to train --recipe."""
    from pixelwise.recipes.load_recipe import load_recipe, shipped_recipes

    text = load_recipe(name).to_toml()
    print(f"# shipped recipes: {', '.join(shipped_recipes())}", file=sys.stderr)
    print(text, end="")
