"""Arriving by a platform's link, being known only as a hash, and being sent back with the right code."""

import hashlib
import hmac
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from db import models
from db.engine import Database
from study.definition import DefinitionError, Recruit
from study.recruitment import PARAMETERS, ArrivalError, arrival, participant_hash, way_back
from tests.study.stage import Folders, Stage, definition, open_stage

CODES = {"complete": "DONE1", "screened_out": "OUT2", "no_consent": "NO3"}
PROLIFIC = {"source": "prolific", "codes": CODES}
LINKS: dict[str, dict[str, str]] = {
    "prolific": {"PROLIFIC_PID": "5f0c0ffee5f0c0ffee5f0c0f", "STUDY_ID": "s1", "SESSION_ID": "v1"},
    "mturk": {"workerId": "A2SAMPLE", "assignmentId": "3ASSIGN", "hitId": "3HIT"},
    "sona": {"survey_code": "40123"},
    "lab": {"participant": "P07"},
}


def count(database: Database, model: type[models.Base]) -> int:
    with database.read() as db:
        return db.scalar(select(func.count()).select_from(model)) or 0


@pytest.mark.parametrize("source", LINKS)
def test_each_platforms_link_names_its_person_and_keeps_its_own_ids_alone(source: str) -> None:
    recruit = Recruit.model_validate({"source": source, "codes": CODES})
    came = arrival(recruit, LINKS[source] | {"utm_source": "mail"})
    assert came.person == next(iter(LINKS[source].values()))
    assert came.ids == LINKS[source]


@pytest.mark.parametrize(
    ("source", "link", "says"),
    [
        ("prolific", {}, "prolific id is missing"),
        ("prolific", {"STUDY_ID": "s"}, "prolific id is missing"),
        ("prolific", {"PROLIFIC_PID": "  "}, "prolific id is missing"),
        ("prolific", {"PROLIFIC_PID": "{{%PROLIFIC_PID%}}"}, "placeholder"),
        ("sona", {"survey_code": "%SURVEY_CODE%"}, "placeholder"),
        ("prolific", LINKS["mturk"], "from prolific, not mturk"),
        ("public", LINKS["prolific"], "from public, not prolific"),
        ("mturk", {"workerId": "A", "assignmentId": "ASSIGNMENT_ID_NOT_AVAILABLE"}, "preview"),
    ],
)
def test_a_link_that_is_not_the_participants_own_is_refused_with_what_to_do(
    source: str, link: dict[str, str], says: str
) -> None:
    with pytest.raises(ArrivalError, match=says):
        arrival(Recruit.model_validate({"source": source, "codes": CODES}), link)


def test_the_hash_is_hmac_sha256_and_differs_by_key_source_and_person() -> None:
    told = participant_hash(b"k" * 32, "lab", "P07")
    assert told == hmac.new(b"k" * 32, b"participant\nlab\nP07", hashlib.sha256).hexdigest()
    others = [
        participant_hash(b"j" * 32, "lab", "P07"),
        participant_hash(b"k" * 32, "sona", "P07"),
        participant_hash(b"k" * 32, "lab", "P08"),
    ]
    assert len({told, *others}) == 4


@pytest.mark.parametrize(
    ("recruit", "code", "completed", "goes"),
    [
        (PROLIFIC, "DONE1", True, "https://app.prolific.com/submissions/complete?cc=DONE1"),
        (PROLIFIC, "OUT2", False, "https://app.prolific.com/submissions/complete?cc=OUT2"),
        (PROLIFIC, None, False, None),
        ({"source": "mturk"}, "ABCDE", True, None),
        ({"redirect": "https://s.example/credit?survey={survey_code}"}, None, True, "https://s.example/credit?survey="),
        ({"redirect": "https://s.example/credit?survey={survey_code}"}, None, False, None),
        ({"redirect": "https://lab.example/{code}"}, "C", True, "https://lab.example/C"),
    ],
)
def test_who_has_no_code_to_bring_is_sent_back_only_after_completing(
    recruit: dict[str, Any], code: str | None, *, completed: bool, goes: str | None
) -> None:
    back = way_back(Recruit.model_validate(recruit), code, completed=completed)
    assert back is None if goes is None else str(back).startswith(goes)


@pytest.mark.parametrize(
    ("recruit", "says"),
    [
        ({"source": "prolific"}, "copy the completion code"),
        ({"codes": {"complete": "A", "screened_out": "A"}}, "share a completion code"),
        ({"redirect": "http://plain.example"}, "https"),
        ({"source": "lab", "proof_of_work": 12}, "public visitors"),
    ],
)
def test_a_definition_that_would_strand_its_participants_is_refused(recruit: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        definition(recruit=recruit)


@pytest.fixture
def prolific(database: Database, folders: Folders) -> Iterator[Stage]:
    with open_stage(database, folders, definition(recruit=PROLIFIC)) as stage:
        yield stage


def test_a_whole_visit_from_prolific_ends_with_the_code_and_the_way_back(prolific: Stage) -> None:
    participant = prolific.participant().start(link=LINKS["prolific"])
    end = participant.answer_all()
    back = {"code": "DONE1", "redirect": "https://app.prolific.com/submissions/complete?cc=DONE1"}
    assert end["completion"] == back
    again = prolific.participant()
    assert again.join(link=LINKS["prolific"])["state"] == "completed"
    assert again.get("/sessions/me/completion") == back


def test_who_declines_gets_the_code_for_that_and_no_other(prolific: Stage) -> None:
    participant = prolific.participant()
    participant.join(link=LINKS["prolific"])
    assert participant.post("/sessions/me/consent", {"accepted": False})["state"] == "declined"
    assert participant.get("/sessions/me/completion")["code"] == "NO3"


def test_who_is_screened_out_gets_the_code_for_that(database: Database, folders: Folders) -> None:
    study = definition(recruit=PROLIFIC, screen={"allow_touch": False})
    with open_stage(database, folders, study) as stage:
        participant = stage.participant()
        participant.join(link=LINKS["prolific"])
        report = {"css_width": 1200, "css_height": 800, "touch": True}
        assert participant.post("/sessions/me/environment", report)["state"] == "screened_out"
        assert participant.get("/sessions/me/completion")["code"] == "OUT2"


def test_no_code_leaves_the_server_before_the_last_answer(prolific: Stage) -> None:
    participant = prolific.participant().start(link=LINKS["prolific"])
    reply = participant.get("/trial")
    while reply["state"] == "running":
        early = prolific.client.get("/study/api/v1/sessions/me/completion", headers=participant.headers)
        assert early.status_code == 409
        assert "DONE1" not in str(reply) + early.text
        reply = participant.answer(reply["trial"])
    assert reply["completion"]["code"] == "DONE1"


def test_one_person_is_one_session_whatever_they_call_at_once(prolific: Stage) -> None:
    replies: list[Any] = []
    together = threading.Barrier(50)

    def join() -> None:
        together.wait()
        body = {"study": "trial-run", "link": LINKS["prolific"]}
        replies.append(prolific.client.post("/study/api/v1/sessions", json=body))

    threads = [threading.Thread(target=join) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.json()["token"] for reply in replies}) == 1
    assert count(prolific.database, models.StudySession) == count(prolific.database, models.Participant) == 1


def test_another_session_of_the_platform_is_the_same_person(prolific: Stage) -> None:
    first, second = prolific.participant(), prolific.participant()
    first.join(link=LINKS["prolific"])
    second.join(link=LINKS["prolific"] | {"SESSION_ID": "v2"})
    assert first.token == second.token
    other = prolific.participant()
    other.join(link=LINKS["prolific"] | {"PROLIFIC_PID": "another"})
    assert other.token != first.token


def test_a_person_keeps_their_hash_in_the_next_version_but_gets_another_token(
    database: Database, folders: Folders
) -> None:
    tokens: list[str] = []
    for real in (6, 5):
        with open_stage(
            database, folders, definition(recruit=PROLIFIC, plan={"real": real}), seed=real, replace=True
        ) as stage:
            participant = stage.participant()
            participant.join(link=LINKS["prolific"])
            tokens.append(participant.token)
    with database.read() as db:
        hashes = db.execute(select(models.Participant.ext_hmac)).scalars().all()
    assert len(hashes) == 2
    assert len(set(hashes)) == 1
    assert len(set(tokens)) == 2


def test_an_id_is_stored_nowhere_but_as_its_hash(prolific: Stage) -> None:
    prolific.participant().start(link=LINKS["prolific"]).answer_all()
    with prolific.database.read() as db:
        for table in models.Base.metadata.sorted_tables:
            assert "5f0c0ffee" not in str(db.execute(select(table)).all()), table.name


def test_a_recruited_link_shows_the_study_alone(prolific: Stage) -> None:
    page = prolific.client.get("/study/trial-run", params=LINKS["prolific"])
    assert page.status_code == 200
    assert "gradio" not in page.text.lower()
    assert page.text.count("<a ") == page.text.count("href=") - 2 == 0  # an icon and a style sheet
    assert page.headers["referrer-policy"] == "no-referrer"


def test_unknown_parameters_in_number_are_refused_not_stored(prolific: Stage) -> None:
    body = {"study": "trial-run", "link": {f"p{number}": "x" for number in range(13)}}
    assert prolific.client.post("/study/api/v1/sessions", json=body).status_code == 400
    assert count(prolific.database, models.StudySession) == 0


def test_the_page_sends_every_parameter_that_a_platform_has() -> None:
    script = (Path(__file__).parents[2] / "study" / "web" / "participant.js").read_text(encoding="utf-8")
    line = next(line for line in script.splitlines() if line.startswith("const LINK = "))
    assert set(line.split('"')[1::2]) == {name for names in PARAMETERS.values() for name in names}


def test_a_program_may_name_the_person_instead_of_the_link(prolific: Stage) -> None:
    by_link, by_name = prolific.participant(), prolific.participant()
    by_link.join(link=LINKS["prolific"])
    by_name.join(source="prolific", external_id=LINKS["prolific"]["PROLIFIC_PID"])
    assert by_link.token == by_name.token
