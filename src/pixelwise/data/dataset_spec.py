"""What a user states about a dataset besides its folder."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetSpec:
    """Where the images and masks of a dataset are; what is empty is in data.toml or is detected.

    Args:
        images: A folder of the dataset, or a pattern such as `images/{id}_image.png`.
        masks: The same for the masks.
        from_run: Whether a run recorded this. It then counts only for datasets in which it matches
            files, since the network may be used on others.
    """

    images: str = ""
    masks: str = ""
    from_run: bool = False

    def __bool__(self) -> bool:
        return bool(self.images or self.masks)
