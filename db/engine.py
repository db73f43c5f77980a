"""`Database`: reading and writing through one door, on a SQLite file with one writer or on a PostgreSQL server."""

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from sqlalchemy import Engine
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from db.connections import (
    DatabaseError,
    FileOwnership,
    check_sqlite_file,
    explained,
    parse_url,
    postgres_engine,
    sqlite_path,
    sqlite_reader_engine,
    sqlite_writer_engine,
)
from db.revision import require_current_revision
from db.writer import Follower, GroupCommitWriter, JobSession

T = TypeVar("T")


class ReadOnlyError(DatabaseError):
    """Something was to be written through a database opened for reading."""


class _Writes(Protocol):
    """How jobs reach the disk."""

    def write(self, job: Callable[[Session], T]) -> T: ...

    async def write_async(self, job: Callable[[Session], T]) -> T: ...

    def close(self) -> None: ...


class Database:
    """The study's database.

    A *job* is a function of a `Session`. It may read, add, execute and flush; it must not commit, and it must hold no
    lock that another job waits for. `write` runs it in one transaction and returns what it returned once that is on
    the disk. Objects it returns are detached but keep their loaded values.
    """

    def __init__(self, readers: Engine, writes: _Writes, dialect: str) -> None:
        self._readers = readers
        self._writes = writes
        self.dialect = dialect

    @classmethod
    def open(cls, url: str, *, read_only: bool = False, follower: Follower | None = None) -> Self:
        """Open a migrated database; a SQLite file belongs to one process at a time, readers excepted.

        Args:
            url: `sqlite:///relative/or//absolute/path` or `postgresql://user:password@host:port/name`.
            read_only: open beside the process that owns the file; `write` then raises `ReadOnlyError`.
            follower: keeps a second record of every commit; for SQLite alone, a server has its own.

        Raises:
            DatabaseError: in one sentence, why the database cannot be used and what to do.
        """
        parsed = parse_url(url)
        if parsed.get_backend_name() == "sqlite":
            return cls._open_sqlite(parsed, read_only=read_only, follower=follower)
        engine = postgres_engine(parsed)
        with _disposed_on_error(engine), explained(parsed):
            require_current_revision(engine, parsed)
        readers = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        return cls(readers, _NoWrites() if read_only else _PostgresWrites(engine), "postgresql")

    @classmethod
    def _open_sqlite(cls, url: URL, *, read_only: bool, follower: Follower | None) -> Self:
        path = sqlite_path(url)
        check_sqlite_file(path)
        readers = sqlite_reader_engine(path)
        if read_only:
            with _disposed_on_error(readers), explained(url):
                require_current_revision(readers, url)
            return cls(readers, _NoWrites(), "sqlite")
        ownership = FileOwnership(path)
        engine = sqlite_writer_engine(path)
        try:
            with _disposed_on_error(engine), explained(url):
                require_current_revision(engine, url)
                writer = GroupCommitWriter(engine, follower)
        except BaseException:
            ownership.release()
            raise
        return cls(readers, _SqliteWrites(writer, ownership), "sqlite")

    @contextmanager
    def read(self) -> Generator[Session]:
        """A session that sees one snapshot and cannot write."""
        with Session(self._readers, autoflush=False) as session:
            yield session

    def write(self, job: Callable[[Session], T]) -> T:
        """Run `job` in one transaction and return its result after COMMIT; its error undoes it alone."""
        return self._writes.write(job)

    async def write_async(self, job: Callable[[Session], T]) -> T:
        """`write` for a coroutine: the event loop goes on meanwhile. A cancelled caller does not stop the job."""
        return await self._writes.write_async(job)

    def close(self) -> None:
        """Finish what was accepted and let go of every connection; a second call does nothing."""
        self._readers.dispose()
        self._writes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _disposed_on_error(engine: Engine) -> Generator[None]:
    try:
        yield
    except BaseException:
        engine.dispose()
        raise


class _SqliteWrites:
    """One thread, many jobs per COMMIT."""

    def __init__(self, writer: GroupCommitWriter, ownership: FileOwnership) -> None:
        self._writer = writer
        self._ownership = ownership

    def write(self, job: Callable[[Session], T]) -> T:
        future: Future[T] = self._writer.submit(job)
        return future.result()

    async def write_async(self, job: Callable[[Session], T]) -> T:
        return await self._writer.run(job)

    def close(self) -> None:
        self._writer.close()
        self._ownership.release()


class _PostgresWrites:
    """A transaction of its own for every job; the server groups the commits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def write(self, job: Callable[[Session], T]) -> T:
        with JobSession(self._engine, expire_on_commit=False) as session:
            result = job(session)
            Session.commit(session)
            return result

    async def write_async(self, job: Callable[[Session], T]) -> T:
        return await asyncio.shield(asyncio.to_thread(self.write, job))

    def close(self) -> None:
        self._engine.dispose()


class _NoWrites:
    """Beside the owner of the file."""

    def write(self, job: Callable[[Session], Any]) -> Any:
        raise ReadOnlyError(f"{job!r} would write, but this database was opened for reading; open it without that.")

    async def write_async(self, job: Callable[[Session], Any]) -> Any:
        return self.write(job)

    def close(self) -> None:
        """Nothing was opened."""
