"""What a layout finds in a folder: pairs of files by split, before any of them is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from pixelwise.data.classes import Classes
from pixelwise.data.mask_files import MaskReading, read_stored_mask

SPLITS = ("train", "val", "test")


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


@dataclass(frozen=True)
class Sample:
    """An image and its mask; `name` is unique in the dataset and the same on every system."""

    name: str
    image: Path
    mask: MaskSource


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
    """

    root: Path
    layout: str
    splits: dict[str, list[Sample]]
    classes: Classes | None = None
    rgb_allowed: bool = False
    notes: list[str] = field(default_factory=list)
    val_drawn: bool = False
    stated: dict[str, Any] = field(default_factory=dict)
