"""The HTML report of a training run, and the comparison of runs."""

from pixelwise.evaluation.examples import Example
from pixelwise.report.augmentation_preview import write_preview
from pixelwise.report.live_page import LivePage
from pixelwise.report.report_page import Gallery, write_report
from pixelwise.report.run_report import write_run_report

__all__ = ["Example", "Gallery", "LivePage", "write_preview", "write_report", "write_run_report"]
