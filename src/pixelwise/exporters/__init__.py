"""Export a bundle to the format of another runtime, and verify that it predicts the same.

The package is not called `export`, because `pixelwise.export` is the function.
"""

from pixelwise.exporters.export_bundle import export

__all__ = ["export"]
