"""How fast the store alone takes answers: N voters, one trial transaction each, acknowledged after a durable COMMIT.

A trial transaction here: claim the trial (conditional UPDATE), insert one response and one fact row for each of two
criteria, count the cell. Statements go to the driver as those of the study's answers do (`db.statements`).

    python benchmarks/store_throughput.py [--voters 32] [--trials 200] [--url postgresql://...]

SQLite in a temporary folder unless told otherwise.
"""

import argparse
import secrets
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import bindparam, insert, select, text, update
from sqlalchemy.orm import Session

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from db.engine import Database
from db.migrate import migrate
from db.models import AnalysisVote, Cell, Response, Trial, TrialKind, TrialState
from db.statements import Statement
from tests.db.small_study import SmallStudy, add_small_study

CRITERIA = ("consistency", "stability")
CLAIM = Statement(
    update(Trial)
    .where(Trial.id == bindparam("trial"), text("state IN ('issued', 'shown', 'expired')"))
    .values(state="answered", answered_at=bindparam("now"))
    .returning(Trial.id)
)
COUNT = Statement(update(Cell).where(Cell.id == bindparam("cell")).values(n_valid=Cell.n_valid + 1))
ANSWER = Statement(insert(Response).returning(Response.id))
VOTE = Statement(insert(AnalysisVote))


def prepare(session: Session, study: SmallStudy, trials: int) -> list[int]:
    """Issue that many practice-like trials of one session (real ones would need as many images)."""
    rows = [
        {
            "public_id": secrets.token_hex(16), "version_id": study.version, "session_id": study.session,
            "seq": number + 1, "kind": TrialKind.PRACTICE, "image_id": study.image, "cell_id": study.cell,
            "state": TrialState.ISSUED, "assign_algo": "benchmark", "issued_at": 1,
        }
        for number in range(trials)
    ]  # fmt: skip
    session.execute(insert(Trial), rows)
    return list(session.scalars(select(Trial.id).where(Trial.state == TrialState.ISSUED)))


def answer(study: SmallStudy, trial: int) -> Callable[[Session], None]:
    """The job of one answered trial."""
    lo, hi = study.methods

    def job(session: Session) -> None:
        now, key = time.time_ns() // 1000, secrets.token_hex(16)
        assert CLAIM.one_or_none(session, {"trial": trial, "now": now}) is not None
        for number, criterion in enumerate(CRITERIA):
            row = {
                "trial_id": trial, "criterion": criterion, "idempotency_key": key, "outcome": "choice", "position": 0,
                "rt_ms": 900, "answered_at": now,
            }  # fmt: skip
            response = ANSWER.one_or_none(session, row)
            assert response is not None
            vote = {
                "response_id": response[0], "version_id": study.version, "criterion": number, "kind": 0,
                "image_id": study.image, "session_id": study.session, "participant_id": study.participant,
                "trial_id": trial, "cell_id": study.cell, "first_method_id": lo, "second_method_id": hi,
                "chosen_method_id": lo, "outcome": 0, "position": 0, "rt_ms": 900, "answered_at": now,
                "used": True,
            }  # fmt: skip
            VOTE.run(session, vote)
        COUNT.run(session, {"cell": study.cell})

    return job


def claim_only(study: SmallStudy, trial: int) -> Callable[[Session], None]:
    """The simple transaction of the design study: claim the trial and insert two responses."""
    del study

    def job(session: Session) -> None:
        assert CLAIM.one_or_none(session, {"trial": trial, "now": 1}) is not None
        key = secrets.token_hex(16)
        for criterion in CRITERIA:
            row = {
                "trial_id": trial, "criterion": criterion, "idempotency_key": key, "outcome": "choice", "position": 0,
                "rt_ms": 900, "answered_at": 1,
            }  # fmt: skip
            ANSWER.run(session, row)

    return job


def measure(database: Database, jobs: list[list[Callable[[Session], None]]]) -> tuple[float, list[float]]:
    """Trials per second and every latency in ms, all voters at once, each waiting for its own acknowledgement."""
    latencies: list[list[float]] = [[] for _ in jobs]
    start = threading.Barrier(len(jobs) + 1)

    def vote(mine: list[Callable[[Session], None]], seen: list[float]) -> None:
        start.wait()
        for job in mine:
            begun = time.perf_counter()
            database.write(job)
            seen.append((time.perf_counter() - begun) * 1e3)

    threads = [threading.Thread(target=vote, args=pair) for pair in zip(jobs, latencies, strict=True)]
    for thread in threads:
        thread.start()
    start.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    flat = sorted(latency for each in latencies for latency in each)
    return len(flat) / (time.perf_counter() - begun), flat


def run(url: str, voters: int, trials: int) -> None:
    """Measure both transactions on a fresh study of the database at `url`."""
    migrate(url)
    with Database.open(url) as database:
        for name, make in (("simple (claim + 2 responses)", claim_only), ("full (+ 2 fact rows, cell count)", answer)):
            study = database.write(lambda session: add_small_study(session, key=secrets.token_hex(8)))
            ids = database.write(lambda session, study=study: prepare(session, study, voters * trials))
            jobs = [[make(study, trial) for trial in ids[voter::voters]] for voter in range(voters)]
            rate, seen = measure(database, jobs)
            cuts = statistics.quantiles(seen, n=100)
            print(
                f"{database.dialect}, {voters} voters, {name}: {rate:,.0f} trials/s, "
                f"p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms, max {seen[-1]:.1f} ms"
            )


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voters", type=int, default=32)
    parser.add_argument("--trials", type=int, default=200, help="per voter")
    parser.add_argument("--url", help="an empty database; SQLite in a temporary folder by default")
    options = parser.parse_args()
    if options.url:
        run(options.url, options.voters, options.trials)
        return
    with tempfile.TemporaryDirectory() as folder:
        run(f"sqlite:///{Path(folder) / 'study.sqlite'}", options.voters, options.trials)


if __name__ == "__main__":
    main()
