"""Run folders in; one self-contained page, or a table for the terminal, out."""

from selftaught.report.compare import compare
from selftaught.report.page import write_report

__all__ = ["compare", "write_report"]
