"""Whether a storm of duplicates ever leaves more or fewer than one answer per trial and question.

    python benchmarks/duplicate_storm.py [--trials 10000] [--voters 8] [--database sqlite:///...]

Every trial is answered sixteen times at once over sixteen connections: eight times with one idempotency key, eight
times with keys and answers of their own. Then the database is counted: exactly one response per trial and criterion,
every other submission either told how things stand (the same key) or kept as evidence, and the cached counts equal a
recount. Server and voters share the machine; the pictures are not fetched. Ends with 1 when anything is miscounted.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import func, select

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.study_answers import (  # noqa: E402 - after the path is known
    CRITERIA,
    SLUG,
    Connection,
    connect,
    prepare,
    start_server,
    wait_for_server,
)
from db import models  # noqa: E402
from db.engine import Database  # noqa: E402
from study import counters  # noqa: E402

SAME, DIFFERENT = 8, 8
"""Submissions of each trial under one key, and under keys of their own (the study's design, section 5)."""

OK, CONFLICT = 200, 409


@dataclass
class Storm:
    """Voters who all press the button sixteen times."""

    left: int
    statuses: Counter[int] = field(default_factory=Counter[int])
    trials: int = 0

    async def take_part(self) -> None:
        """Join again and again, until no trial is left to storm."""
        crowd = [await connect() for _ in range(SAME + DIFFERENT)]
        while self.left > 0:
            _, joined = await crowd[0].request("POST", "/sessions", {"study": SLUG})
            bearer = f"Authorization: Bearer {joined['token']}\r\n"
            await crowd[0].request("POST", "/sessions/me/consent", {"accepted": True}, bearer)
            _, reply = await crowd[0].request("GET", "/trial", None, bearer)
            while reply["state"] == "running" and self.left > 0:
                self.left -= 1
                reply = await self._storm(crowd, reply["trial"], bearer)  # type: ignore[arg-type]

    async def _storm(self, crowd: list[Connection], trial: dict[str, str], bearer: str) -> dict[str, object]:
        """Send everything at once; what the session is asked next."""
        number = self.trials = self.trials + 1

        def submission(at: int) -> tuple[object, str]:
            position = 0 if at < SAME else at % 2
            answers = [{"criterion": key, "outcome": "choice", "position": position} for key in trial["criteria"]]
            key = f"{number}-{0 if at < SAME else at}"
            return {"responses": answers}, f"{bearer}Idempotency-Key: {key}\r\n"

        path = f"/trial/{trial['id']}/answer"
        sent = (connection.request("POST", path, *submission(at)) for at, connection in enumerate(crowd))
        replies = await asyncio.gather(*sent)
        self.statuses.update(status for status, _ in replies)
        return next(reply for status, reply in replies if status == OK)


async def drive(trials: int, voters: int) -> Storm:
    """Storm the server."""
    await wait_for_server()
    storm = Storm(trials)
    await asyncio.gather(*(storm.take_part() for _ in range(voters)))
    return storm


def judge(url: str, storm: Storm) -> list[str]:
    """What is wrong, in words; nothing when all is as it must be."""
    with Database.open(url) as database, database.read() as db:
        criteria = len(CRITERIA)

        def count(model: type[models.Base]) -> int:
            return db.scalar(select(func.count()).select_from(model)) or 0

        per_answer = select(func.count(models.Response.id)).group_by(
            models.Response.trial_id, models.Response.criterion
        )
        most = max(db.execute(per_answer).scalars(), default=0)
        expected = {
            "responses": (count(models.Response), storm.trials * criteria),
            "votes": (count(models.AnalysisVote), storm.trials * criteria),
            "most responses of one trial and question": (most, 1),
            "attempts kept": (count(models.ResponseAttempt), storm.statuses[CONFLICT]),
            "replies": (storm.statuses[OK] + storm.statuses[CONFLICT], storm.trials * (SAME + DIFFERENT)),
        }
        for version in db.execute(select(models.StudyVersion.id)).scalars():
            counters.verify(db, version)
    print("; ".join(f"{name} {found}" for name, (found, _) in expected.items()))
    return [f"{name}: {found}, not {wanted}" for name, (found, wanted) in expected.items() if found != wanted]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--voters", type=int, default=8)
    parser.add_argument("--database")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.database or f"sqlite:///{folder}/storm.sqlite"
        prepare(url, Path(folder))
        server = start_server("routes", url, Path(folder))
        began = time.perf_counter()
        try:
            storm = asyncio.run(drive(given.trials, given.voters))
        finally:
            server.terminate()
            server.wait()
        wrong = judge(url, storm)
    submissions = sum(storm.statuses.values())
    print(f"{storm.trials} trials, {submissions} submissions in {time.perf_counter() - began:.1f} s: ", end="")
    print("exactly one answer each" if not wrong else "WRONG: " + "; ".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
