"""`pixelwise doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table
from rich.text import Text
from typer import Argument, Option

from pixelwise.cli import flags
from pixelwise.cli.console import (
    Bar,
    JsonOutput,
    command,
    console,
    facts_table,
    make_table,
    print_line,
)

if TYPE_CHECKING:
    from pixelwise.doctor import Diagnosis

STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


@command
def doctor(
    data: Annotated[Path, Argument(help=flags.DATA_OR_ADDRESS)],
    json_file: flags.JsonFile = None,
    html: Annotated[
        Path | None,
        Option("--html", "--out", metavar="FILE", help="Write an HTML page with images."),
    ] = None,
    workers: Annotated[
        int | None, Option(min=1, help="Number of threads.", show_default="one per core")
    ] = None,
    val_fraction: Annotated[
        float,
        Option(
            min=0.0, max=1.0, help="Fraction of the images drawn for validation if there is no val."
        ),
    ] = 0.2,
    seed: Annotated[int, Option(min=0, help="Random seed of that draw, as in train.")] = 0,
    group_by: flags.GroupBy = None,
    overwrite: flags.Overwrite = False,
    images: flags.Images = None,
    masks: flags.Masks = None,
    write_data_toml: Annotated[
        bool,
        Option(
            "--write-data-toml",
            help="Write DATA/data.toml, which states how the dataset is read, to correct it there.",
        ),
    ] = False,
) -> None:
    """Check a dataset before training and report each problem with its remedy.

    Exit code: 0 if training would run, 1 if it would not, 2 if the folder cannot be examined.
    """
    from pixelwise.data.layouts.write_data_toml import check_absent
    from pixelwise.data.layouts.write_data_toml import write_data_toml as write
    from pixelwise.doctor import examine
    from pixelwise.errors import InputError
    from pixelwise.overwriting import check_output, html_mark
    from pixelwise.storage.addresses import as_address

    if write_data_toml:
        if as_address(data) is not None:
            raise InputError(
                f"--write-data-toml: {data} is an address, where it cannot write: examine a local "
                "copy"
            )
        check_absent(data)
    output = JsonOutput(json_file, "doctor", overwrite=overwrite)
    if html is not None:
        check_output(html, mark=html_mark("doctor"), overwrite=overwrite)
    with Bar("examining the pairs") as bar:
        diagnosis = examine(
            data,
            val_fraction=val_fraction,
            seed=seed,
            group_by=group_by or "",
            workers=workers,
            progress=bar,
            spec=flags.dataset_spec(images, masks),
        )
    if html is not None:
        from pixelwise.doctor.doctor_page import write_page

        check_output(html, mark=html_mark("doctor"), overwrite=overwrite)  # it may be new
        write_page(html, diagnosis)
    if not output.alone:
        show(diagnosis)
    output.write(diagnosis.to_json())
    if html is not None and not output.alone:
        print_line(f"written to {html}")
    if write_data_toml:
        path = write(data, diagnosis.scan.source, diagnosis.scan.classes)
        if not output.alone:
            print_line(f"written to {path}")
    if not diagnosis.trains:
        raise SystemExit(1)


def show(diagnosis: Diagnosis) -> None:
    """Print facts, classes, findings by kind, suggestions and the verdict."""
    from pixelwise.doctor.doctor_page import fact_lines

    lines = {key: _printable(text) for key, text in fact_lines(diagnosis).items()}
    console.print(facts_table(lines))
    if diagnosis.facts.classes:
        console.print(_classes_table(diagnosis))
    if diagnosis.findings:
        console.print(_findings_table(diagnosis))
    if diagnosis.suggestions:
        print_line(Text("suggested options for train", style="italic"))
    for suggestion in diagnosis.suggestions:
        print_line(f"{suggestion.flag}  {suggestion.reason}")
    style = "bold red" if not diagnosis.trains else "bold"
    print_line(Text(diagnosis.verdict, style=style))


def _classes_table(diagnosis: Diagnosis) -> Table:
    splits = list(diagnosis.facts.pairs)
    columns = [f"{split} %" for split in splits] + [f"images in {split}" for split in splits]
    table = make_table("classes", ["class"], [*columns, "typical object, pixels"])
    for row in diagnosis.facts.classes:
        table.add_row(
            _printable(row.name),
            *(f"{100 * row.share[split]:.2f}" for split in splits),
            *(str(row.images[split]) for split in splits),
            "-" if row.typical is None else str(row.typical),
        )
    return table


def _findings_table(diagnosis: Diagnosis) -> Table:
    """One row per kind: the number of findings, the first one, and its remedy."""
    table = Table(title="findings", title_justify="left", show_lines=True)
    for name in ("kind", "count", "first", "remedy"):
        table.add_column(name, justify="right" if name == "count" else "left", overflow="fold")
    for kind, severity, findings in diagnosis.by_kind():
        first = findings[0]
        if kind.by_example:  # each finding is about another class
            message = "; ".join(finding.message for finding in findings)
        else:
            message = f"{first.subject(diagnosis.root)} {first.message}".lstrip()
        table.add_row(
            Text(f"{severity.value}\n{kind.id}", style=STYLES[severity.value]),
            str(len(findings)),
            _printable(message),
            _printable(first.remedy),
        )
    return table


def _printable(text: str) -> str:
    """Escape control characters of file names."""
    spaced = text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in spaced)
