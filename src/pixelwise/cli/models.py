"""`pixelwise models`."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from pixelwise.cli.console import command, console, print_line


@command
def models() -> None:
    """List the networks with their size, multiply-adds and published scores."""
    import torch

    from pixelwise.models import MODELS, count_multiply_adds, count_parameters, create_model

    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("model", "backbone", "stride", "parameters", "multiply-adds", "VOC %"):
        is_text = name in {"model", "backbone"}
        table.add_column(name, no_wrap=True, justify="left" if is_text else "right")
    papers: dict[str, list[str]] = {}
    options, sources = _Footnotes(string.ascii_lowercase), _Footnotes(range(1, 100))
    notes = _Footnotes(string.ascii_uppercase)
    for name, entry in MODELS.items():
        papers.setdefault(entry.paper, []).append(name)
        for variant in entry.variants:
            with torch.device("meta"):
                model = create_model(name, num_classes=21, **variant.options)
                operations = count_multiply_adds(model, height=entry.size, width=entry.size) / 1e9
            table.add_row(
                name + options.mark(_extra_options(variant.options)),
                variant.backbone + notes.mark(variant.note),
                str(variant.stride),
                f"{count_parameters(model) / 1e6:.2f} M",
                f"{operations:.{0 if operations >= 100 else 1}f} G at {entry.size}",
                _score(variant.voc, sources),
            )
    console.print(table)
    print_line(
        "Sizes are for 21 classes, as in PASCAL VOC; multiply-adds are for a square image of the "
        f"given side.\nOptions\n{options}\nVOC %: mean IoU as published\n{sources}\n"
        f"Differs from the paper\n{notes}\nPapers\n"
        + "\n".join(f"  {paper}: {', '.join(names)}" for paper, names in papers.items())
    )


def _extra_options(options: Mapping[str, Any]) -> str:
    """Format the options without a column, as `--set model.options.KEY=VALUE` takes them."""
    shown = {"backbone", "output_stride"}
    return ", ".join(
        f"{key}={str(value).lower() if isinstance(value, bool) else value}"
        for key, value in options.items()
        if key not in shown
    )


def _score(voc: str, sources: _Footnotes) -> str:
    """Replace the source in `62.25 val (paper)` by a footnote; `-` if there is no number."""
    number, _, source = voc.partition(" ")
    if not number.replace(".", "", 1).isdigit():
        number, source = "-", voc
    return number + sources.mark(source)


class _Footnotes:
    """Texts below the table, each with its own mark in the table."""

    def __init__(self, marks: Any) -> None:
        self.marks = iter(marks)
        self.by_text: dict[str, str] = {}

    def mark(self, text: str) -> str:
        if not text:
            return ""
        if text not in self.by_text:
            self.by_text[text] = f"[{next(self.marks)}]"
        return f" {self.by_text[text]}"

    def __str__(self) -> str:
        return "\n".join(f"  {mark} {text}" for text, mark in self.by_text.items())
