"""A database of each kind for every test."""

import os
import secrets
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, make_url, text

from db.engine import Database
from db.migrate import migrate

SERVER = "ASUKA_TEST_POSTGRES_URL"


def fresh_postgres() -> Iterator[str]:
    """A database of its own on the test server, dropped afterwards."""
    server = os.environ.get(SERVER)
    if not server:
        pytest.skip(f"{SERVER} is not set; `.ci/postgres` starts a server and prints its value")
    name = f"asuka_{secrets.token_hex(6)}"
    address = make_url(server).set(drivername="postgresql+psycopg")
    _administer(address, f"CREATE DATABASE {name}")
    try:
        yield address.set(database=name).render_as_string(hide_password=False)
    finally:
        _administer(address, f"DROP DATABASE {name} WITH (FORCE)")


def _administer(address: URL, statement: str) -> None:
    engine = create_engine(address, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[str]:
    """The address of a database that holds nothing yet, of either kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'study.sqlite'}"
    else:
        yield from fresh_postgres()


@pytest.fixture
def database(empty_url: str) -> Generator[Database]:
    """A migrated, open database of either kind."""
    migrate(empty_url)
    with Database.open(empty_url) as opened:
        yield opened


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The address of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'study.sqlite'}"


@pytest.fixture
def sqlite_database(sqlite_url: str) -> Generator[Database]:
    """A migrated, open SQLite database."""
    migrate(sqlite_url)
    with Database.open(sqlite_url) as opened:
        yield opened


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """The address of a PostgreSQL database that holds nothing yet."""
    yield from fresh_postgres()


@pytest.fixture
def postgres_database(postgres_url: str) -> Generator[Database]:
    """A migrated, open PostgreSQL database."""
    migrate(postgres_url)
    with Database.open(postgres_url) as opened:
        yield opened
