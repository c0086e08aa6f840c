"""Render HTML pages from templates that extend base.html.j2.

A page loads nothing from the network: images are data URLs, and a content security policy forbids
the rest. The template engine escapes all text.
"""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image

from pixelwise.data.classes import Color
from pixelwise.file_io import atomic

NARROW_SPACE = "\N{NARROW NO-BREAK SPACE}"


def write_page(path: Path, *, package: str, template: str = "page.html.j2", **values: Any) -> None:
    """Render a template of a package to a file, atomically.

    Args:
        path: The HTML file to write.
        package: Name of the package with the template.
        template: Name of the template.
        values: Variables of the template.

    Raises:
        InputError: If the file cannot be written.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name, "") for name in (package, "pixelwise.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    generator = package.rpartition(".")[2]  # as in `pixelwise.overwriting.html_mark`
    page = environment.get_template(template).render(generator=generator, **values)
    with atomic(path) as temporary:
        # File names may hold characters that UTF-8 cannot encode.
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def known(value: Any) -> float | None:
    """Return a finite number, or None for values that the page shows as a dash."""
    return float(value) if value is not None and math.isfinite(value) else None


def percent(value: Any, digits: int = 1) -> str:
    """Format 0.765 as `76.5 %`, with one more digit below 1 %, and unknown values as a dash."""
    number = known(value)
    if number is None:
        return "\N{EN DASH}"
    if 0 < abs(number) < 0.01 and digits == 1:
        digits = 2
    return f"{100 * number:.{digits}f}{NARROW_SPACE}%"


def css_color(color: Color) -> str:
    """Format a color as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def data_url(image: Image.Image, *, kind: str = "PNG", **options: Any) -> str:
    """Encode an image as a data URL. `options` are passed to Pillow's writer."""
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    text = base64.b64encode(stream.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{text}"
