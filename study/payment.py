"""The platform's ids of participants, kept apart from everything else to pay them: encrypted, purged, never exported.

Each person's ids are encrypted (AES-256-GCM) under a key of their own, in a file that only this user can read, beside
the database and in none of its copies. Deleting the file makes the ids unreadable in every copy there ever was.
"""

import base64
import csv
import io
import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from db.base import Base
from db.connections import parse_url, sqlite_path
from db.engine import Database
from db.models import ExclusionEffect, SessionState
from db.queries import in_force
from study.definition import definition_from

LINK = Base.metadata.tables["payment_link"]
PARTICIPANT = Base.metadata.tables["participant"]
SESSION = Base.metadata.tables["session"]
VERSION = Base.metadata.tables["study_version"]

_log = logging.getLogger(__name__)

KEY_BITS, NONCE_BYTES = 256, 12
"""AES-256 with 96 random bits per message, of which each key sees one (NIST SP 800-38D, section 8.2)."""

DAY = 24 * 3600 * 1_000_000
"""Microseconds."""

PURGE_EVERY_S = 3600
"""Seconds between two looks for ids that were kept long enough; they are kept for days."""

ORPHAN_S = 3600
"""A key whose row is not there may belong to a transaction that is not over; after an hour (our choice) it cannot."""


class PaymentError(RuntimeError):
    """What is kept to pay people was tampered with."""


@dataclass(frozen=True)
class Payment:
    """Whom to pay, or not.

    Attributes:
        session: its public id.
        ids: the platform's, by URL parameter; empty when they were purged or their key is gone.
        state: of the session.
        code: the completion code the session was given.
        accepted: whether no rule that may cost the pay is in force.
    """

    session: str
    ids: Mapping[str, str]
    state: SessionState
    code: str | None
    accepted: bool


def keys_folder(url: str, named: Path | None = None) -> Path | None:
    """Where the keys lie: as named, else beside a SQLite file; None on PostgreSQL without a name, and no ids are kept.

    Args:
        url: of the database.
        named: the setting ASUKA_PAYMENT_KEYS; replicas must share the folder.
    """
    if named is not None:
        return named
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    path = sqlite_path(parsed)
    return path.with_name(f"{path.name}.payment-keys")


class PaymentKeys:
    """A folder of keys, one file per person.

    Args:
        folder: made if need be, for this user alone; every process that serves the study must see the same one.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder

    def make(self) -> tuple[str, AESGCM]:
        """A new key with its id, on the disk when this returns."""
        name, key = secrets.token_hex(16), AESGCM.generate_key(KEY_BITS)
        file = os.open(self._path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(file, key)
            os.fsync(file)
        finally:
            os.close(file)
        return name, AESGCM(key)

    def find(self, name: str) -> AESGCM | None:
        """The key with an id, None if it was destroyed."""
        try:
            return AESGCM(self._path(name).read_bytes())
        except FileNotFoundError:
            return None

    def destroy(self, name: str) -> None:
        """Make unreadable for good what the key encrypted."""
        self._path(name).unlink(missing_ok=True)

    def orphans(self, known: set[str], *, now: int) -> list[str]:
        """Ids of keys that are not among the known and are old enough to belong to nothing under way."""
        stale = now / 1_000_000 - ORPHAN_S
        files = [file for file in self._folder.glob("*.key") if file.stem not in known]
        return [file.stem for file in files if file.stat().st_mtime < stale]

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.key"


def keep(db: Session, keys: PaymentKeys, participant_id: int, ids: Mapping[str, str], *, now: int) -> None:
    """Keep the platform's ids of a new participant, in the transaction that makes the participant."""
    if not ids:
        return
    name, cipher = keys.make()
    nonce = os.urandom(NONCE_BYTES)
    plain = json.dumps(dict(ids), sort_keys=True).encode()
    sealed = nonce + cipher.encrypt(nonce, plain, _place(participant_id))
    row = {"participant_id": participant_id, "key_id": name, "sealed": base64.b64encode(sealed).decode()}
    db.execute(insert(LINK).values(**row, created_at=now))


def key_of(db: Session, token_hash: str) -> str | None:
    """The id of the key of the participant behind a session's token, None if nothing of theirs is kept."""
    return db.execute(
        select(LINK.c.key_id)
        .join(SESSION, SESSION.c.participant_id == LINK.c.participant_id)
        .where(SESSION.c.token_hash == token_hash)
    ).scalar_one_or_none()


def purge(db: Session, keys: PaymentKeys, *, now: int) -> int:
    """Delete the ids that were kept for as long as their study's definition says, and every key without a row.

    Args:
        db: of a write job.
        keys: the folder they are opened with.
        now: UTC microseconds.

    Returns:
        How many people's ids were deleted.
    """
    expired: list[str] = []
    for version in db.execute(select(VERSION.c.id, VERSION.c.spec_json)):
        days = definition_from(json.loads(version.spec_json)).privacy.retention_days
        people = select(PARTICIPANT.c.id).where(PARTICIPANT.c.version_id == version.id)
        old = (LINK.c.participant_id.in_(people)) & (LINK.c.created_at <= now - days * DAY)
        expired += db.execute(delete(LINK).where(old).returning(LINK.c.key_id)).scalars()
    known = set(db.execute(select(LINK.c.key_id)).scalars())
    for name in (*expired, *keys.orphans(known, now=now)):
        keys.destroy(name)
    return len(expired)


class Retention:
    """Deletes ids whose time is up, at the start and every hour, whether or not anybody comes to the study.

    Args:
        database: to be written to.
        keys: the folder they are opened with.
        clock: UTC microseconds.
        every_s: seconds between two looks.
    """

    def __init__(
        self, database: Database, keys: PaymentKeys, *, clock: Callable[[], int], every_s: float = PURGE_EVERY_S
    ) -> None:
        self._database = database
        self._keys = keys
        self._clock = clock
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        """Look now, and from now on."""
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """End; a second call does nothing."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self._look()
            except Exception:  # noqa: BLE001 - whatever it is, it is written down and the next look comes
                _log.exception("Ids whose time is up could not be deleted; the next try is in %s s.", self._every_s)

    def _look(self) -> None:
        self._database.write(lambda db: purge(db, self._keys, now=self._clock()))


def payments(db: Session, version_id: int, keys: PaymentKeys) -> list[Payment]:
    """Everybody of a version who is to be paid or refused, in the order of arrival; for the researcher's eyes alone."""
    refused = set(db.execute(in_force(ExclusionEffect.ACCEPT)).scalars())
    columns = (SESSION.c.id, SESSION.c.public_id, SESSION.c.state, SESSION.c.completion_code)
    rows = db.execute(
        select(*columns, LINK.c.participant_id, LINK.c.key_id, LINK.c.sealed)
        .join(LINK, LINK.c.participant_id == SESSION.c.participant_id, isouter=True)
        .where(SESSION.c.version_id == version_id, SESSION.c.is_test.is_(False))
        .order_by(SESSION.c.id)
    )
    return [
        Payment(row.public_id, _opened(keys, row), row.state, row.completion_code, row.id not in refused)
        for row in rows
    ]


def payments_csv(found: Sequence[Payment]) -> str:
    """Whom to pay as CSV text, one row per session, the platform's ids in columns of their own names."""
    names = sorted({name for each in found for name in each.ids})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("session_id", "state", "code", "pay", *names))
    for each in found:
        pay = "yes" if each.accepted and each.state == SessionState.COMPLETED else "no"
        ids = (each.ids.get(name, "") for name in names)
        writer.writerow((each.session, each.state.value, each.code or "", pay, *ids))
    return text.getvalue()


def _opened(keys: PaymentKeys, row: object) -> Mapping[str, str]:
    name, sealed, person = (getattr(row, column) for column in ("key_id", "sealed", "participant_id"))
    cipher = keys.find(name) if name is not None else None
    if cipher is None:
        return {}
    content = base64.b64decode(sealed)
    try:
        plain = cipher.decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], _place(person))
    except InvalidTag as error:
        raise PaymentError(
            f"The ids of participant {person} were changed, or belong to another row; restore a backup and compare."
        ) from error
    return json.loads(plain)


def _place(participant_id: int) -> bytes:
    """Bound to the ciphertext, so that it opens in its own row alone."""
    return f"payment_link:{participant_id}".encode()
