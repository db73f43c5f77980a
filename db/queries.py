"""Statements that more than one caller needs and that differ between the databases, or must not be got wrong."""

import json
from dataclasses import asdict, dataclass

from sqlalchemy import CursorResult, Delete, Select, delete, func, or_, select
from sqlalchemy.orm import Session, aliased

from db.models import (
    AnalysisVote,
    Consent,
    Event,
    Exclusion,
    ExclusionEffect,
    PaymentLink,
    Response,
    ResponseAttempt,
    Signal,
    StudySession,
    Trial,
    TrialSlot,
    Withdrawal,
    WithdrawalScope,
)

ASSIGNMENT_LOCK = 0x61_73  # first half of the advisory lock's name; the second is the version: one queue per version
ERASURE_OPEN = -1  # `withdrawal.erasing` while answers may be deleted; see `Withdrawal`


@dataclass(frozen=True)
class Erased:
    """How many rows an erasure removed; all that remains of what a participant answered."""

    trials: int
    responses: int
    attempts: int
    events: int
    exclusions: int


def serialise_assignment(session: Session, version_id: int) -> None:
    """Let one transaction at a time assign trials of a version; held until its COMMIT.

    SQLite has a single writer, so nothing needs doing there.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(ASSIGNMENT_LOCK, version_id)))


def in_force(effect: ExclusionEffect) -> Select[int | None]:
    """The row ids of sessions that an exclusion with this effect is about, those reversed left out."""
    reversal = aliased(Exclusion)
    undone = select(reversal.id).where(reversal.reverses_id == Exclusion.id).exists()
    return select(Exclusion.session_id).where(
        Exclusion.session_id.is_not(None), Exclusion.effect == effect, Exclusion.reverses_id.is_(None), ~undone
    )


def erase_session(session: Session, session_id: int, *, at: int) -> Erased:
    """Delete all that a session answered and did, under a withdrawal of its own; inside the caller's write job.

    What would name the person to the payer goes too. The session row stays (its state is the caller's business), and
    so do counts kept elsewhere: lower `cell` first.

    Args:
        session: of a write job.
        session_id: whose answers go.
        at: UTC microseconds.

    Returns:
        The number of rows removed, which the withdrawal keeps as its result.
    """
    withdrawal = Withdrawal(session_id=session_id, scope=WithdrawalScope.ERASE, at=at, erasing=ERASURE_OPEN)
    session.add(withdrawal)
    session.flush()
    trials = select(Trial.id).where(Trial.session_id == session_id)
    responses = select(Response.id).where(Response.trial_id.in_(trials))
    exclusions = or_(Exclusion.session_id == session_id, Exclusion.response_id.in_(responses))
    # A reversal points at what it reverses, so reversals go first.
    reversals = _count(session, delete(Exclusion).where(exclusions, Exclusion.reverses_id.is_not(None)))
    n_exclusions = reversals + _count(session, delete(Exclusion).where(exclusions))
    _count(session, delete(AnalysisVote).where(AnalysisVote.session_id == session_id))
    erased = Erased(
        exclusions=n_exclusions,
        responses=_count(session, delete(Response).where(Response.trial_id.in_(trials))),
        attempts=_count(session, delete(ResponseAttempt).where(ResponseAttempt.session_id == session_id)),
        events=_count(session, delete(Event).where(Event.session_id == session_id)),
        trials=_delete_trials(session, session_id),
    )
    _count(session, delete(Consent).where(Consent.session_id == session_id))
    _count(session, delete(Signal).where(Signal.session_id == session_id))
    person = select(StudySession.participant_id).where(StudySession.id == session_id).scalar_subquery()
    _count(session, delete(PaymentLink).where(PaymentLink.participant_id == person))
    withdrawal.erasing = None
    withdrawal.result_json = json.dumps(asdict(erased), sort_keys=True)
    session.flush()
    return erased


def _delete_trials(session: Session, session_id: int) -> int:
    trials = select(Trial.id).where(Trial.session_id == session_id)
    _count(session, delete(TrialSlot).where(TrialSlot.trial_id.in_(trials)))
    repeats = _count(session, delete(Trial).where(Trial.session_id == session_id, Trial.repeat_of_id.is_not(None)))
    return repeats + _count(session, delete(Trial).where(Trial.session_id == session_id))


def _count(session: Session, statement: Delete) -> int:
    result = session.execute(statement, execution_options={"synchronize_session": False})
    if not isinstance(result, CursorResult):
        raise TypeError(f"A DELETE gives back a cursor, not {type(result).__name__}.")
    return result.rowcount
