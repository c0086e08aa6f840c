"""Probabilities as TIFF files with the georeference of their image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from pixelwise.inference.batch.mask_tiff import ASCII

GDAL_METADATA = 42112


def write_raster(
    path: Path,
    values: NDArray[np.float32],
    *,
    bands: Sequence[str],
    raster_type: str,
    georeference: Sequence[tuple[Any, ...]] = (),
    description: str = "",
) -> None:
    """Write probabilities as a TIFF file with names and the scale of the bands, as GDAL has them.

    Args:
        path: The file.
        values: (bands, H, W) in 0..1.
        bands: Names of the bands.
        raster_type: "uint8", which stores round(255 * value), or "float16".
        georeference: Tags, as in `TiffSource.georeference`.
        description: The description of the image.

    Raises:
        OSError: If the file cannot be written.
    """
    import tifffile

    is_bytes = raster_type == "uint8"
    stored = np.rint(values * 255).astype(np.uint8) if is_bytes else values.astype(np.float16)
    items = [_item(i, "DESCRIPTION", "description", name) for i, name in enumerate(bands)]
    if is_bytes:
        items += [_item(i, "SCALE", "scale", repr(1 / 255)) for i in range(len(bands))]
    text = f"<GDALMetadata>{''.join(items)}</GDALMetadata>"
    size = len(text.encode()) + 1
    big = stored.nbytes > 3 << 30
    with path.open("wb+") as stream, tifffile.TiffWriter(stream, bigtiff=big) as writer:
        writer.write(
            stored if len(bands) > 1 else stored[0],
            photometric="minisblack",
            planarconfig="separate" if len(bands) > 1 else None,
            compression="zlib",
            extratags=[*georeference, (GDAL_METADATA, ASCII, size, text.encode(), True)],
            description=description.encode("ascii", "backslashreplace").decode() or None,
            metadata=None,
            software=False,
            maxworkers=1,
        )


def _item(band: int, name: str, role: str, value: str) -> str:
    return f'<Item name="{name}" sample="{band}" role="{role}">{escape(value)}</Item>'
