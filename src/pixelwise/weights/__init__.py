"""Weights on disk: the bundle, published weights, and importers for files of other tools."""
