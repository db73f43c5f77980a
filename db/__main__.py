"""`python -m db`: bring the database that DATABASE_URL names to the tables of this release."""

import os
import sys

from db.connections import DatabaseError
from db.migrate import migrate

EXIT_BAD_INPUT = 2  # the exit code of every command of ours for input it cannot use


def main() -> int:
    """Migrate, say so, and give back the exit code."""
    url = os.environ.get("DATABASE_URL")
    if not url:
        print("DATABASE_URL is not set; write for example DATABASE_URL=sqlite:///study.sqlite.", file=sys.stderr)
        return EXIT_BAD_INPUT
    try:
        migrate(url)
    except DatabaseError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_INPUT
    print("The database has the tables of this release.")
    return 0


sys.exit(main())
