"""Published weights by name: a catalog, and their download, verification and conversion."""
