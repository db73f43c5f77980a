"""Alembic's door: runs the migrations on the connection that `db.migrate` hands over, or on DATABASE_URL."""

import os

from alembic import context
from sqlalchemy import Connection

from db.connections import parse_url, postgres_engine, sqlite_path, sqlite_writer_engine
from db.models import Base


def run(connection: Connection) -> None:
    """Run inside the caller's transaction, so that a migration that fails half-way leaves nothing behind."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transactional_ddl=True,  # true of SQLite too, once BEGIN is ours
        compare_type=True,
        compare_server_default=True,
    )
    context.run_migrations()


def run_for_developer() -> None:
    """`alembic -c db/alembic.ini revision --autogenerate` and friends."""
    url = parse_url(os.environ["DATABASE_URL"])
    engine = sqlite_writer_engine(sqlite_path(url)) if url.get_backend_name() == "sqlite" else postgres_engine(url)
    with engine.begin() as connection:
        run(connection)
    engine.dispose()


if "connection" in context.config.attributes:
    run(context.config.attributes["connection"])
else:
    run_for_developer()
