"""Whose answers are paid for and whose are analysed: the definition's rules as pure functions, and what follows.

A rule looks at one session and says whether it is broken, with the evidence. *Accept* (pay) and *use* (analyse) are
separate verdicts. An exclusion is a row that is never edited: it is undone by another that names it, both with a reason
and both in the audit trail. No rule looks at which method was preferred.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.orm import Session, aliased

from db.base import Base
from db.models import ExclusionEffect, Outcome, SessionState, TrialKind, VersionStatus, WithdrawalScope
from db.writer import note
from study import audit, counters
from study.counters import SESSION, TRIAL
from study.definition import RULES, Exclusion, StudyDefinition
from study.design import STUDY, VERSION, Design, load_design
from study.service import CONSENT, EXCLUDED, PARTICIPANT, SIGNAL, RefusedError

RESPONSE = Base.metadata.tables["response"]
VOTE = Base.metadata.tables["analysis_vote"]
EXCLUSION = Base.metadata.tables["exclusion"]
WITHDRAWAL = Base.metadata.tables["withdrawal"]

BY_RULE = "rules"
"""The actor of what the frozen definition decides."""

BY_HAND = "manual"
"""The rule of what a person decides."""

ABOUT_METHODS = frozenset({TrialKind.REAL, TrialKind.REPEAT})

Evidence = Mapping[str, float | str | None]


@dataclass(frozen=True)
class Answer:
    """One answer to one criterion.

    Attributes:
        trial: row id of its trial.
        kind: of its trial.
        repeat_of: row id of the trial that its trial repeats.
        criterion: key of the question.
        outcome: what was answered.
        position: of the choice, from 0; None for no choice.
        method: row id of the chosen method; None for no choice, or where no method was shown.
        rt_ms: from the pictures' appearance to the last change, as the page measured it.
        server_ms: from the pictures' appearance to the answer, as the server measured it.
        hidden_ms: of it, how long the page was hidden.
        correct: of the question that a gold, attention or practice trial tests; None for any other.
    """

    trial: int
    kind: TrialKind
    repeat_of: int | None
    criterion: str
    outcome: Outcome
    position: int | None
    method: int | None
    rt_ms: int | None
    server_ms: int | None
    hidden_ms: int | None
    correct: bool | None


@dataclass(frozen=True)
class Record:
    """What a session left behind, without what it preferred being looked at by any rule.

    Attributes:
        state: where it stands.
        answers: in the order of the trials; practice left out.
        css_size: width and height of the window, None when it was never reported.
        took_part_before: whether the person answered the study in an earlier session, of any version.
        failed_signals: names of the defences that it failed.
    """

    state: SessionState
    answers: tuple[Answer, ...]
    css_size: tuple[int, int] | None
    took_part_before: bool
    failed_signals: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """What one rule says of one session."""

    rule: str
    rule_sha256: str
    effect: ExclusionEffect
    broken: bool
    evidence: Evidence


@dataclass(frozen=True)
class InForce:
    """An exclusion that nobody has reversed."""

    id: int
    rule: str
    effect: ExclusionEffect
    evidence: str
    actor: str
    at: int


@dataclass(frozen=True)
class Verdict:
    """One session as the quality queue shows it.

    Attributes:
        session: its public id.
        state: where it stands.
        findings: every rule of the definition, broken or not, as the answers say now.
        in_force: exclusions that count now; those of the definition's rules come when the session completes.
        accept: to be paid for, as far as exclusions say.
        use: to be analysed, as far as exclusions say.
    """

    session: str
    state: SessionState
    findings: tuple[Finding, ...]
    in_force: tuple[InForce, ...]
    accept: bool
    use: bool


@dataclass(frozen=True)
class Flow:
    """How many sessions came how far, in the manner of CONSORT; test sessions are in none of the counts.

    Attributes:
        arrived: sessions that began; `erased` of them can say no more of themselves.
        by_state: those not erased, by where they stand.
        consented: agreed to take part.
        full: agreed, and were sent back because nothing was left to ask; among those screened out.
        answered: answered at least one trial after the practice.
        completed: answered all.
        accepted: completed, and no exclusion says not to pay.
        used: completed, and no exclusion says not to analyse.
        excluded: exclusions in force by "rule (effect)"; a session may be in several.
    """

    arrived: int
    erased: int
    by_state: Mapping[str, int]
    consented: int
    full: int
    answered: int
    completed: int
    accepted: int
    used: int
    excluded: Mapping[str, int]


# ------------------------------------------------------------------------------------------------- the rules


def judge(record: Record, rule: Exclusion, study: StudyDefinition) -> Finding:
    """What a rule says of a session, with the numbers it looked at; what cannot be judged is not broken."""
    broken, evidence = _JUDGES[rule.rule](record, dict(RULES[rule.rule]) | rule.params, study)
    return Finding(rule.rule, rule_sha256(rule), ExclusionEffect(rule.effect), broken, evidence)


def rule_sha256(rule: Exclusion) -> str:
    """The hash of a rule with its parameters, those left out written with their defaults."""
    whole = {"rule": rule.rule, "params": dict(RULES[rule.rule]) | rule.params, "effect": rule.effect}
    return hashlib.sha256(json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def side_bias_p(positions: Iterable[int], candidates: int) -> float:
    """How likely one position is chosen so often by somebody who has no favourite.

    The binomial tail of the most chosen position, times the number of positions (Bonferroni); with two candidates that
    is the exact two-sided binomial test of 1/2.

    Args:
        positions: chosen, each from 0 to `candidates` - 1.
        candidates: how many there were to choose among.

    Returns:
        A probability in (0, 1]; 1 without choices.
    """
    chosen = Counter(positions)
    n, most = chosen.total(), max(chosen.values(), default=0)
    tail = sum(math.comb(n, k) * (candidates - 1) ** (n - k) for k in range(most, n + 1))
    return min(1.0, candidates * tail / candidates**n)


def looked_ms(answers: Sequence[Answer]) -> dict[int, int]:
    """How long each trial was looked at, by its row id; a page cannot claim longer than the server waited for it."""
    times: dict[int, int] = {}
    for answer in answers:
        claimed = [ms for ms in (answer.rt_ms, answer.server_ms) if ms is not None]
        if claimed:
            times[answer.trial] = max(times.get(answer.trial, 0), min(claimed))
    return times


Params = Mapping[str, float]
Judged = tuple[bool, Evidence]


def _incomplete(record: Record, _params: Params, _study: StudyDefinition) -> Judged:
    return record.state != SessionState.COMPLETED, {"state": record.state.value}


def _gold(record: Record, params: Params, _study: StudyDefinition) -> Judged:
    scored = [each.correct for each in record.answers if each.kind == TrialKind.GOLD and each.correct is not None]
    share = sum(scored) / len(scored) if scored else None
    return share is not None and share < params["least_share"], {"correct": sum(scored), "of": len(scored)}


def _attention(record: Record, params: Params, _study: StudyDefinition) -> Judged:
    right: dict[int, bool] = {}
    for each in record.answers:
        if each.kind == TrialKind.ATTENTION and each.correct is not None:
            right[each.trial] = each.correct and right.get(each.trial, True)
    failed = len(right) - sum(right.values())
    return failed > params["most_failed"], {"failed": failed, "of": len(right)}


def _speed(record: Record, params: Params, _study: StudyDefinition) -> Judged:
    times = list(looked_ms(record.answers).values())
    if not times:
        return False, {"trials": 0}
    fast, middle = sum(ms < params["fast_ms"] for ms in times), median(times)
    too_fast = fast / len(times) > params["most_fast_share"] or middle < params["least_median_ms"]
    return too_fast, {"fast": fast, "trials": len(times), "median_ms": middle}


def _side_bias(record: Record, params: Params, study: StudyDefinition) -> Judged:
    smallest, where = 1.0, None
    for criterion in study.criteria:
        chosen = [
            each.position
            for each in record.answers
            if each.criterion == criterion.key and each.kind in ABOUT_METHODS and each.position is not None
        ]
        p = side_bias_p(chosen, study.candidates)
        if p < smallest:
            smallest, where = p, criterion.key
    return smallest * len(study.criteria) < params["p"], {"p": float(f"{smallest:.3g}"), "criterion": where}


def _hidden(record: Record, params: Params, _study: StudyDefinition) -> Judged:
    times = looked_ms(record.answers)
    hidden: dict[int, int] = {}
    for each in record.answers:
        hidden[each.trial] = max(hidden.get(each.trial, 0), each.hidden_ms or 0)
    viewed, away = sum(times.values()), sum(min(hidden[trial], times[trial]) for trial in times)
    return viewed > 0 and away / viewed > params["most_share"], {"hidden_ms": away, "viewed_ms": viewed}


def _duplicate_person(record: Record, _params: Params, _study: StudyDefinition) -> Judged:
    return record.took_part_before, {"took_part_before": int(record.took_part_before)}


def _small_screen(record: Record, _params: Params, study: StudyDefinition) -> Judged:
    if record.css_size is None:
        return False, {"width": None, "height": None}
    width, height = record.css_size
    small = width < study.screen.min_css_width or height < study.screen.min_css_height
    return small, {"width": width, "height": height}


def _repeats(record: Record, params: Params, _study: StudyDefinition) -> Judged:
    first = {(each.trial, each.criterion): (each.outcome, each.method) for each in record.answers}
    pairs = [
        first[each.repeat_of, each.criterion] == (each.outcome, each.method)
        for each in record.answers
        if each.repeat_of is not None and (each.repeat_of, each.criterion) in first
    ]
    share = sum(pairs) / len(pairs) if pairs else None
    return share is not None and share < params["least_share"], {"same": sum(pairs), "of": len(pairs)}


def _ties(record: Record, params: Params, _study: StudyDefinition) -> Judged:
    asked = [each.outcome for each in record.answers if each.kind in ABOUT_METHODS]
    ties = sum(outcome == Outcome.TIE for outcome in asked)
    return bool(asked) and ties / len(asked) > params["most_share"], {"ties": ties, "of": len(asked)}


def _signal(record: Record, _params: Params, _study: StudyDefinition) -> Judged:
    return bool(record.failed_signals), {"failed": ", ".join(record.failed_signals)}


_JUDGES: Mapping[str, Callable[[Record, Params, StudyDefinition], Judged]] = {
    "incomplete": _incomplete,
    "gold": _gold,
    "attention": _attention,
    "speed": _speed,
    "side_bias": _side_bias,
    "hidden": _hidden,
    "duplicate_person": _duplicate_person,
    "small_screen": _small_screen,
    "repeats": _repeats,
    "ties": _ties,
    "signal": _signal,
}


# ------------------------------------------------------------------------------------------------- what follows


def verdicts(db: Session, version_id: int) -> list[Verdict]:
    """Every session of a version that was not erased, in the order of arrival, with what the rules say of it now."""
    definition = load_design(db, version_id).definition
    exclusions = _in_force(db, version_id)
    found: list[Verdict] = []
    for row, record in _records(db, version_id):
        excluded = tuple(exclusions.get(row.id, ()))
        effects = {each.effect for each in excluded}
        found.append(
            Verdict(
                session=row.public_id,
                state=record.state,
                findings=tuple(judge(record, rule, definition) for rule in definition.exclusions),
                in_force=excluded,
                accept=ExclusionEffect.ACCEPT not in effects,
                use=ExclusionEffect.USE not in effects,
            )
        )
    return found


def apply_rules(
    db: Session, version_id: int, *, at: int, only: Collection[int] | None = None, design: Design | None = None
) -> int:
    """Exclude what the definition's rules exclude: completed sessions, and once the study is closed all others too.

    What was excluded by the same rule before, and what somebody reversed, is left as it is: run again, nothing changes.

    Args:
        db: of a write job.
        version_id: whose sessions.
        at: UTC microseconds.
        only: row ids of the sessions to look at; None for all.
        design: of the version, where the caller has it already.

    Returns:
        How many exclusions were made.
    """
    design = design or load_design(db, version_id)
    rules = design.definition.exclusions
    if not rules:
        return 0
    status = db.execute(select(VERSION.c.status).where(VERSION.c.id == version_id)).scalar_one()
    known = {
        (row.session_id, row.rule_sha256) for row in db.execute(select(EXCLUSION.c.session_id, EXCLUSION.c.rule_sha256))
    }
    made = 0
    for row, record in _records(db, version_id, only=only):
        if record.state != SessionState.COMPLETED and (status != VersionStatus.CLOSED or not record.answers):
            continue
        for finding in (judge(record, rule, design.definition) for rule in rules):
            if finding.broken and (row.id, finding.rule_sha256) not in known:
                _exclude(db, row, finding, about=f"{design.slug} v{design.version}", actor=BY_RULE, at=at)
                made += 1
    return made


def exclude(
    db: Session, version_id: int, session: str, *, effect: ExclusionEffect, reason: str, actor: str, at: int
) -> int:
    """Exclude a session by hand.

    Args:
        db: of a write job.
        version_id: of the study.
        session: the session's public id.
        effect: not to be paid, not to be analysed, or only marked.
        reason: in words; it is exported.
        actor: a role or program, for the audit trail; never a participant.
        at: UTC microseconds.

    Returns:
        The exclusion's id, for `reverse`.

    Raises:
        RefusedError: for an unknown session, or without a reason.
    """
    _refuse_no_reason(reason)
    row = db.execute(
        select(SESSION).where(SESSION.c.version_id == version_id, SESSION.c.public_id == session)
    ).one_or_none()
    if row is None:
        raise RefusedError(
            "unknown_session", f"There is no session {session!r} in this version; take it from the queue."
        )
    decided = hashlib.sha256(f"{BY_HAND}\n{effect.value}".encode()).hexdigest()
    finding = Finding(BY_HAND, decided, effect, broken=True, evidence={"reason": reason})
    return _exclude(db, row, finding, about=_about(db, version_id), actor=actor, at=at)


def reverse(db: Session, version_id: int, exclusion: int, *, reason: str, actor: str, at: int) -> int:
    """Undo an exclusion by another row; the rule that made it does not make it again.

    Returns:
        The id of the row that undoes it.

    Raises:
        RefusedError: for an exclusion that is not of this version, is undone already, or itself undoes one.
    """
    _refuse_no_reason(reason)
    row = db.execute(
        select(EXCLUSION, SESSION.c.state)
        .join(SESSION, SESSION.c.id == EXCLUSION.c.session_id)
        .where(EXCLUSION.c.id == exclusion, SESSION.c.version_id == version_id)
    ).one_or_none()
    undone = db.execute(select(EXCLUSION.c.id).where(EXCLUSION.c.reverses_id == exclusion)).scalar_one_or_none()
    if row is None or row.reverses_id is not None or undone is not None:
        raise RefusedError(
            "not_found", f"There is no exclusion {exclusion} in force in this version; reload the queue."
        )
    was_used = not counters.is_excluded(db, row.session_id)
    values = {name: getattr(row, name) for name in ("session_id", "rule_key", "rule_sha256", "effect")}
    evidence = json.dumps({"reason": reason}, ensure_ascii=False)
    undoing = db.execute(
        insert(EXCLUSION)
        .values(**values, evidence_json=evidence, actor=actor, at=at, reverses_id=exclusion)
        .returning(EXCLUSION.c.id)
    ).scalar_one()
    if not was_used and not counters.is_excluded(db, row.session_id):
        counters.readmit(db, row.session_id, row.state)
        _set_used(db, row.session_id, used=True)
    write_down(db, undoing)
    return undoing


def flow(db: Session, version_id: int) -> Flow:
    """How many sessions of a version came how far."""
    exclusions = _in_force(db, version_id)
    rows = db.execute(_sessions(version_id)).all()
    agreed = select(CONSENT.c.session_id)
    turned_away = agreed.join(SESSION, SESSION.c.id == CONSENT.c.session_id).where(
        SESSION.c.state == SessionState.SCREENED_OUT
    )
    after_practice = (TRIAL.c.answered_at.is_not(None)) & (TRIAL.c.kind != TrialKind.PRACTICE)
    answered = _count(db, select(TRIAL.c.session_id).where(after_practice), version_id)
    erased = _count(db, _ERASED, version_id, erased=True)
    effects = {session: {each.effect for each in found} for session, found in exclusions.items()}
    completed = [row.id for row in rows if row.state == SessionState.COMPLETED]
    by_rule = Counter(f"{each.rule} ({each.effect.value})" for found in exclusions.values() for each in found)
    return Flow(
        arrived=len(rows) + erased,
        erased=erased,
        by_state=dict(sorted(Counter(row.state.value for row in rows).items())),
        consented=_count(db, agreed, version_id),
        full=_count(db, turned_away, version_id),
        answered=answered,
        completed=len(completed),
        accepted=sum(ExclusionEffect.ACCEPT not in effects.get(session, ()) for session in completed),
        used=sum(ExclusionEffect.USE not in effects.get(session, ()) for session in completed),
        excluded=dict(sorted(by_rule.items())),
    )


# ------------------------------------------------------------------------------------------------- details

_ERASED = select(WITHDRAWAL.c.session_id).where(WITHDRAWAL.c.scope == WithdrawalScope.ERASE)

SessionRow = Row[Any]
"""A row of the table of sessions."""


def _sessions(version_id: int) -> Any:
    return (
        select(SESSION)
        .where(SESSION.c.version_id == version_id, SESSION.c.is_test.is_(False), SESSION.c.id.not_in(_ERASED))
        .order_by(SESSION.c.id)
    )


def _count(db: Session, sessions: Any, version_id: int, *, erased: bool = False) -> int:
    known = SESSION.c.id.in_(sessions) & (SESSION.c.version_id == version_id) & SESSION.c.is_test.is_(False)
    if not erased:
        known &= SESSION.c.id.not_in(_ERASED)
    return db.execute(select(func.count()).select_from(SESSION).where(known)).scalar_one()


def _in_force(db: Session, version_id: int) -> dict[int, list[InForce]]:
    undone = select(EXCLUSION.c.reverses_id).where(EXCLUSION.c.reverses_id.is_not(None))
    rows = db.execute(
        select(EXCLUSION)
        .join(SESSION, SESSION.c.id == EXCLUSION.c.session_id)
        .where(SESSION.c.version_id == version_id, EXCLUSION.c.reverses_id.is_(None), EXCLUSION.c.id.not_in(undone))
        .order_by(EXCLUSION.c.id)
    )
    found: dict[int, list[InForce]] = {}
    for row in rows:
        exclusion = InForce(row.id, row.rule_key, row.effect, row.evidence_json, row.actor, row.at)
        found.setdefault(row.session_id, []).append(exclusion)
    return found


def _records(
    db: Session, version_id: int, *, only: Collection[int] | None = None
) -> Iterable[tuple[SessionRow, Record]]:
    """Every session, or only some, with what it left behind."""
    wanted = SESSION.c.id.in_(only) if only is not None else SESSION.c.version_id == version_id
    answers = _answers(db, wanted)
    before = _took_part_before(db, version_id, wanted)
    failed: dict[int, list[str]] = {}
    signals = select(SIGNAL).join(SESSION, SESSION.c.id == SIGNAL.c.session_id)
    for row in db.execute(signals.where(wanted, SIGNAL.c.outcome == "fail").order_by(SIGNAL.c.name)):
        failed.setdefault(row.session_id, []).append(row.name)
    for row in db.execute(_sessions(version_id).where(wanted)).all():
        size = (row.css_width, row.css_height) if row.css_width and row.css_height else None
        yield (
            row,
            Record(row.state, tuple(answers.get(row.id, ())), size, row.id in before, tuple(failed.get(row.id, ()))),
        )


def _answers(db: Session, wanted: Any) -> dict[int, list[Answer]]:
    names = ("criterion", "outcome", "position", "rt_ms", "server_ms", "hidden_ms", "gold_correct")
    rows = db.execute(
        select(
            TRIAL.c.session_id,
            TRIAL.c.id.label("trial"),
            TRIAL.c.kind,
            TRIAL.c.repeat_of_id,
            VOTE.c.chosen_method_id,
            *(RESPONSE.c[name] for name in names),
        )
        .join(RESPONSE, RESPONSE.c.trial_id == TRIAL.c.id)
        .join(SESSION, SESSION.c.id == TRIAL.c.session_id)
        .join(VOTE, VOTE.c.response_id == RESPONSE.c.id, isouter=True)
        .where(wanted, TRIAL.c.kind != TrialKind.PRACTICE)
        .order_by(TRIAL.c.session_id, TRIAL.c.seq, RESPONSE.c.id)
    )
    found: dict[int, list[Answer]] = {}
    for row in rows:
        answer = Answer(
            trial=row.trial,
            kind=row.kind,
            repeat_of=row.repeat_of_id,
            criterion=row.criterion,
            outcome=row.outcome,
            position=row.position,
            method=row.chosen_method_id,
            rt_ms=row.rt_ms,
            server_ms=row.server_ms,
            hidden_ms=row.hidden_ms,
            correct=row.gold_correct,
        )
        found.setdefault(row.session_id, []).append(answer)
    return found


def _took_part_before(db: Session, version_id: int, wanted: Any) -> set[int]:
    """Row ids of sessions whose person had answered this study, in any version, before the session began."""
    same, earlier = aliased(PARTICIPANT), aliased(SESSION)
    versions = select(VERSION.c.id).where(
        VERSION.c.study_id == select(VERSION.c.study_id).where(VERSION.c.id == version_id).scalar_subquery()
    )
    answered = select(TRIAL.c.session_id).where(TRIAL.c.answered_at.is_not(None))
    rows = db.execute(
        select(SESSION.c.id)
        .join(PARTICIPANT, PARTICIPANT.c.id == SESSION.c.participant_id)
        .join(same, (same.c.ext_hmac == PARTICIPANT.c.ext_hmac) & (same.c.source == PARTICIPANT.c.source))
        .join(earlier, earlier.c.participant_id == same.c.id)
        .where(wanted, earlier.c.id < SESSION.c.id, same.c.version_id.in_(versions), earlier.c.id.in_(answered))
    )
    return set(rows.scalars())


def _exclude(db: Session, row: SessionRow, finding: Finding, *, about: str, actor: str, at: int) -> int:
    """Store an exclusion; one that takes a session out of the analysis lets the balance be refilled."""
    was_used = not counters.is_excluded(db, row.id)
    evidence = json.dumps(dict(finding.evidence), sort_keys=True, ensure_ascii=False)
    exclusion = db.execute(
        insert(EXCLUSION)
        .values(
            session_id=row.id,
            rule_key=finding.rule,
            rule_sha256=finding.rule_sha256,
            effect=finding.effect,
            evidence_json=evidence,
            actor=actor,
            at=at,
        )
        .returning(EXCLUSION.c.id)
    ).scalar_one()
    if was_used and finding.effect == ExclusionEffect.USE:
        counters.exclude(db, row.id, row.state)
        _set_used(db, row.id, used=False)
    write_down(db, exclusion, about=about)
    return exclusion


def write_down(db: Session, exclusion: int, *, about: str | None = None) -> None:
    """Tell the audit trail and the journal of an exclusion, or of what undoes one.

    Args:
        db: of a write job.
        exclusion: its row id.
        about: the study and its version, where the caller has them already.
    """
    row = db.execute(
        select(EXCLUSION, SESSION.c.public_id, SESSION.c.version_id)
        .join(SESSION, SESSION.c.id == EXCLUSION.c.session_id)
        .where(EXCLUSION.c.id == exclusion)
    ).one()
    payload = {
        "session": row.public_id,
        "rule": row.rule_key,
        "effect": row.effect.value,
        "evidence": row.evidence_json,
    }
    action = "exclude"
    if row.reverses_id is not None:
        action, payload = "reverse", {"exclusion": row.reverses_id, "reason": json.loads(row.evidence_json)["reason"]}
    about = about or _about(db, row.version_id)
    audit.append(db, at=row.at, actor=row.actor, action=action, about=about, payload=payload)
    note(db, EXCLUDED, exclusion)


def settle(db: Session, sessions: Collection[int]) -> None:
    """Let the votes of sessions say whether they are used, for a database put together from a copy and a journal.

    Args:
        db: of a write job.
        sessions: their row ids.
    """
    for session in sessions:
        _set_used(db, session, used=not counters.is_excluded(db, session))


def _set_used(db: Session, session_id: int, *, used: bool) -> None:
    values = update(VOTE).where(VOTE.c.session_id == session_id).values(used=int(used))
    if used:
        undone = select(EXCLUSION.c.reverses_id).where(EXCLUSION.c.reverses_id.is_not(None))
        alone = select(EXCLUSION.c.response_id).where(
            EXCLUSION.c.response_id.is_not(None),
            EXCLUSION.c.effect == ExclusionEffect.USE,
            EXCLUSION.c.reverses_id.is_(None),
            EXCLUSION.c.id.not_in(undone),
        )
        values = values.where(VOTE.c.response_id.not_in(alone))
    db.execute(values)


def _about(db: Session, version_id: int) -> str:
    row = db.execute(
        select(STUDY.c.slug, VERSION.c.version)
        .join(VERSION, VERSION.c.study_id == STUDY.c.id)
        .where(VERSION.c.id == version_id)
    ).one()
    return f"{row.slug} v{row.version}"


def _refuse_no_reason(reason: str) -> None:
    if not reason.strip():
        raise RefusedError("bad_request", "Give the reason in words: it is kept and exported with the exclusion.")
