"""What people did to a study, as a chain: every row names the hash of the one before, so none can be lost unseen."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from db.base import Base
from db.queries import serialise_assignment

AUDIT = Base.metadata.tables["audit"]

FIRST = "0" * 64
"""What the first row names as the hash before it."""

EVERY_VERSION = 0
"""The lock under which rows are appended; no version has this id."""


class AuditError(RuntimeError):
    """The audit trail was changed behind the program's back."""


@dataclass(frozen=True)
class Entry:
    """One thing somebody did."""

    at: int
    actor: str
    action: str
    object: str
    payload_sha256: str
    hash: str


def append(db: Session, *, at: int, actor: str, action: str, about: str, payload: Mapping[str, Any]) -> str:
    """Write down what was done, in the transaction that does it.

    Args:
        db: of a write job.
        at: UTC microseconds.
        actor: a role or a program ("owner", "cli"), never a participant.
        action: what was done, one word.
        about: what it was done to, for example "example v2".
        payload: the details; only their hash is kept in the chain.

    Returns:
        The new row's hash.
    """
    serialise_assignment(db, EVERY_VERSION)
    before = db.execute(select(AUDIT.c.hash).order_by(AUDIT.c.id.desc()).limit(1)).scalar_one_or_none() or FIRST
    payload_sha256 = _sha256(json.dumps(payload, sort_keys=True, ensure_ascii=False, default=str))
    values = {"at": at, "actor": actor, "action": action, "object": about, "payload_sha256": payload_sha256}
    digest = _link(before, values)
    db.execute(insert(AUDIT).values(prev_hash=before, hash=digest, **values))
    return digest


def verify_chain(db: Session) -> int:
    """Follow the chain from its beginning.

    Returns:
        How many rows it has.

    Raises:
        AuditError: naming the first row that does not fit.
    """
    before, number = FIRST, 0
    for row in db.execute(select(AUDIT).order_by(AUDIT.c.id)).mappings():
        values = {name: row[name] for name in ("at", "actor", "action", "object", "payload_sha256")}
        if row["prev_hash"] != before or row["hash"] != _link(before, values):
            raise AuditError(
                f"Row {row['id']} of the audit trail ({row['action']} of {row['object']}) does not follow from the one "
                "before it: it was changed, or a row before it is gone. Restore a backup and compare."
            )
        before, number = row["hash"], number + 1
    return number


def entries(db: Session, *, limit: int = 100) -> list[Entry]:
    """The newest rows, newest first."""
    rows = db.execute(select(AUDIT).order_by(AUDIT.c.id.desc()).limit(limit)).mappings()
    return [
        Entry(row["at"], row["actor"], row["action"], row["object"], row["payload_sha256"], row["hash"]) for row in rows
    ]


def _link(before: str, values: Mapping[str, Any]) -> str:
    return _sha256(json.dumps([before, values], sort_keys=True, ensure_ascii=False))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
