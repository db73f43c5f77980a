"""Migrations: no drift from the models, up and down with rows in the tables, and refusals in one sentence."""

import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Inspector, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from db.connections import DatabaseFileError, parse_url, postgres_engine, sqlite_path, sqlite_writer_engine
from db.engine import Database
from db.migrate import downgrade, migrate, upgrade
from db.models import Base
from db.revision import HEAD, KNOWN, MIGRATIONS, SchemaRevisionError
from tests.db.small_study import add_small_study

OPTIONS = {"compare_type": True, "compare_server_default": True}


def engine_of(url: str) -> Engine:
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return sqlite_writer_engine(sqlite_path(parsed))
    return postgres_engine(parsed)


def set_revision(url: str, revision: str) -> None:
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    engine.dispose()


def checks(inspector: Inspector, table: str) -> dict[Any, str]:
    return {check["name"]: "".join(check["sqltext"].split()) for check in inspector.get_check_constraints(table)}


def index_shape(index: Any) -> str:
    only_where = {name: str(value) for name, value in index.get("dialect_options", {}).items()}
    return str((index["name"], index["column_names"], index["unique"], only_where))


def shape(connection: Connection) -> dict[str, Any]:
    """All that the catalogue knows of every table, constraints and partial indexes included."""
    inspector = inspect(connection)
    return {
        table: (
            [(column["name"], str(column["type"]), column["nullable"]) for column in inspector.get_columns(table)],
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted(map(str, inspector.get_foreign_keys(table))),
            sorted(map(str, inspector.get_unique_constraints(table))),
            sorted(map(index_shape, inspector.get_indexes(table))),
            checks(inspector, table),
        )
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def upgrade_and_fail(connection: Connection) -> None:
    upgrade(connection)
    connection.execute(text("SELECT * FROM a_table_that_is_not_there"))


def test_the_migrations_make_what_the_models_say(empty_url: str) -> None:
    migrate(empty_url)
    engine = engine_of(empty_url)
    with engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=OPTIONS), Base.metadata) == []
        migrated = shape(connection)
        downgrade(connection, "base")
        Base.metadata.create_all(connection)
        assert shape(connection) == migrated
    engine.dispose()


def test_the_file_names_say_what_alembic_says() -> None:
    scripts = ScriptDirectory(str(MIGRATIONS))
    assert scripts.get_current_head() == HEAD
    assert sorted(script.revision for script in scripts.walk_revisions()) == KNOWN


def test_a_filled_database_goes_down_and_up_again(empty_url: str) -> None:
    migrate(empty_url)
    engine = engine_of(empty_url)
    with Session(engine) as session:
        add_small_study(session)
        session.commit()
    with engine.begin() as connection:
        downgrade(connection, "base")
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
        left = (
            "SELECT count(*) FROM sqlite_master WHERE type = 'trigger'"
            if connection.dialect.name == "sqlite"
            else "SELECT count(*) FROM pg_proc WHERE proname LIKE 'asuka%'"
        )
        assert connection.execute(text(left)).scalar() == 0
        upgrade(connection)
    engine.dispose()
    with Database.open(empty_url) as database:
        database.write(add_small_study)


def test_migrating_twice_changes_nothing(empty_url: str) -> None:
    migrate(empty_url)
    with Database.open(empty_url) as database:
        study = database.write(add_small_study)
    migrate(empty_url)
    with Database.open(empty_url) as database, database.read() as session:
        assert session.execute(text("SELECT id FROM response")).scalar() == study.response


@pytest.mark.postgres
def test_servers_that_start_together_migrate_once(postgres_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, [postgres_url] * 4))
    Database.open(postgres_url).close()


def test_a_migration_that_fails_half_way_leaves_nothing_behind(empty_url: str) -> None:
    engine = engine_of(empty_url)
    with pytest.raises(DBAPIError), engine.begin() as connection:
        upgrade_and_fail(connection)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == []
    engine.dispose()
    migrate(empty_url)


def test_a_database_of_a_newer_release_is_refused(empty_url: str) -> None:
    migrate(empty_url)
    set_revision(empty_url, "9999")
    for attempt in (migrate, Database.open):
        with pytest.raises(SchemaRevisionError, match="schema revision '9999', which this release does not know"):
            attempt(empty_url)


def test_a_database_that_was_not_migrated_is_not_opened(empty_url: str) -> None:
    engine = engine_of(empty_url)
    with engine.begin() as connection:
        connection.execute(text("SELECT 1"))
    engine.dispose()
    with pytest.raises(SchemaRevisionError, match="has schema revision None, this release needs"):
        Database.open(empty_url)


def test_the_tables_of_another_program_are_left_alone(empty_url: str) -> None:
    engine = engine_of(empty_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE invoices (id INTEGER)"))
    engine.dispose()
    with pytest.raises(SchemaRevisionError, match="already holds the tables invoices"):
        migrate(empty_url)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear reviewer, ...")
    for attempt in (migrate, Database.open):
        with pytest.raises(DatabaseFileError, match=r"is not a SQLite database \(it begins with b'Dear reviewer"):
            attempt(f"sqlite:///{letter}")
    assert letter.read_text() == "Dear reviewer, ..."


def test_a_truncated_database_is_refused_in_one_sentence(sqlite_url: str, tmp_path: Path) -> None:
    migrate(sqlite_url)
    file = tmp_path / "study.sqlite"
    file.write_bytes(file.read_bytes()[:6000])
    for attempt in (migrate, Database.open):
        with pytest.raises(DatabaseFileError, match="cannot be used as a database"):
            attempt(sqlite_url)


def test_an_empty_file_becomes_a_database(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "study.sqlite").touch()
    migrate(sqlite_url)
    with sqlite3.connect(tmp_path / "study.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM study").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize(
    ("url", "code", "says"),
    [
        ("sqlite:///{folder}/new.sqlite", 0, "has the tables"),
        ("nonsense", 2, "no database address"),
        ("", 2, "not set"),
    ],
)
def test_the_command_says_what_it_did_or_why_not(tmp_path: Path, url: str, code: int, says: str) -> None:
    environment = {**os.environ, "DATABASE_URL": url.format(folder=tmp_path)}
    run = subprocess.run([sys.executable, "-m", "db"], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == code
    assert says in run.stdout + run.stderr
    assert "Traceback" not in run.stderr


def test_no_table_has_room_for_an_address_or_a_browser_fingerprint() -> None:
    forbidden = {"ip", "ip_address", "address", "user_agent", "ua", "fingerprint", "email", "worker_id", "prolific_pid"}
    columns = {column.name for table in Base.metadata.tables.values() for column in table.columns}
    assert columns.isdisjoint(forbidden)
