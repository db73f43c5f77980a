"""Kill the process that takes answers, again and again, and count what it acknowledged and lost (must be nothing).

Run from the repository: `PYTHONPATH=. python benchmarks/store_kill.py --kills 1000` (about half a second each).
"""

import argparse
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.orm import Session

from db.engine import Database
from db.migrate import migrate
from db.models import Study

VOTERS = 8
LATEST_KILL = 400  # acknowledgements: far enough for checkpoints to be interrupted too
SEED = 3


def vote_forever(url: str, name: str) -> None:
    """What the child does: write, and say each row on stdout once it was acknowledged."""
    database = Database.open(url)
    saying = threading.Lock()

    def job(slug: str) -> Callable[[Session], None]:
        def write(session: Session) -> None:
            session.add(Study(slug=slug, created_at=1))
            session.flush()

        return write

    def vote(voter: int) -> None:
        number = 0
        while True:
            slug = f"{name}-{voter}-{number}"
            database.write(job(slug))
            with saying:
                sys.stdout.write(f"{slug}\n")
                sys.stdout.flush()
            number += 1

    for voter in range(VOTERS):
        threading.Thread(target=vote, args=(voter,)).start()


def kill_once(url: str, name: str, after: int) -> set[str]:
    """Start a child, let it acknowledge `after` rows, kill it with SIGKILL; all that it acknowledged."""
    command = [sys.executable, __file__, "--child", url, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = {child.stdout.readline() for _ in range(after)}
        child.kill()
        said |= set(child.stdout)
    return {line[:-1] for line in said if line.endswith("\n")}


def lost(file: Path, acknowledged: set[str]) -> tuple[set[str], str]:
    """The acknowledged rows that are not stored, and SQLite's own verdict on the file."""
    connection = sqlite3.connect(file)
    stored = {slug for (slug,) in connection.execute("SELECT slug FROM study")}
    verdict = str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    connection.close()
    return acknowledged - stored, verdict


def main() -> None:
    """Kill as often as asked and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--child", nargs=2, metavar=("URL", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        vote_forever(*options.child)
        return
    moments = random.Random(SEED)
    acknowledged: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.sqlite"
        migrate(f"sqlite:///{file}")
        for kill in range(options.kills):
            acknowledged |= kill_once(f"sqlite:///{file}", str(kill), moments.randint(1, LATEST_KILL))
        missing, verdict = lost(file, acknowledged)
    print(f"{options.kills} kills: {len(acknowledged):,} acknowledged, {len(missing)} lost, integrity {verdict}")
    sys.exit(1 if missing or verdict != "ok" else 0)


if __name__ == "__main__":
    main()
