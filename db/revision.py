"""Which release's tables a database holds; knows the names of the migrations, not how they are run."""

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.engine import URL

from db.connections import DatabaseError

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "alembic_version"

# Migrations are numbered files, so their names alone say what this release knows; reading them costs no Alembic.
KNOWN = sorted(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))
HEAD = KNOWN[-1]


class SchemaRevisionError(DatabaseError):
    """The database was made by another release or by another program."""


def require_current_revision(engine: Engine, url: URL) -> None:
    """Make sure that the tables are those of this release.

    Raises:
        SchemaRevisionError: saying which revision was found and what to do.
    """
    with engine.connect() as connection:
        found = known_revision(connection, url)
    if found != HEAD:
        raise SchemaRevisionError(
            f"The database {shown(url)} has schema revision {found}, this release needs {HEAD}; "
            "run `python -m db` with its DATABASE_URL first."
        )


def known_revision(connection: Connection, url: URL) -> str | None:
    """The schema revision of the database, None if it is empty.

    Raises:
        SchemaRevisionError: no release up to this one made it.
    """
    tables = set(inspect(connection).get_table_names())
    found: str | None = None
    if VERSION_TABLE in tables:
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if found is None and tables - {VERSION_TABLE}:
        foreign = ", ".join(sorted(tables - {VERSION_TABLE})[:5])
        raise SchemaRevisionError(
            f"The database {shown(url)} already holds the tables {foreign} of something else; name an empty one."
        )
    if found is not None and found not in KNOWN:
        raise SchemaRevisionError(
            f"The database {shown(url)} has schema revision {found!r}, which this release does not know; "
            "it was made by a newer one: update the app, or name another database."
        )
    return found


def shown(url: URL) -> str:
    """The address as a message may show it: without the password."""
    return url.render_as_string(hide_password=True)
