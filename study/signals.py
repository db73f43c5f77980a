"""What the defences make out about who comes: pass, fail or unknown; watched, alarmed, never an exclusion by itself.

A defence that breaks must not cost a study its honest participants: whatever goes wrong inside one is `unknown`, the
session begins all the same, and the share of `unknown` raises an alarm.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from db.base import Base
from db.models import KindCode, SignalOutcome

SIGNAL = Base.metadata.tables["signal"]
SESSION = Base.metadata.tables["session"]
VOTE = Base.metadata.tables["analysis_vote"]

HOUR, DAY = 3_600_000_000, 86_400_000_000
"""Microseconds."""

MOST_UNKNOWN = 0.05
"""Share of `unknown` within an hour above which a defence is taken to be broken (the study's design, section 4.10)."""

LARGEST_DROP = 0.20
"""By how much the share of used answers may fall from one day to the next (the study's design, section 4.10)."""

FEWEST_ANSWERS = 50
"""Answers a day below which its share says nothing; with 50, chance moves it by 20 points once in 500 (our choice)."""

Defence = Callable[[], SignalOutcome]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alarm:
    """Something a person should look at, in one sentence."""

    name: str
    sentence: str


def ask(defences: Mapping[str, Defence]) -> dict[str, SignalOutcome]:
    """Ask every defence; one that breaks knows nothing, and the terminal says why."""
    return {name: _asked(name, defence) for name, defence in defences.items()}


def _asked(name: str, defence: Defence) -> SignalOutcome:
    try:
        return defence()
    except Exception:  # noqa: BLE001 - whatever broke, the visitor is not to blame
        _log.exception("The defence %s is broken; sessions are marked unknown until it works again.", name)
        return SignalOutcome.UNKNOWN


def alarms(db: Session, version_id: int, *, now: int) -> list[Alarm]:
    """What is wrong with the defences of a version now.

    Args:
        db: any session.
        version_id: of a launched study.
        now: UTC microseconds.
    """
    rows = db.execute(
        select(
            SIGNAL.c.name,
            func.count().label("asked"),
            func.sum(case((SIGNAL.c.outcome == SignalOutcome.UNKNOWN, 1), else_=0)).label("unknown"),
        )
        .join(SESSION, SESSION.c.id == SIGNAL.c.session_id)
        .where(SESSION.c.version_id == version_id, SIGNAL.c.at > now - HOUR)
        .group_by(SIGNAL.c.name)
        .order_by(SIGNAL.c.name)
    )
    found = [
        Alarm(
            row.name,
            f"{row.name} could not be told for {row.unknown} of {row.asked} sessions of the last hour: the defence is "
            "broken or blocked. No answer is lost; repair it.",
        )
        for row in rows
        if row.unknown > MOST_UNKNOWN * row.asked
    ]
    return found + _drop_of_used(db, version_id, now=now)


def _drop_of_used(db: Session, version_id: int, *, now: int) -> list[Alarm]:
    before, today = (_share_used(db, version_id, now - days * DAY) for days in (2, 1))
    if before is None or today is None or before - today <= LARGEST_DROP:
        return []
    return [
        Alarm(
            "used",
            f"{today:.0%} of the answers of the last day are used, of the day before it was {before:.0%}: look at the "
            "quality queue for what excludes them.",
        )
    ]


def _share_used(db: Session, version_id: int, since: int) -> float | None:
    """Of the answers about methods in the day from `since` on; None when there are too few."""
    answers, used = db.execute(
        select(func.count(), func.sum(VOTE.c.used)).where(
            VOTE.c.version_id == version_id,
            VOTE.c.kind.in_((KindCode.REAL, KindCode.REPEAT)),
            VOTE.c.answered_at > since,
            VOTE.c.answered_at <= since + DAY,
        )
    ).one()
    return used / answers if answers >= FEWEST_ANSWERS else None
