"""The command line: commands, flags, error messages and exit codes."""

from selftaught.cli.app import main

__all__ = ["main"]
