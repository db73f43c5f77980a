"""A defence that breaks loses no honest participant: answers are stored, marked unknown, and somebody hears of it."""

import hashlib
import logging
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select

from db import models
from db.engine import Database
from db.models import SignalOutcome
from study import quality, signals
from study.definition import DefinitionError
from study.proof_of_work import Proofs
from study.signals import DAY, HOUR, alarms, ask
from tests.study.stage import START, Folders, Stage, definition, open_stage

BITS = 8
PUBLIC = {"source": "public", "proof_of_work": BITS}


@pytest.fixture
def guarded(database: Database, folders: Folders) -> Iterator[Stage]:
    study = definition(recruit=PUBLIC, exclusions=[{"rule": "signal", "effect": "flag"}])
    with open_stage(database, folders, study) as stage:
        yield stage


def proof(stage: Stage, bits: int = BITS) -> dict[str, object]:
    """What the page's worker finds."""
    challenge = stage.client.get("/study/api/v1/challenge").json()["challenge"]
    answer = 0
    while int.from_bytes(hashlib.sha256(f"{challenge}:{answer}".encode()).digest()[:8]) >> (64 - bits):
        answer += 1
    return {"challenge": challenge, "answer": answer}


def outcomes(stage: Stage) -> list[SignalOutcome]:
    with stage.database.read() as db:
        return list(db.execute(select(models.Signal.outcome).order_by(models.Signal.id)).scalars())


def raised(stage: Stage, now: int = START) -> list[str]:
    with stage.database.read() as db:
        return [alarm.name for alarm in alarms(db, stage.ingested.version_id, now=now)]


def test_a_visitor_says_how_much_work_is_asked_and_brings_it(guarded: Stage) -> None:
    assert guarded.client.get("/study/api/v1/studies/trial-run").json()["proof_of_work"] == BITS
    guarded.participant().join(proof=proof(guarded))
    assert outcomes(guarded) == [SignalOutcome.PASS]
    assert raised(guarded) == []


def test_who_brings_no_work_or_a_used_one_takes_part_all_the_same(guarded: Stage) -> None:
    once = proof(guarded)
    for given in ({"proof": once}, {"proof": once}, {}):
        assert guarded.participant().start(**given).answer_all()["state"] == "completed"
    assert outcomes(guarded) == [SignalOutcome.PASS, SignalOutcome.FAIL, SignalOutcome.UNKNOWN]
    with guarded.database.read() as db:
        verdicts = quality.verdicts(db, guarded.ingested.version_id)
        votes = db.execute(select(models.AnalysisVote.used)).scalars().all()
    assert [verdict.findings[0].broken for verdict in verdicts] == [False, True, False]
    assert all(verdict.use and verdict.accept for verdict in verdicts)
    assert list(votes) == [1] * 36


def test_a_defence_that_breaks_is_unknown_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> SignalOutcome:
        raise ConnectionError("siteverify does not answer")

    with caplog.at_level(logging.ERROR):
        seen = ask({"captcha": broken, "other": lambda: SignalOutcome.PASS})
    assert seen == {"captcha": SignalOutcome.UNKNOWN, "other": SignalOutcome.PASS}
    assert "siteverify does not answer" in caplog.text


def test_an_hour_without_the_defence_stores_every_answer_and_raises_the_alarm(
    guarded: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object, **__: object) -> SignalOutcome:
        raise TimeoutError("the back end is away")

    monkeypatch.setattr(Proofs, "judge", down)
    for _ in range(5):
        assert guarded.participant().start(proof=proof(guarded)).answer_all()["state"] == "completed"
        guarded.clock.pass_seconds(600)
    assert outcomes(guarded) == [SignalOutcome.UNKNOWN] * 5
    with guarded.database.read() as db:
        assert db.scalar(select(func.sum(models.AnalysisVote.used))) == 5 * 6 * 2
    assert raised(guarded, guarded.clock()) == ["proof_of_work"]
    assert raised(guarded, guarded.clock() + HOUR) == []


def test_the_alarm_rings_above_one_in_twenty(guarded: Stage) -> None:
    for number in range(20):
        guarded.participant().join(**({"proof": proof(guarded)} if number else {}))
    assert raised(guarded) == []
    guarded.participant().join()
    assert raised(guarded) == ["proof_of_work"]


def test_a_day_on_which_many_more_answers_are_excluded_raises_the_alarm(guarded: Stage) -> None:
    for day in (0, 1):
        guarded.clock.now = START + day * DAY + HOUR
        for _ in range(5):
            guarded.participant().start(proof=proof(guarded)).answer_all()
    assert raised(guarded, START + 2 * DAY) == []
    with guarded.database.read() as db:
        sessions = db.execute(select(models.StudySession.public_id).order_by(models.StudySession.id)).scalars().all()
    version, use = guarded.ingested.version_id, models.ExclusionEffect.USE
    for session in sessions[5:7]:
        guarded.database.write(
            lambda db, session=session: quality.exclude(
                db, version, session, effect=use, reason="bots", actor="owner", at=START
            )
        )
    assert raised(guarded, START + 2 * DAY) == ["used"]


def test_erasing_a_session_erases_what_the_defences_made_out(guarded: Stage) -> None:
    participant = guarded.participant().start(proof=proof(guarded))
    participant.post("/sessions/me/withdraw", {"erase": True})
    assert outcomes(guarded) == []


def test_a_study_that_asks_for_no_work_has_no_signal(stage: Stage) -> None:
    stage.participant().join()
    assert outcomes(stage) == []
    assert signals.ask({}) == {}


def test_no_definition_can_exclude_by_a_signal() -> None:
    with pytest.raises(DefinitionError, match="may only flag"):
        definition(exclusions=[{"rule": "signal", "effect": "use"}])
