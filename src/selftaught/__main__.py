"""`python -m selftaught`, for where the script is not on the path, and for torchrun."""

import sys

from selftaught.cli import main

if __name__ == "__main__":
    sys.exit(main())
