"""A page from a template that extends base.html.j2, and what such templates are given.

A page asks nothing of the network: images are data URLs, and a content security policy in it
forbids the rest. Every text is escaped by the template engine.
"""

from __future__ import annotations

import base64
import io
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, ChoiceLoader, Environment, FunctionLoader, StrictUndefined
from PIL import Image

from pixelwise.data.classes import Color
from pixelwise.file_io import atomic

NARROW_SPACE = "\N{NARROW NO-BREAK SPACE}"


def write_page(path: Path, *, package: str, **values: Any) -> None:
    """Render `page.html.j2` of a package to `path`, atomically: no half page ever stands there.

    Raises InputError where the file cannot be written.
    """
    environment = Environment(
        loader=ChoiceLoader([_of(package), _of("pixelwise.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    page = environment.get_template("page.html.j2").render(**values)
    with atomic(path) as side:
        side.write_text(page, encoding="utf-8", errors="backslashreplace")  # names of files


def _of(package: str) -> BaseLoader:
    def source(name: str) -> str | None:
        file = files(package).joinpath(name)
        return file.read_text(encoding="utf-8") if file.is_file() else None

    return FunctionLoader(source)


def known(value: Any) -> float | None:
    """A number that can be shown, or None: what is absent or not finite is a dash on the page."""
    return float(value) if value is not None and math.isfinite(value) else None


def percent(value: Any, digits: int = 1) -> str:
    """`76.5 %` of 0.765, a dash of what is not known; a digit more for shares under 1 %."""
    number = known(value)
    if number is None:
        return "\N{EN DASH}"
    if 0 < abs(number) < 0.01 and digits == 1:
        digits = 2
    return f"{100 * number:.{digits}f}{NARROW_SPACE}%"


def css_color(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def data_url(image: Image.Image, *, kind: str = "PNG", **options: Any) -> str:
    """The image inside a URL; options: of Pillow's writer."""
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    text = base64.b64encode(stream.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{text}"
