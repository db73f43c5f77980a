"""The one writer of a SQLite file: a thread that commits many jobs with one fsync and answers only after COMMIT."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db.connections import DatabaseError, as_sqlite
from db.statements import DRIVER

BATCH = 64  # jobs per transaction (the study's design, section 4.4): more only makes the first of them wait longer


class DatabaseClosedError(DatabaseError):
    """A job came after the database was closed."""


class JobTransactionError(DatabaseError):
    """A job tried to end the transaction that it shares with others."""


class TransactionLostError(DatabaseError):
    """SQLite gave up the whole transaction half-way (a full disk, for example); nothing of it is stored."""


@dataclass(frozen=True, slots=True)
class Note:
    """What a job did that somebody beside the database must hear of: a word and the id of the row it is about."""

    word: str
    row_id: int


class Follower(Protocol):
    """Keeps a second record of what is committed; both methods are called on the writer's thread."""

    def collect(self, connection: sqlite3.Connection, notes: Sequence[Note]) -> bytes:
        """Read, inside the transaction that is about to be committed, what the notes are about."""
        ...

    def append(self, record: bytes) -> None:
        """Put the record on the disk, after the COMMIT and before anybody is told; raising tells them an error."""
        ...


_NOTES = "notes"


def note(session: Session, word: str, row_id: int) -> None:
    """Tell the follower, if there is one and the job's transaction commits; for a job to call."""
    session.info.setdefault(_NOTES, []).append(Note(word, row_id))


class JobSession(Session):
    """The session a job works through; the transaction is not the job's to end."""

    def commit(self) -> None:
        """Refused: a job is committed with its batch.

        Raises:
            JobTransactionError: always.
        """
        raise JobTransactionError("A write job must not commit: return, and the database commits it with its batch.")

    def rollback(self) -> None:
        """Refused: a job undoes itself by raising.

        Raises:
            JobTransactionError: always.
        """
        raise JobTransactionError("A write job must not roll back: raise an error, and only this job is undone.")


_Waiting = Future[Any] | asyncio.Future[Any]


@dataclass(slots=True)
class _Job:
    work: Callable[[Session], Any]
    waiting: _Waiting = field(default_factory=Future[Any])
    result: Any = None
    error: BaseException | None = None
    notes: Sequence[Note] = ()

    def tell(self) -> None:
        """Give whoever waits the result or the error; they may have gone away meanwhile."""
        if self.waiting.done():
            return
        if self.error is None:
            self.waiting.set_result(self.result)
        elif isinstance(self.error, StopIteration):  # no coroutine can be told this one (PEP 479)
            self.waiting.set_exception(RuntimeError(f"A write job raised {self.error!r}."))
        else:
            self.waiting.set_exception(self.error)


class GroupCommitWriter:
    """Runs jobs one after another on one connection, up to `BATCH` of them in one transaction.

    Every job has a savepoint of its own: one that raises is undone alone. A COMMIT that fails fails all of its batch.
    With a follower, nobody is answered before it has the batch on the disk too.
    """

    def __init__(self, engine: Engine, follower: Follower | None = None) -> None:
        self._engine = engine
        self._follower = follower
        self._connection = engine.connect()
        self._driver = as_sqlite(self._connection.connection.driver_connection)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._accepting = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="database-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Session], Any]) -> Future[Any]:
        """Queue a job; the future is done after the COMMIT that stored it (or with the error that kept it out).

        Raises:
            DatabaseClosedError: after `close`.
        """
        future: Future[Any] = Future()
        self._accept(_Job(work, future))
        return future

    async def run(self, work: Callable[[Session], Any]) -> Any:
        """`submit` for a coroutine, which gets the result; a caller that is cancelled does not stop the job.

        Raises:
            DatabaseClosedError: after `close`.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._accept(_Job(work, future))
        return await future

    def close(self) -> None:
        """Finish what was queued, then let go of the connection; a second call does nothing."""
        with self._accepting:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()
        self._connection.close()
        self._engine.dispose()

    def _accept(self, job: _Job) -> None:
        with self._accepting:
            if self._closed:
                raise DatabaseClosedError("The database is closed; nothing more is written to it.")
            self._jobs.put(job)

    def _run(self) -> None:
        while (first := self._jobs.get()) is not None:
            batch, last = self._gather(first)
            self._commit_together(batch)
            if last:
                return

    def _gather(self, first: _Job) -> tuple[list[_Job], bool]:
        batch = [first]
        while len(batch) < BATCH:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return batch, True
            batch.append(job)
        return batch, False

    def _commit_together(self, batch: list[_Job]) -> None:
        try:
            with self._connection.begin():
                for job in batch:
                    self._try(job)
                record = self._collect(batch)
            if self._follower is not None:
                self._follower.append(record)
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must hear it
            if self._driver.in_transaction:  # SQLite keeps a transaction open whose COMMIT failed
                self._driver.rollback()
            for job in batch:
                job.error = job.error or error
        _tell(batch)

    def _collect(self, batch: list[_Job]) -> bytes:
        notes = [note for job in batch for note in job.notes]
        return self._follower.collect(self._driver, notes) if self._follower is not None and notes else b""

    def _try(self, job: _Job) -> None:
        # Statements of hot paths go to the driver (db.statements) and need no transaction of SQLAlchemy's; a job that
        # also uses the session in other ways gets one, a savepoint within this one, when it first does.
        session = JobSession(self._connection, join_transaction_mode="create_savepoint", expire_on_commit=False)
        session.info[DRIVER] = self._driver
        try:
            self._driver.execute("SAVEPOINT job")
            job.result = job.work(session)
            if session.in_transaction():
                Session.commit(session)
            self._driver.execute("RELEASE SAVEPOINT job")
            job.notes = session.info.get(_NOTES, ())
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller, whatever it is
            job.error = error
            self._undo(session, error)
        finally:
            session.close()

    def _undo(self, session: Session, error: BaseException) -> None:
        """Take back what the job did, or everything, where SQLite has done so already."""
        if session.in_transaction():
            Session.rollback(session)
        if not self._driver.in_transaction:
            raise TransactionLostError(
                f"SQLite abandoned the transaction ({error}); free disk space or repair the disk, then try again."
            ) from error
        self._driver.execute("ROLLBACK TO SAVEPOINT job")
        self._driver.execute("RELEASE SAVEPOINT job")


def _tell(batch: Sequence[_Job]) -> None:
    """Wake everybody; the coroutines of one event loop all at once, because waking it costs it a round each time."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in batch:
        if isinstance(job.waiting, Future):
            job.tell()
        else:
            by_loop.setdefault(job.waiting.get_loop(), []).append(job)
    for loop, jobs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_tell_each, jobs)
        except RuntimeError:
            if not loop.is_closed():  # a closed loop has nobody left who waits
                raise


def _tell_each(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        job.tell()
