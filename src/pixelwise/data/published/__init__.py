"""Published datasets: a catalog, and their download, verification and unpacking by name."""

from pixelwise.data.published.catalog import DATASETS, Archive, PublishedDataset, find_dataset
from pixelwise.data.published.download import DownloadError
from pixelwise.data.published.fetch import fetch_dataset

__all__ = [
    "DATASETS",
    "Archive",
    "DownloadError",
    "PublishedDataset",
    "fetch_dataset",
    "find_dataset",
]
