"""The raw answers as tables, deterministic: the same database gives the same bytes."""

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import models
from db.base import Base
from study.counters import SESSION, TRIAL
from study.design import CELL, VERSION, Design, load_design
from study.publication import find_version, results_visible
from study.service import RefusedError
from study.trials import RESPONSE, VOTE

PARTICIPANT = Base.metadata.tables["participant"]

COLUMNS = (
    "study", "version", "spec_sha256", "session_id", "participant_no", "source", "locale", "trial_id", "seq", "kind",
    "image_key", "stratum", "criterion", "protocol", "methods_shown", "position_chosen", "method_chosen", "outcome",
    "rt_ms", "first_input_ms", "n_changes", "zoom_ms", "flips", "hidden_ms", "viewport", "dpr", "assign_algo",
    "propensity", "issued_at", "answered_at", "used", "session_state",
)  # fmt: skip
"""One row per trial and criterion. Positions count from 0 = left; `methods_shown` is in position order, joined by `|`;
times are UTC, rounded to seconds; `used` is 0 for what an exclusion took out of the analysis."""


def public_votes_csv(db: Session, slug: str) -> str:
    """The votes of the version that visitors see, for everybody.

    Raises:
        RefusedError: while its results are hidden.
    """
    row = find_version(db, slug)
    design = load_design(db, row.id)
    if not results_visible(design.definition, row.status):
        raise RefusedError("not_public", "The results of this study are shown when it is closed.")
    return votes_csv(db, [row.id])


def all_votes_csv(db: Session, slug: str) -> str:
    """The votes of every launched version of a study, for the researcher who owns the database."""
    find_version(db, slug)
    ids = db.execute(
        select(VERSION.c.id)
        .join(models.Study, models.Study.id == VERSION.c.study_id)
        .where(models.Study.slug == slug, VERSION.c.status != models.VersionStatus.DRAFT)
        .order_by(VERSION.c.version)
    )
    return votes_csv(db, list(ids.scalars()))


def votes_csv(db: Session, version_ids: Sequence[int]) -> str:
    """The votes of some versions as CSV text with a header, in the order of versions, sessions, trials and criteria."""
    text = io.StringIO()
    writer: csv.DictWriter[str] = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for version_id in version_ids:
        design = load_design(db, version_id)
        for vote in _votes(db, version_id):
            writer.writerow(_row(design, vote))
    return text.getvalue()


def _votes(db: Session, version_id: int) -> Iterator[Any]:
    return iter(
        db.execute(
            select(
                SESSION.c.public_id.label("session"),
                SESSION.c.locale,
                SESSION.c.state.label("session_state"),
                SESSION.c.css_width,
                SESSION.c.css_height,
                SESSION.c.pixel_ratio,
                PARTICIPANT.c.id.label("participant"),
                PARTICIPANT.c.source,
                TRIAL.c.public_id.label("trial"),
                TRIAL.c.seq,
                TRIAL.c.kind,
                TRIAL.c.cell_id,
                TRIAL.c.assign_algo,
                TRIAL.c.propensity,
                TRIAL.c.issued_at,
                RESPONSE,
                VOTE.c.used,
                VOTE.c.criterion.label("criterion_number"),
            )
            .select_from(VOTE)
            .join(RESPONSE, RESPONSE.c.id == VOTE.c.response_id)
            .join(TRIAL, TRIAL.c.id == VOTE.c.trial_id)
            .join(SESSION, SESSION.c.id == VOTE.c.session_id)
            .join(PARTICIPANT, PARTICIPANT.c.id == SESSION.c.participant_id)
            .join(CELL, CELL.c.id == TRIAL.c.cell_id)
            .where(VOTE.c.version_id == version_id)
            .order_by(SESSION.c.id, TRIAL.c.seq, VOTE.c.criterion)
        )
    )


def _row(design: Design, vote: Any) -> dict[str, Any]:
    place = design.place(vote.cell_id)
    image = design.images[place.image]
    keys = {method.id: method.key for method in design.methods}
    shown = [keys[method] for method in design.shown(place)]
    viewport = f"{vote.css_width}x{vote.css_height}" if vote.css_width else ""
    return {
        "study": design.slug,
        "version": design.version,
        "spec_sha256": design.sha256,
        "session_id": vote.session,
        "participant_no": vote.participant,
        "source": vote.source,
        "locale": vote.locale,
        "trial_id": vote.trial,
        "seq": vote.seq,
        "kind": vote.kind.value,
        "image_key": image.key,
        "stratum": image.stratum,
        "criterion": vote.criterion,
        "protocol": design.definition.protocol,
        "methods_shown": "|".join(shown),
        "position_chosen": vote.position,
        "method_chosen": "" if vote.position is None else shown[vote.position],
        "outcome": vote.outcome.value,
        "viewport": viewport,
        "dpr": vote.pixel_ratio,
        "issued_at": _seconds(vote.issued_at),
        "answered_at": _seconds(vote.answered_at),
        "session_state": vote.session_state.value,
    } | {name: getattr(vote, name) for name in _AS_STORED}


_AS_STORED = (
    "rt_ms", "first_input_ms", "n_changes", "zoom_ms", "flips", "hidden_ms", "assign_algo", "propensity", "used",
)  # fmt: skip


def _seconds(micros: int) -> str:
    return datetime.fromtimestamp(micros // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
