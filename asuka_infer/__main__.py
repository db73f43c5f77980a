"""`python -m asuka_infer`: see `asuka_infer.cli`."""

import sys

from asuka_infer.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
