"""The page a person reads after training: one HTML file that needs nothing else."""

from pixelwise.report.page import Example, write_report
from pixelwise.report.run import write_run_report

__all__ = ["Example", "write_report", "write_run_report"]
