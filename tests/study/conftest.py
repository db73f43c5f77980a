"""Fixtures of the study's tests: a real database of each kind, pictures on disk, a launched study with its server."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from db.engine import Database
from db.migrate import migrate
from tests.study.stage import Folders, Stage, definition, draw_study, ingest_and_launch, open_stage

POSTGRES_URL = os.environ.get("ASUKA_TEST_POSTGRES_URL")


KINDS = ["sqlite", *([pytest.param("postgresql", marks=pytest.mark.postgres)] if POSTGRES_URL else [])]


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite database, to be copied: migrating takes a third of a second."""
    path = tmp_path_factory.mktemp("migrated") / "study.sqlite"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path, migrated_file: Path) -> Iterator[Database]:
    """Migrated and empty."""
    url = f"sqlite:///{tmp_path / 'study.sqlite'}"
    if request.param == "postgresql":
        url = str(POSTGRES_URL)
        empty_postgres(url)
        migrate(url)
    else:
        shutil.copy(migrated_file, tmp_path / "study.sqlite")
    with Database.open(url) as opened:
        yield opened


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return draw_study(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def launched_file(tmp_path_factory: pytest.TempPathFactory, folders: Folders) -> Path:
    """A SQLite file with the study launched, to be copied: migrating and ingesting takes half a second."""
    path = tmp_path_factory.mktemp("launched") / "study.sqlite"
    migrate(f"sqlite:///{path}")
    with Database.open(f"sqlite:///{path}") as database:
        ingest_and_launch(database, folders, definition())
    return path


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, tmp_path: Path, launched_file: Path, folders: Folders) -> Iterator[Stage]:
    url = f"sqlite:///{tmp_path / 'study.sqlite'}"
    if request.param == "postgresql":
        url = str(POSTGRES_URL)
        empty_postgres(url)
        migrate(url)
    else:
        shutil.copy(launched_file, tmp_path / "study.sqlite")
    with Database.open(url) as database, open_stage(database, folders, definition()) as opened:
        yield opened


def empty_postgres(url: str) -> None:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
