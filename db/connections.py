"""How the two databases are reached: addresses, pragmas, transactions that begin where we say, one owner per file."""

import fcntl
import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

SQLITE_MAGIC = b"SQLite format 3\x00"  # https://www.sqlite.org/fileformat.html, section 1.3.1
BUSY_TIMEOUT_MS = 5_000  # our choice: only a backup or a foreign tool can hold the file, and never for long
READERS = 16  # our choice: more pages reading at once than two cores can serve
READERS_WAIT_S = 30  # SQLAlchemy's own default, said here because a page waits for it
STATEMENTS_KEPT = 256  # compiled statements per connection; the whole study uses far fewer
POSTGRES_CONNECT_S = 10  # our choice: a server that has not answered by then is down


class DatabaseError(Exception):
    """Something about the database that the person who runs the app must put right."""


class DatabaseUrlError(DatabaseError):
    """The address names no database that can be used."""


class DatabaseFileError(DatabaseError):
    """The file at the address is no database, or cannot be opened."""


class DatabaseInUseError(DatabaseError):
    """Another process owns the file."""


class DatabaseUnreachableError(DatabaseError):
    """The server at the address does not answer."""


class WriterDialect(SQLiteDialect_pysqlite):
    """SQLite with savepoints sent as they are.

    SQLAlchemy compiles every SAVEPOINT anew because each has another name; that was 40 % of a write job's time
    (benchmarks/store_throughput.py: 3,700 to 6,000 trials/s).
    """

    supports_statement_cache = True

    def do_savepoint(self, connection: Connection, name: str) -> None:
        """Open the savepoint `name` (SQLAlchemy makes the names up; they need no quoting)."""
        _driver(connection).execute(f"SAVEPOINT {name}")

    def do_rollback_to_savepoint(self, connection: Connection, name: str) -> None:
        """Undo everything since the savepoint `name`; SQLite may have undone the whole transaction already."""
        driver = _driver(connection)
        if driver.in_transaction:
            driver.execute(f"ROLLBACK TO SAVEPOINT {name}")

    def do_release_savepoint(self, connection: Connection, name: str) -> None:
        """Keep everything since the savepoint `name`."""
        _driver(connection).execute(f"RELEASE SAVEPOINT {name}")


registry.register("sqlite.asuka_writer", "db.connections", "WriterDialect")


def parse_url(url: str) -> URL:
    """The address as SQLAlchemy understands it; PostgreSQL always through psycopg 3.

    Raises:
        DatabaseUrlError: for anything but a SQLite file or a PostgreSQL server.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise DatabaseUrlError(
            f"{url!r} is no database address; write sqlite:///path/to/study.sqlite or postgresql://user@host/name."
        ) from error
    backend = parsed.get_backend_name()
    if backend in {"postgres", "postgresql"}:
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise DatabaseUrlError(f"The database {backend!r} is not supported; use sqlite:/// or postgresql://.")
    if parsed.database in {None, "", ":memory:"}:
        raise DatabaseUrlError(
            f"{url!r} would keep the answers in memory only; name a file, for example sqlite:///study.sqlite."
        )
    return parsed.set(drivername="sqlite")


def sqlite_path(url: URL) -> Path:
    """The file behind a SQLite address."""
    return Path(str(url.database)).absolute()


def check_sqlite_file(path: Path) -> None:
    """Refuse a file that holds something else; a missing or empty file is fine, it becomes a database.

    Raises:
        DatabaseFileError: naming the file and what it begins with.
    """
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            head = file.read(len(SQLITE_MAGIC))
    except OSError as error:
        raise DatabaseFileError(f"{path} cannot be read ({error.strerror}); choose another file.") from error
    if head and head != SQLITE_MAGIC:
        raise DatabaseFileError(
            f"{path} is not a SQLite database (it begins with {head!r}); move it away or name another file."
        )


def sqlite_writer_engine(path: Path, *, foreign_keys: bool = True) -> Engine:
    """One connection that writes durably: WAL, an fsync per commit, foreign keys, and BEGIN IMMEDIATE.

    Only a migration asks for no foreign keys: it may have to rebuild a table that others refer to.
    """
    engine = create_engine(
        URL.create("sqlite+asuka_writer", database=str(path)),
        connect_args={"check_same_thread": False, "cached_statements": STATEMENTS_KEPT},
        pool_size=1,
        max_overflow=0,
    )

    def on_connect(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        _take_over_transactions(connection)
        # WAL lets readers go on while we write; FULL makes COMMIT wait for the disk (no acknowledged answer is lost).
        _run_pragmas(
            connection,
            (
                "journal_mode = WAL",
                "synchronous = FULL",
                f"foreign_keys = {int(foreign_keys)}",
                "secure_delete = ON",  # what a participant had erased is overwritten, not only unlinked
                "recursive_triggers = ON",  # else INSERT OR REPLACE would delete an answer behind its trigger's back
                f"busy_timeout = {BUSY_TIMEOUT_MS}",
            ),
        )

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def sqlite_reader_engine(path: Path) -> Engine:
    """A pool of connections that cannot write and see one snapshot per transaction."""
    engine = create_engine(
        URL.create("sqlite", database=f"file:{_quoted(path)}", query={"mode": "ro", "uri": "true"}),
        connect_args={"check_same_thread": False, "cached_statements": STATEMENTS_KEPT},
        pool_size=READERS,
        max_overflow=0,
        pool_timeout=READERS_WAIT_S,
    )

    def on_connect(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        _take_over_transactions(connection)
        _run_pragmas(connection, ("query_only = ON", f"busy_timeout = {BUSY_TIMEOUT_MS}"))

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", _begin_deferred)
    return engine


def postgres_engine(url: URL) -> Engine:
    """A pool of connections to PostgreSQL; one that the server dropped is noticed before use."""
    return create_engine(
        url,
        pool_size=READERS,
        max_overflow=READERS,
        pool_timeout=READERS_WAIT_S,
        pool_pre_ping=True,
        connect_args={"connect_timeout": POSTGRES_CONNECT_S},
    )


@contextmanager
def explained(url: URL) -> Generator[None]:
    """Turn a driver's first complaint into a sentence for the person who started the app.

    Raises:
        DatabaseFileError: SQLite cannot open or read the file.
        DatabaseUnreachableError: PostgreSQL does not answer or lets nobody in.
    """
    try:
        yield
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
        if url.get_backend_name() == "sqlite":
            raise DatabaseFileError(
                f"{sqlite_path(url)} cannot be used as a database ({reason}); restore a backup or name another file."
            ) from error
        raise DatabaseUnreachableError(
            f"PostgreSQL at {url.render_as_string(hide_password=True)} gives no access ({reason}); "
            "start it or correct DATABASE_URL."
        ) from error


class FileOwnership:
    """Owning a SQLite file: one process at a time, by a lock that the system drops when the process dies."""

    def __init__(self, path: Path) -> None:
        self._lock_path = path.with_name(path.name + ".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._lock_path.open("a+", encoding="ascii")
        except OSError as error:
            raise DatabaseFileError(
                f"{path} cannot be opened for writing ({error.strerror}); choose a folder that you may write to."
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise DatabaseInUseError(
                f"{path} is already open in process {owner}; stop that one first, or use PostgreSQL for several."
            ) from error
        self._file.seek(0)
        self._file.truncate()
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Let the next process in; the lock file stays, because removing it would race with that process."""
        self._file.close()


def _take_over_transactions(connection: DBAPIConnection) -> None:
    # The driver would begin transactions by itself, too late and DEFERRED; the `begin` events do it instead.
    as_sqlite(connection).isolation_level = None


def as_sqlite(connection: DBAPIConnection | None) -> sqlite3.Connection:
    """The driver's own connection, known to be SQLite's."""
    if not isinstance(connection, sqlite3.Connection):
        raise TypeError(f"Expected a SQLite connection, not {type(connection).__name__}.")
    return connection


def _driver(connection: Connection) -> sqlite3.Connection:
    return as_sqlite(connection.connection.driver_connection)


def _run_pragmas(connection: DBAPIConnection, pragmas: tuple[str, ...]) -> None:
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _quoted(path: Path) -> str:
    return path.as_uri().removeprefix("file://")
