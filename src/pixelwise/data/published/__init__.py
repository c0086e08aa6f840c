"""Published data sets: what is known of them, fetched, verified and unpacked by name."""

from pixelwise.data.published.catalogue import DATA_SETS, Archive, DataSet, find_data_set
from pixelwise.data.published.get import NotFetchedError, get

__all__ = ["DATA_SETS", "Archive", "DataSet", "NotFetchedError", "find_data_set", "get"]
