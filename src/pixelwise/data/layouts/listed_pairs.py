"""Pairing of the images and masks that a list file names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pixelwise.data.file_resolver import Claims, FileResolver
from pixelwise.data.folder_listing import walk_files
from pixelwise.data.image_files import IMAGE_SUFFIXES
from pixelwise.data.layouts.error_handling import collect_errors
from pixelwise.data.layouts.pairing import sample_name
from pixelwise.data.layouts.split_lists import listed_names
from pixelwise.data.source import MaskSource, Sample
from pixelwise.errors import InputError


@dataclass
class ListedPairs:
    """The images and masks that the list files of a dataset refer to.

    Args:
        root: Folder of the dataset, which sample names are relative to.
        image_folder: Folder of the images, with any folders below it.
        mask_folder: Folder of the masks, with the same folders or flat.
        mask_suffixes: Suffixes of mask files.
        mask_source: Makes the reader of a mask file.
        images: The images; None for all below `image_folder`.
    """

    root: Path
    image_folder: Path
    mask_folder: Path
    mask_suffixes: Collection[str]
    mask_source: Callable[[Path], MaskSource]
    images: Sequence[Path] | None = None
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        images = self.images or walk_files(self.image_folder, IMAGE_SUFFIXES)
        self._images = FileResolver(self.image_folder, images)
        masks = walk_files(self.mask_folder, self.mask_suffixes)
        self._masks = FileResolver(self.mask_folder, masks, "mask")
        self._mask_claims = Claims()

    def all_images(self) -> list[tuple[int, str]]:
        """The images as entries for `read`, for a dataset without list files."""
        return list(enumerate(_relative(file, self.image_folder) for file in self._images.files))

    def all_masks(self) -> list[tuple[int, str]]:
        """The masks as entries for `read`, for a dataset without list files."""
        names = (_without_suffix(file, self.mask_folder) for file in self._masks.files)
        return list(enumerate(names))

    @property
    def masks_without_image(self) -> list[Path]:
        """The masks that no listed image uses and that no other image can be meant by."""
        return [
            mask
            for mask in self._masks.files
            if mask not in self._mask_claims
            and not self._images.candidates(_without_suffix(mask, self.mask_folder))
        ]

    def has_mask(self, line: str) -> bool:
        """Whether any mask can be the one of a listed image."""
        return bool(self._masks.candidates(line, [self.mask_folder]))

    def read(
        self,
        entries: list[tuple[int, str]],
        listed_in: Path,
        *,
        without_mask: list[str] | None = None,
    ) -> list[Sample]:
        """Pair the images and masks of listed names.

        Args:
            entries: Line number and name, with or without folders and suffix, of each image.
            listed_in: The list or folder that the names come from, for messages.
            without_mask: Receives the names of images without a mask; None if they are problems.

        Returns:
            The samples, in the order of the list. A name with a missing, ambiguous or shared file
            has no sample but a line in `problems`.
        """
        image_claims = Claims()
        samples = []
        for number, line in listed_names(self._images, entries, [self.image_folder]):
            with collect_errors(self.problems):
                image = self._find_image(line, number, listed_in)
                image_claims.add(image, f"line {number} of {listed_in}")
                mask = self._find_mask(image)
                if mask is None and without_mask is not None:
                    without_mask.append(line)
                    continue
                if mask is None:
                    raise InputError(_absent(self.mask_folder / f"{line}.png", listed_in))
                self._mask_claims.add(mask, str(image))
                name = sample_name(self.root, image)
                samples.append(Sample(name, image, self.mask_source(mask)))
        return samples

    def _find_image(self, line: str, number: int, listed_in: Path) -> Path:
        found = self._images.candidates(line, [self.image_folder])
        if not found:
            raise InputError(_absent(self.image_folder / f"{line}.jpg", listed_in))
        if len(found) > 1:
            raise InputError(f"{listed_in}: line {number}: {self._images.ambiguous(line, found)}")
        return found[0]

    def _find_mask(self, image: Path) -> Path | None:
        """The mask with the image's path, else the only one with its name, or None."""
        name = _without_suffix(image, self.image_folder)
        found = self._masks.candidates(name, [self.mask_folder])
        if not found:
            return None
        if len(found) > 1:
            raise InputError(f"{image}: {self._masks.ambiguous(name, found)}")
        mask_name = _without_suffix(found[0], self.mask_folder)
        if mask_name != name:  # it may belong to another image, or to several
            images = self._images.candidates(mask_name, [self.image_folder])
            if image not in images:
                return None
            if len(images) > 1:
                raise InputError(f"{found[0]}: {self._images.ambiguous(mask_name, images)}")
        return found[0]


def _relative(file: Path, folder: Path) -> str:
    return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()


def _without_suffix(file: Path, folder: Path) -> str:
    return _relative(file.with_suffix(""), folder)


def _absent(file: Path, listed_in: Path) -> str:
    return f"{file}: does not exist, but {listed_in} lists it: add the file or correct the list"
