"""Leases, coming back, draining, closing, leaving: what happens to trials and counts when people do as people do."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from db import models
from db.engine import Database
from study import counters, publication, quality
from study.api import router
from study.design import load_design
from study.publication import PublicationError, close, launch
from tests.study.stage import METHODS, START, Folders, Stage, definition, ingest_and_launch, open_stage

LEASE_S = 600


def verify(stage: Stage) -> None:
    with stage.database.read() as db:
        counters.verify(db, stage.ingested.version_id)


def totals(stage: Stage) -> tuple[int, int, int]:
    """(n_valid, n_live, n_partial) over all cells."""
    with stage.database.read() as db:
        cell = models.Cell
        row = db.execute(select(func.sum(cell.n_valid), func.sum(cell.n_live), func.sum(cell.n_partial))).one()
    return int(row[0]), int(row[1]), int(row[2])


def session_states(stage: Stage) -> Counter[str]:
    with stage.database.read() as db:
        return Counter(state.value for state in db.execute(select(models.StudySession.state)).scalars())


def set_status(stage: Stage, status: models.VersionStatus) -> None:
    stage.database.write(lambda db: db.execute(update(models.StudyVersion).values(status=status)) and None)


def test_a_silent_participants_trials_go_to_others_after_the_lease(stage: Stage) -> None:
    silent = stage.participant().start()
    reply = silent.answer(silent.get("/trial")["trial"])
    assert totals(stage) == (0, 3, 0)
    stage.clock.pass_seconds(LEASE_S - 1)
    other = stage.participant().start()
    other.get("/trial")
    assert session_states(stage) == {"running": 2}
    stage.clock.pass_seconds(2)
    other.get("/trial")
    assert session_states(stage) == {"running": 1, "abandoned": 1}
    assert totals(stage) == (0, 2, 1)
    assert silent.picture(reply["trial"]["input"]["token"]).status_code == 404
    verify(stage)


@pytest.mark.parametrize("measured", [None, 0, 850])
def test_an_answer_without_a_measured_time_is_stored_without_one_and_not_as_zero(
    stage: Stage, measured: int | None
) -> None:
    participant = stage.participant().start()
    trial = participant.get("/trial")["trial"]
    participant.answer(trial, **({} if measured is None else {"rt_ms": measured}))
    with stage.database.read() as db:
        assert set(db.execute(select(models.Response.rt_ms)).scalars()) == {measured}
        assert set(db.execute(select(models.AnalysisVote.rt_ms)).scalars()) == {measured}


def test_a_person_has_one_live_session_however_often_they_come(database: Database, folders: Folders) -> None:
    with open_stage(database, folders, definition(recruit={"source": "lab"})) as stage:
        first = stage.participant().start(source="lab", external_id="P7")
        before = first.get("/trial")
        for _ in range(5):
            again = stage.participant()
            assert again.join(source="lab", external_id="P7")["state"] == "running"
            assert again.token == first.token
            assert again.get("/trial") == before
        assert session_states(stage) == {"running": 1}


def test_a_heartbeat_keeps_the_lease(stage: Stage) -> None:
    thinking, other = stage.participant().start(), stage.participant().start()
    trial = thinking.get("/trial")["trial"]
    for _ in range(4):
        stage.clock.pass_seconds(LEASE_S / 2)
        thinking.post("/sessions/me/heartbeat")
        other.get("/trial")
    assert session_states(stage) == {"running": 2}
    assert thinking.get("/trial")["trial"] == trial


def test_who_comes_back_after_the_lease_finds_the_same_trial_and_can_finish(stage: Stage) -> None:
    participant, other = stage.participant().start(), stage.participant().start()
    first = participant.answer(participant.get("/trial")["trial"])
    stage.clock.pass_seconds(LEASE_S + 1)
    other.get("/trial")
    assert session_states(stage)["abandoned"] == 1
    verify(stage)
    again = participant.get("/trial")
    assert (again["trial"], again["upcoming"]) == (first["trial"], first["upcoming"])
    verify(stage)
    assert participant.answer_all()["state"] == "completed"
    verify(stage)


def test_an_answer_that_comes_after_the_lease_counts_when_the_session_goes_on(stage: Stage) -> None:
    participant, other = stage.participant().start(), stage.participant().start()
    trial = participant.get("/trial")["trial"]
    stage.clock.pass_seconds(LEASE_S + 1)
    other.get("/trial")
    assert participant.try_answer(trial).status_code == 200
    assert session_states(stage) == {"running": 2}
    verify(stage)


def test_after_a_day_a_session_that_was_left_is_over(stage: Stage) -> None:
    participant, other = stage.participant().start(), stage.participant().start()
    trial = participant.get("/trial")["trial"]
    stage.clock.pass_seconds(LEASE_S + 1)
    other.get("/trial")
    stage.clock.pass_seconds(24 * 3600)
    assert participant.get("/trial")["state"] == "abandoned"
    late = participant.try_answer(trial)
    assert (late.status_code, late.json()["code"]) == (409, "late")
    with stage.database.read() as db:
        assert db.execute(select(models.ResponseAttempt.reason)).scalar_one() == "late"
        assert db.execute(select(func.count()).select_from(models.Response)).scalar_one() == 0
    verify(stage)


def test_a_clock_that_goes_back_harms_nobody(stage: Stage) -> None:
    participant = stage.participant().start()
    reply = participant.get("/trial")
    stage.clock.pass_seconds(-3600)
    assert participant.get("/trial") == reply
    stage.clock.pass_seconds(-3600)
    assert participant.answer_all()["state"] == "completed"
    verify(stage)


def test_the_study_drains_to_exactly_its_target_when_enough_people_are_through(
    database: Database, folders: Folders
) -> None:
    study = definition(target={"per_cell": 4, "participants": 10}, plan={"real": 8})
    with open_stage(database, folders, study) as stage:
        for _ in range(10):
            assert stage.participant().start().answer_all()["state"] == "completed"
        with database.read() as db:
            assert publication.status(db, "trial-run").status == "draining"
        ends: list[dict[str, Any]] = []
        for _ in range(30):
            ends.append(stage.participant().start().answer_all())
            if ends[-1]["state"] == "full":
                break
        assert ends[-1]["state"] == "full"
        assert ends[-1]["trial"] is None
        with database.read() as db:
            cells = db.execute(select(models.Cell.n_valid)).scalars().all()
        assert min(cells) >= 2
        surplus = sum(cells) - 2 * len(cells)
        assert surplus <= 0.3 * 2 * len(cells)
        verify(stage)


def test_who_comes_when_nothing_is_left_to_ask_is_screened_out_and_sent_back_with_the_code_for_that(
    database: Database, folders: Folders
) -> None:
    recruit = {"source": "prolific", "codes": {"complete": "DONE1", "screened_out": "OUT2", "no_consent": "NO3"}}
    study = definition(target={"per_cell": 2, "participants": 4}, plan={"real": 8}, recruit=recruit)
    with open_stage(database, folders, study) as stage:
        people = (stage.participant().start(source="prolific", external_id=f"p{number}") for number in range(30))
        participant, end = next(
            (person, reply) for person in people if (reply := person.answer_all())["state"] != "completed"
        )
        back = {"code": "OUT2", "redirect": "https://app.prolific.com/submissions/complete?cc=OUT2"}
        assert (end["state"], end["trial"], end["completion"]) == ("full", None, back)
        again = participant.get("/trial")
        assert (again["state"], again["completion"]) == ("full", back)
        assert participant.get("/sessions/me")["state"] == "full"
        assert participant.get("/sessions/me/completion") == back
        assert session_states(stage)["screened_out"] == 1
        assert session_states(stage)["running"] == 0
        with database.read() as db:
            flow = quality.flow(db, stage.ingested.version_id)
        assert (flow.full, flow.consented - flow.completed) == (1, 1)
        verify(stage)


def test_a_third_dropping_out_leaves_a_drained_study_exactly_balanced(database: Database, folders: Folders) -> None:
    """Every third leaves somewhere and never comes back; what they held is refilled once their lease is over."""
    study = definition(target={"per_cell": 4, "participants": 10}, plan={"real": 8})
    with open_stage(database, folders, study) as stage:
        cells: Sequence[int] = ()
        for number in range(40):
            participant = stage.participant().start()
            reply = participant.get("/trial")
            answers = number % 8 if number % 3 == 0 else 8
            while reply["state"] == "running" and answers:
                reply = participant.answer(reply["trial"])
                answers -= 1
            with database.read() as db:
                cells = db.execute(select(models.Cell.n_valid)).scalars().all()
            if min(cells) >= 2:
                break
            stage.clock.pass_seconds(200)
        primary = [min(valid, 2) for valid in cells]  # the first two answers of every cell: four per image and pair
        assert set(primary) == {2}
        assert sum(cells) / sum(primary) - 1 <= 0.30
        assert session_states(stage)["abandoned"] / session_states(stage).total() > 0.2
        verify(stage)


def test_in_a_draining_study_a_refilled_trial_is_void_and_its_late_answer_evidence(
    database: Database, folders: Folders
) -> None:
    study = definition(target={"per_cell": 2, "participants": 1000}, plan={"real": 8})
    with open_stage(database, folders, study) as stage:
        left = stage.participant().start()
        trial = left.get("/trial")["trial"]
        stage.clock.pass_seconds(LEASE_S + 1)
        set_status(stage, models.VersionStatus.DRAINING)
        for _ in range(20):
            if stage.participant().start().answer_all()["state"] == "full":
                break
        late = left.try_answer(trial)
        assert (late.status_code, late.json()["code"]) == (409, "late")
        assert left.get("/trial")["state"] == "full"
        with database.read() as db:
            assert set(db.execute(select(models.Cell.n_valid + models.Cell.n_live)).scalars()) == {1}
        verify(stage)


def test_a_paused_study_takes_what_is_under_way_and_asks_nothing_new(stage: Stage) -> None:
    participant = stage.participant().start()
    trial = participant.get("/trial")["trial"]
    set_status(stage, models.VersionStatus.PAUSED)
    assert participant.answer(trial)["state"] == "paused"
    assert stage.client.post("/study/api/v1/sessions", json={"study": "trial-run"}).json()["code"] == "not_open"
    set_status(stage, models.VersionStatus.LIVE)
    assert participant.answer_all()["state"] == "completed"
    verify(stage)


def test_a_closed_study_counts_nothing_more_and_says_so(stage: Stage) -> None:
    participant = stage.participant().start()
    trial = participant.get("/trial")["trial"]
    closed = close(stage.database, "trial-run", now=stage.clock.now)
    assert closed.status == "closed"
    assert participant.get("/trial")["state"] == "closed"
    late = participant.try_answer(trial)
    assert (late.status_code, late.json()["code"]) == (409, "late")
    with pytest.raises(PublicationError, match="closed for good"):
        launch(stage.database, "trial-run", now=stage.clock.now)


def test_who_stops_keeps_what_was_answered_and_frees_the_rest(stage: Stage) -> None:
    participant = stage.participant().start()
    participant.answer(participant.get("/trial")["trial"])
    assert participant.post("/sessions/me/withdraw", {"erase": False})["state"] == "withdrawn"
    assert totals(stage) == (0, 0, 1)
    assert participant.get("/trial")["state"] == "withdrawn"
    verify(stage)


@pytest.mark.parametrize("when", ["running", "abandoned", "completed", "withdrawn"])
def test_who_wants_to_be_erased_is_erased_whenever_they_ask(stage: Stage, when: str) -> None:
    participant, other = stage.participant().start(), stage.participant().start()
    other.answer(other.get("/trial")["trial"])
    participant.answer(participant.get("/trial")["trial"])
    if when == "completed":
        participant.answer_all()
    elif when == "withdrawn":
        participant.post("/sessions/me/withdraw")
    elif when == "abandoned":
        stage.clock.pass_seconds(LEASE_S - 1)
        other.post("/sessions/me/heartbeat")
        stage.clock.pass_seconds(2)
        other.get("/trial")
    assert participant.post("/sessions/me/withdraw", {"erase": True})["state"] == "withdrawn"
    with stage.database.read() as db:
        trials = db.execute(select(models.Trial.session_id)).scalars().all()
        votes = db.execute(select(models.AnalysisVote.session_id)).scalars().all()
        withdrawals = db.execute(select(models.Withdrawal.scope)).scalars().all()
        responses = db.execute(select(func.count()).select_from(models.Response)).scalar_one()
    assert len(set(trials)) == len(set(votes)) == 1
    assert responses == 2
    assert models.WithdrawalScope.ERASE in withdrawals
    assert totals(stage) == (0, 3, 0)
    verify(stage)
    assert participant.post("/sessions/me/withdraw", {"erase": True})["state"] == "withdrawn"


def test_a_restart_of_the_server_shows_the_same_trial(stage: Stage) -> None:
    participant = stage.participant().start()
    before = participant.get("/trial")
    app = FastAPI()
    app.include_router(router(stage.database, clock=stage.clock))
    with TestClient(app) as restarted:
        after = restarted.get("/study/api/v1/trial", headers=participant.headers)
        token = after.json()["trial"]["input"]["token"]
        picture = restarted.get(f"/study/s/{token}", headers=participant.headers)
    assert after.json() == before
    assert picture.status_code == 200


def test_a_best_of_n_study_shows_every_method_at_every_position_equally_often(
    database: Database, folders: Folders
) -> None:
    study = definition(protocol="best_of_n", plan={"real": 6})
    with open_stage(database, folders, study) as stage:
        for _ in range(4):
            participant = stage.participant().start()
            reply = participant.get("/trial")
            assert len(reply["trial"]["candidates"]) == len(METHODS)
            while reply["state"] == "running":
                reply = participant.answer(reply["trial"], position=2)
        with database.read() as db:
            at = db.execute(
                select(models.TrialSlot.position, models.Rendition.method_id)
                .join(models.Rendition, models.Rendition.id == models.TrialSlot.rendition_id)
                .where(models.TrialSlot.role == models.SlotRole.CANDIDATE)
            ).all()
            votes = db.execute(select(models.AnalysisVote.chosen_method_id, models.AnalysisVote.rotation)).all()
            orders = load_design(db, stage.ingested.version_id).orders
        assert set(Counter((row.position, row.method_id) for row in at).values()) == {4 * 6 // 3}
        assert all(vote.chosen_method_id == orders[vote.rotation][2] for vote in votes)
        verify(stage)


def test_a_prolific_participant_needs_an_id_and_is_sent_back_with_the_code(
    database: Database, folders: Folders
) -> None:
    recruit = {"source": "prolific", "codes": {"complete": "C1AB2"}, "redirect": "https://example.org/done?cc={code}"}
    with open_stage(database, folders, definition(recruit=recruit, plan={"real": 1})) as stage:
        participant = stage.participant()
        refused = stage.client.post("/study/api/v1/sessions", json={"study": "trial-run", "source": "prolific"})
        assert "prolific id is missing" in refused.json()["error"]
        assert stage.client.post("/study/api/v1/sessions", json={"study": "trial-run"}).status_code == 400
        end = participant.start(source="prolific", external_id="abc").answer_all()
        assert end["completion"] == {"code": "C1AB2", "redirect": "https://example.org/done?cc=C1AB2"}
        again = stage.participant()
        assert again.join(source="prolific", external_id="abc")["state"] == "completed"
        assert again.token == participant.token


def test_a_touch_screen_is_turned_away_where_the_study_says_so(database: Database, folders: Folders) -> None:
    study = definition(screen={"allow_touch": False}, recruit={"codes": {"screened_out": "SORRY"}})
    with open_stage(database, folders, study) as stage:
        participant = stage.participant()
        participant.join()
        report = {"css_width": 400, "css_height": 800, "touch": True}
        assert participant.post("/sessions/me/environment", report)["state"] == "screened_out"
        assert participant.get("/sessions/me/completion")["code"] == "SORRY"
        assert participant.agree()["state"] == "screened_out"


def test_launching_a_new_version_closes_the_old_one_only_when_told(database: Database, folders: Folders) -> None:
    ingest_and_launch(database, folders, definition())
    assert launch(database, "trial-run", now=START).version == 1
    with pytest.raises(PublicationError, match="Version 1 of trial-run is live; close it before launching version 2"):
        ingest_and_launch(database, folders, definition(plan={"real": 5}))
    launched = launch(database, "trial-run", now=START, replace=True)
    assert (launched.version, launched.path) == (2, "/study/trial-run")
    with database.read() as db:
        statuses = db.execute(select(models.StudyVersion.status).order_by(models.StudyVersion.version)).scalars().all()
    assert statuses == [models.VersionStatus.CLOSED, models.VersionStatus.LIVE]


def test_a_wrong_count_is_noticed(stage: Stage) -> None:
    stage.database.write(
        lambda db: db.execute(update(models.Cell).where(models.Cell.side == 0).values(n_live=3)) and None
    )
    with pytest.raises(counters.CountError, match="24 of 48 cells are miscounted"):
        verify(stage)
