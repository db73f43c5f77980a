"""The smallest study in which somebody has answered, to fill a database with."""

import secrets
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.orm import Session

from db.models import (
    AnalysisVote,
    Blob,
    Cell,
    Image,
    Method,
    MethodRole,
    Outcome,
    Participant,
    Rendition,
    RenditionKind,
    Response,
    Study,
    StudySession,
    StudyVersion,
    Trial,
    TrialKind,
    TrialSlot,
    TrialState,
    VersionStatus,
)

Row = TypeVar("Row")


@dataclass(frozen=True)
class SmallStudy:
    """Row ids of the smallest study in which somebody has answered."""

    version: int
    image: int
    methods: tuple[int, int]
    cell: int
    participant: int
    session: int
    trial: int
    response: int


def digest() -> str:
    return secrets.token_hex(32)


def add_small_study(session: Session, *, key: str = "k1") -> SmallStudy:
    """A pairwise study with one image, two methods, one cell, and one answered trial on one criterion."""
    study = _add(session, Study(slug=secrets.token_hex(4), created_at=1))
    version = _add(
        session,
        StudyVersion(
            study_id=study.id, version=1, spec_json="{}", spec_sha256=digest(), design_seed=digest(), created_at=1
        ),
    )
    image = _add(session, Image(version_id=version.id, key="bridge", source_sha256=digest(), hole_sha256=digest()))
    lo, hi = (
        _add(session, Method(version_id=version.id, key=key, alias=alias, role=role))
        for key, alias, role in (("asuka", "M1", MethodRole.TARGET), ("telea", "M2", MethodRole.BASELINE))
    )
    blob = _add(session, Blob(sha256=digest(), length=3, content=b"png"))
    pictures = [
        _add(
            session,
            Rendition(
                version_id=version.id, image_id=image.id, method_id=method.id, kind=RenditionKind.OUTPUT,
                blob_id=blob.id, pixel_sha256=digest(), width=8, height=8,
            ),
        )
        for method in (lo, hi)
    ]  # fmt: skip
    cell = _add(
        session,
        Cell(version_id=version.id, image_id=image.id, method_lo_id=lo.id, method_hi_id=hi.id, side=0, target=12),
    )
    version.status = VersionStatus.LIVE
    session.flush()
    person, visit = add_visit(session, version.id)
    trial = _add(
        session,
        Trial(
            public_id=secrets.token_hex(8), version_id=version.id, session_id=visit, seq=0, kind=TrialKind.REAL,
            image_id=image.id, cell_id=cell.id, assign_algo="jit-1", propensity=0.5, issued_at=4,
            state=TrialState.ANSWERED, answered_at=5,
        ),
    )  # fmt: skip
    for position, picture in enumerate(pictures):
        _add(session, TrialSlot(trial_id=trial.id, position=position, rendition_id=picture.id, token_hash=digest()))
    response = _add(
        session,
        Response(
            trial_id=trial.id, criterion="consistency", idempotency_key=key, outcome=Outcome.CHOICE, position=0,
            answered_at=5,
        ),
    )  # fmt: skip
    _add(
        session,
        AnalysisVote(
            response_id=response.id, version_id=version.id, criterion=0, kind=0, image_id=image.id, session_id=visit,
            participant_id=person, trial_id=trial.id, cell_id=cell.id, first_method_id=lo.id, second_method_id=hi.id,
            chosen_method_id=lo.id, outcome=0, position=0, answered_at=5,
        ),
    )  # fmt: skip
    return SmallStudy(version.id, image.id, (lo.id, hi.id), cell.id, person, visit, trial.id, response.id)


def add_visit(session: Session, version: int, *, is_test: bool = False) -> tuple[int, int]:
    """A new participant with a live session: their row ids."""
    person = _add(session, Participant(version_id=version, source="lab", ext_hmac=digest(), created_at=2))
    return person.id, add_session(session, version, person.id, is_test=is_test)


def add_session(session: Session, version: int, participant: int, *, is_test: bool = False) -> int:
    """One more session of a participant."""
    visit = StudySession(
        public_id=secrets.token_hex(8), version_id=version, participant_id=participant, token_hash=digest(),
        plan_seed=digest(), locale="en", is_test=is_test, created_at=3, last_seen=3,
    )  # fmt: skip
    return _add(session, visit).id


def _add(session: Session, row: Row) -> Row:
    session.add(row)
    session.flush()
    return row
