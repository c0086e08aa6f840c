"""A bundle in the format of another runtime, written only where it gives the same masks."""

from pixelwise.export.export_bundle import TARGETS, export

__all__ = ["TARGETS", "export"]
