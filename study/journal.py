"""A second record of every answer and exclusion: encrypted lines beside the database, by session, never rewritten.

Each session's lines are encrypted (AES-256-GCM) under a key in a file of its own. Erasing a session destroys that file,
and with it what every copy of the journal says of the session. The journal is read only by `replay`, after a loss.
"""

import base64
import json
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Table, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.orm import Session

from db.base import Base
from db.models import SessionState, Withdrawal, WithdrawalScope
from db.queries import erase_session
from db.statements import Statement
from db.writer import Note
from study import counters, quality
from study.counters import SESSION
from study.design import VERSION
from study.service import ANSWERED, ERASED, EXCLUDED

KEY_BYTES, NONCE_BYTES = 32, 12
"""AES-256; 96 random bits per line (NIST SP 800-38D, section 8.2): a session has some hundred lines at most."""

_TABLES = Base.metadata.tables

REPLAYED = tuple(
    name
    for name in (
        "participant", "payment_link", "session", "consent", "trial", "trial_slot", "response", "analysis_vote",
    )
    if name in _TABLES
)  # fmt: skip
"""Tables a line holds rows of, each after those it refers to."""

EXCLUSION = _TABLES["exclusion"]

_ONLY_ONCE = frozenset(
    {"trial_slot", "response", "analysis_vote", "consent", "participant", "payment_link", EXCLUSION.name}
)
"""Tables whose rows never change once written: a row that is there already is right."""

_TRIALS = "SELECT id FROM trial WHERE id IN ({marks})"
_SESSIONS = "SELECT session_id FROM trial WHERE id IN ({marks})"
_PEOPLE = f"SELECT participant_id FROM session WHERE id IN ({_SESSIONS})"  # noqa: S608 - constants
_WHERE = {
    "participant": f"id IN ({_PEOPLE})",
    "payment_link": f"participant_id IN ({_PEOPLE})",
    "session": f"id IN ({_SESSIONS})",
    "consent": f"session_id IN ({_SESSIONS})",
    "trial": f"id IN ({_TRIALS})",
    "trial_slot": f"trial_id IN ({_TRIALS})",
    "response": f"trial_id IN ({_TRIALS})",
    "analysis_vote": f"response_id IN (SELECT id FROM response WHERE trial_id IN ({_TRIALS}))",  # noqa: S608 - constants
}

Rows = dict[str, list[dict[str, Any]]]
"""Rows by table, as the database stores them."""


class JournalError(RuntimeError):
    """The journal cannot be written, or is not what it was."""


class Journal:
    """The journal of one run of the program; a `db.writer.Follower`.

    Args:
        folder: gets `journal/<time>-<boot>.jsonl` and `keys/<session>.key`, readable by this user alone.
    """

    def __init__(self, folder: Path) -> None:
        self._boot = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"
        self._keys = Keys(folder / "keys")
        journal = folder / "journal"
        journal.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = journal / f"{self._boot}.jsonl"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        _sync_folder(journal)
        self._written = 0
        self._line = 0
        self._pending = b""
        self._doomed: list[str] = []

    def collect(self, connection: sqlite3.Connection, notes: Sequence[Note]) -> bytes:
        """The lines of a batch: the rows of each session that answered, each exclusion, that a session was erased."""
        erased = [each.row_id for each in notes if each.word == ERASED]
        trials = [each.row_id for each in notes if each.word == ANSWERED]
        excluded = [each.row_id for each in notes if each.word == EXCLUDED]
        found = [*_by_session(connection, trials), *_exclusions(connection, excluded)]
        self._keys.make(public for public, _ in found)
        lines = [self._encrypted(public, rows) for public, rows in found]
        for (public,) in connection.execute(
            f"SELECT public_id FROM session WHERE id IN ({_marks(erased)})",  # noqa: S608 - question marks alone
            erased,
        ):
            self._doomed.append(public)
            lines.append(_line({"erased": public}))
        return b"".join(lines)

    def append(self, record: bytes) -> None:
        """Write and fsync; what could not be written is written before anything later is acknowledged.

        Raises:
            JournalError: when the disk refuses.
        """
        self._pending += record
        if not self._pending:
            return
        try:
            _write_all(self._file, self._pending)
        except OSError as error:
            os.ftruncate(self._file, self._written)
            raise JournalError(
                f"The journal {self._path} cannot be written ({error.strerror}); free disk space. Answers are stored "
                "in the database and acknowledged once the journal has them too."
            ) from error
        self._written += len(self._pending)
        self._pending = b""
        for public in self._doomed:
            self._keys.destroy(public)
        self._doomed.clear()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _encrypted(self, public: str, rows: Rows) -> bytes:
        self._line += 1
        place = f"{self._boot}:{self._line}"
        nonce = os.urandom(NONCE_BYTES)
        plain = json.dumps(rows, separators=(",", ":"), ensure_ascii=False, default=_bytes_as_text).encode()
        data = self._keys[public].encrypt(nonce, plain, place.encode())
        return _line({"place": place, "session": public, "data": base64.b64encode(nonce + data).decode()})


class Keys:
    """One file per session; whoever deletes it has erased the session from every journal."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._known: dict[str, AESGCM] = {}

    def make(self, sessions: Iterable[str]) -> None:
        """Keys for those that have none; they are on the disk when this returns.

        All are written before the first is waited for, because a file system brings to the disk together what is
        there: when a class of forty begins at once, its first answers do not wait for eighty fsyncs one by one.
        """
        new = {
            public: AESGCM.generate_key(8 * KEY_BYTES)
            for public in dict.fromkeys(sessions)
            if self.find(public) is None
        }
        if not new:
            return
        # Under other names first: who is killed in between must not leave half a key, which nobody could go on with.
        unfinished = {public: self._path(public).with_suffix(".new") for public in new}
        files: list[int] = []
        try:
            for public, key in new.items():
                files.append(os.open(unfinished[public], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
                os.write(files[-1], key)
            for file in files:
                os.fsync(file)
        finally:
            for file in files:
                os.close(file)
        for public in new:
            unfinished[public].rename(self._path(public))
        _sync_folder(self._folder)
        self._known.update((public, AESGCM(key)) for public, key in new.items())

    def __getitem__(self, public: str) -> AESGCM:
        """The key of a session that `make` was called for."""
        return self._known[public]

    def find(self, public: str) -> AESGCM | None:
        """The session's key, None if it was destroyed or never made."""
        if public not in self._known:
            try:
                self._known[public] = AESGCM(self._path(public).read_bytes())
            except FileNotFoundError:
                return None
            except ValueError as error:
                raise JournalError(f"{self._path(public)} is no key; restore the folder of keys.") from error
        return self._known[public]

    def destroy(self, public: str) -> None:
        """Delete the key for good."""
        self._known.pop(public, None)
        if self._path(public).exists():
            self._path(public).unlink()
            _sync_folder(self._folder)

    def _path(self, public: str) -> Path:
        return self._folder / f"{public}.key"


# ------------------------------------------------------------------------------------------------- after a loss


@dataclass(frozen=True)
class Replayed:
    """What a journal gave back.

    Attributes:
        answers: answered trials that the database did not have.
        decisions: exclusions, and what undoes them, that it did not have.
        erased: sessions erased since the database's copy was made, erased again.
        unreadable: lines of sessions whose key was destroyed.
    """

    answers: int
    decisions: int
    erased: int
    unreadable: int


def replay(db: Session, folder: Path) -> Replayed:
    """Bring a restored database up to the last acknowledged answer; inside a write job.

    Raises:
        JournalError: for a line that was changed; a last line that breaks off was never acknowledged and is left out.
    """
    keys = Keys(folder / "keys")
    answers, decisions, unreadable, erased = 0, 0, 0, list[str]()
    for line in _lines(folder / "journal"):
        if "erased" in line:
            erased.append(line["erased"])
            continue
        cipher = keys.find(line["session"])
        if cipher is None:
            unreadable += 1
            continue
        rows = _decrypted(cipher, line)
        answers += _put_back(db, rows) if "response" in rows else 0
        decisions += sum(_decide_again(db, row) for row in rows.get(EXCLUSION.name, []))
    again = sum(_erase_again(db, public, now=_now()) for public in erased)
    for version in db.execute(select(VERSION.c.id)).scalars().all():
        counters.rebuild(db, version)
    return Replayed(answers, decisions, again, unreadable)


def _lines(folder: Path) -> Iterator[Mapping[str, Any]]:
    for file in sorted(folder.glob("*.jsonl")):
        # Split by hand: a line without its end was being written when the power went, so nobody was told of it.
        for line in file.read_bytes().split(b"\n")[:-1]:
            try:
                yield json.loads(line)
            except ValueError as error:
                raise JournalError(f"{file} holds a line that is no JSON; take this file from another copy.") from error


def _decrypted(cipher: AESGCM, line: Mapping[str, Any]) -> Rows:
    sealed = base64.b64decode(line["data"])
    try:
        plain = cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], line["place"].encode())
    except InvalidTag as error:
        raise JournalError(
            f"Line {line['place']} of the journal was changed or has another session's key; take it from another copy."
        ) from error
    return json.loads(plain, object_hook=_text_as_bytes)


def _put_back(db: Session, rows: Rows) -> int:
    """Write the rows of one line, unless the database has its answers already; how many trials were missing."""
    response = _TABLES["response"]
    ids = [row["id"] for row in rows["response"]]
    there = set(db.execute(select(response.c.id).where(response.c.id.in_(ids))).scalars())
    missing = {row["trial_id"] for row in rows["response"] if row["id"] not in there}
    if not missing:
        return 0
    for name in REPLAYED:
        for row in rows.get(name, []):
            _put(db, _TABLES[name], row)
    return len(missing)


def _decide_again(db: Session, row: dict[str, Any]) -> bool:
    """Exclude, or undo an exclusion, as it was done since the copy was made; whether that was missing."""
    there = select(EXCLUSION.c.id).where(EXCLUSION.c.id == row["id"])
    session = select(SESSION.c.id).where(SESSION.c.id == row["session_id"])
    if db.execute(there).first() is not None or db.execute(session).first() is None:
        return False
    _put(db, EXCLUSION, row)
    quality.write_down(db, row["id"])
    quality.settle(db, (row["session_id"],))
    return True


def _put(db: Session, table: Table, row: dict[str, Any]) -> None:
    _upsert(table.name, tuple(row)).run(db, row)  # as the database stored it, so nothing is converted


@lru_cache
def _upsert(name: str, columns: tuple[str, ...]) -> Statement:
    """Puts a row there; one that is there already is right, or is brought up to date where rows of its table change."""
    table = _TABLES[name]
    key = [column.name for column in table.primary_key]
    statement = upsert(table)
    if name in _ONLY_ONCE:
        return Statement(statement.on_conflict_do_nothing(index_elements=key))
    newer = {column: statement.excluded[column] for column in columns if column not in key}
    return Statement(statement.on_conflict_do_update(index_elements=key, set_=newer))


def _erase_again(db: Session, public: str, *, now: int) -> bool:
    session = db.execute(select(SESSION.c.id).where(SESSION.c.public_id == public)).scalar_one_or_none()
    if session is None:
        return False
    done = select(Withdrawal.id).where(Withdrawal.session_id == session, Withdrawal.scope == WithdrawalScope.ERASE)
    if db.execute(done).first() is not None:
        return False
    erase_session(db, session, at=now)
    ended = {"state": SessionState.WITHDRAWN, "ended_at": now, "last_seen": now}
    db.execute(update(SESSION).where(SESSION.c.id == session).values(ended))
    return True


# ------------------------------------------------------------------------------------------------- details


def _by_session(connection: sqlite3.Connection, trials: Sequence[int]) -> Iterator[tuple[str, Rows]]:
    """(public id, rows) of each session that answered one of the trials."""
    if not trials:
        return
    found: Rows = {}
    for name in REPLAYED:
        where = _WHERE[name].format(marks=_marks(trials))
        cursor = connection.execute(f"SELECT * FROM {name} WHERE {where}", trials)  # noqa: S608 - our own names
        names = [column[0] for column in cursor.description]
        found[name] = [dict(zip(names, row, strict=True)) for row in cursor]
    of_trial = {row["id"]: row["session_id"] for row in found["trial"]}
    of_person = {row["id"]: row["participant_id"] for row in found["session"]}
    of_answer = {row["id"]: of_trial[row["trial_id"]] for row in found["response"]}
    for session in found["session"]:
        number, person = session["id"], of_person[session["id"]]
        yield (
            session["public_id"],
            {
                "participant": [row for row in found["participant"] if row["id"] == person],
                "payment_link": [row for row in found.get("payment_link", []) if row["participant_id"] == person],
                "session": [session],
                "consent": [row for row in found["consent"] if row["session_id"] == number],
                "trial": [row for row in found["trial"] if row["session_id"] == number],
                "trial_slot": [row for row in found["trial_slot"] if of_trial[row["trial_id"]] == number],
                "response": [row for row in found["response"] if of_trial[row["trial_id"]] == number],
                "analysis_vote": [row for row in found["analysis_vote"] if of_answer[row["response_id"]] == number],
            },
        )


def _exclusions(connection: sqlite3.Connection, ids: Sequence[int]) -> Iterator[tuple[str, Rows]]:
    """(public id of the session, row) of each exclusion, in their order."""
    if not ids:
        return
    where = f"WHERE exclusion.id IN ({_marks(ids)}) ORDER BY exclusion.id"
    whose = "exclusion JOIN session ON session.id = exclusion.session_id"
    cursor = connection.execute(f"SELECT session.public_id, exclusion.* FROM {whose} {where}", ids)  # noqa: S608 - our own names
    names = [column[0] for column in cursor.description][1:]
    for public, *row in cursor:
        yield public, {EXCLUSION.name: [dict(zip(names, row, strict=True))]}


def _bytes_as_text(value: object) -> dict[str, str]:
    if not isinstance(value, bytes):
        raise TypeError(f"The database gave a {type(value).__name__}; rows hold text, numbers, bytes and nothing else.")
    return {"base64": base64.b64encode(value).decode()}


def _text_as_bytes(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["base64"]) if value.keys() == {"base64"} else value


def _marks(values: Sequence[int]) -> str:
    return ",".join("?" * len(values))


def _write_all(file: int, content: bytes) -> None:
    if os.write(file, content) != len(content):
        raise OSError(None, "the disk took only a part of it")
    os.fdatasync(file)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _now() -> int:
    return int(datetime.now(UTC).timestamp() * 1_000_000)


def _sync_folder(folder: Path) -> None:
    """A new or deleted name is on the disk only once its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
