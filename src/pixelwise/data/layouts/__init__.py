"""The folder layouts that are understood. A new one is a file here and a line in LAYOUTS."""

from __future__ import annotations

from pathlib import Path

from pixelwise.data.layouts import camvid, folders
from pixelwise.data.source import Source
from pixelwise.errors import InputError

LAYOUTS = (camvid, folders)
"""In the order in which they are tried; each has DESCRIPTION, detect(root) and read(root)."""


def find(root: Path) -> Source:
    """Recognise the layout of `root` and list its pairs.

    Raises InputError where there is no such folder, no layout fits, or a file lacks its partner.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "is not there"
        raise InputError(f"{root}: {what}: give the folder that holds the images and masks")
    for layout in LAYOUTS:
        if layout.detect(root):
            source: Source = layout.read(root)
            return source
    known = "; ".join(layout.DESCRIPTION for layout in LAYOUTS)
    raise InputError(f"{root}: no images and masks found in a known layout. Known are: {known}")
