"""What a layout finds in a folder: pairs of files by split, before any of them is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from pixelwise.data.classes import Classes
from pixelwise.data.image_files import read_raw
from pixelwise.data.mask_files import MaskReading, read_stored_mask
from pixelwise.data.pixel_format import RawImage

SPLITS = ("train", "val", "test")
NO_DATA = 65535
"""Stored value of pixels of a raster without label or without image; see `Source.has_no_data`."""


class MaskSource(Protocol):
    """Where a mask comes from: an image file, or polygons that are rasterized when read."""

    @property
    def path(self) -> Path:
        """The file to name in error messages."""

    def read(self, size: tuple[int, int]) -> NDArray[Any]:
        """Read or rasterize the mask.

        Args:
            size: (height, width) of the upright image, for masks that are rasterized. Image files
                ignore it and have their own size.

        Returns:
            The stored values (H, W), unsigned, or the colors (H, W, 3) of an RGB mask.

        Raises:
            InputError: With the file, the problem and the remedy.
        """


@dataclass(frozen=True)
class MaskFile:
    """A mask in a separate image file, and what identifies its classes."""

    path: Path
    reading: MaskReading = MaskReading.VALUES

    def read(self, size: tuple[int, int]) -> NDArray[Any]:
        return read_stored_mask(self.path).read_by(self.reading, self.path)


class ImagePart(Protocol):
    """An image that is a part of a file, and is read when it is needed."""

    def read(self, label: Path) -> RawImage:
        """Read the stored values; `label` names the part in errors."""


@dataclass(frozen=True)
class Sample:
    """An image and its mask.

    Attributes:
        name: Unique in the dataset, and the same on every system.
        image: The file; for a part of a file, a path that names the part and does not exist.
        mask: Where the mask comes from.
        part: The part of a file; None if the image is a file.
        group: Samples of a group are drawn for the same split; empty for a group of its own.
    """

    name: str
    image: Path
    mask: MaskSource
    part: ImagePart | None = None
    group: str = ""

    def read_raw(self) -> RawImage:
        """Decode the image to its stored values. Raises InputError as `image_files.read_raw`."""
        return read_raw(self.image) if self.part is None else self.part.read(self.image)


@dataclass
class Source:
    """A dataset as found on disk.

    Attributes:
        root: The folder.
        layout: Name of the layout.
        splits: The samples of train, val and test; of `all` alone if the folder has no splits.
        classes: From classes.toml, or known from the layout; None if they must be inferred.
        rgb_allowed: Whether the colors of `classes` are known, so that RGB masks can be read.
        notes: What was found and assumed, for the user.
        val_drawn: Whether `val` was drawn at random.
        stated: What options and data.toml state about the dataset, as plain values.
        has_no_data: Whether masks may hold NO_DATA, which is ignored whatever the classes are.
        gap: Distance in pixels below which a training window of a raster is left out because of a
            window in another split.
    """

    root: Path
    layout: str
    splits: dict[str, list[Sample]]
    classes: Classes | None = None
    rgb_allowed: bool = False
    notes: list[str] = field(default_factory=list)
    val_drawn: bool = False
    stated: dict[str, Any] = field(default_factory=dict)
    has_no_data: bool = False
    gap: float = 0
