"""The page a person reads after training: one HTML file that needs nothing else."""

from pixelwise.report.page import Gallery, write_report
from pixelwise.report.pictures import Example
from pixelwise.report.run import write_run_report

__all__ = ["Example", "Gallery", "write_report", "write_run_report"]
