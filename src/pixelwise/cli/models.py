"""`pixelwise models`."""

from __future__ import annotations

from rich import box
from rich.table import Table

from pixelwise.cli.console import command, console


@command
def models() -> None:
    """List the networks: size, work, and the published score with its source."""
    import torch

    from pixelwise.models import MODELS, count_multiply_adds, count_parameters, create_model

    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("model", "backbone", "stride", "parameters", "multiply-adds", "VOC %"):
        table.add_column(
            name, no_wrap=True, justify="left" if name in {"model", "backbone"} else "right"
        )
    papers: dict[str, list[str]] = {}
    sources: list[str] = []
    for name, entry in MODELS.items():
        papers.setdefault(entry.paper, []).append(name)
        for variant in entry.variants:
            with torch.device("meta"):
                model = create_model(name, num_classes=21, **variant.options)
                operations = count_multiply_adds(model, height=entry.size, width=entry.size)
            figure, _, source = variant.voc.partition(" ")
            if source and source not in sources:
                sources.append(source)
            table.add_row(
                name,
                variant.backbone,
                str(variant.stride),
                f"{count_parameters(model) / 1e6:.2f} M",
                f"{operations / 1e9:.1f} G at {entry.size}",
                f"{figure} [{sources.index(source) + 1}]" if figure else "-",
            )
    console.print(table)
    console.print(
        "For 21 classes, as in PASCAL VOC; multiply-adds for a square image of the size named.\n"
        "VOC %: mean IoU as published"
        + "".join(f"\n  [{number}] {source}" for number, source in enumerate(sources, start=1))
        + "\nPapers"
        + "".join(f"\n  {paper}: {', '.join(names)}" for paper, names in papers.items()),
        soft_wrap=True,
    )
