"""The one door to the database: what is acknowledged is stored, and a job that fails fails alone."""

import asyncio
import gc
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from db.connections import DatabaseFileError, DatabaseInUseError, DatabaseUnreachableError, DatabaseUrlError
from db.engine import Database, ReadOnlyError
from db.migrate import migrate
from db.models import Study, StudySession, Trial, TrialState, Withdrawal, WithdrawalScope
from db.queries import serialise_assignment
from db.writer import DatabaseClosedError, JobTransactionError, TransactionLostError
from tests.db.small_study import add_small_study

ROOT = Path(__file__).parents[2]
KILLS = 25 if os.environ.get("ASUKA_SOAK") else 3  # a thousand: benchmarks/store_kill.py --kills 1000
STUDY_IMAGES = "4"
VOTERS = 16


def new_study(slug: str) -> Callable[[Session], str]:
    def job(session: Session) -> str:
        session.add(Study(slug=slug, created_at=1))
        session.flush()
        return slug

    return job


def slugs(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(Study.slug)))


def held_up(database: Database, jobs: list[Callable[[Session], Any]]) -> list[Any]:
    """Outcomes of jobs that were all waiting when the writer became free: on SQLite they share one COMMIT."""
    gate = threading.Event()
    waiting = threading.Event()

    def hold(_session: Session) -> None:
        waiting.set()
        gate.wait()

    def outcome(job: Callable[[Session], Any]) -> Any:
        try:
            return database.write(job)
        except Exception as error:  # noqa: BLE001 - the outcome under test
            return error

    with ThreadPoolExecutor(len(jobs) + 1) as pool:
        first = pool.submit(database.write, hold)
        waiting.wait()
        rest = [pool.submit(outcome, job) for job in jobs]
        gate.set()
        first.result()
        return [future.result() for future in rest]


def test_what_write_returned_is_there_for_readers(database: Database) -> None:
    assert database.write(new_study("a")) == "a"
    assert slugs(database) == {"a"}


def test_a_failing_job_is_undone_alone(database: Database) -> None:
    database.write(new_study("taken"))

    def half_done(session: Session) -> None:
        new_study("half")(session)
        raise KeyError("the caller's own error")

    outcomes = held_up(
        database, [new_study("one"), new_study("taken"), half_done, new_study("two"), new_study("three")]
    )

    assert [outcome for outcome in outcomes if isinstance(outcome, str)] == ["one", "two", "three"]
    assert isinstance(outcomes[1], IntegrityError)
    assert isinstance(outcomes[2], KeyError)
    assert slugs(database) == {"taken", "one", "two", "three"}


def test_a_commit_that_fails_fails_every_job_of_its_batch(sqlite_database: Database) -> None:
    study = sqlite_database.write(add_small_study)

    def leave_open(session: Session) -> None:
        session.add(Withdrawal(session_id=study.session, scope=WithdrawalScope.ERASE, at=9, erasing=-1))

    before = slugs(sqlite_database)
    outcomes = held_up(sqlite_database, [new_study("one"), leave_open, new_study("two")])
    assert all(isinstance(outcome, DBAPIError) for outcome in outcomes)
    assert slugs(sqlite_database) == before
    assert sqlite_database.write(new_study("later")) == "later"


def test_a_batch_that_sqlite_abandons_is_acknowledged_to_nobody(sqlite_database: Database) -> None:
    sqlite_database.write(new_study("taken"))
    abandon = text("INSERT OR ROLLBACK INTO study (slug, created_at) VALUES ('taken', 2)")
    outcomes = held_up(sqlite_database, [new_study("one"), lambda session: session.execute(abandon), new_study("two")])
    assert [type(outcome) for outcome in outcomes] == [TransactionLostError, IntegrityError, TransactionLostError]
    assert slugs(sqlite_database) == {"taken"}
    assert sqlite_database.write(new_study("later")) == "later"


def test_a_job_can_neither_commit_nor_roll_back(database: Database) -> None:
    def commits(session: Session) -> None:
        new_study("early")(session)
        session.commit()

    def rolls_back(session: Session) -> None:
        session.rollback()

    for job in (commits, rolls_back):
        with pytest.raises(JobTransactionError, match="must not"):
            database.write(job)
    assert slugs(database) == set()


def test_a_reader_cannot_write(database: Database) -> None:
    with database.read() as session, pytest.raises(DBAPIError, match=r"(?i)read.?only"):
        session.execute(text("INSERT INTO study (slug, created_at) VALUES ('x', 1)"))


def test_a_reader_keeps_its_snapshot_while_others_write(database: Database) -> None:
    database.write(new_study("a"))
    with database.read() as session:
        count = select(func.count()).select_from(Study)
        assert session.scalar(count) == 1
        database.write(new_study("b"))
        assert session.scalar(count) == 1
    assert slugs(database) == {"a", "b"}


def test_a_returned_object_keeps_its_values_after_the_transaction(database: Database) -> None:
    def job(session: Session) -> Study:
        study = Study(slug="kept", created_at=7)
        session.add(study)
        session.flush()
        return study

    study = database.write(job)
    assert (study.slug, study.created_at) == ("kept", 7)


def test_coroutines_write_side_by_side(database: Database) -> None:
    async def vote() -> list[str]:
        return await asyncio.gather(*(database.write_async(new_study(f"s{n}")) for n in range(40)))

    assert asyncio.run(vote()) == [f"s{n}" for n in range(40)]
    assert slugs(database) == {f"s{n}" for n in range(40)}


def test_a_coroutine_hears_its_own_error(database: Database) -> None:
    database.write(new_study("taken"))
    with pytest.raises(IntegrityError):
        asyncio.run(database.write_async(new_study("taken")))


def test_a_conditional_update_is_won_by_exactly_one_of_many(database: Database) -> None:
    study = database.write(add_small_study)
    reopen = text("UPDATE trial SET state = 'issued', answered_at = NULL")
    database.write(lambda session: session.execute(reopen))
    claim = text("UPDATE trial SET state = 'answered', answered_at = 9 WHERE id = :id AND state = 'issued'")

    def job(session: Session) -> int:
        return session.connection().execute(claim, {"id": study.trial}).rowcount

    with ThreadPoolExecutor(VOTERS) as pool:
        claims = [pool.submit(database.write, job) for _ in range(VOTERS * 4)]
    assert sum(claim.result() for claim in claims) == 1
    with database.read() as session:
        assert session.get_one(Trial, study.trial).state is TrialState.ANSWERED


def test_assignments_of_one_version_take_turns(database: Database) -> None:
    """Read, then write what was read plus one: without a queue, turns would be lost."""
    study = database.write(add_small_study)

    def next_turn(session: Session) -> None:
        serialise_assignment(session, study.version)
        visit = session.get_one(StudySession, study.session)
        visit.last_seen += 1

    with database.read() as session:
        start = session.get_one(StudySession, study.session).last_seen
    with ThreadPoolExecutor(VOTERS) as pool:
        list(pool.map(database.write, [next_turn] * (VOTERS * 4)))
    with database.read() as session:
        assert session.get_one(StudySession, study.session).last_seen == start + VOTERS * 4


def test_jobs_accepted_before_close_are_stored_and_later_ones_refused(sqlite_url: str) -> None:
    migrate(sqlite_url)
    database = Database.open(sqlite_url)
    with ThreadPoolExecutor(VOTERS) as pool:
        stored = list(pool.map(database.write, [new_study(f"s{n}") for n in range(VOTERS)]))
    database.close()
    database.close()
    with pytest.raises(DatabaseClosedError, match="closed"):
        database.write(new_study("late"))
    with Database.open(sqlite_url) as again:
        assert slugs(again) == set(stored)


def test_the_file_is_written_with_wal_full_sync_and_foreign_keys(sqlite_database: Database) -> None:
    def pragmas(session: Session) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys", "recursive_triggers")
        return [session.execute(text(f"PRAGMA {name}")).scalar() for name in names]

    assert sqlite_database.write(pragmas) == ["wal", 2, 1, 1]  # 2 is FULL


def test_a_second_owner_of_the_file_is_refused_in_one_sentence(sqlite_url: str) -> None:
    migrate(sqlite_url)
    with Database.open(sqlite_url):
        other = f"from db.engine import Database; Database.open({sqlite_url!r})"
        run = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=False)
        assert run.returncode != 0
        assert "is already open in process" in run.stderr.splitlines()[-1]
        with pytest.raises(DatabaseInUseError, match="already open"):
            migrate(sqlite_url)
    Database.open(sqlite_url).close()


def test_a_reader_opens_beside_the_owner_but_does_not_write(sqlite_url: str) -> None:
    migrate(sqlite_url)
    with Database.open(sqlite_url) as owner, Database.open(sqlite_url, read_only=True) as guest:
        owner.write(new_study("seen"))
        assert slugs(guest) == {"seen"}
        with pytest.raises(ReadOnlyError, match="for reading"):
            guest.write(new_study("no"))


@pytest.mark.parametrize(
    ("url", "because"),
    [
        ("nonsense", "no database address"),
        ("mysql://localhost/x", "'mysql' is not supported"),
        ("sqlite://", "in memory only"),
        ("sqlite:///:memory:", "in memory only"),
    ],
)
def test_an_address_that_names_no_usable_database_is_refused(url: str, because: str) -> None:
    with pytest.raises(DatabaseUrlError, match=because):
        Database.open(url)


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    with pytest.raises(DatabaseUnreachableError, match="gives no access") as caught:
        Database.open("postgresql://asuka:secret@127.0.0.1:1/study")
    assert "secret" not in str(caught.value)


def test_a_file_in_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DatabaseFileError, match="cannot be opened for writing"):
        migrate(f"sqlite:///{tmp_path / 'file' / 'study.sqlite'}")


def test_nothing_acknowledged_is_lost_when_the_process_is_killed() -> None:
    command = [sys.executable, "benchmarks/store_kill.py", "--kills", str(KILLS), "--images", STUDY_IMAGES]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.fullmatch(rf"{KILLS} kills: [1-9][0-9,]+ acknowledged, 0 lost, database and journal whole\n", run.stdout)


def test_closing_leaves_no_connection_and_no_thread_behind(sqlite_url: str) -> None:
    migrate(sqlite_url)
    with Database.open(sqlite_url) as database:
        database.write(new_study("a"))
        slugs(database)
    gc.collect()  # an open sqlite3 connection would warn here, and warnings are errors
    assert "database-writer" not in {thread.name for thread in threading.enumerate()}
