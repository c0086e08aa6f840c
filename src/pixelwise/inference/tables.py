"""Tables of areas as CSV, JSON or Parquet files, which are written completely or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelwise.errors import InputError, needs_package
from pixelwise.file_io import atomic, check_writable
from pixelwise.overwriting import check_output, has_mark, json_mark

SUFFIXES = (".csv", ".json", ".parquet")
COLUMNS = {
    "image": "string",
    "frame": "int64",
    "class": "string",
    "pixels": "int64",
    "share": "float64",
    "components": "int64",
    "largest_component": "int64",
    "mean_confidence": "float64",
    "square_meters": "float64",
    "flagged": "bool",
    "cleaned": "string",
}
"""The columns and their types. Tables of videos have `frame`, and cleaned ones `cleaned`."""
AREA_COLUMNS = ",".join(list(COLUMNS)[2:10])
MARKS = (json_mark("predict"), f"image,{AREA_COLUMNS}", f"image,frame,{AREA_COLUMNS}")
"""What CSV and JSON tables of prediction contain."""

Row = Mapping[str, Any]


def check_table(path: Path) -> None:
    """Raise InputError if a table cannot be written in this format or place."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: the suffix of a table must be {', '.join(SUFFIXES)}")
    check_writable(path)
    if path.suffix.lower() == ".parquet":
        _require_pyarrow()


def check_replaced(path: Path, *, overwrite: bool) -> None:
    """Raise InputError if the table would replace a file that prediction did not write."""
    own = any(has_mark(path, mark) for mark in MARKS)
    if path.suffix.lower() == ".parquet":
        own = path.is_file() and _is_parquet_table(path)
    check_output(path, overwrite=overwrite or own)


def write_table(
    path: Path, rows: Sequence[Row], *, options: Mapping[str, Any], overwrite: bool = False
) -> None:
    """Write rows that all have the same columns.

    Args:
        path: A .csv, .json or .parquet file.
        rows: The rows.
        options: The options of the prediction, which JSON and Parquet files hold as well.
        overwrite: Whether to replace a file that prediction did not write.

    Raises:
        InputError: If the file cannot be written, or must not be replaced.
    """
    check_replaced(path, overwrite=overwrite)  # it may have appeared meanwhile
    about = {"written_by": "pixelwise predict", "options": dict(options)}
    suffix = path.suffix.lower()
    with atomic(path) as side:
        if suffix == ".json":
            text = json.dumps({**about, "rows": list(rows)}, indent=1, allow_nan=False)
            side.write_text(text + "\n", encoding="utf-8")
        elif suffix == ".csv":
            # Names of files need not be UTF-8.
            with side.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
                writer = csv.DictWriter(stream, list(rows[0]) if rows else MARKS[1].split(","))
                writer.writeheader()
                writer.writerows(rows)
        else:
            _write_parquet(side, rows, about)


def _write_parquet(path: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    pyarrow, parquet = _require_pyarrow()
    names = rows[0] if rows else COLUMNS
    types = {"bool": pyarrow.bool_()}
    schema = pyarrow.schema(
        [(name, types.get(kind, kind)) for name, kind in COLUMNS.items() if name in names],
        metadata={"pixelwise": json.dumps(about)},
    )
    parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows], schema), path)


def _is_parquet_table(path: Path) -> bool:
    pyarrow, parquet = _require_pyarrow()
    try:
        return b"pixelwise" in (parquet.read_schema(path).metadata or {})
    except (pyarrow.ArrowException, OSError):
        return False


def _require_pyarrow() -> tuple[Any, Any]:
    with needs_package(
        "Parquet files need pyarrow, which is not installed: pip install 'pixelwise[parquet]'"
    ):
        import pyarrow
        from pyarrow import parquet
    return pyarrow, parquet
