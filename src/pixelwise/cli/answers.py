"""The options of predict for tables, polygons and probabilities, and the summary it prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Context, Option

from pixelwise.cli.console import console, make_table, percent, print_line

if TYPE_CHECKING:
    from pixelwise.inference import AnswerOptions

Table = Annotated[
    Path | None,
    Option(
        metavar="FILE",
        help="Also write the areas of all classes, one row per image and class, as .csv, .json or "
        ".parquet.",
        show_default=False,
    ),
]
To = Annotated[
    str | None,
    Option(
        metavar="FORMAT",
        help="Annotations: labelme, coco, cvat, label-studio or yolo, as a dataset in place of "
        "masks and overlays; or geojson, which also writes outlines as NAME.geojson.",
        show_default=False,
    ),
]
GeoPackage = Annotated[
    bool, Option("--geopackage", help="With --to geojson: write NAME.gpkg instead.")
]
Shapes = Annotated[
    str | None,
    Option(
        metavar="polygons|masks",
        help="With --to: by default masks for cvat and label-studio, and polygons for the others.",
        show_default=False,
    ),
]
Tolerance = Annotated[
    float, Option(metavar="PIXELS", help="How far polygons may be from the border; 0 is exact.")
]
Probabilities = Annotated[
    bool,
    Option(
        "--probabilities", help="Also write NAME_probabilities.tif, with one band for each class."
    ),
]
Confidence = Annotated[
    bool,
    Option(
        "--confidence", help="Also write NAME_confidence.tif: the probability of the mask's class."
    ),
]
RasterType = Annotated[
    str, Option(metavar="TYPE", help="Of both: uint8 (0..255 for 0..1) or float16.")
]
MinArea = Annotated[
    str,
    Option(
        metavar="AREA",
        help="Merge smaller components into their surroundings, in all results: pixels, or square "
        "meters such as 2.5m2.",
    ),
]
FillHoles = Annotated[
    bool,
    Option(
        "--fill-holes",
        help="Fill components of the background that one class encloses, in all results.",
    ),
]
Background = Annotated[
    str, Option(metavar="CLASS", help="Background of --fill-holes; it has no outlines.")
]
PixelSize = Annotated[
    float | None,
    Option(
        metavar="METERS",
        help="Side of a pixel on the ground, for square meters. By default from the georeference.",
        show_default=False,
    ),
]


def parse_answers(ctx: Context) -> AnswerOptions:
    """Build `AnswerOptions` from the options of predict; raise InputError for invalid ones."""
    from pixelwise.inference.answer_options import AnswerOptions
    from pixelwise.inference.tables import check_replaced

    given = ctx.params
    options = AnswerOptions(**{field.name: given[field.name] for field in fields(AnswerOptions)})
    if options.table is not None:
        check_replaced(options.table, overwrite=given["overwrite"])
    return options


def show_areas(rows: Sequence[Mapping[str, Any]], table: Path) -> None:
    """Print the areas over all images or frames, and say where the table is.

    Args:
        rows: The rows of the table.
        table: Its file.
    """
    classes: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        classes.setdefault(row["class"], []).append(row)
    columns = ["images", "pixels", "share, %", "components", "confidence, %"]
    measured = any(row["square_meters"] is not None for row in rows)
    total = sum(row["pixels"] for row in rows)
    unit = "frames" if rows and "frame" in rows[0] else "images"
    columns[0] = f"in {unit}"
    shown = make_table("areas", ["class"], columns + (["square meters"] if measured else []))
    for name, mine in classes.items():
        pixels = sum(row["pixels"] for row in mine)
        sure = [row for row in mine if row["mean_confidence"] is not None]
        known = sum(row["pixels"] for row in sure)
        mean = sum(row["mean_confidence"] * row["pixels"] for row in sure)
        area = sum(row["square_meters"] or 0 for row in mine)
        shown.add_row(
            name,
            str(sum(row["pixels"] > 0 for row in mine)),
            str(pixels),
            percent(pixels / total if total else None),
            str(sum(row["components"] for row in mine)),
            percent(mean / known if known else None),
            *([f"{area:.6g}"] if measured else []),
        )
    console.print(shown)
    missing = len({(row["image"]) for row in rows if row["square_meters"] is None})
    if measured and missing:
        print_line(f"{missing} images have no georeference and are not in the square meters")
    print_line(f"areas written to {table}")


def show_flagged(images: Sequence[str], total: int) -> None:
    """Print which images are unlike the data that the network was calibrated on."""
    if images:
        names = ", ".join(images[:3]) + (", ..." if len(images) > 3 else "")
        print_line(
            f"{len(images)} of {total} images are unlike the data that the network was calibrated "
            f"on, so their masks may be wrong: {names}"
        )
