"""Pictures larger than memory: TIFF files that are read, predicted and written by windows."""

from pixelwise.inference.large.files import predict_large_files
from pixelwise.inference.large.prediction import predict_large
from pixelwise.inference.large.tiff import TiffPicture

__all__ = ["TiffPicture", "predict_large", "predict_large_files"]
