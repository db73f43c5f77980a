"""The cached counts of the cells: how each step in the life of a trial moves them, and the recount they must equal.

`n_live` counts trials that are open, or answered in a session that still goes on; `n_valid` those answered in a
completed session; `n_partial` those answered in a session that was left (they move back when the participant does).
What is void, erased, expired without an answer, or taken out by an exclusion when it was complete counts nowhere.
"""

from dataclasses import asdict, dataclass

from sqlalchemy import Select, bindparam, case, func, select, update
from sqlalchemy.orm import Session

from db import models
from db.base import Base
from db.queries import in_force
from db.statements import Statement
from study.design import CELL

TRIAL = Base.metadata.tables["trial"]
SESSION = Base.metadata.tables["session"]

OPEN = (models.TrialState.ISSUED, models.TrialState.SHOWN)

_LIVE_BY_ONE = Statement(
    update(CELL).where(CELL.c.id == bindparam("cell")).values(n_live=CELL.c.n_live + bindparam("by"))
)

_SET = (
    update(CELL)
    .where(CELL.c.id == bindparam("new_cell_id"))
    .values(n_valid=bindparam("new_n_valid"), n_live=bindparam("new_n_live"), n_partial=bindparam("new_n_partial"))
)


class CountError(RuntimeError):
    """The cached counts of a version differ from what its trials say."""


@dataclass(frozen=True)
class CellCount:
    """The counts of one cell."""

    cell_id: int
    n_valid: int
    n_live: int
    n_partial: int


def add_live(db: Session, cell_id: int, by: int) -> None:
    """A trial of the cell was issued (1) or is no longer wanted (-1)."""
    _LIVE_BY_ONE.run(db, {"cell": cell_id, "by": by})


def complete(db: Session, session_id: int) -> None:
    """The session is complete: what it answered is valid from now on, unless an exclusion says otherwise."""
    _move_answered(db, session_id, n_live=-1, n_valid=0 if is_excluded(db, session_id) else 1)


def is_excluded(db: Session, session_id: int) -> bool:
    """Whether an exclusion in force takes the session out of the analysis."""
    excluded = in_force(models.ExclusionEffect.USE).where(models.Exclusion.session_id == session_id)
    return db.execute(excluded.limit(1)).scalar_one_or_none() is not None


def exclude(db: Session, session_id: int, state: models.SessionState) -> None:
    """The session's first exclusion from the analysis is in force: others are asked what it was asked."""
    if state == models.SessionState.COMPLETED:
        _move_answered(db, session_id, n_valid=-1)


def readmit(db: Session, session_id: int, state: models.SessionState) -> None:
    """The session's last exclusion from the analysis was reversed."""
    if state == models.SessionState.COMPLETED:
        _move_answered(db, session_id, n_valid=1)


def leave(db: Session, session_id: int) -> None:
    """The session was left: what it answered is partial, what it did not answer is free again."""
    _move_answered(db, session_id, n_live=-1, n_partial=1)
    _move(db, _cells_of(session_id, *OPEN), n_live=-1)


def come_back(db: Session, session_id: int) -> None:
    """The participant is back: what was partial goes on."""
    _move_answered(db, session_id, n_live=1, n_partial=-1)


def forget(db: Session, session_id: int, state: models.SessionState) -> None:
    """The session's answers are about to be erased, whatever state it was in."""
    if state == models.SessionState.COMPLETED:
        _move_answered(db, session_id, n_valid=0 if is_excluded(db, session_id) else -1)
    elif state in {models.SessionState.ABANDONED, models.SessionState.WITHDRAWN}:
        _move_answered(db, session_id, n_partial=-1)
    else:
        _move(db, _cells_of(session_id, *OPEN, models.TrialState.ANSWERED), n_live=-1)


def recount(db: Session, version_id: int) -> list[CellCount]:
    """What the trials of a version say, cell by cell."""
    answered = TRIAL.c.state == models.TrialState.ANSWERED
    completed = SESSION.c.state == models.SessionState.COMPLETED
    excluded = SESSION.c.id.in_(in_force(models.ExclusionEffect.USE))
    left = SESSION.c.state.in_((models.SessionState.ABANDONED, models.SessionState.WITHDRAWN))
    counted = (
        select(
            TRIAL.c.cell_id,
            func.sum(case((answered & completed & ~excluded, 1), else_=0)).label("n_valid"),
            func.sum(case((TRIAL.c.state.in_(OPEN) | (answered & ~completed & ~left), 1), else_=0)).label("n_live"),
            func.sum(case((answered & left, 1), else_=0)).label("n_partial"),
        )
        .join(SESSION, SESSION.c.id == TRIAL.c.session_id)
        .where(TRIAL.c.version_id == version_id, TRIAL.c.kind == models.TrialKind.REAL)
        .group_by(TRIAL.c.cell_id)
        .subquery()
    )
    rows = db.execute(
        select(CELL.c.id, counted.c.n_valid, counted.c.n_live, counted.c.n_partial)
        .join(counted, counted.c.cell_id == CELL.c.id, isouter=True)
        .where(CELL.c.version_id == version_id)
        .order_by(CELL.c.id)
    )
    return [CellCount(row.id, int(row.n_valid or 0), int(row.n_live or 0), int(row.n_partial or 0)) for row in rows]


def rebuild(db: Session, version_id: int) -> None:
    """Set the cache to the recount; for a database that was put together again from a backup and its journal."""
    counted = [asdict(count) for count in recount(db, version_id)]
    if counted:
        db.execute(_SET, [{f"new_{name}": value for name, value in count.items()} for count in counted])


def verify(db: Session, version_id: int) -> None:
    """Compare the cache with a recount.

    Raises:
        CountError: naming the first cell that differs and how many do.
    """
    rows = db.execute(
        select(CELL.c.id, CELL.c.n_valid, CELL.c.n_live, CELL.c.n_partial)
        .where(CELL.c.version_id == version_id)
        .order_by(CELL.c.id)
    )
    cached = [CellCount(*row) for row in rows]
    wrong = [(ours, true) for ours, true in zip(cached, recount(db, version_id), strict=True) if ours != true]
    if wrong:
        ours, true = wrong[0]
        raise CountError(
            f"{len(wrong)} of {len(cached)} cells are miscounted, the first is {ours} but the trials say {true}; "
            "stop the study and report this."
        )


def _move_answered(db: Session, session_id: int, **changes: int) -> None:
    _move(db, _cells_of(session_id, models.TrialState.ANSWERED), **changes)


def _cells_of(session_id: int, *states: models.TrialState) -> Select[int]:
    return select(TRIAL.c.cell_id).where(
        TRIAL.c.session_id == session_id, TRIAL.c.state.in_(states), TRIAL.c.kind == models.TrialKind.REAL
    )


def _move(db: Session, cells: Select[int], **changes: int) -> None:
    """Add to counters; a session has at most one real trial per cell, because it sees an image once."""
    values = {name: CELL.c[name] + by for name, by in changes.items()}
    db.execute(update(CELL).where(CELL.c.id.in_(cells)).values(values))
