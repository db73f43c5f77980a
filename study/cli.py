"""The study from a terminal: check a definition, bring in pictures, run a study, take the answers out, keep them."""

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from db.connections import DatabaseError
from db.engine import Database
from db.migrate import migrate
from study import export, ingest, publication
from study.adapters import adapter_files
from study.api import utc_microseconds
from study.audit import AuditError
from study.backup import BackupError, Backups, backup_folder, refuse_ephemeral, restore
from study.counters import CountError
from study.definition import DefinitionError, json_schema, read_definition
from study.design import DesignError, Designs
from study.erasure import erase
from study.journal import Journal, JournalError
from study.payment import PaymentError, PaymentKeys, keys_folder, payments, payments_csv
from study.preregistration import preregistration
from study.preview import preview_page
from study.service import Clocked, RefusedError
from study.simulate import Plan, SimulationError, known_pictures, recogniser, simulate, strengths_taste
from study.verification import VerificationError, verify

BAD_INPUT = 2
"""Exit code when what was given cannot be used; argparse's own."""

EXPECTED = (
    DefinitionError,
    DesignError,
    ingest.IngestError,
    publication.PublicationError,
    RefusedError,
    DatabaseError,
    AuditError,
    CountError,
    VerificationError,
    BackupError,
    JournalError,
    PaymentError,
    SimulationError,
)
"""Errors whose message is written for the person at the terminal."""

Command = Callable[[argparse.Namespace], None]


class _Add(Protocol):
    def __call__(self, name: str, command: Command, told: str) -> argparse.ArgumentParser: ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 2 after one sentence on stderr when the input cannot be used.
    """
    parsed = _parser().parse_args(arguments)
    command: Command = parsed.command
    try:
        command(parsed)
    except EXPECTED as error:
        print(f"study: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"study: {error.filename or 'a file'}: {error.strerror}; check the path.", file=sys.stderr)
        return BAD_INPUT
    return 0


# ------------------------------------------------------------------------------------------------- the commands


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m study", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, command: Command, told: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=told, description=told)
        added.set_defaults(command=command)
        return added

    add("validate", _validate, "check a definition and print its hash").add_argument("definition", type=Path)
    add("schema", _schema, "print the JSON Schema of a definition, for editors")
    told = "print what is registered before the first answer, with the definition's hash"
    add("preregister", _preregister, told).add_argument("definition", type=Path)
    without_database = set(commands.choices)
    _add_ingest(add)
    _add_running(add)
    _add_keeping(add)
    for name, added in commands.choices.items():
        if name not in without_database:
            added.add_argument(
                "--database", help="sqlite:///path/to/study.sqlite or postgresql://...; default: DATABASE_URL"
            )
    return parser


def _add_ingest(add: _Add) -> None:
    bring = add("ingest", _ingest, "check pictures and store them as a new version of a study")
    bring.add_argument("definition", type=Path)
    bring.add_argument("--images", type=Path, required=True, help="folder of photographs")
    bring.add_argument("--holes", type=Path, required=True, help="folder of holes, white = missing")
    bring.add_argument(
        "--results", type=Path, required=True, help="one folder per method, as `asuka_infer batch` writes"
    )


def _add_running(add: _Add) -> None:
    added = {
        name: add(name, command, told)
        for name, command, told in (
            ("preview", _preview, "write a page with the words and pictures of the newest version, launched or not"),
            ("launch", _launch, "open the newest version of a study to participants, again if it paused"),
            ("pause", _pause, "let a study rest: nobody joins, answers under way are still taken"),
            ("drain", _drain, "ask only what is still missing until every cell has its target"),
            ("close", _close, "end a study for good"),
            ("unblind", _unblind, "say which method is which, for good: only when closed, and written down"),
            ("status", _status, "how a study stands, as JSON"),
            ("export", _export, "write the answers; the same database gives the same bytes"),
            ("payments", _payments, "whom to pay, with the platform's ids, as CSV; keep it off shared disks"),
            ("erase", _erase, "delete all that one session answered"),
        )
    }
    for parser in added.values():
        parser.add_argument("study", help="the study's slug")
    added["preview"].add_argument("--out", type=Path, required=True, help="HTML file to write")
    added["launch"].add_argument("--replace", action="store_true", help="close an older open version")
    added["export"].add_argument(
        "--out", type=Path, help="folder for all tables, or a .csv file for the votes alone; else votes to stdout"
    )
    added["export"].add_argument("--version", type=int, help="of the definition; else the one visitors see")
    added["payments"].add_argument("--version", type=int, help="of the definition; else the one visitors see")
    added["payments"].add_argument(
        "--keys", type=Path, default=os.environ.get("ASUKA_PAYMENT_KEYS"), help="folder of keys, if not beside the file"
    )
    added["erase"].add_argument("--session", required=True, help="the session's id, as exports show it")
    added["erase"].add_argument(
        "--keys", type=Path, default=os.environ.get("ASUKA_PAYMENT_KEYS"), help="folder of keys, if not beside the file"
    )
    added["launch"].add_argument("--ephemeral", action="store_true", help="the answers may be lost at a restart")


def _add_keeping(add: _Add) -> None:
    bots = add("simulate", _simulate, "let made-up participants with known tastes answer a running study over HTTP")
    bots.add_argument("study", help="the study's slug; never one that real people answer")
    bots.add_argument("--url", required=True, help="address of the running app, for example http://127.0.0.1:7860")
    bots.add_argument("--people", type=int, default=20)
    bots.add_argument(
        "--strength", action="append", default=[], metavar="METHOD=NUMBER",
        help="how strongly a method is preferred, 1 by default: 7 beside 3 is chosen in 70 of 100",
    )  # fmt: skip
    bots.add_argument("--drop-out", type=float, default=0.0, help="share of participants who leave early")
    bots.add_argument("--ties", type=float, default=0.0, help="share of answers that see no difference")
    bots.add_argument("--careless", type=float, default=0.0, help="share of participants who look at nothing")
    bots.add_argument("--at-once", type=int, default=8, help="participants at the same time")
    bots.add_argument("--seed", type=int, default=0)
    bots.add_argument("--source", default="public", help="as which kind of participants they come")
    add("verify", _verify, "recount the balance, follow the audit trail, check the file")
    for name, command, told in (
        ("backup", _backup, "copy a SQLite database that is in use into a backup folder"),
        ("restore", _restore, "make a database from a backup folder: its newest copy, then the journal"),
    ):
        add(name, command, told).add_argument("folder", type=Path, help="with `snapshots`, `journal` and `keys` in it")


def _validate(given: argparse.Namespace) -> None:
    study = read_definition(given.definition)
    compared = f"{len(study.pairs)} pairs" if study.pairs else f"best of {study.candidates}"
    print(f"{study.study}: {study.protocol}, {compared}, {study.plan.real} trials each, sha256 {study.sha256}")


def _schema(_given: argparse.Namespace) -> None:
    print(json_schema(), end="")


def _preregister(given: argparse.Namespace) -> None:
    print(preregistration(read_definition(given.definition)), end="")


def _ingest(given: argparse.Namespace) -> None:
    study = read_definition(given.definition)
    with _writable(given) as database, _bar() as progress:
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


def _preview(given: argparse.Namespace) -> None:
    with _readable(given) as database, database.read() as db:
        page = preview_page(db, given.study)
    _write(given.out, page.encode())
    print(f"wrote {given.out}")


def _launch(given: argparse.Namespace) -> None:
    allowed = given.ephemeral or os.environ.get("ASUKA_ALLOW_EPHEMERAL", "").lower() in {"1", "true", "yes"}
    refuse_ephemeral(_database_url(given), allowed=allowed, remote="ASUKA_BACKUP_DATASET" in os.environ)
    with _writable(given) as database:
        launched = publication.launch(
            database, given.study, now=utc_microseconds(), replace=given.replace, actor=_actor()
        )
    print(f"{launched.slug} version {launched.version} takes participants at {launched.path}")


def _pause(given: argparse.Namespace) -> None:
    with _writable(given) as database:
        paused = publication.pause(database, given.study, now=utc_microseconds(), actor=_actor())
    print(f"{paused.slug} version {paused.version} rests; open it again with: python -m study launch {paused.slug}")


def _drain(given: argparse.Namespace) -> None:
    with _writable(given) as database:
        draining = publication.drain(database, given.study, now=utc_microseconds(), actor=_actor())
    missing = max(0, draining.target_per_cell - draining.fewest_per_cell)
    print(f"{draining.slug} version {draining.version} drains; its emptiest cell lacks {missing} answers")


def _close(given: argparse.Namespace) -> None:
    with _writable(given) as database:
        closed = publication.close(database, given.study, now=utc_microseconds(), actor=_actor())
    print(f"{closed.slug} version {closed.version} is closed with {closed.answered_trials} answered trials")


def _unblind(given: argparse.Namespace) -> None:
    with _writable(given) as database:
        seen = publication.unblind(database, given.study, now=utc_microseconds(), actor=_actor())
    print(f"{seen.slug} version {seen.version} is unblinded: exports and results name the methods from now on")


def _status(given: argparse.Namespace) -> None:
    with _readable(given) as database, database.read() as db:
        found = publication.status(db, given.study)
    print(json.dumps(asdict(found), indent=2, sort_keys=True))


def _export(given: argparse.Namespace) -> None:
    with _readable(given) as database, database.read() as db:
        read = export.read_export(db, export.find_launched(db, given.study, given.version))
    votes = len(read.tables["votes"])
    if given.out is None:
        print(export.votes_csv(read), end="")
    elif given.out.suffix == ".csv":
        _write(given.out, export.votes_csv(read).encode())
        print(f"wrote {votes} votes to {given.out}")
    else:
        export.write_export(export.export_files(read, beside=adapter_files(read), commit=_commit()), given.out)
        print(f"wrote {votes} votes and all other tables to {given.out}")


def _payments(given: argparse.Namespace) -> None:
    folder = keys_folder(_database_url(given), given.keys)
    if folder is None or not folder.is_dir():
        raise PaymentError(f"There are no keys at {folder}; name the folder that the app keeps them in with --keys.")
    with _readable(given) as database, database.read() as db:
        version = export.find_launched(db, given.study, given.version)
        print(payments_csv(payments(db, version, PaymentKeys(folder))), end="")


def _erase(given: argparse.Namespace) -> None:
    at = Clocked(utc_microseconds(), os.urandom)
    folder = keys_folder(_database_url(given), given.keys)
    keys = PaymentKeys(folder) if folder is not None and folder.is_dir() else None
    with _writable(given) as database:
        erase(database, Designs(), given.study, given.session, at, actor=_actor(), keys=keys)
    print(f"erased session {given.session} of {given.study}; what is left is that there was one")


def _verify(given: argparse.Namespace) -> None:
    with _readable(given) as database:
        found = verify(database)
    print(
        f"{found.versions} versions with {found.cells} cells: every count equals its trials; "
        f"the audit trail of {found.audit_rows} rows is whole"
    )


def _simulate(given: argparse.Namespace) -> None:
    strengths: dict[str, float] = {}
    for pair in given.strength:
        method, equals, number = pair.partition("=")
        if not equals or not number.replace(".", "", 1).isdecimal() or float(number) <= 0:
            raise SimulationError(f"{pair!r} says no strength; write METHOD=NUMBER with a number above 0.")
        strengths[method] = float(number)
    with _readable(given) as database, database.read() as db:
        known = known_pictures(db, given.study)
    strange = sorted(set(strengths) - set(known.values()))
    if strange:
        raise SimulationError(f"{strange[0]!r} is no method of {given.study}; check --strength.")
    plan = Plan(
        given.people, given.seed, given.drop_out, given.ties, given.at_once, given.source, careless=given.careless
    )
    found = simulate(given.url, given.study, plan, strengths_taste(strengths), recogniser(known))
    print(
        f"{found.completed} completed with {found.codes} codes, {found.left} left, {found.turned_away} turned away; "
        f"{found.answers} trials answered"
    )


def _backup(given: argparse.Namespace) -> None:
    made = Backups(_database_url(given), given.folder).copy_now()
    print(f"copied to {made.path}")


def _restore(given: argparse.Namespace) -> None:
    back = restore(given.folder, _database_url(given))
    print(
        f"restored {back.snapshot.path.name} and {back.replayed.answers} answered trials from the journal, "
        f"with {back.replayed.decisions} exclusions or what undid them; "
        f"{back.replayed.erased} sessions were erased again, {back.replayed.unreadable} lines belong to erased ones"
    )


# ------------------------------------------------------------------------------------------------- what they share


def _database_url(given: argparse.Namespace) -> str:
    url = given.database or os.environ.get("DATABASE_URL")
    if not url:
        raise DatabaseError("No database is named; give --database sqlite:///path/to/study.sqlite or set DATABASE_URL.")
    return url


@contextmanager
def _writable(given: argparse.Namespace) -> Generator[Database]:
    url = _database_url(given)
    migrate(url)
    with _journal(url) as journal, Database.open(url, follower=journal) as database:
        yield database


@contextmanager
def _journal(url: str) -> Generator[Journal | None]:
    """The second record that the app keeps of this database, if it keeps one where its settings say."""
    data = Path(os.environ.get("ASUKA_DATA_DIR", "var"))
    root = Path(os.environ.get("ASUKA_BACKUP_DIR") or data / "backups")
    folder = backup_folder(url, root)
    if folder is None or not (folder / "journal").is_dir():
        yield None
        return
    journal = Journal(folder)
    try:
        yield journal
    finally:
        journal.close()


@contextmanager
def _readable(given: argparse.Namespace) -> Generator[Database]:
    with Database.open(_database_url(given), read_only=True) as database:
        yield database


def _actor() -> str:
    """Who sits at this terminal, for the audit trail."""
    try:
        return f"terminal:{getpass.getuser()}"
    except (KeyError, OSError):  # a container may run under a number without a name
        return f"terminal:{os.getuid()}"


def _commit() -> str | None:
    """The commit of the checkout this runs from, None outside of one."""
    git = Path(__file__).parents[1] / ".git"
    head = git / "HEAD"
    if not head.is_file():
        return None
    said = head.read_text(encoding="ascii").strip()
    branch = git / said.removeprefix("ref: ")
    if not said.startswith("ref: "):
        return said
    return branch.read_text(encoding="ascii").strip() if branch.is_file() else None


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(content)
    unfinished.replace(path)


@contextmanager
def _bar() -> Generator[Callable[[int, int], None]]:
    with tqdm(unit=" images", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
