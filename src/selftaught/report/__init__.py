"""Run folders in; one self-contained page, or a table for the terminal, out."""

from selftaught.report.compare import compare
from selftaught.report.page import write_report
from selftaught.report.record import runs_among

__all__ = ["compare", "runs_among", "write_report"]
