"""Reports on run folders: a self-contained HTML page, or a comparison table for the terminal."""

from selftaught.report.compare import compare
from selftaught.report.page import write_report
from selftaught.report.record import runs_among

__all__ = ["compare", "runs_among", "write_report"]
