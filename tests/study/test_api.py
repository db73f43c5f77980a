"""A participant's way through a pairwise study over HTTP, and what the server refuses."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select

from db import models
from study import counters
from study.publication import close, unblind
from tests.study.stage import METHODS, Participant, Stage


def rows(stage: Stage, model: type[models.Base], *conditions: object) -> int:
    with stage.database.read() as db:
        return db.execute(select(func.count()).select_from(model).where(*conditions)).scalar_one()  # type: ignore[arg-type]


def counts_are_true(stage: Stage) -> None:
    with stage.database.read() as db:
        counters.verify(db, stage.ingested.version_id)


def test_a_participant_joins_agrees_answers_every_trial_and_gets_a_code(stage: Stage) -> None:
    participant = stage.participant()
    assert participant.join()["state"] == "created"
    assert participant.agree()["state"] == "running"
    end = participant.answer_all()
    assert end["state"] == "completed"
    assert end["progress"] == {"answered": 6, "of": 6}
    code = end["completion"]["code"]
    assert len(code) == 10
    assert participant.get("/sessions/me/completion")["code"] == code
    assert participant.get("/sessions/me")["state"] == "completed"
    assert rows(stage, models.Response) == rows(stage, models.AnalysisVote) == 6 * 2
    with stage.database.read() as db:
        cells = db.execute(select(models.Cell.n_valid, models.Cell.n_live)).all()
    assert sum(cell.n_valid for cell in cells) == 6
    assert sum(cell.n_live for cell in cells) == 0
    counts_are_true(stage)


def test_nothing_is_asked_before_consent_and_no_box_may_be_left_out(stage: Stage) -> None:
    participant = stage.participant()
    participant.join()
    assert participant.get("/trial")["state"] == "created"
    assert participant.get("/trial")["trial"] is None
    refused = stage.client.post(
        "/study/api/v1/sessions/me/consent", json={"accepted": True}, headers=participant.headers
    )
    assert refused.status_code == 400
    assert "box" in refused.json()["error"]
    assert participant.post("/sessions/me/consent", {"accepted": False})["state"] == "declined"
    assert participant.agree()["state"] == "declined"
    assert rows(stage, models.Trial) == 0


def test_a_reload_shows_the_same_trials_with_the_same_tokens(stage: Stage) -> None:
    participant = stage.participant().start()
    first = participant.get("/trial")
    assert participant.get("/trial") == first
    after = participant.answer(first["trial"])
    assert after["trial"] == first["upcoming"]
    assert participant.get("/trial") == after


def test_the_last_trial_has_none_after_it(stage: Stage) -> None:
    participant = stage.participant().start()
    reply = participant.get("/trial")
    numbers = []
    while reply["state"] == "running":
        numbers.append(reply["trial"]["number"])
        assert (reply["upcoming"] is None) == (reply["trial"]["number"] == 6)
        reply = participant.answer(reply["trial"])
    assert numbers == [1, 2, 3, 4, 5, 6]


def test_the_answer_is_stored_against_the_method_that_was_shown_there(stage: Stage) -> None:
    participant = stage.participant().start()
    reply = participant.get("/trial")
    while reply["state"] == "running":
        reply = participant.answer(reply["trial"], position=1, rt_ms=1234)
    with stage.database.read() as db:
        shown = db.execute(
            select(models.TrialSlot.trial_id, models.Rendition.method_id)
            .join(models.Rendition, models.Rendition.id == models.TrialSlot.rendition_id)
            .where(models.TrialSlot.role == models.SlotRole.CANDIDATE, models.TrialSlot.position == 1)
        ).all()
        votes = db.execute(select(models.AnalysisVote.trial_id, models.AnalysisVote.chosen_method_id)).all()
    right = {row.trial_id: row.method_id for row in shown}
    assert len(votes) == 12
    assert all(vote.chosen_method_id == right[vote.trial_id] for vote in votes)


def test_pairs_and_sides_come_equally_often_over_whole_sessions(stage: Stage) -> None:
    for _ in range(8):
        stage.participant().start().answer_all()
    with stage.database.read() as db:
        cells = db.execute(select(models.Cell)).scalars().all()
    assert len(cells) == 8 * 3 * 2
    per_pair, per_side = Counter[tuple[int | None, int | None]](), Counter[int | None]()
    for cell in cells:
        per_pair[cell.method_lo_id, cell.method_hi_id] += cell.n_valid
        per_side[cell.side] += cell.n_valid
    assert set(per_pair.values()) == {16}
    assert set(per_side.values()) == {24}
    assert max(cell.n_valid for cell in cells) <= 2
    counts_are_true(stage)


def test_the_same_key_twice_is_told_how_things_stand_and_counts_once(stage: Stage) -> None:
    participant = stage.participant().start()
    trial = participant.get("/trial")["trial"]
    first = participant.try_answer(trial, key="once")
    again = participant.try_answer(trial, key="once")
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    assert rows(stage, models.Response) == 2
    assert rows(stage, models.ResponseAttempt) == 0


def test_another_answer_to_an_answered_trial_is_kept_as_evidence_only(stage: Stage) -> None:
    participant = stage.participant().start()
    trial = participant.get("/trial")["trial"]
    participant.answer(trial, position=0)
    late = participant.try_answer(trial, position=1, key="changed my mind")
    assert late.status_code == 409
    assert late.json()["code"] == "already_answered"
    with stage.database.read() as db:
        attempt = db.execute(select(models.ResponseAttempt)).scalar_one()
        positions = set(db.execute(select(models.Response.position)).scalars())
    assert attempt.reason == "already_answered"
    assert json.loads(attempt.payload_json)["responses"][0]["position"] == 1
    assert positions == {0}


def test_two_sessions_may_draw_the_same_idempotency_key(stage: Stage) -> None:
    for _ in range(2):
        participant = stage.participant().start()
        assert participant.try_answer(participant.get("/trial")["trial"], key="same").status_code == 200
    assert rows(stage, models.Response) == 4


def test_a_client_that_sends_one_key_for_two_trials_loses_no_answer(stage: Stage) -> None:
    participant = stage.participant().start()
    for _ in range(2):
        assert participant.try_answer(participant.get("/trial")["trial"], key="same").status_code == 200
    assert rows(stage, models.Response) == 4


def all_at_once(act: Callable[[int], object], people: int = 8) -> None:
    barrier = threading.Barrier(people)
    failures: list[BaseException] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            act(number)
        except BaseException as failure:  # noqa: BLE001 - a thread's failure must reach the test
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_doing_the_same_thing_eight_times_at_once_is_doing_it_once(stage: Stage) -> None:
    participant = stage.participant()
    participant.join()
    all_at_once(lambda _: participant.agree())
    replies: list[dict[str, Any]] = []
    all_at_once(lambda _: replies.append(participant.get("/trial")))
    assert all(reply == replies[0] for reply in replies)
    participant.answer(replies[0]["trial"])
    stage.clock.pass_seconds(601)
    stage.participant().start().get("/trial")
    assert participant.get("/sessions/me")["state"] == "abandoned"
    all_at_once(lambda _: participant.get("/trial"))
    counts_are_true(stage)
    all_at_once(lambda _: participant.post("/sessions/me/withdraw", {"erase": True}))
    counts_are_true(stage)
    assert rows(stage, models.Response) == 0


def storm(participant: Participant, trial: dict[str, Any]) -> Counter[int]:
    """Four equal and four different answers to one trial at the same moment."""
    statuses = Counter[int]()

    def submit(number: int) -> None:
        key = "equal" if number < 4 else f"different {number}"
        answered = participant.try_answer(trial, key=f"{trial['id']} {key}", position=number % 2)
        statuses[answered.status_code] += 1

    all_at_once(submit)
    return statuses


def test_a_storm_of_equal_and_different_answers_leaves_one_response_per_question(stage: Stage) -> None:
    participant = stage.participant().start()
    reply = participant.get("/trial")
    for _ in range(6):
        statuses = storm(participant, reply["trial"])
        assert statuses[200] + statuses[409] == 8
        assert statuses[200] in {1, 4}
        reply = participant.get("/trial")
    assert reply["state"] == "completed"
    assert rows(stage, models.Response) == rows(stage, models.AnalysisVote) == 6 * 2
    assert rows(stage, models.Trial, models.Trial.state == models.TrialState.ANSWERED) == 6
    with stage.database.read() as db:
        per_question = db.execute(
            select(func.count(models.Response.id)).group_by(models.Response.trial_id, models.Response.criterion)
        ).scalars()
        assert set(per_question) == {1}
    counts_are_true(stage)


def test_parallel_joins_of_one_person_make_one_session(stage: Stage) -> None:
    tokens: set[str] = set()

    def join(_number: int) -> None:
        participant = Participant(stage.client)
        participant.join(external_id="5f0c0ffee")
        tokens.add(participant.token)

    all_at_once(join)
    assert len(tokens) == 1
    assert rows(stage, models.StudySession) == rows(stage, models.Participant) == 1
    with stage.database.read() as db:
        stored = db.execute(select(models.Participant.ext_hmac)).scalar_one()
    assert "5f0c0ffee" not in stored


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"study": "no-such-study"}, 404, "unknown_study"),
        ({"study": "trial-run", "source": "prolific", "external_id": "x"}, 400, "bad_request"),
        ({"study": "trial-run", "surname": "x"}, 400, "bad_request"),
        ({"study": "trial-run", "external_id": "x" * 5000}, 400, "bad_request"),
        ({"study": "x" * 70_000}, 413, "too_large"),
    ],
)
def test_a_wrong_join_is_refused_in_one_sentence(stage: Stage, body: dict[str, str], status: int, code: str) -> None:
    reply = stage.client.post("/study/api/v1/sessions", json=body)
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert reply.json()["error"].endswith(".")
    assert rows(stage, models.StudySession) == 0


@pytest.mark.parametrize(
    "responses",
    [
        [],
        [{"criterion": "context_stability", "outcome": "choice", "position": 0}],
        [{"criterion": "context_stability", "outcome": "choice", "position": 0}] * 2,
        [
            {"criterion": "context_stability", "outcome": "choice", "position": 2},
            {"criterion": "visual_consistency", "outcome": "choice", "position": 0},
        ],
        [
            {"criterion": "context_stability", "outcome": "choice", "position": None},
            {"criterion": "visual_consistency", "outcome": "choice", "position": 0},
        ],
        [
            {"criterion": "context_stability", "outcome": "tie", "position": 1},
            {"criterion": "visual_consistency", "outcome": "tie"},
        ],
        [
            {"criterion": "context_stability", "outcome": "tie"},
            {"criterion": "visual_consistency", "outcome": "cant_tell"},
        ],
        [{"criterion": "context_stability", "outcome": "best", "position": 0}],
    ],
)
def test_forged_and_incomplete_answers_store_no_response(stage: Stage, responses: list[dict[str, object]]) -> None:
    participant = stage.participant().start()
    trial = participant.get("/trial")["trial"]
    reply = stage.client.post(
        f"/study/api/v1/trial/{trial['id']}/answer",
        json={"responses": responses},
        headers=participant.headers | {"Idempotency-Key": "k"},
    )
    assert reply.status_code == 400
    assert reply.json()["error"]
    assert rows(stage, models.Response) == rows(stage, models.AnalysisVote) == 0
    assert participant.get("/trial")["trial"] == trial


def test_an_answer_without_a_key_is_refused(stage: Stage) -> None:
    participant = stage.participant().start()
    trial = participant.get("/trial")["trial"]
    assert participant.try_answer(trial, key="").status_code == 400
    assert participant.try_answer(trial, key="k" * 200).status_code == 400


def test_broken_json_is_refused_in_one_sentence(stage: Stage) -> None:
    reply = stage.client.post("/study/api/v1/sessions", content=b"{not json")
    assert reply.status_code == 400
    assert "not understood" in reply.json()["error"]


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer 00", "Basic abc", "Bearer " + "0" * 32])
def test_without_a_session_everything_of_a_session_is_refused_alike(stage: Stage, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    for path in ("/sessions/me", "/trial", "/sessions/me/completion"):
        reply = stage.client.get(f"/study/api/v1{path}", headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (401, "unknown_session")


def test_one_session_cannot_answer_anothers_trial(stage: Stage) -> None:
    mine, yours = stage.participant().start(), stage.participant().start()
    trial = mine.get("/trial")["trial"]
    assert yours.try_answer(trial).status_code == 404
    assert rows(stage, models.Response) == 0


def test_the_first_look_at_a_trial_starts_its_clock(stage: Stage) -> None:
    participant = stage.participant().start()
    trial = participant.get("/trial")["trial"]
    participant.post(f"/trial/{trial['id']}/shown")
    stage.clock.pass_seconds(2)
    participant.post(f"/trial/{trial['id']}/shown")
    stage.clock.pass_seconds(3)
    participant.answer(trial)
    with stage.database.read() as db:
        assert set(db.execute(select(models.Response.server_ms)).scalars()) == {5000}


def test_events_and_the_viewport_are_kept_without_saying_who_it_is(stage: Stage) -> None:
    participant = stage.participant().start()
    trial = participant.get("/trial")["trial"]
    participant.post(
        "/sessions/me/environment", {"css_width": 1280, "css_height": 720, "device": "desktop", "browser": "firefox"}
    )
    beacon = {"token": participant.token, "events": [{"type": "blur", "t_ms": 17, "trial": trial["id"]}]}
    assert stage.client.post("/study/api/v1/events", json=beacon).status_code == 204
    with stage.database.read() as db:
        event = db.execute(select(models.Event)).scalar_one()
        session = db.execute(select(models.StudySession)).scalar_one()
    assert (event.type, event.t_client) == (models.EventType.BLUR, 17_000)
    assert event.trial_id is not None
    assert (session.css_width, session.browser_family) == (1280, "firefox")


def test_the_votes_stay_hidden_until_the_study_is_closed_and_unblinded(stage: Stage) -> None:
    stage.participant().start().answer_all()
    address = "/study/api/v1/studies/trial-run/votes.csv"
    hidden = stage.client.get(address)
    assert (hidden.status_code, hidden.json()["code"]) == (403, "not_public")
    close(stage.database, "trial-run", now=stage.clock.now)
    assert stage.client.get(address).status_code == 403
    unblind(stage.database, "trial-run", now=stage.clock.now, actor="owner")
    seen = stage.client.get(address)
    assert seen.status_code == 200
    assert len(seen.text.splitlines()) == 1 + 12
    assert all(method in seen.text for method in METHODS)
    assert stage.client.get(address).content == seen.content


def test_a_visitor_learns_what_the_study_asks_but_no_method(stage: Stage) -> None:
    listed = stage.client.get("/study/api/v1/studies")
    one = stage.client.get("/study/api/v1/studies/trial-run")
    assert listed.json()["studies"] == [one.json()]
    assert one.json()["trials"] == 6
    assert one.json()["criteria"][1]["allow_cant_tell"] is False
    assert not any(method in one.text for method in METHODS)
    assert stage.client.get("/study/api/v1/studies/other").status_code == 404


OUTSIDE = (
    "../api.py",
    "..%2fapi.py",
    "texts/../../api.py",
    "/etc/passwd",
    "nothing.js",
    "",
    "%00",
    "texts/" + "x" * 999,
)


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_file_outside_the_pages_folder_is_served(stage: Stage, path: str) -> None:
    reply = stage.client.get(f"/study/static/{path}")
    assert reply.status_code in {404, 405}
    assert "participant" not in reply.text


def test_an_address_with_a_null_character_leads_nowhere_on_either_database(stage: Stage) -> None:
    participant = stage.participant().start()
    for path in ("%00", "s/%00", "api/v1/studies/a%00b", "api/v1/studies/%00/votes.csv"):
        assert stage.client.get(f"/study/{path}", headers=participant.headers).status_code == 404
    for path in ("trial/%00/shown", "trial/%00/answer"):
        assert stage.client.post(f"/study/api/v1/{path}", headers=participant.headers).status_code == 404


def test_the_page_of_a_study_is_served_and_of_no_study_is_not_found(stage: Stage) -> None:
    page, missing = stage.client.get("/study/trial-run"), stage.client.get("/study/no-such-study")
    assert (page.status_code, missing.status_code) == (200, 404)
    assert page.content == missing.content
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert stage.client.get("/study/static/page.js").status_code == 200
    assert stage.client.get("/study/static/texts/en.json").json()
