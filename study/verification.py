"""Whether what is stored is still what was stored: balance, audit trail, and the file itself."""

from dataclasses import dataclass

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db.engine import Database
from study import audit, counters
from study.design import STUDY, VERSION, load_design


class VerificationError(RuntimeError):
    """The database file is damaged."""


@dataclass(frozen=True)
class Verified:
    """What was looked at and found right."""

    versions: int
    cells: int
    audit_rows: int


def verify(database: Database) -> Verified:
    """Recount every cell of every version against its trials, follow the audit trail, and check the file.

    Raises:
        study.counters.CountError: a cached count differs from its trials.
        study.audit.AuditError: the trail was changed.
        VerificationError: SQLite finds its file damaged, or a row without what it refers to.
    """
    with database.read() as db:
        if database.dialect == "sqlite":
            _check_file(db)
        cells = 0
        versions = (
            db.execute(select(VERSION.c.id).join(STUDY, STUDY.c.id == VERSION.c.study_id).order_by(VERSION.c.id))
            .scalars()
            .all()
        )
        for version in versions:
            counters.verify(db, version)
            images, pairs, sides = load_design(db, version).shape
            cells += images * pairs * sides
        return Verified(len(versions), cells, audit.verify_chain(db))


def _check_file(db: Session) -> None:
    said = db.execute(text("PRAGMA integrity_check")).scalars().first()
    if said != "ok":
        raise VerificationError(f"SQLite finds the file damaged ({said}); restore a backup.")
    broken = db.execute(text("PRAGMA foreign_key_check")).first()
    if broken is not None:
        raise VerificationError(f"A row of {broken[0]} lacks its {broken[2]}; restore a backup.")
