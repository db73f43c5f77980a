"""Kill the process that takes answers, again and again, and look for what it acknowledged (nothing may be missing).

    python benchmarks/store_kill.py [--kills 1000] [--seed 3] [--folder /dev/shm]

Eight voters answer the trials of a real study, through the very functions that the HTTP API calls, with the journal.
The process is ended by SIGKILL at a random moment, another takes over the same files. In the end every acknowledged
answer must be whole in the database, with SQLite's own checks passed and the cached counts equal to a recount; and
once more in a copy of the database from before the first answer on which the journal was replayed.

The processes are forked from one that has imported everything; what is killed is a process of its own all the same. On
a slow disk the keys of new sessions take most of the time (two fsyncs each). SIGKILL leaves what the system has not yet
written to the disk, so `--folder /dev/shm` asks the same question in a tenth of the time; a pulled plug it cannot play.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.study_answers import CRITERIA, SLUG, prepare  # noqa: E402 - after the path is known
from db.engine import Database  # noqa: E402
from study import counters, service, trials  # noqa: E402
from study.api import utc_microseconds  # noqa: E402
from study.design import Designs  # noqa: E402
from study.journal import Journal, replay  # noqa: E402
from study.messages import AnswerRequest, ConsentRequest, CriterionAnswer, JoinRequest, TrialReply  # noqa: E402
from study.publication import newest_version  # noqa: E402
from study.service import Clocked  # noqa: E402

T = TypeVar("T")

VOTERS = 8
LATEST_KILL = 150  # acknowledgements; a checkpoint of the log comes every hundred answers or so
SEED = 3
WHOLE = """
SELECT public_id FROM trial
WHERE state = 'answered'
  AND (SELECT count(*) FROM response WHERE response.trial_id = trial.id) = {criteria}
  AND (SELECT count(*) FROM analysis_vote JOIN response ON response.id = response_id
       WHERE response.trial_id = trial.id) = {criteria}
"""


def take_answers(folder: Path, acknowledged: Connection) -> None:
    """What the process that is killed does: answer, and name each trial once its answer was acknowledged."""
    database = Database.open(_url(folder), follower=Journal(folder / "second"))
    designs = Designs()

    def step(take: Callable[..., T], *arguments: object, **more: object) -> T:
        at = Clocked(utc_microseconds(), os.urandom)
        return database.write(lambda db: take(db, designs, *arguments, **more, at=at))

    def vote() -> None:
        while True:
            token, _ = step(service.join, JoinRequest(study=SLUG))
            step(service.consent, token, ConsentRequest(accepted=True))
            reply = step(trials.current, token)
            while reply.trial is not None:
                trial = reply.trial
                answers = tuple(CriterionAnswer(criterion=key, outcome="choice", position=0) for key in trial.criteria)
                request, key = AnswerRequest(responses=answers), os.urandom(8).hex()
                taken = step(trials.answer, token, trial.id, request, key=key)
                assert isinstance(taken, TrialReply), taken
                reply = taken
                acknowledged.send_bytes(trial.id.encode())

    for _ in range(VOTERS):
        threading.Thread(target=vote).start()


def kill_once(folder: Path, after: int) -> set[str]:
    """Start a process, let it acknowledge `after` answers, kill it with SIGKILL; all that it acknowledged."""
    heard, told = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=take_answers, args=(folder, told))
    process.start()
    told.close()
    seen: set[str] = set()
    try:
        for number in count(1):
            seen.add(heard.recv_bytes().decode())
            if number == after:
                process.kill()
    except EOFError:
        process.join()
    if len(seen) < after:
        raise RuntimeError(f"The process ended by itself after {len(seen)} answers; see what it printed.")
    return seen


def judge(folder: Path, acknowledged: set[str]) -> list[str]:
    """What is wrong, in words; nothing when all is as it must be."""
    wrong = [f"database: {each}" for each in _missing(folder, acknowledged)]
    with Database.open(f"sqlite:///{folder / 'before.sqlite'}") as copy:
        copy.write(lambda db: replay(db, folder / "second"))
    wrong += [f"journal: {each}" for each in _missing(folder, acknowledged, "before.sqlite")]
    return wrong


def _missing(folder: Path, acknowledged: set[str], name: str = "bench.sqlite") -> list[str]:
    wrong: list[str] = []
    connection = sqlite3.connect(folder / name)
    stored = {public for (public,) in connection.execute(WHOLE.format(criteria=len(CRITERIA)))}
    if acknowledged - stored:
        wrong.append(f"{len(acknowledged - stored)} acknowledged answers are not there or not whole")
    verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if verdict != "ok":
        wrong.append(f"integrity_check says {verdict}")
    if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
        wrong.append("foreign_key_check finds orphans")
    connection.close()
    with Database.open(f"sqlite:///{folder / name}", read_only=True) as database, database.read() as db:
        try:
            counters.verify(db, newest_version(db, SLUG).id)
        except counters.CountError as error:
            wrong.append(str(error))
    return wrong


def _url(folder: Path) -> str:
    return f"sqlite:///{folder / 'bench.sqlite'}"


def main() -> None:
    """Kill as often as asked and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=SEED, help="of the moments")
    parser.add_argument("--folder", type=Path, help="where the database and the journal lie; by default as TMPDIR says")
    parser.add_argument("--images", type=int, default=40, help="of the study; fewer are prepared sooner")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    multiprocessing.set_start_method("fork")
    acknowledged: set[str] = set()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        prepare(_url(folder), folder, images=options.images)
        shutil.copy(folder / "bench.sqlite", folder / "before.sqlite")
        began = time.perf_counter()
        for _ in range(options.kills):
            acknowledged |= kill_once(folder, moments.randint(1, LATEST_KILL))
        each = (time.perf_counter() - began) / options.kills
        wrong = judge(folder, acknowledged)
    print(f"{each:.2f} s per kill", file=sys.stderr)
    print(
        f"{options.kills} kills: {len(acknowledged):,} acknowledged, "
        + ("0 lost, database and journal whole" if not wrong else "WRONG: " + "; ".join(wrong))
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
