"""`python -m training.rivals`."""

import sys

from training.rivals.cli import main

if __name__ == "__main__":
    sys.exit(main())
