"""Bringing a database to the tables of this release, or refusing it in one sentence."""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL

from db.connections import (
    FileOwnership,
    check_sqlite_file,
    explained,
    parse_url,
    postgres_engine,
    sqlite_path,
    sqlite_writer_engine,
)
from db.revision import HEAD, MIGRATIONS, SchemaRevisionError, known_revision, shown

MIGRATION_LOCK = 0x61_73_75_6B_61  # "asuka": two processes that start together must not both migrate PostgreSQL


def migrate(url: str) -> None:
    """Create the tables, or bring those of an older release up to date; all of it or nothing.

    Raises:
        SchemaRevisionError: the database belongs to a newer release or to another program.
        DatabaseError: it cannot be reached, is no database, or is in use.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        _migrate(postgres_engine(parsed), parsed)
        return
    path = sqlite_path(parsed)
    check_sqlite_file(path)
    ownership = FileOwnership(path)
    try:
        _migrate(sqlite_writer_engine(path, foreign_keys=False), parsed)
    finally:
        ownership.release()


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the migrations up to `revision` on a connection inside a transaction of the caller's."""
    command.upgrade(_configured(connection), revision)


def downgrade(connection: Connection, revision: str) -> None:
    """Undo the migrations down to `revision` ("base" for all) on a connection inside a transaction of the caller's."""
    command.downgrade(_configured(connection), revision)


def _migrate(engine: Engine, url: URL) -> None:
    try:
        with explained(url), engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            if known_revision(connection, url) != HEAD:
                upgrade(connection)
                _check_references(connection, url)
    finally:
        engine.dispose()


def _check_references(connection: Connection, url: URL) -> None:
    # Foreign keys are off while SQLite migrates (a rebuilt table would take its children along), so count them after.
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if broken is not None:
            raise SchemaRevisionError(
                f"Migrating {shown(url)} would leave a row of {broken[0]} without its {broken[2]}; nothing "
                "was changed. Please report this."
            )


def _configured(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
