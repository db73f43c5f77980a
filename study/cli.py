"""The study from a terminal: check a definition, bring in pictures, open and close a study, take the answers out."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from db.connections import DatabaseError
from db.engine import Database
from db.migrate import migrate
from study import export, ingest, publication
from study.api import utc_microseconds
from study.definition import DefinitionError, json_schema, read_definition
from study.design import DesignError
from study.service import RefusedError

BAD_INPUT = 2
"""Exit code when what was given cannot be used; argparse's own."""

EXPECTED = (
    DefinitionError,
    DesignError,
    ingest.IngestError,
    publication.PublicationError,
    RefusedError,
    DatabaseError,
)
"""Errors whose message is written for the person at the terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 2 after one sentence on stderr when the input cannot be used.
    """
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = parsed.command
    try:
        command(parsed)
    except EXPECTED as error:
        print(f"study: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"study: {error.filename or 'a file'}: {error.strerror}; check the path.", file=sys.stderr)
        return BAD_INPUT
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m study", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, command: Callable[[argparse.Namespace], None], told: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=told, description=told)
        added.set_defaults(command=command)
        return added

    add("validate", _validate, "check a definition and print its hash").add_argument("definition", type=Path)
    add("schema", _schema, "print the JSON Schema of a definition, for editors")
    bring = add("ingest", _ingest, "check pictures and store them as a new version of a study")
    bring.add_argument("definition", type=Path)
    bring.add_argument("--images", type=Path, required=True, help="folder of photographs")
    bring.add_argument("--holes", type=Path, required=True, help="folder of holes, white = missing")
    bring.add_argument(
        "--results", type=Path, required=True, help="one folder per method, as `asuka_infer batch` writes"
    )
    for name, command, told in (
        ("launch", _launch, "open the newest version of a study to participants"),
        ("close", _close, "end a study for good; its results may be seen from then on"),
        ("status", _status, "how a study stands, as JSON"),
        ("export", _export, "write the votes as CSV; the same database gives the same bytes"),
    ):
        add(name, command, told).add_argument("study", help="the study's slug")
    commands.choices["launch"].add_argument("--replace", action="store_true", help="close an older open version")
    commands.choices["export"].add_argument("--out", type=Path, help="file to write; without it, standard output")
    for name in ("ingest", "launch", "close", "status", "export"):
        commands.choices[name].add_argument(
            "--database", help="sqlite:///path/to/study.sqlite or postgresql://...; default: DATABASE_URL"
        )
    return parser


def _validate(given: argparse.Namespace) -> None:
    study = read_definition(given.definition)
    compared = f"{len(study.pairs)} pairs" if study.pairs else f"best of {study.candidates}"
    print(f"{study.study}: {study.protocol}, {compared}, {study.plan.real} trials each, sha256 {study.sha256}")


def _schema(_given: argparse.Namespace) -> None:
    print(json_schema(), end="")


def _ingest(given: argparse.Namespace) -> None:
    study = read_definition(given.definition)
    url = _database_url(given)
    migrate(url)
    with Database.open(url) as database, _bar() as progress:
        stored = ingest.ingest_study(
            database,
            study,
            given.images,
            given.holes,
            given.results,
            now=utc_microseconds(),
            random_bytes=os.urandom,
            progress=progress,
        )
    what = f"{stored.slug} version {stored.version}: {stored.images} images, {stored.methods} methods"
    print(
        f"stored {what}; open it with: python -m study launch {stored.slug}" if stored.created else f"{what} is there"
    )


def _launch(given: argparse.Namespace) -> None:
    url = _database_url(given)
    migrate(url)
    with Database.open(url) as database:
        launched = publication.launch(database, given.study, now=utc_microseconds(), replace=given.replace)
    print(f"{launched.slug} version {launched.version} takes participants at {launched.path}")


def _close(given: argparse.Namespace) -> None:
    url = _database_url(given)
    migrate(url)
    with Database.open(url) as database:
        closed = publication.close(database, given.study, now=utc_microseconds())
    print(f"{closed.slug} version {closed.version} is closed with {closed.answered_trials} answered trials")


def _status(given: argparse.Namespace) -> None:
    with Database.open(_database_url(given), read_only=True) as database, database.read() as db:
        found = publication.status(db, given.study)
    print(json.dumps(asdict(found), indent=2, sort_keys=True))


def _export(given: argparse.Namespace) -> None:
    with Database.open(_database_url(given), read_only=True) as database, database.read() as db:
        votes = export.all_votes_csv(db, given.study)
    if given.out is None:
        print(votes, end="")
        return
    unfinished = given.out.with_name(given.out.name + ".part")
    unfinished.write_text(votes, encoding="utf-8", newline="")
    unfinished.replace(given.out)
    print(f"wrote {votes.count(chr(10)) - 1} votes to {given.out}")


def _database_url(given: argparse.Namespace) -> str:
    url = given.database or os.environ.get("DATABASE_URL")
    if not url:
        raise DatabaseError("No database is named; give --database sqlite:///path/to/study.sqlite or set DATABASE_URL.")
    return url


@contextmanager
def _bar() -> Generator[Callable[[int, int], None]]:
    with tqdm(unit=" images", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
