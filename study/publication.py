"""From draft to closed: launching a study, what visitors may know of it, and who may see its results when."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, func, select, update
from sqlalchemy.orm import Session

from db.engine import Database
from db.models import SessionState, VersionStatus
from study import audit, counters, quality
from study.counters import CELL, SESSION, TRIAL
from study.definition import StudyDefinition, definition_from
from study.design import STUDY, VERSION, load_design
from study.messages import ConsentView, CriterionView, DisplayView, ScreenView, StudyList, StudyView
from study.service import JOINABLE, RefusedError

VersionRow = Row[Any, Any, Any, Any, Any]
"""id, version, status, spec_json, unblinded_at"""


class PublicationError(ValueError):
    """A study that cannot change its status so; the message says what to do."""


@dataclass(frozen=True)
class Launched:
    """A study that takes participants."""

    slug: str
    version: int
    path: str
    """where participants go, below the app's address"""


@dataclass(frozen=True)
class StudyStatus:
    """How a study's version stands."""

    slug: str
    version: int
    status: str
    sha256: str
    results_public: bool
    unblinded: bool
    images: int
    methods: int
    sessions: Mapping[str, int]
    answered_trials: int
    fewest_per_cell: int
    most_per_cell: int
    target_per_cell: int


class Visibility(StrEnum):
    """How much of its results a version shows, to anybody."""

    HIDDEN = "hidden"
    """people still answer, and whoever knew the rates could stop when they please"""

    ALIASED = "aliased"
    """closed but not unblinded: methods are called M1, M2, ..."""

    OPEN = "open"


def launch(database: Database, slug: str, *, now: int, replace: bool = False, actor: str = "program") -> Launched:
    """Open the newest version of a study to participants, again if it paused; launching an open one changes nothing.

    Args:
        database: to be written to.
        slug: of the study.
        now: UTC microseconds.
        replace: close an older version that is still open, instead of refusing.
        actor: who does it, for the audit trail.

    Raises:
        PublicationError: for an unknown study, a closed version, or an older version that is open.
    """
    return database.write(lambda db: _launch(db, slug, now=now, replace=replace, actor=actor))


def pause(database: Database, slug: str, *, now: int, actor: str = "program") -> StudyStatus:
    """Let the study rest: nobody joins and no new trial is given, answers under way are still taken.

    Raises:
        PublicationError: when it does not take participants now.
    """
    return database.write(lambda db: _move(db, slug, VersionStatus.PAUSED, JOINABLE, now=now, actor=actor))


def drain(database: Database, slug: str, *, now: int, actor: str = "program") -> StudyStatus:
    """Ask only what is still missing until every cell has its target.

    Raises:
        PublicationError: when it was not launched or is closed.
    """
    allowed = (*JOINABLE, VersionStatus.PAUSED)
    return database.write(lambda db: _move(db, slug, VersionStatus.DRAINING, allowed, now=now, actor=actor))


def close(database: Database, slug: str, *, now: int, actor: str = "program") -> StudyStatus:
    """End a study for good: no answer counts from now on, and its results may be unblinded.

    Raises:
        PublicationError: for an unknown study or one that was never open.
    """

    def job(db: Session) -> StudyStatus:
        versions = [row for row in _versions(db, slug) if row.status != VersionStatus.DRAFT]
        if not versions:
            raise PublicationError(f"The study {slug!r} was never launched, so there is nothing to close.")
        for row in versions:
            if row.status != VersionStatus.CLOSED:
                _set_status(db, row.id, VersionStatus.CLOSED, closed_at=now)
                _write_down(db, "close", slug, row.version, now=now, actor=actor, status=row.status.value)
                # Nobody answers any more, so the rules can judge those too who did not finish.
                quality.apply_rules(db, row.id, at=now)
        return _status(db, slug, versions[0].id)

    return database.write(job)


def unblind(database: Database, slug: str, *, now: int, actor: str) -> StudyStatus:
    """Say which method is which, for good; only when the study is closed, and written down with who did it.

    Raises:
        PublicationError: while the newest launched version is not closed.
    """

    def job(db: Session) -> StudyStatus:
        row = _newest_launched(db, slug)
        if row.status != VersionStatus.CLOSED:
            raise PublicationError(
                f"Version {row.version} of {slug} is {row.status}; close it first: who knows the rates while people "
                "answer can stop when they please."
            )
        changed = db.execute(
            update(VERSION)
            .where(VERSION.c.id == row.id, VERSION.c.unblinded_at.is_(None))
            .values(unblinded_at=now)
            .returning(VERSION.c.id)
        ).one_or_none()
        if changed:
            design = load_design(db, row.id)
            named = {method.alias: method.key for method in design.methods}
            _write_down(db, "unblind", slug, row.version, now=now, actor=actor, methods=named)
        return _status(db, slug, row.id)

    return database.write(job)


def status(db: Session, slug: str) -> StudyStatus:
    """How the newest version of a study stands.

    Raises:
        PublicationError: for an unknown study.
    """
    return _status(db, slug, _versions(db, slug)[0].id)


def newest_version(db: Session, slug: str) -> VersionRow:
    """The newest version of a study, launched or not.

    Raises:
        PublicationError: for an unknown study.
    """
    return _versions(db, slug)[0]


def every_study(db: Session) -> list[str]:
    """The slugs of all studies, launched or not, in alphabetical order."""
    return list(db.execute(select(STUDY.c.slug).order_by(STUDY.c.slug)).scalars())


def find_version(db: Session, slug: str) -> VersionRow:
    """The version of a study that visitors see: the open one, else the newest.

    Raises:
        RefusedError: when there is none that was launched.
    """
    try:
        rows = [row for row in _versions(db, slug) if row.status != VersionStatus.DRAFT]
    except PublicationError:
        rows = []
    if not rows:
        raise RefusedError("unknown_study", f"There is no study called {slug!r} here; check the link.")
    return next((row for row in rows if row.status in JOINABLE), rows[0])


def study_view(db: Session, slug: str) -> StudyView:
    """What a visitor may know of a study.

    Raises:
        RefusedError: for an unknown study.
    """
    row = find_version(db, slug)
    return _view(definition_from(json.loads(row.spec_json)), row.status)


def open_studies(db: Session) -> StudyList:
    """The studies that take participants, newest first."""
    rows = db.execute(
        select(VERSION.c.spec_json, VERSION.c.status)
        .where(VERSION.c.status.in_(JOINABLE))
        .order_by(VERSION.c.launched_at.desc(), VERSION.c.id.desc())
    )
    return StudyList(studies=tuple(_view(definition_from(json.loads(row.spec_json)), row.status) for row in rows))


def visibility(db: Session, version_id: int) -> Visibility:
    """Rates stay hidden from everybody until a study is closed and unblinded, unless its definition says `public`."""
    row = db.execute(
        select(VERSION.c.spec_json, VERSION.c.status, VERSION.c.unblinded_at).where(VERSION.c.id == version_id)
    ).one()
    if row.unblinded_at is not None or json.loads(row.spec_json).get("results") == "public":
        return Visibility.OPEN
    return Visibility.ALIASED if row.status == VersionStatus.CLOSED else Visibility.HIDDEN


def launched_versions(db: Session, slug: str) -> dict[int, int]:
    """Row ids of the launched versions of a study, by version number, newest first; empty for an unknown study."""
    rows = db.execute(
        select(VERSION.c.version, VERSION.c.id)
        .join(STUDY, STUDY.c.id == VERSION.c.study_id)
        .where(STUDY.c.slug == slug, VERSION.c.status != VersionStatus.DRAFT)
        .order_by(VERSION.c.version.desc())
    )
    return {row.version: row.id for row in rows}


def _launch(db: Session, slug: str, *, now: int, replace: bool, actor: str) -> Launched:
    newest, *older = _versions(db, slug)
    if newest.status == VersionStatus.CLOSED:
        raise PublicationError(f"Version {newest.version} of {slug} is closed for good; ingest a new version of it.")
    for row in older:
        if row.status in {VersionStatus.DRAFT, VersionStatus.CLOSED}:
            continue
        if not replace:
            raise PublicationError(
                f"Version {row.version} of {slug} is {row.status}; close it before launching version {newest.version}."
            )
        _set_status(db, row.id, VersionStatus.CLOSED, closed_at=now)
        _write_down(db, "close", slug, row.version, now=now, actor=actor, status=row.status.value)
    load_design(db, newest.id)
    if newest.status not in JOINABLE:
        launched = {"launched_at": now} if newest.status == VersionStatus.DRAFT else {}
        _set_status(db, newest.id, VersionStatus.LIVE, **launched)
        _write_down(db, "launch", slug, newest.version, now=now, actor=actor, status=newest.status.value)
    return Launched(slug, newest.version, f"/study/{slug}")


def _move(
    db: Session, slug: str, to: VersionStatus, allowed: Collection[VersionStatus], *, now: int, actor: str
) -> StudyStatus:
    row = _newest_launched(db, slug)
    if row.status not in (*allowed, to):
        raise PublicationError(f"Version {row.version} of {slug} is {row.status} and cannot become {to}.")
    if row.status != to:
        _set_status(db, row.id, to)
        _write_down(db, _DEEDS[to], slug, row.version, now=now, actor=actor, status=row.status.value)
    return _status(db, slug, row.id)


_DEEDS = {VersionStatus.PAUSED: "pause", VersionStatus.DRAINING: "drain"}


def _newest_launched(db: Session, slug: str) -> VersionRow:
    launched = [row for row in _versions(db, slug) if row.status != VersionStatus.DRAFT]
    if not launched:
        raise PublicationError(f"The study {slug!r} was never launched; launch it first.")
    return next((row for row in launched if row.status in JOINABLE), launched[0])


def _write_down(db: Session, action: str, slug: str, version: int, *, now: int, actor: str, **details: Any) -> None:
    audit.append(db, at=now, actor=actor, action=action, about=f"{slug} v{version}", payload=details)


def _set_status(db: Session, version_id: int, status: VersionStatus, **times: int) -> None:
    db.execute(update(VERSION).where(VERSION.c.id == version_id).values(status=status, **times))


def _versions(db: Session, slug: str) -> list[VersionRow]:
    rows = db.execute(
        select(VERSION.c.id, VERSION.c.version, VERSION.c.status, VERSION.c.spec_json, VERSION.c.unblinded_at)
        .join(STUDY, STUDY.c.id == VERSION.c.study_id)
        .where(STUDY.c.slug == slug)
        .order_by(VERSION.c.version.desc())
    ).all()
    if not rows:
        known = ", ".join(db.execute(select(STUDY.c.slug).order_by(STUDY.c.slug)).scalars()) or "none"
        raise PublicationError(f"There is no study {slug!r} in this database (there are: {known}); ingest it first.")
    return list(rows)


def _status(db: Session, slug: str, version_id: int) -> StudyStatus:
    row = next(row for row in _versions(db, slug) if row.id == version_id)
    design = load_design(db, version_id)
    sessions = db.execute(
        select(SESSION.c.state, func.count()).where(SESSION.c.version_id == version_id).group_by(SESSION.c.state)
    ).all()
    by_state = {SessionState(state).value: number for state, number in sessions}
    answered = db.execute(
        select(func.count())
        .select_from(TRIAL)
        .where(TRIAL.c.version_id == version_id, TRIAL.c.answered_at.is_not(None))
    ).scalar_one()
    fewest, most = db.execute(
        select(func.min(CELL.c.n_valid + CELL.c.n_live), func.max(CELL.c.n_valid + CELL.c.n_live)).where(
            CELL.c.version_id == version_id
        )
    ).one()
    counters.verify(db, version_id)
    return StudyStatus(
        slug=slug,
        version=row.version,
        status=row.status.value,
        sha256=design.sha256,
        results_public=design.definition.results == "public",
        unblinded=row.unblinded_at is not None,
        images=len(design.images),
        methods=len(design.methods),
        sessions=dict(sorted(by_state.items())),
        answered_trials=answered,
        fewest_per_cell=fewest,
        most_per_cell=most,
        target_per_cell=design.cell_target,
    )


def _view(definition: StudyDefinition, status: VersionStatus) -> StudyView:
    criteria = tuple(
        CriterionView(
            key=criterion.key,
            title=criterion.title,
            question=criterion.question,
            allow_tie="tie" in criterion.allow,
            allow_cant_tell="cant_tell" in criterion.allow,
        )
        for criterion in definition.criteria
    )
    consent = definition.consent
    return StudyView(
        slug=definition.study,
        title=definition.title,
        introduction=definition.introduction or {},
        status=status.value,
        protocol=definition.protocol,
        candidates=definition.candidates,
        practice=definition.plan.practice,
        trials=definition.trials,
        criteria=criteria,
        consent=ConsentView(text=consent.text, version=consent.version, boxes=consent.boxes),
        display=DisplayView(**definition.display.model_dump()),
        screen=ScreenView(**definition.screen.model_dump(exclude={"colour_vision_misses"})),
        min_view_ms=definition.timing.min_view_ms,
        soft_max_s=definition.timing.soft_max_s,
        results_public=definition.results == "public",
        proof_of_work=definition.recruit.proof_of_work,
        attention=definition.plan.attention > 0,
    )
