"""Published data sets: what is known of them, fetched, verified and unpacked by name."""

from pixelwise.data.published.catalog import DATA_SETS, Archive, DataSet, find_data_set
from pixelwise.data.published.fetch import NotFetchedError, fetch_dataset

__all__ = ["DATA_SETS", "Archive", "DataSet", "NotFetchedError", "fetch_dataset", "find_data_set"]
