"""`python -m training`; see cli.py."""

import sys

if __name__ == "__main__":
    # Processes that decode and draw import this file again: not to load torch there saves them most of their start.
    from training.cli import main

    sys.exit(main())
