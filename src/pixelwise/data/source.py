"""What a layout finds in a folder: pairs of files by split, before any of them is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from pixelwise.data.classes import Classes
from pixelwise.data.image_files import read_mask

SPLITS = ("train", "val", "test")


class MaskSource(Protocol):
    """Where one mask comes from: an image, or outlines that have to be drawn."""

    @property
    def path(self) -> Path:
        """The file that a message about this mask names."""

    def read(self, size: tuple[int, int]) -> NDArray[Any]:
        """The stored numbers, unsigned, (H, W), or the colors (H, W, 3) of an RGB mask.

        size: (height, width) of the upright image, which outlines are drawn to. An image has its
            own, whatever `size` says.

        Raises InputError with the file, the fault and the remedy.
        """


@dataclass(frozen=True)
class MaskFile:
    """A mask that is an image of its own."""

    path: Path

    def read(self, size: tuple[int, int]) -> NDArray[Any]:
        return read_mask(self.path)


@dataclass(frozen=True)
class GrayRgbFile:
    """An index mask that was saved as RGB: three equal channels, the first of which is read."""

    path: Path

    def read(self, size: tuple[int, int]) -> NDArray[Any]:
        return read_mask(self.path)[..., 0]


@dataclass(frozen=True)
class Sample:
    """One image and its mask; `name` is unique in the data set, the same on every system."""

    name: str
    image: Path
    mask: MaskSource


@dataclass
class Source:
    """A data set as found on disk.

    splits: train, val, test to their samples; `all` alone where the folder states no split.
    classes: from classes.toml or a layout that knows them; None where the masks must tell.
    rgb_allowed: whether the colors of `classes` are stated, so that RGB masks can be read.
    notes: what was found and assumed, in sentences for the person.
    """

    root: Path
    layout: str
    splits: dict[str, list[Sample]]
    classes: Classes | None = None
    rgb_allowed: bool = False
    notes: list[str] = field(default_factory=list)
