"""Erasing a participant from the terminal or the admin page, as if they had asked for it in their own page."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.base import Base
from db.engine import Database
from study import audit, payment, service
from study.counters import SESSION
from study.design import STUDY, VERSION, Designs
from study.payment import PaymentKeys
from study.service import Clocked, RefusedError

PARTICIPANT = Base.metadata.tables["participant"]


def erase(
    database: Database, designs: Designs, slug: str, session: str, at: Clocked, *, actor: str, keys: PaymentKeys | None
) -> None:
    """Delete all that a session answered and did; the counts of the balance are refilled.

    Args:
        database: to be written to; its journal, if it has one, destroys the session's key.
        designs: of this process.
        slug: of the study.
        session: the session's public id, as the exports and the admin page show it.
        at: the time.
        actor: who does it, for the audit trail.
        keys: what the platform's ids of the person are opened with; theirs is destroyed.

    Raises:
        RefusedError: when the study has no such session.
    """
    key = database.write(lambda db: _erase(db, designs, slug, session, at, actor=actor))
    if key is not None and keys is not None:
        keys.destroy(key)  # only now, when the row it opened is gone for good


def _erase(db: Session, designs: Designs, slug: str, session: str, at: Clocked, *, actor: str) -> str | None:
    """Erase inside a write job; the name of the key that opened the person's ids."""
    row = db.execute(
        select(SESSION.c.id, SESSION.c.version_id, SESSION.c.token_hash, PARTICIPANT.c.ext_hmac, VERSION.c.version)
        .join(PARTICIPANT, PARTICIPANT.c.id == SESSION.c.participant_id)
        .join(VERSION, VERSION.c.id == SESSION.c.version_id)
        .join(STUDY, STUDY.c.id == VERSION.c.study_id)
        .where(STUDY.c.slug == slug, SESSION.c.public_id == session)
    ).one_or_none()
    if row is None:
        raise RefusedError("unknown_session", f"{slug!r} has no session {session!r}; take its id from an export.")
    design, key = designs.of(db, row.version_id), payment.key_of(db, row.token_hash)
    service.withdraw(db, designs, service.session_token(design, row.ext_hmac), at, erase=True)
    audit.append(
        db, at=at.now, actor=actor, action="erase", about=f"{slug} v{row.version}", payload={"session": row.id}
    )
    return key
