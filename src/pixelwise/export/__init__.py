"""A bundle in the format of another runtime, written only where it gives the same masks."""

from pixelwise.export.exporting import TARGETS, export

__all__ = ["TARGETS", "export"]
