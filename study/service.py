"""A participant's way through a study: join, consent, answer, leave; every step one function of a write transaction.

The clock and randomness are arguments. Constraints and conditional updates decide races: a row that is not in the
expected state is not changed, and the caller is told what is there instead.
"""

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import Row, bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from db import models
from db.base import Base
from db.models import SessionState, SignalOutcome, TrialKind, TrialState, VersionStatus
from db.queries import erase_session, serialise_assignment
from db.statements import Statement
from db.writer import note
from study import counters, payment, recruitment
from study.blinding import TOKEN_BYTES, token_hash
from study.counters import OPEN, SESSION, TRIAL
from study.design import STUDY, VERSION, Design, Designs
from study.messages import (
    ClientEvent,
    Completion,
    ConsentRequest,
    EnvironmentReport,
    JoinRequest,
    PlateAnswers,
    Progress,
    SessionView,
)
from study.messages import SessionState as WireState
from study.payment import PaymentKeys
from study.plates import figure_of, plate_png
from study.recruitment import Arrival, ArrivalError, participant_hash

PARTICIPANT = Base.metadata.tables["participant"]
CONSENT = Base.metadata.tables["consent"]
EVENT = Base.metadata.tables["event"]
SIGNAL = Base.metadata.tables["signal"]

SECOND = 1_000_000
"""Microseconds; all times in the database are counted in them."""

REAPED_AT_ONCE = 50
"""Sessions whose lease ran out that one request tidies up: few, so that nobody waits for others' leavings."""

REAP_EVERY = SECOND
"""Microseconds between two looks for leases that ran out; leases are minutes long."""

LEASE_SLACK = 0.25
"""An answer prolongs a lease once this share of it has passed: a row is rewritten once in minutes, not every time."""

JOINABLE = (VersionStatus.LIVE, VersionStatus.PILOT, VersionStatus.DRAINING)
TAKING_PART = (SessionState.PRACTISING, SessionState.RUNNING)
ENDED = (SessionState.COMPLETED, SessionState.DECLINED, SessionState.SCREENED_OUT, SessionState.WITHDRAWN)

ANSWERED, EXCLUDED, ERASED = "answered", "excluded", "erased"
"""What the journal hears of: the row id of a trial that was answered, of an exclusion or of what undoes one, of a
session that was erased."""

RandomBytes = Callable[[int], bytes]


class RefusedError(Exception):
    """Something the study's rules do not allow now; the message is one sentence for the participant."""

    def __init__(self, code: str, sentence: str) -> None:
        self.code = code
        super().__init__(sentence)


@dataclass(frozen=True)
class Clocked:
    """What a step needs from outside: the time in UTC microseconds and a source of random bytes."""

    now: int
    random_bytes: RandomBytes


@dataclass(frozen=True)
class Visit:
    """The session behind a bearer token, as it was when the transaction began."""

    token: str
    session_id: int
    participant_id: int
    version_id: int
    state: SessionState
    status: VersionStatus
    plan_key: bytes
    locale: str
    created_at: int
    completion_code: str | None


_FIND_VISIT = Statement(
    select(
        SESSION.c.id,
        SESSION.c.participant_id,
        SESSION.c.version_id,
        SESSION.c.state,
        VERSION.c.status,
        SESSION.c.plan_seed,
        SESSION.c.locale,
        SESSION.c.created_at,
        SESSION.c.completion_code,
    )
    .join(VERSION, VERSION.c.id == SESSION.c.version_id)
    .where(SESSION.c.token_hash == bindparam("hash"))
)


def find_visit(db: Session, token: str) -> Visit:
    """Who asks.

    Raises:
        RefusedError: for a token that no session has.
    """
    row = _FIND_VISIT.one_or_none(db, {"hash": token_hash(token)})
    if row is None:
        raise RefusedError("unknown_session", "This session is not known here; open the study's link again.")
    return Visit(
        token=token,
        session_id=row.id,
        participant_id=row.participant_id,
        version_id=row.version_id,
        state=SessionState(row.state),
        status=VersionStatus(row.status),
        plan_key=bytes.fromhex(row.plan_seed),
        locale=row.locale,
        created_at=row.created_at,
        completion_code=row.completion_code,
    )


def enter(db: Session, token: str) -> Visit:
    """Who asks, with the version to themselves until the transaction ends: what is read from here on stays true.

    On SQLite every write job has the database to itself already. On PostgreSQL the session is read again once the
    version's lock is held, because whoever held it before may have moved the session on.

    Raises:
        RefusedError: for a token that no session has.
    """
    visit = find_visit(db, token)
    if db.get_bind().dialect.name == "sqlite":
        return visit
    serialise_assignment(db, visit.version_id)
    return find_visit(db, token)


# ------------------------------------------------------------------------------------------------- coming and going


NO_SIGNALS: Mapping[str, SignalOutcome] = {}


def join(
    db: Session,
    designs: Designs,
    request: JoinRequest,
    at: Clocked,
    *,
    payments: PaymentKeys | None = None,
    signals: Mapping[str, SignalOutcome] = NO_SIGNALS,
) -> tuple[str, SessionView]:
    """Begin a session, or find the one this participant has; the same participant always gets the same token.

    Args:
        db: of a write job.
        designs: of this process.
        request: who comes, by which link.
        at: the time.
        payments: opens what the platform's ids are kept in; None to keep only their hash.
        signals: what the defences made out, by their names; stored with a new session, whatever they say.

    Returns:
        The session's secret token and what the page may know of the session.

    Raises:
        RefusedError: for an unknown study, one that takes nobody now, or another source of participants.
    """
    version = _newest_version(db, request.study)
    design = designs.of(db, version.id)
    who = _arrival(design, request)
    person = who.person or at.random_bytes(TOKEN_BYTES).hex()
    ext_hmac = participant_hash(_study_key(db, version.id), who.source, person)
    token = session_token(design, ext_hmac)
    serialise_assignment(db, version.id)
    known = db.execute(select(SESSION.c.id).where(SESSION.c.token_hash == token_hash(token))).scalar_one_or_none()
    if known is None:
        if version.status not in JOINABLE:
            raise RefusedError("not_open", f"The study is {version.status} and takes no new participants now.")
        participant, session = _begin(
            db, design, source=who.source, locale=request.locale, at=at, ext_hmac=ext_hmac, token=token
        )
        if payments is not None:
            payment.keep(db, payments, participant, who.ids, now=at.now)
        if signals:
            seen = [{"session_id": session, "name": name, "outcome": signals[name], "at": at.now} for name in signals]
            db.execute(insert(SIGNAL), seen)
    return token, view(db, designs, find_visit(db, token))


def session_token(design: Design, ext_hmac: str) -> str:
    """The secret token of the session of a participant, who always gets the same."""
    return _keyed(design, "session", ext_hmac)[:TOKEN_BYTES].hex()


def view(db: Session, designs: Designs, visit: Visit) -> SessionView:
    """What the page may know of a session."""
    design = designs.of(db, visit.version_id)
    state = said_state(db, visit) if visit.state == SessionState.SCREENED_OUT else visit.state.value
    return SessionView(study=design.slug, state=state, progress=progress(db, design, visit), locale=visit.locale)


def said_state(db: Session, visit: Visit) -> WireState:
    """What the page is told of a session that is asked nothing.

    Who agreed to take part and was then screened out fitted the study, but nothing was left to ask: that is `full`.
    """
    if visit.state in TAKING_PART:
        return "paused" if visit.status == VersionStatus.PAUSED else "closed"
    agreed = select(CONSENT.c.session_id).where(CONSENT.c.session_id == visit.session_id)
    if visit.state == SessionState.SCREENED_OUT and db.execute(agreed).first() is not None:
        return "full"
    return visit.state.value


def view_of(db: Session, designs: Designs, token: str) -> SessionView:
    """What the page may know of the session behind a token."""
    return view(db, designs, find_visit(db, token))


def progress(db: Session, design: Design, visit: Visit) -> Progress:
    """How many trials are answered, and of how many."""
    answered = db.execute(
        select(func.count())
        .select_from(TRIAL)
        .where(
            TRIAL.c.session_id == visit.session_id,
            TRIAL.c.state == TrialState.ANSWERED,
            TRIAL.c.kind != TrialKind.PRACTICE,
        )
    ).scalar_one()
    return Progress(answered=answered, of=design.definition.trials)


def report_environment(
    db: Session, designs: Designs, token: str, report: EnvironmentReport, at: Clocked
) -> SessionView:
    """Remember how the study is looked at; a touch screen ends a session of a study that does not allow one."""
    visit = enter(db, token)
    design = designs.of(db, visit.version_id)
    values: dict[str, Any] = {
        "css_width": report.css_width,
        "css_height": report.css_height,
        "pixel_ratio": report.device_pixel_ratio,
        "device_class": report.device,
        "browser_family": report.browser,
        "last_seen": at.now,
    }
    if report.touch and not design.definition.screen.allow_touch and visit.state == SessionState.CREATED:
        values |= {"state": SessionState.SCREENED_OUT, "ended_at": at.now}
    db.execute(update(SESSION).where(SESSION.c.id == visit.session_id).values(values))
    return view(db, designs, find_visit(db, token))


def plate(db: Session, designs: Designs, token: str, number: int) -> bytes:
    """A colour-vision plate of a session that has not read them yet, as a PNG file.

    Raises:
        RefusedError: where there is no such plate, or the session is past them.
    """
    visit = find_visit(db, token)
    plates = designs.of(db, visit.version_id).definition.screen.colour_vision
    if visit.state != SessionState.CREATED or not 0 <= number < plates:
        raise RefusedError("not_found", "There is nothing here.")
    return plate_png(visit.plan_key, number)


def read_plates(db: Session, designs: Designs, token: str, answers: PlateAnswers, at: Clocked) -> SessionView:
    """Judge what was read on the plates, once: asking again changes nothing.

    Raises:
        RefusedError: for another number of answers than there are plates.
    """
    visit = enter(db, token)
    screen = designs.of(db, visit.version_id).definition.screen
    if visit.state == SessionState.CREATED and screen.colour_vision:
        if len(answers.figures) != screen.colour_vision:
            raise RefusedError("bad_request", f"There are {screen.colour_vision} plates; answer each once.")
        misread = sum(given != figure_of(visit.plan_key, at_) for at_, given in enumerate(answers.figures))
        sees = misread <= screen.colour_vision_misses
        values = {"state": SessionState.SCREENED} if sees else {"state": SessionState.SCREENED_OUT, "ended_at": at.now}
        db.execute(update(SESSION).where(SESSION.c.id == visit.session_id).values(last_seen=at.now, **values))
    return view(db, designs, find_visit(db, token))


def consent(db: Session, designs: Designs, token: str, request: ConsentRequest, at: Clocked) -> SessionView:
    """Take part, or decline; asking again after either changes nothing.

    Raises:
        RefusedError: when a box that must be ticked is not.
    """
    visit = enter(db, token)
    if visit.state not in {SessionState.CREATED, SessionState.SCREENED}:
        return view(db, designs, visit)
    design = designs.of(db, visit.version_id)
    document = design.definition.consent
    if request.accepted and visit.state == SessionState.CREATED and design.definition.screen.colour_vision:
        raise RefusedError("not_open", "Read the colour-vision plates first.")
    missing = [key for key in document.boxes if key not in request.boxes]
    if request.accepted and missing:
        raise RefusedError("bad_request", "Tick every box to take part, or decline.")
    values: dict[str, Any] = {"state": SessionState.DECLINED, "ended_at": at.now}
    if request.accepted:
        begins = SessionState.PRACTISING if design.practice else SessionState.RUNNING
        values = {"state": begins, "locale": request.locale}
        stored = {"doc_sha256": sha256(document.model_dump_json().encode()).hexdigest(), "locale": request.locale}
        boxes = json.dumps(sorted(set(request.boxes) & set(document.boxes)))
        db.execute(insert(CONSENT).values(session_id=visit.session_id, boxes_json=boxes, at=at.now, **stored))
    db.execute(update(SESSION).where(SESSION.c.id == visit.session_id).values(last_seen=at.now, **values))
    return view(db, designs, find_visit(db, token))


def heartbeat(db: Session, designs: Designs, token: str, at: Clocked) -> SessionView:
    """The participant is still there: the lease of their trials is prolonged, a session left silently goes on."""
    visit = come_back(db, designs, enter(db, token), at)
    touch(db, designs.of(db, visit.version_id), visit, at)
    return view(db, designs, visit)


def touch(db: Session, design: Design, visit: Visit, at: Clocked) -> None:
    """Prolong the lease of a session's open trials."""
    db.execute(_SEEN, {"session": visit.session_id, "now": at.now})
    db.execute(_PROLONG, {"session": visit.session_id, "until": lease_until(design, at)})


def withdraw(db: Session, designs: Designs, token: str, at: Clocked, *, erase: bool) -> SessionView:
    """Stop taking part; with `erase`, delete every answer and event of the session in the same transaction."""
    visit = enter(db, token)
    if erase:
        counters.forget(db, visit.session_id, visit.state)
        _void_open_trials(db, visit.session_id)
        if not _erased_already(db, visit.session_id):
            erase_session(db, visit.session_id, at=at.now)
            note(db, ERASED, visit.session_id)
    elif visit.state not in ENDED:
        if visit.state in models.LIVE_SESSION_STATES:
            counters.leave(db, visit.session_id)
        _void_open_trials(db, visit.session_id)
        stopped = models.Withdrawal(session_id=visit.session_id, scope=models.WithdrawalScope.STOP, at=at.now)
        db.add(stopped)
        db.flush()
    if erase or visit.state not in ENDED:
        ended = {"state": SessionState.WITHDRAWN, "ended_at": at.now, "last_seen": at.now}
        db.execute(update(SESSION).where(SESSION.c.id == visit.session_id).values(ended))
    return view(db, designs, find_visit(db, token))


def come_back(db: Session, designs: Designs, visit: Visit, at: Clocked) -> Visit:
    """A session that was given up for its silence goes on where it was, while the study lets it.

    Its expired trials are open again, unless the study drains and others have filled their cells.
    """
    design = designs.of(db, visit.version_id)
    age = at.now - visit.created_at
    too_old = age > design.definition.timing.session_ttl_h * 3600 * SECOND
    if visit.state != SessionState.ABANDONED or too_old or visit.status not in JOINABLE:
        return visit
    counters.come_back(db, visit.session_id)
    expired = db.execute(
        select(TRIAL.c.id, TRIAL.c.kind, TRIAL.c.cell_id).where(
            TRIAL.c.session_id == visit.session_id, TRIAL.c.state == TrialState.EXPIRED
        )
    ).all()
    for trial in expired:
        real = trial.kind == TrialKind.REAL
        again = visit.status != VersionStatus.DRAINING or not real or cell_wants_more(db, trial.cell_id)
        state = TrialState.ISSUED if again else TrialState.VOID
        db.execute(update(TRIAL).where(TRIAL.c.id == trial.id).values(state=state))
        if again and real:
            counters.add_live(db, trial.cell_id, 1)
    db.execute(update(SESSION).where(SESSION.c.id == visit.session_id).values(state=SessionState.PRACTISING))
    back = end_practice(db, design, find_visit(db, visit.token))
    touch(db, design, back, at)
    return back


def turn_away(db: Session, visit: Visit, at: Clocked) -> Visit:
    """End a session that has answered nothing that counts and for which nothing is left to ask.

    It is screened out, as by a screen that is too small: the recruiting platform's code for that pays and returns it.
    """
    ended = {"state": SessionState.SCREENED_OUT, "ended_at": at.now, "last_seen": at.now}
    db.execute(update(SESSION).where(SESSION.c.id == visit.session_id, SESSION.c.state.in_(TAKING_PART)).values(ended))
    return find_visit(db, visit.token)


def end_practice(db: Session, design: Design, visit: Visit) -> Visit:
    """A session that has answered all its practice trials goes on to those that count."""
    answered = db.execute(
        select(func.count())
        .select_from(TRIAL)
        .where(
            TRIAL.c.session_id == visit.session_id,
            TRIAL.c.kind == TrialKind.PRACTICE,
            TRIAL.c.state == TrialState.ANSWERED,
        )
    ).scalar_one()
    if answered < design.practice:
        return visit
    running = update(SESSION).where(SESSION.c.id == visit.session_id, SESSION.c.state == SessionState.PRACTISING)
    db.execute(running.values(state=SessionState.RUNNING))
    return find_visit(db, visit.token)


def cell_wants_more(db: Session, cell_id: int) -> bool:
    """Whether a cell has fewer answers, given or under way, than its target."""
    cell = counters.CELL
    return bool(db.execute(select(cell.c.n_valid + cell.c.n_live < cell.c.target).where(cell.c.id == cell_id)).scalar())


def lease_until(design: Design, at: Clocked) -> int:
    """When a lease given now ends."""
    return at.now + design.definition.timing.idle_lease_s * SECOND


def lease_is_fresh(design: Design, until: int | None, at: Clocked) -> bool:
    """Whether a lease that ends at `until` was prolonged so lately that it need not be again."""
    lease = design.definition.timing.idle_lease_s * SECOND
    return until is not None and (1 - LEASE_SLACK) * lease <= until - at.now <= lease


def reap(db: Session, version_id: int, at: Clocked) -> int:
    """Give up sessions whose trials nobody has looked at for the length of a lease, so that others can fill the cells.

    Returns:
        How many were given up, at most `REAPED_AT_ONCE`.
    """
    stale = db.execute(_STALE, {"version": version_id, "now": at.now}).scalars().all()
    for session_id in stale:
        counters.leave(db, session_id)
        db.execute(
            update(TRIAL)
            .where(TRIAL.c.session_id == session_id, TRIAL.c.state.in_(OPEN))
            .values(state=TrialState.EXPIRED, lease_until=None)
        )
        db.execute(update(SESSION).where(SESSION.c.id == session_id).values(state=SessionState.ABANDONED))
    return len(stale)


def completion(design: Design, visit: Visit) -> Completion | None:
    """What a participant takes back to where they were recruited; None before the end."""
    recruit = design.definition.recruit
    if visit.state not in {SessionState.COMPLETED, SessionState.SCREENED_OUT, SessionState.DECLINED}:
        return None
    code = {
        SessionState.COMPLETED: visit.completion_code,
        SessionState.SCREENED_OUT: recruit.codes.screened_out,
        SessionState.DECLINED: recruit.codes.no_consent,
    }[visit.state]
    completed = visit.state == SessionState.COMPLETED
    return Completion(code=code, redirect=recruitment.way_back(recruit, code, completed=completed))


def completion_of(db: Session, designs: Designs, token: str) -> Completion:
    """What a participant takes back at the end.

    Raises:
        RefusedError: before the end.
    """
    visit = find_visit(db, token)
    found = completion(designs.of(db, visit.version_id), visit)
    if found is None:
        raise RefusedError("not_open", "There is no code yet: the session is not at its end.")
    return found


def record_events(db: Session, token: str, events: tuple[ClientEvent, ...], at: Clocked) -> None:
    """Keep what the page saw; an event of an unknown trial is kept without its trial."""
    visit = find_visit(db, token)
    named = {event.trial for event in events if event.trial}
    found = db.execute(
        select(TRIAL.c.public_id, TRIAL.c.id).where(
            TRIAL.c.session_id == visit.session_id, TRIAL.c.public_id.in_(named)
        )
    )
    ids: Mapping[str, int] = {row.public_id: row.id for row in found}
    rows = [
        {
            "session_id": visit.session_id,
            "trial_id": ids.get(event.trial or ""),
            "type": models.EventType(event.type),
            "t_client": event.t_ms * 1000,
            "t_server": at.now,
            "value": event.value,
        }
        for event in events
    ]
    if rows:
        db.execute(insert(EVENT), rows)


# ------------------------------------------------------------------------------------------------- details

_SEEN = update(SESSION).where(SESSION.c.id == bindparam("session")).values(last_seen=bindparam("now"))
_PROLONG = (
    update(TRIAL)
    .where(TRIAL.c.session_id == bindparam("session"), TRIAL.c.state.in_(OPEN))
    .values(lease_until=bindparam("until"))
)
_STALE = (
    select(TRIAL.c.session_id)
    .where(
        TRIAL.c.version_id == bindparam("version"),
        TRIAL.c.lease_until < bindparam("now"),
        TRIAL.c.state.in_(OPEN),
    )
    .distinct()
    .limit(REAPED_AT_ONCE)
)


def _newest_version(db: Session, slug: str) -> Row[Any, Any]:
    """The version of a study that takes participants, else the newest that ever did."""
    rows = db.execute(
        select(VERSION.c.id, VERSION.c.status)
        .join(STUDY, STUDY.c.id == VERSION.c.study_id)
        .where(STUDY.c.slug == slug, VERSION.c.status != VersionStatus.DRAFT)
        .order_by(VERSION.c.version.desc())
    ).all()
    if not rows:
        raise RefusedError("unknown_study", f"There is no study called {slug!r} here; check the link.")
    return next((row for row in rows if row.status in JOINABLE), rows[0])


def _arrival(design: Design, request: JoinRequest) -> Arrival:
    """Who comes: by the link's parameters, or as a program names them."""
    recruit = design.definition.recruit
    wanted = request.source or recruit.source
    if wanted != recruit.source:
        raise RefusedError(
            "bad_request",
            f"This study takes participants from {recruit.source}, not {wanted}; use the link you got.",
        )
    if request.external_id is not None and wanted == "public":
        return Arrival("public", request.external_id, {})
    named = {} if request.external_id is None else {recruitment.PARAMETERS[wanted][0]: request.external_id}
    try:
        return recruitment.arrival(recruit, dict(request.link) | named)
    except ArrivalError as error:
        raise RefusedError("bad_request", str(error)) from error


def _study_key(db: Session, version_id: int) -> bytes:
    """What participants of a study are hashed with: the same in all its versions, so that who returns is known.

    It is the secret seed of the first version that was launched. That one can be neither changed nor deleted, and
    since only the newest version can be launched, none before it ever will be.
    """
    study = select(VERSION.c.study_id).where(VERSION.c.id == version_id).scalar_subquery()
    seed = db.execute(
        select(VERSION.c.design_seed)
        .where(VERSION.c.study_id == study, VERSION.c.status != VersionStatus.DRAFT)
        .order_by(VERSION.c.version)
        .limit(1)
    ).scalar_one()
    return bytes.fromhex(seed)


def _keyed(design: Design, *words: str) -> bytes:
    return hmac.digest(design.seed, "\n".join(words).encode(), "sha256")


def _begin(
    db: Session, design: Design, *, source: str, locale: str, at: Clocked, ext_hmac: str, token: str
) -> tuple[int, int]:
    """A new participant with a session: their row ids."""
    person = db.execute(
        insert(PARTICIPANT)
        .values(version_id=design.version_id, source=source, ext_hmac=ext_hmac, created_at=at.now)
        .returning(PARTICIPANT.c.id)
    ).scalar_one()
    session = db.execute(
        insert(SESSION)
        .values(
            public_id=at.random_bytes(TOKEN_BYTES).hex(),
            version_id=design.version_id,
            participant_id=person,
            token_hash=token_hash(token),
            state=SessionState.CREATED,
            plan_seed=_keyed(design, "plan", ext_hmac).hex(),
            locale=locale,
            is_test=False,
            created_at=at.now,
            last_seen=at.now,
        )
        .returning(SESSION.c.id)
    ).scalar_one()
    return person, session


def _void_open_trials(db: Session, session_id: int) -> None:
    db.execute(
        update(TRIAL)
        .where(TRIAL.c.session_id == session_id, TRIAL.c.state.in_((*OPEN, TrialState.EXPIRED)))
        .values(state=TrialState.VOID, lease_until=None)
    )


def _erased_already(db: Session, session_id: int) -> bool:
    table = models.Withdrawal
    found = select(table.id).where(table.session_id == session_id, table.scope == models.WithdrawalScope.ERASE)
    return db.execute(found).scalar_one_or_none() is not None
