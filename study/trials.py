"""Trials: issued just in time, shown blind, answered once; every step one function of a write transaction."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import String, bindparam, cast, func, insert, select, type_coerce, update
from sqlalchemy.orm import Session

from db.base import Base
from db.models import KindCode, OutcomeCode, SessionState, SlotRole, TrialKind, TrialState, VersionStatus
from db.statements import Statement
from db.writer import note
from study import counters
from study.assignment import ALGORITHM, Assigned, Counts, OpenCells, Place, Step, next_cell
from study.blinding import TOKEN_BYTES, BlindTrial, Stimulus, served_length, stimulus_token, token_hash
from study.counters import OPEN, SESSION, TRIAL
from study.definition import Flaw
from study.design import CELL, EVERY_QUESTION, RENDITION, VERSION, Design, Designs, StoredImage
from study.messages import AnswerRequest, CriterionAnswer, PracticeResult, Progress, TrialReply
from study.service import (
    ANSWERED,
    JOINABLE,
    REAP_EVERY,
    TAKING_PART,
    Clocked,
    RefusedError,
    Visit,
    come_back,
    completion,
    end_practice,
    enter,
    find_visit,
    lease_is_fresh,
    lease_until,
    reap,
    said_state,
    touch,
    turn_away,
)

SLOT = Base.metadata.tables["trial_slot"]
RESPONSE = Base.metadata.tables["response"]
ATTEMPT = Base.metadata.tables["response_attempt"]
VOTE = Base.metadata.tables["analysis_vote"]
BLOB = Base.metadata.tables["blob"]

AHEAD = 1
"""Trials assigned beyond the current one, so that their pictures are there when they are needed."""

PLANNED = "plan-1"
"""Recorded with trials that the session's plan decides alone; raised when `study.assignment.session_plan` changes."""

INPUT_SLOT = "input"
LONGEST_KEY = 128
"""Of an Idempotency-Key, in characters: with the session in front it still fits the database's names."""

COMPLETION_CODE_BYTES = 5
"""A code of our own has 40 random bits: nobody guesses the code of another among thousands."""


AskedRow = Any
"""A trial of a session: id, public_id, seq, kind, state, image_id, cell_id, gold_criterion, lease_until."""

TakenRow = Any
"""A trial whose answer was taken: id, kind, cell_id, image_id, gold_criterion, gold_position, shown_at."""


@dataclass(frozen=True)
class Question:
    """What one trial is about to ask, whatever its kind.

    Attributes:
        image: index among the design's images.
        shown: rendition ids in position order.

    The others are columns of the trial's row.
    """

    image: int
    shown: tuple[int, ...]
    cell_id: int | None = None
    repeat_of_id: int | None = None
    gold_criterion: str | None = None
    gold_position: int | None = None
    assign_algo: str = PLANNED
    propensity: float | None = None


@dataclass(frozen=True)
class Refusal:
    """An answer that was not counted; unlike an error it is stored, as evidence."""

    code: str
    sentence: str


@dataclass(frozen=True)
class ServedStimulus:
    """A stored picture and the length at which it must be served, equal for all pictures of its trial."""

    png: bytes
    length: int


# ------------------------------------------------------------------------------------------------- asking


def current(db: Session, designs: Designs, token: str, at: Clocked) -> TrialReply:
    """The trial a session is at and the one after it, issuing what is missing; asked again, the answer is the same."""
    visit = come_back(db, designs, enter(db, token), at)
    return _go_on(db, designs, visit, at)


def shown(db: Session, token: str, trial_id: str, at: Clocked) -> None:
    """All pictures of a trial are on the screen; the first time counts.

    Raises:
        RefusedError: for a trial that is not this session's.
    """
    visit = find_visit(db, token)
    of_session = (TRIAL.c.public_id == trial_id) & (TRIAL.c.session_id == visit.session_id)
    changed = db.execute(
        update(TRIAL)
        .where(of_session, TRIAL.c.state == TrialState.ISSUED)
        .values(state=TrialState.SHOWN, shown_at=at.now)
        .returning(TRIAL.c.id)
    ).one_or_none()
    if changed is None and db.execute(select(TRIAL.c.id).where(of_session)).one_or_none() is None:
        raise _unknown_trial()


def answer(
    db: Session, designs: Designs, token: str, trial_id: str, request: AnswerRequest, *, key: str, at: Clocked
) -> TrialReply | Refusal:
    """Take the answer to a trial and hand out what comes next, all in one transaction.

    The state of the trial is the only judge: the one conditional update that moves it to `answered` wins, whatever
    else arrives is kept in `response_attempt` and never counted. The same key again is told how things stand.

    Raises:
        RefusedError: for an unknown session or trial.
    """
    visit = come_back(db, designs, enter(db, token), at)
    design = designs.of(db, visit.version_id)
    refusal = _refuse_wrong_answer(design, visit, request, _asked_criteria(db, design, visit, trial_id), key)
    if refusal:
        return _keep_attempt(db, visit, trial_id, request, key=key, refusal=refusal, at=at)
    taken = _TAKE_ANSWER.one_or_none(db, {"public": trial_id, "session": visit.session_id, "answered_at": at.now})
    if taken is None:
        return _already(db, designs, visit, trial_id, request, key=key, at=at)
    _store_answer(db, design, visit, taken, request.responses, key=key, at=at)
    note(db, ANSWERED, taken.id)
    if taken.kind == TrialKind.PRACTICE:
        visit = end_practice(db, design, visit)
    return _with_result(db, design, _go_on(db, designs, visit, at), taken.id)


def stimulus(db: Session, session_token: str, token: str) -> ServedStimulus:
    """The picture behind a token, for the session it was made for and only while its trial is open.

    Raises:
        RefusedError: alike for every token that is not such a one.
    """
    row = db.execute(_FIND_STIMULUS, {"slot": token_hash(token), "session": token_hash(session_token)}).one_or_none()
    if row is None:
        raise RefusedError("not_found", "There is nothing here.")
    lengths = db.execute(_SLOT_LENGTHS, {"trial": row.trial_id}).scalars().all()
    return ServedStimulus(row.content, served_length(lengths))


# ------------------------------------------------------------------------------------------------- going on

# As plain text: a session's trials are read with every answer, and text compares equal to the members of the enums.
_SESSION_TRIALS = Statement(
    select(
        *(TRIAL.c[name] for name in ("id", "public_id", "seq")),
        type_coerce(TRIAL.c.kind, String).label("kind"),
        type_coerce(TRIAL.c.state, String).label("state"),
        *(TRIAL.c[name] for name in ("image_id", "cell_id", "gold_criterion", "lease_until")),
    )
    .where(TRIAL.c.session_id == bindparam("session"))
    .order_by(TRIAL.c.seq)
)
_EACH_COUNT = (
    select((CELL.c.n_valid + CELL.c.n_live).label("n"))
    .where(CELL.c.id.between(bindparam("first"), bindparam("last")))
    .order_by(CELL.c.id)
    .subquery()
)
# One text instead of 640 rows: wrapping those took a third of the time of an answer (measured). SQLite's own separator
# is the comma; both databases join in the order of the subquery.
_COUNTS = {
    "sqlite": Statement(select(func.group_concat(_EACH_COUNT.c.n).label("joined"))),
    "postgresql": Statement(select(func.string_agg(cast(_EACH_COUNT.c.n, String), ",").label("joined"))),
}


def _go_on(db: Session, designs: Designs, visit: Visit, at: Clocked) -> TrialReply:
    """What a session sees next: its open trials, topped up by new ones; or its end."""
    design = designs.of(db, visit.version_id)
    asked = _SESSION_TRIALS.all(db, {"session": visit.session_id})
    void = sum(trial.state == TrialState.VOID for trial in asked)
    answered = sum(trial.state == TrialState.ANSWERED and trial.kind != TrialKind.PRACTICE for trial in asked)
    planned = design.definition.trials - void
    if visit.state not in TAKING_PART or visit.status not in JOINABLE:
        return TrialReply(
            state=said_state(db, visit),
            progress=Progress(answered=answered, of=planned),
            completion=completion(design, visit),
        )
    still_open = [trial for trial in asked if trial.state in OPEN]
    if not all(lease_is_fresh(design, trial.lease_until, at) for trial in still_open):
        touch(db, design, visit, at)
    if designs.tidying_is_due(visit.version_id, at.now, REAP_EVERY):
        reap(db, visit.version_id, at)
    trials = [_blind_again(design, visit, trial, asked) for trial in still_open]
    trials += _issue_missing(db, design, visit, asked, missing=1 + AHEAD - len(trials), at=at)
    counted = sum(not trial.practice for trial in trials)
    progress = Progress(answered=answered, of=planned if len(trials) > AHEAD else answered + counted)
    if trials:
        upcoming = trials[1] if len(trials) > 1 else None
        return TrialReply(state=visit.state.value, progress=progress, trial=trials[0], upcoming=upcoming)
    if not answered:
        gone = turn_away(db, visit, at)
        return TrialReply(state=said_state(db, gone), progress=progress, completion=completion(design, gone))
    done = _complete(db, design, visit, at)
    return TrialReply(state="completed", progress=progress, completion=completion(design, done))


def _blind_again(design: Design, visit: Visit, trial: AskedRow, asked: Sequence[AskedRow]) -> BlindTrial:
    """An open trial as it was shown when it was issued."""
    return _blind_trial(
        design,
        visit,
        public_id=trial.public_id,
        number=_number(trial.kind, [each for each in asked if each.seq < trial.seq]),
        image=design.images_by_id[trial.image_id],
        practice=trial.gold_criterion if trial.kind == TrialKind.PRACTICE else None,
    )


def _number(kind: str, before: Sequence[AskedRow]) -> int:
    """A trial's number within the practice, or within what comes after it; what was taken back has none."""
    practice = kind == TrialKind.PRACTICE
    return 1 + sum(
        trial.state != TrialState.VOID and (trial.kind == TrialKind.PRACTICE) == practice for trial in before
    )


def _issue_missing(
    db: Session, design: Design, visit: Visit, asked: Sequence[AskedRow], *, missing: int, at: Clocked
) -> list[BlindTrial]:
    """New trials for a session, as many as are missing and as there is something left to ask.

    The number of a trial is its step in the session's plan. A step whose trial was taken back is not made up for: that
    happens only while a study drains, when sessions end early anyway.
    """
    if missing <= 0:
        return []
    issued: list[BlindTrial] = []
    steps = design.steps(visit.plan_key)
    history = [_Asked.of(trial, design) for trial in asked]
    seq = max((trial.seq for trial in asked), default=0)
    number = {
        practice: _number(TrialKind.PRACTICE if practice else TrialKind.REAL, asked) for practice in (True, False)
    }
    while len(issued) < missing and seq < len(steps):
        step, seq = steps[seq], seq + 1
        question = _question(db, design, visit, step, history)
        if question is None and step.kind == "repeat":
            continue  # what it repeats was taken back
        if question is None:
            break
        practice = step.kind == "practice"
        trial, blind = _issue(db, design, visit, step, question, seq=seq, number=number[practice], at=at)
        number[practice] += 1
        history.append(trial)
        issued.append(blind)
    return issued


@dataclass(frozen=True)
class _Asked:
    """A trial of the session as far as the choice of the next ones needs it."""

    id: int
    seq: int
    void: bool
    place: Place | None
    """the cell of a real trial"""

    @staticmethod
    def of(trial: AskedRow, design: Design) -> "_Asked":
        place = design.place(trial.cell_id) if trial.kind == TrialKind.REAL else None
        return _Asked(trial.id, trial.seq, trial.state == TrialState.VOID, place)


def _question(db: Session, design: Design, visit: Visit, step: Step, history: Sequence[_Asked]) -> Question | None:
    """What a step of the plan asks of this session now; None when there is nothing for it."""
    if step.kind == "repeat":
        return _repeated(design, step, history)
    if step.kind == "real" or visit.status == VersionStatus.DRAINING:
        # A draining study asks for what is missing: whom nothing real is left for is not tested either.
        assigned = _choose(db, design, visit, history)
        if assigned is None:
            return None
        if step.kind == "real":
            return _real(design, assigned)
    gold = design.golds[step.kind, step.criterion, step.item]
    attention = step.kind == "attention"
    tested = EVERY_QUESTION if attention else design.definition.gold_criteria[step.criterion].key
    return Question(gold.image, gold.shown(step.right), gold_criterion=tested, gold_position=step.right)


def _real(design: Design, assigned: Assigned) -> Question:
    return Question(
        assigned.place.image,
        _outputs(design, assigned.place),
        cell_id=design.cell_id(assigned.place),
        assign_algo=ALGORITHM,
        propensity=assigned.propensity,
    )


def _repeated(design: Design, step: Step, history: Sequence[_Asked]) -> Question | None:
    original = next((trial for trial in history if trial.seq == step.repeat_of + 1 and not trial.void), None)
    if original is None or original.place is None:
        return None
    place = design.swapped(original.place)
    shown = _outputs(design, place)
    return Question(place.image, shown, cell_id=design.cell_id(place), repeat_of_id=original.id)


def _outputs(design: Design, place: Place) -> tuple[int, ...]:
    return tuple(design.images[place.image].output_ids[method] for method in design.shown(place))


def _choose(db: Session, design: Design, visit: Visit, history: Sequence[_Asked]) -> Assigned | None:
    trials = design.definition.plan.real
    taken = [trial.place for trial in history if trial.place and not trial.void]
    if len(taken) >= trials:
        return None
    void = [trial.place.image for trial in history if trial.place and trial.void]
    counts = _counts(db, design)
    only: OpenCells | None = counts < design.cell_target if visit.status == VersionStatus.DRAINING else None
    return next_cell(counts, taken, trials=trials, key=visit.plan_key, also_seen=void, only=only)


def _counts(db: Session, design: Design) -> Counts:
    """Answers that each cell has or is about to get."""
    query = _COUNTS[db.get_bind().dialect.name]
    (row,) = query.all(db, {"first": design.first_cell, "last": design.last_cell})
    return np.fromstring(row.joined or "", dtype=np.int64, sep=",").reshape(design.shape)


_ISSUE = Statement(insert(TRIAL).returning(TRIAL.c.id))
_ISSUE_SLOTS = Statement(insert(SLOT))


def _issue(
    db: Session, design: Design, visit: Visit, step: Step, question: Question, *, seq: int, number: int, at: Clocked
) -> tuple[_Asked, BlindTrial]:
    """Store a trial with its slots and lease it to the session."""
    image = design.images[question.image]
    public_id = at.random_bytes(TOKEN_BYTES).hex()
    trial = {
        "public_id": public_id,
        "version_id": visit.version_id,
        "session_id": visit.session_id,
        "seq": seq,
        "kind": TrialKind(step.kind),
        "image_id": image.id,
        "cell_id": question.cell_id,
        "repeat_of_id": question.repeat_of_id,
        "gold_criterion": question.gold_criterion,
        "gold_position": question.gold_position,
        "state": TrialState.ISSUED,
        "lease_until": lease_until(design, at),
        "assign_algo": question.assign_algo,
        "propensity": question.propensity,
        "issued_at": at.now,
    }
    (row,) = _ISSUE.all(db, trial)
    slots = [(SlotRole.INPUT, 0, image.input_id, INPUT_SLOT)]
    slots += [
        (SlotRole.CANDIDATE, position, rendition, str(position)) for position, rendition in enumerate(question.shown)
    ]
    _ISSUE_SLOTS.run_many(
        db,
        [
            {
                "trial_id": row.id,
                "role": role,
                "position": position,
                "rendition_id": rendition,
                "token_hash": token_hash(stimulus_token(visit.token, public_id, slot)),
            }
            for role, position, rendition, slot in slots
        ],
    )
    place = None
    if step.kind == "real" and question.cell_id is not None:
        counters.add_live(db, question.cell_id, 1)
        place = design.place(question.cell_id)
    asked = _Asked(row.id, seq, void=False, place=place)
    practice = question.gold_criterion if step.kind == "practice" else None
    return asked, _blind_trial(design, visit, public_id=public_id, number=number, image=image, practice=practice)


def _blind_trial(
    design: Design, visit: Visit, *, public_id: str, number: int, image: StoredImage, practice: str | None
) -> BlindTrial:
    """A trial as the browser may know it; `practice` is the one question that a practice trial asks."""

    def picture(slot: str) -> Stimulus:
        return Stimulus(token=stimulus_token(visit.token, public_id, slot))

    return BlindTrial(
        id=public_id,
        number=number,
        practice=practice is not None,
        width=image.width,
        height=image.height,
        input=picture(INPUT_SLOT),
        candidates=tuple(picture(str(position)) for position in range(design.definition.candidates)),
        criteria=(practice,) if practice else tuple(criterion.key for criterion in design.definition.criteria),
    )


def _complete(db: Session, design: Design, visit: Visit, at: Clocked) -> Visit:
    """The last answer is in: the code exists from this transaction on, and the counts become valid."""
    code = design.definition.recruit.codes.complete or at.random_bytes(COMPLETION_CODE_BYTES).hex().upper()
    completed_now = db.execute(
        update(SESSION)
        .where(SESSION.c.id == visit.session_id, SESSION.c.state == SessionState.RUNNING)
        .values(state=SessionState.COMPLETED, ended_at=at.now, last_seen=at.now, completion_code=code)
        .returning(SESSION.c.id)
    ).one_or_none()
    if completed_now:
        counters.complete(db, visit.session_id)
    completed = db.execute(
        select(func.count())
        .select_from(SESSION)
        .where(SESSION.c.version_id == visit.version_id, SESSION.c.state == SessionState.COMPLETED)
    ).scalar_one()
    if completed >= design.definition.target.participants:
        db.execute(
            update(VERSION)
            .where(VERSION.c.id == visit.version_id, VERSION.c.status == VersionStatus.LIVE)
            .values(status=VersionStatus.DRAINING)
        )
    return find_visit(db, visit.token)


# ------------------------------------------------------------------------------------------------- answering

_TAKE_ANSWER = Statement(
    update(TRIAL)
    .where(
        TRIAL.c.public_id == bindparam("public"),
        TRIAL.c.session_id == bindparam("session"),
        TRIAL.c.state.in_(OPEN),
    )
    .values(state=TrialState.ANSWERED, answered_at=bindparam("answered_at"), lease_until=None)
    .returning(
        *(
            TRIAL.c[name]
            for name in ("id", "kind", "cell_id", "image_id", "gold_criterion", "gold_position", "shown_at")
        )
    )
)
_STORE_RESPONSES = Statement(insert(RESPONSE))
_VOTE_VALUES = [column for column in VOTE.columns if column.name != "response_id"]
# The answer's row is found again by what makes it unique: asking for the new ids costs more than both statements.
_STORE_VOTES = Statement(
    insert(VOTE).from_select(
        ["response_id", *(column.name for column in _VOTE_VALUES)],
        select(RESPONSE.c.id, *(bindparam(column.name, type_=column.type) for column in _VOTE_VALUES)).where(
            RESPONSE.c.trial_id == bindparam("trial_id"), RESPONSE.c.criterion == bindparam("question")
        ),
    )
)
_OUTCOME_CODES = {"choice": OutcomeCode.CHOICE, "tie": OutcomeCode.TIE, "cant_tell": OutcomeCode.CANT_TELL}


_PRACTISED = select(TRIAL.c.gold_criterion).where(
    TRIAL.c.public_id == bindparam("public"),
    TRIAL.c.session_id == bindparam("session"),
    TRIAL.c.kind == TrialKind.PRACTICE,
)


def _asked_criteria(db: Session, design: Design, visit: Visit, trial_id: str) -> tuple[str, ...]:
    """The questions of a trial: all of the study's, of a practice trial the one it practises."""
    every = tuple(criterion.key for criterion in design.definition.criteria)
    if not design.practice:
        return every
    practised = db.execute(_PRACTISED, {"public": trial_id, "session": visit.session_id}).scalar_one_or_none()
    return (practised,) if practised else every


def _refuse_wrong_answer(
    design: Design, visit: Visit, request: AnswerRequest, asked: Sequence[str], key: str
) -> Refusal | None:
    if not 0 < len(key) <= LONGEST_KEY:
        return Refusal("bad_request", f"The Idempotency-Key must have 1 to {LONGEST_KEY} characters.")
    if visit.status not in JOINABLE and visit.status != VersionStatus.PAUSED:
        return Refusal("late", f"The study is {visit.status}; this answer came too late to count.")
    if visit.state not in {*TAKING_PART, SessionState.COMPLETED}:
        before = {SessionState.CREATED, SessionState.SCREENED}
        return Refusal("consent_needed" if visit.state in before else "late", _STATE_SENTENCE)
    criteria = {criterion.key: criterion for criterion in design.definition.criteria if criterion.key in asked}
    given = [response.criterion for response in request.responses]
    if sorted(given) != sorted(criteria):
        return Refusal("wrong_answer", f"Answer each question once ({', '.join(criteria)}).")
    for response in request.responses:
        problem = _wrong_response(design, response, criteria[response.criterion].allow)
        if problem:
            return Refusal("wrong_answer", problem)
    return None


_STATE_SENTENCE = "This session takes no answers now; reload the page to see where it stands."


def _wrong_response(design: Design, response: CriterionAnswer, allowed: Sequence[str]) -> str | None:
    if response.outcome != "choice" and response.outcome not in allowed:
        return f"{response.outcome!r} is no answer to {response.criterion}; choose one of the pictures."
    if (response.outcome == "choice") != (response.position is not None):
        return f"A choice needs a position and nothing else does ({response.criterion})."
    if response.position is not None and response.position >= design.definition.candidates:
        return f"There is no picture at position {response.position}; the last is {design.definition.candidates - 1}."
    return None


def _store_answer(
    db: Session,
    design: Design,
    visit: Visit,
    trial: TakenRow,
    responses: Sequence[CriterionAnswer],
    *,
    key: str,
    at: Clocked,
) -> None:
    # A server's clock that was set back in between has measured nothing.
    elapsed = at.now - trial.shown_at if trial.shown_at is not None else -1
    server_ms = elapsed // 1000 if elapsed >= 0 else None
    shared_key = {"idempotency_key": _own(trial.id, key)}
    _STORE_RESPONSES.run_many(
        db,
        [
            response.model_dump()
            | shared_key
            | {"trial_id": trial.id, "server_ms": server_ms, "answered_at": at.now}
            | {"gold_correct": _gold_correct(trial, response)}
            for response in responses
        ],
    )
    shared = _shared_by_votes(design, visit, trial) | {"answered_at": at.now}
    methods = design.shown(design.place(trial.cell_id)) if trial.cell_id is not None else None
    number = {criterion.key: at_ for at_, criterion in enumerate(design.definition.criteria)}
    votes = [
        {
            "question": response.criterion,
            "criterion": number[response.criterion],
            "chosen_method_id": methods[response.position] if methods and response.position is not None else None,
            "outcome": int(_OUTCOME_CODES[response.outcome]),
            "position": response.position,
            "rt_ms": response.rt_ms,
        }
        for response in responses
    ]
    _STORE_VOTES.run_many(db, [shared | vote for vote in votes])


def _gold_correct(trial: TakenRow, response: CriterionAnswer) -> bool | None:
    """Whether the known right answer was given; only the question that the pictures were made for is scored."""
    tested = trial.gold_criterion in {response.criterion, EVERY_QUESTION}
    return response.position == trial.gold_position if tested else None


_KIND_CODES = {kind: int(KindCode[kind.name]) for kind in TrialKind}


def _shared_by_votes(design: Design, visit: Visit, trial: TakenRow) -> dict[str, int | None]:
    """What the fact rows of one trial have in common, whatever the criterion."""
    place = design.place(trial.cell_id) if trial.cell_id is not None else None
    first, second = design.shown(place) if place and not design.orders else (None, None)
    return {
        "version_id": visit.version_id,
        "kind": _KIND_CODES[trial.kind],
        "image_id": trial.image_id,
        "session_id": visit.session_id,
        "participant_id": visit.participant_id,
        "trial_id": trial.id,
        "cell_id": trial.cell_id,
        "first_method_id": first,
        "second_method_id": second,
        "rotation": place.side if place and design.orders else None,
        "used": 1,
    }


_RESULT = (
    select(TRIAL.c.gold_criterion, TRIAL.c.gold_position, RESPONSE.c.gold_correct)
    .join(RESPONSE, RESPONSE.c.trial_id == TRIAL.c.id)
    .where(TRIAL.c.id == bindparam("trial"), TRIAL.c.kind == TrialKind.PRACTICE, RESPONSE.c.gold_correct.is_not(None))
)


def _with_result(db: Session, design: Design, reply: TrialReply, trial_id: int) -> TrialReply:
    """The reply with what was right, if the trial was for practice; of any other kind nothing is ever told."""
    if not design.practice:
        return reply
    row = db.execute(_RESULT, {"trial": trial_id}).one_or_none()
    if row is None:
        return reply
    flaw: Flaw | None = next(each.gold for each in design.definition.gold_criteria if each.key == row.gold_criterion)
    result = PracticeResult(correct=row.gold_correct, right=row.gold_position, flaw=flaw)
    return reply.model_copy(update={"practice": result})


_FIND_TRIAL = Statement(
    select(TRIAL.c.id, TRIAL.c.state).where(
        TRIAL.c.public_id == bindparam("public"), TRIAL.c.session_id == bindparam("session")
    )
)
_STORED_KEY = Statement(select(RESPONSE.c.idempotency_key).where(RESPONSE.c.trial_id == bindparam("trial")).limit(1))
_KEEP_ATTEMPT = Statement(insert(ATTEMPT))


def _already(
    db: Session, designs: Designs, visit: Visit, trial_id: str, request: AnswerRequest, *, key: str, at: Clocked
) -> TrialReply | Refusal:
    """The trial was not there to be answered: a repetition of what is stored, or something to keep as evidence."""
    trial = _FIND_TRIAL.one_or_none(db, {"public": trial_id, "session": visit.session_id})
    if trial is None:
        raise _unknown_trial()
    stored = _STORED_KEY.one_or_none(db, {"trial": trial.id})
    if stored is not None and stored.idempotency_key == _own(trial.id, key):
        return _with_result(db, designs.of(db, visit.version_id), _go_on(db, designs, visit, at), trial.id)
    refusal = Refusal("already_answered", "This question was answered already; the first answer counts.")
    if trial.state == TrialState.VOID:
        refusal = Refusal("late", "This answer came too late: the question was given to somebody else.")
    return _keep_attempt(db, visit, trial_id, request, key=key, refusal=refusal, at=at)


def _keep_attempt(
    db: Session, visit: Visit, trial_id: str, request: AnswerRequest, *, key: str, refusal: Refusal, at: Clocked
) -> Refusal:
    trial = _FIND_TRIAL.one_or_none(db, {"public": trial_id, "session": visit.session_id})
    if trial is None:
        raise _unknown_trial()
    attempt = {
        "session_id": visit.session_id,
        "trial_id": trial.id,
        "idempotency_key": key[:LONGEST_KEY],
        "reason": refusal.code,
        "payload_json": json.dumps(request.model_dump(), sort_keys=True),
        "at": at.now,
    }
    _KEEP_ATTEMPT.run(db, attempt)
    return refusal


def _own(trial_id: int, key: str) -> str:
    """The key as it is stored: two sessions may draw the same one, and a client may send one for two trials."""
    return f"{trial_id}:{key}"


def _unknown_trial() -> RefusedError:
    return RefusedError("unknown_trial", "This question is not part of your session; reload the page.")


_FIND_STIMULUS = (
    select(SLOT.c.trial_id, BLOB.c.content)
    .join(TRIAL, TRIAL.c.id == SLOT.c.trial_id)
    .join(SESSION, SESSION.c.id == TRIAL.c.session_id)
    .join(RENDITION, RENDITION.c.id == SLOT.c.rendition_id)
    .join(BLOB, BLOB.c.id == RENDITION.c.blob_id)
    .where(
        SLOT.c.token_hash == bindparam("slot"),
        SESSION.c.token_hash == bindparam("session"),
        TRIAL.c.state.in_(OPEN),
    )
)
_SLOT_LENGTHS = (
    select(BLOB.c.length)
    .join(RENDITION, RENDITION.c.blob_id == BLOB.c.id)
    .join(SLOT, SLOT.c.rendition_id == RENDITION.c.id)
    .where(SLOT.c.trial_id == bindparam("trial"))
)
