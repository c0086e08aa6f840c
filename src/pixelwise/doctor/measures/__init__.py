"""Measurements on arrays: alignment of image and mask, objects, fingerprints."""
