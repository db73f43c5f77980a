"""Answers and sessions come no faster than people, and what is too much, too large or forged is refused in words."""

import hashlib
import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import func, select

from db import models
from db.engine import Database
from db.models import SignalOutcome
from study import counters
from study.api import LARGEST_BODY
from study.limits import AddressHashes, Gate, Limits, TooManyError, Window
from study.messages import Proof
from study.proof_of_work import GOOD_FOR_S, Proofs, leading_zero_bits
from tests.study.stage import START, Folders, Stage, definition, open_stage, seeded_bytes


class Seconds:
    """A clock that nobody but the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def limited(database: Database, folders: Folders, seconds: Seconds) -> Iterator[Stage]:
    limits = Limits(answers_per_second=2, answers_per_minute=5, sessions_per_minute=3, proxies=1)
    with open_stage(database, folders, definition(), limits=limits, monotonic=seconds) as stage:
        yield stage


def rows(stage: Stage, model: type[models.Base]) -> int:
    with stage.database.read() as db:
        return db.scalar(select(func.count()).select_from(model)) or 0


def admitted(window: Window, seconds: Seconds, until: float) -> list[float]:
    """When somebody who tries eight times a second is let through."""
    times: list[float] = []
    while seconds.now < until:
        if not window.wait("somebody"):
            times.append(seconds.now)
        seconds.now += 0.125
    return times


def test_no_second_has_more_than_two_and_no_minute_more_than_sixty(seconds: Seconds) -> None:
    times = admitted(Window({1: 2, 60: 60}, seconds), seconds, until=300.0)
    for span, most in ((1, 2), (60, 60)):
        fullest = max(sum(start <= each < start + span for each in times) for start in times)
        assert fullest == most
    assert len(times) == 60 * 3 + 20 * 2  # three minutes in full, and twenty seconds


def test_the_wait_that_is_told_is_exactly_long_enough(seconds: Seconds) -> None:
    window = Window({1: 2, 60: 5}, seconds)
    for _ in range(2):
        assert window.wait("a") == 0
    assert window.wait("a") == pytest.approx(1.0)
    assert window.wait("b") == 0
    for pause in (1.0, 0.0, 1.0):
        seconds.now += pause
        assert window.wait("a") == 0
    assert window.wait("a") == pytest.approx(58.0)
    seconds.now += 57.9
    assert window.wait("a") > 0
    seconds.now += 0.1001
    assert window.wait("a") == 0


def test_a_limit_of_nothing_is_no_limit(seconds: Seconds) -> None:
    gate = Gate(Limits(0, 0, 0), seconds)
    for _ in range(1000):
        gate.answer("token")
        gate.session("10.0.0.1", "")


def test_what_is_over_is_forgotten(seconds: Seconds) -> None:
    window = Window({1: 2}, seconds)
    for number in range(1000):
        window.wait(f"visitor {number}")
    seconds.now += 2
    window.wait("one more")
    assert len(window) == 1


def test_an_address_is_another_hash_every_day_and_in_every_process(seconds: Seconds) -> None:
    here, elsewhere = AddressHashes(seconds, seeded_bytes(1)), AddressHashes(seconds, seeded_bytes(2))
    today = here.hashed("203.0.113.7")
    assert here.hashed("203.0.113.7") == today != elsewhere.hashed("203.0.113.7")
    assert "203" not in today
    seconds.now += 24 * 3600
    assert here.hashed("203.0.113.7") != today


def test_only_what_trusted_proxies_saw_is_believed(seconds: Seconds) -> None:
    behind_one, direct = Gate(Limits(0, 0, 1, proxies=1), seconds), Gate(Limits(0, 0, 1), seconds)
    behind_one.session("10.0.0.1", "1.1.1.1, 198.51.100.1")
    with pytest.raises(TooManyError, match="from your network"):
        behind_one.session("10.0.0.1", "2.2.2.2, 198.51.100.1")
    behind_one.session("10.0.0.1", "1.1.1.1, 198.51.100.2")
    direct.session("10.0.0.1", "1.1.1.1")
    with pytest.raises(TooManyError):
        direct.session("10.0.0.1", "2.2.2.2")


def test_answers_beyond_the_limit_wait_and_nothing_of_them_is_stored(limited: Stage, seconds: Seconds) -> None:
    participant = limited.participant().start()
    reply = participant.get("/trial")
    for _ in range(2):
        reply = participant.answer(reply["trial"])
    refused = participant.try_answer(reply["trial"])
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many")
    assert refused.headers["retry-after"] == "1"
    assert (rows(limited, models.Response), rows(limited, models.ResponseAttempt)) == (4, 0)
    seconds.now += 1.0
    assert participant.try_answer(reply["trial"]).status_code == 200


def test_sessions_from_one_network_are_limited_and_other_networks_are_not(limited: Stage) -> None:
    def join(address: str) -> int:
        headers = {"X-Forwarded-For": address}
        reply = limited.client.post("/study/api/v1/sessions", json={"study": "trial-run"}, headers=headers)
        return int(reply.status_code)

    assert [join("198.51.100.1") for _ in range(4)] == [200, 200, 200, 429]
    assert join("198.51.100.2") == 200


# ------------------------------------------------------------------------------------------------- proof of work


def solve(challenge: str, bits: int, *, wrong: bool = False) -> Proof:
    for answer in itertools.count():
        if (leading_zero_bits(f"{challenge}:{answer}") >= bits) != wrong:
            return Proof(challenge=challenge, answer=answer)
    raise AssertionError("there is always one")


def test_zero_bits_are_counted_as_in_the_binary_digest() -> None:
    for number in range(200):
        digest = hashlib.sha256(str(number).encode()).digest()
        binary = "".join(f"{byte:08b}" for byte in digest)
        assert leading_zero_bits(str(number)) == len(binary) - len(binary.lstrip("0"))


def test_a_proof_is_good_once_and_for_ten_minutes() -> None:
    proofs = Proofs(seeded_bytes())
    proof = solve(proofs.challenge(now=START).challenge, 8)
    assert proofs.judge(proof, bits=8, now=START) is SignalOutcome.PASS
    assert proofs.judge(proof, bits=8, now=START) is SignalOutcome.FAIL
    late = solve(proofs.challenge(now=START).challenge, 8)
    assert proofs.judge(late, bits=8, now=START + (GOOD_FOR_S + 1) * 1_000_000) is SignalOutcome.UNKNOWN


def test_a_wrong_proof_fails_and_none_or_another_processs_is_unknown() -> None:
    proofs, other = Proofs(seeded_bytes(1)), Proofs(seeded_bytes(2))
    wrong = solve(proofs.challenge(now=START).challenge, 8, wrong=True)
    assert proofs.judge(wrong, bits=8, now=START) is SignalOutcome.FAIL
    assert proofs.judge(None, bits=8, now=START) is SignalOutcome.UNKNOWN
    assert proofs.judge(solve(other.challenge(now=START).challenge, 8), bits=8, now=START) is SignalOutcome.UNKNOWN
    assert proofs.judge(Proof(challenge="é", answer=1), bits=8, now=START) is SignalOutcome.UNKNOWN


# ------------------------------------------------------------------------------------------------- bad input


def count_all(stage: Stage) -> dict[str, int]:
    return {table.name: rows_of(stage, table) for table in models.Base.metadata.sorted_tables}


def rows_of(stage: Stage, table: Any) -> int:
    with stage.database.read() as db:
        return db.scalar(select(func.count()).select_from(table)) or 0


PATHS = (
    "sessions",
    "sessions/me/consent",
    "sessions/me/environment",
    "sessions/me/withdraw",
    "events",
    "trial/x/answer",
)


BODIES = (
    (b"\x89PNG\r\n\x1a\n\x00\x00", 400),
    (b"{", 400),
    (b"[]", 400),
    (b'{"nobody": "knows this"}', 400),
    (b'{"study": "trial\\u0000run"}', 400),
    (b"\xff\xfe", 400),
    (b"x" * (LARGEST_BODY + 1), 413),
    (b"[" * 60_000, 400),
)


def test_a_body_that_is_no_such_message_is_refused_and_leaves_nothing(stage: Stage) -> None:
    participant = stage.participant().start()
    before = count_all(stage)
    for path, (body, status) in itertools.product(PATHS, BODIES):
        reply = stage.client.post(f"/study/api/v1/{path}", content=body, headers=participant.headers)
        assert reply.status_code == status, (path, body[:20])
        assert reply.json()["error"].endswith((".", ")."))
    assert count_all(stage) == before


def test_an_oversized_body_is_cut_off_while_it_arrives(stage: Stage) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * LARGEST_BODY

    assert stage.client.post("/study/api/v1/sessions", content=endless()).status_code == 413


TOKENS = ("", "nobody", "0" * 32, "ü" * 8, "a" * 10_000, "' OR 1=1 --")


def test_a_wrong_token_opens_nothing(stage: Stage) -> None:
    participant = stage.participant().start()
    trial = participant.get("/trial")["trial"]
    before = count_all(stage)
    answers = {"responses": [{"criterion": "context_stability", "outcome": "choice", "position": 0}]}
    asked = (
        ("GET", "sessions/me", None),
        ("GET", "trial", None),
        ("POST", f"trial/{trial['id']}/answer", answers),
        ("POST", f"trial/{trial['id']}/shown", {}),
        ("POST", "sessions/me/withdraw", {"erase": True}),
        ("GET", "sessions/me/completion", None),
    )
    for token, (method, path, body) in itertools.product(TOKENS, asked):
        headers = {b"Authorization": b"Bearer " + token.encode(), b"Idempotency-Key": b"k"}
        reply = stage.client.request(method, f"/study/api/v1/{path}", json=body, headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (401, "unknown_session"), (token, path)
        picture = stage.client.get(f"/study/s/{trial['input']['token']}", headers=headers)
        assert picture.status_code in {401, 404}
    assert count_all(stage) == before


FORGED: tuple[dict[str, Any], ...] = (
    {"position": 2},
    {"position": 99},
    {"position": -1},
    {"position": 100},
    {"position": 0.5},
    {"position": "0"},
    {"position": True},
    {"position": None},
    {"outcome": "tie", "position": 0},
    {"outcome": "both"},
    {"rt_ms": -1},
    {"rt_ms": 10**12},
    {"n_changes": 10**9},
    {"method": "ours"},
)


def test_a_forged_answer_is_never_counted_and_the_trial_stays_open(stage: Stage) -> None:
    participant = stage.participant().start()
    trial = participant.get("/trial")["trial"]
    for forged in FORGED:
        assert participant.try_answer(trial, **forged).status_code == 400, forged
    assert (rows(stage, models.Response), rows(stage, models.AnalysisVote)) == (0, 0)
    assert participant.get("/trial")["trial"] == trial
    assert participant.answer(trial)["progress"]["answered"] == 1


def test_a_clock_set_back_or_forward_loses_no_answer_and_no_count(stage: Stage) -> None:
    participant = stage.participant().start()
    reply = participant.get("/trial")
    for jump in (-3600, 7200, -86_400, 600, 40_000):
        participant.post(f"/trial/{reply['trial']['id']}/shown")
        stage.clock.pass_seconds(jump)
        reply = participant.answer(reply["trial"], rt_ms=3000)
    assert participant.answer(reply["trial"])["state"] == "completed"
    with stage.database.read() as db:
        counters.verify(db, stage.ingested.version_id)
        spans = db.execute(select(models.Response.server_ms)).scalars().all()
    assert len(spans) == 12
    assert all(span is None or span >= 0 for span in spans)


def test_a_storm_of_duplicates_leaves_one_answer_per_trial_and_question(stage: Stage) -> None:
    participant = stage.participant().start()
    trials = 0
    reply = participant.get("/trial")
    statuses: Counter[int] = Counter()
    while reply["state"] == "running":
        trial, together = reply["trial"], threading.Barrier(16)
        headers = [participant.headers | {"Idempotency-Key": f"{trials}-{max(0, n - 7)}"} for n in range(16)]

        def send(n: int, trial: Any = trial, together: Any = together, headers: Any = headers) -> None:
            responses = [{"criterion": key, "outcome": "choice", "position": n % 2} for key in trial["criteria"]]
            together.wait()
            path = f"/study/api/v1/trial/{trial['id']}/answer"
            statuses[stage.client.post(path, json={"responses": responses}, headers=headers[n]).status_code] += 1

        threads = [threading.Thread(target=send, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        trials += 1
        reply = participant.get("/trial")
    assert trials == 6
    assert rows(stage, models.Response) == rows(stage, models.AnalysisVote) == 6 * 2
    assert set(statuses) == {200, 409}
    assert rows(stage, models.ResponseAttempt) == statuses[409]
    with stage.database.read() as db:
        counters.verify(db, stage.ingested.version_id)
