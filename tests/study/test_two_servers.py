"""Two processes serve one study from one PostgreSQL server: people meet either, and one is killed half-way."""

import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from db import models
from db.engine import Database
from db.migrate import migrate
from study import counters
from tests.serving import ROOT, free_port
from tests.study.conftest import POSTGRES_URL, empty_postgres
from tests.study.stage import Folders, definition, ingest_and_launch

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(not POSTGRES_URL, reason="ASUKA_TEST_POSTGRES_URL is not set; .ci/postgres prints its value"),
]

PEOPLE = 12
IMAGES, PAIRS, TRIALS = 8, 3, 6
KILL_AFTER = PEOPLE * TRIALS // 2
API = "/study/api/v1"
PATIENCE_S = 60


@dataclass
class Servers:
    """Two processes behind two addresses; a request to a killed one gets no reply."""

    processes: "list[subprocess.Popen[bytes]]"
    clients: list[httpx.Client]
    answered: int = 0
    conflicts: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, at: int, method: str, path: str, **what: Any) -> httpx.Response | None:
        try:
            return self.clients[at % 2].request(method, API + path, **what)
        except httpx.TransportError:
            if self.processes[at % 2].poll() is None and not self.killed:
                raise
            return None

    def ask_either(self, at: int, method: str, path: str, **what: Any) -> dict[str, Any]:
        """Like a page behind a proxy: who does not reply is asked no more."""
        reply = self.ask(at, method, path, **what) or self.ask(at + 1, method, path, **what)
        assert reply is not None
        assert reply.status_code == httpx.codes.OK, reply.text
        return reply.json()

    @property
    def killed(self) -> bool:
        return self.answered >= KILL_AFTER

    def count(self, replies: list[httpx.Response]) -> None:
        """Whoever gives the answer in the middle kills the second server while the others go on."""
        with self.lock:
            before = self.killed
            self.answered += 1
            self.conflicts += sum(reply.status_code == HTTPStatus.CONFLICT for reply in replies)
            if self.killed and not before:
                self.processes[1].kill()


@pytest.fixture
def servers(folders: Folders) -> Iterator[Servers]:
    url = str(POSTGRES_URL)
    empty_postgres(url)
    migrate(url)
    with Database.open(url) as database:
        study = definition(consent={"text": "Answers are stored."}, plan={"real": TRIALS})
        ingest_and_launch(database, folders, study)
    ports = [free_port(), free_port()]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.study.study_server", url, str(port)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for port in ports
    ]
    try:
        for process, port in zip(processes, ports, strict=True):
            _wait_for(process, port)
        clients = [httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) for port in ports]
        with closing(clients[0]), closing(clients[1]):
            yield Servers(processes, clients)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _wait_for(process: "subprocess.Popen[bytes]", port: int) -> None:
    for _ in range(PATIENCE_S * 10):
        assert process.poll() is None, "the server ended at once; see what it printed"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
    pytest.fail("the server did not start")


def test_people_on_two_servers_get_one_balanced_study_though_one_is_killed(servers: Servers) -> None:
    with ThreadPoolExecutor(PEOPLE) as people, ThreadPoolExecutor(2 * PEOPLE) as hands:
        for each in [people.submit(_take_part, servers, person, hands.map) for person in range(PEOPLE)]:
            each.result()

    assert servers.processes[1].poll() is not None, "the second server was to be killed half-way"
    with Database.open(str(POSTGRES_URL)) as database, database.read() as db:
        states = Counter(db.execute(select(models.Trial.state)).scalars())
        assert states == {models.TrialState.ANSWERED: PEOPLE * TRIALS}
        per_question = select(func.count(models.Response.id)).group_by(
            models.Response.trial_id, models.Response.criterion
        )
        assert list(db.execute(per_question).scalars()) == [1] * (PEOPLE * TRIALS * 2)
        # A reply that went down with its server was not heard, so the evidence may be more than what we heard of.
        kept = db.execute(select(func.count(models.ResponseAttempt.id))).scalar_one()
        assert KILL_AFTER - PEOPLE <= servers.conflicts <= kept <= PEOPLE * TRIALS
        counters.verify(db, db.execute(select(models.StudyVersion.id)).scalar_one())
        asked = Counter(tuple(row) for row in db.execute(_ASKED))
    fair = PEOPLE * TRIALS // (IMAGES * PAIRS)
    assert len(asked) == IMAGES * PAIRS
    # Nobody sees an image twice, so the last to come may find no use for what has been asked least.
    assert set(asked.values()) <= {fair - 1, fair, fair + 1}


_ASKED = (
    select(models.Cell.image_id, models.Cell.method_lo_id, models.Cell.method_hi_id)
    .select_from(models.Trial)
    .join(models.Cell, models.Cell.id == models.Trial.cell_id)
)


def _take_part(servers: Servers, person: int, together: Callable[..., Iterator[Any]]) -> None:
    """Join here, agree there, answer at both at once, and look at pictures where the trial was not issued."""
    joined = servers.ask_either(person, "POST", "/sessions", json={"study": "trial-run"})
    bearer = {"Authorization": f"Bearer {joined['token']}"}
    servers.ask_either(person + 1, "POST", "/sessions/me/consent", json={"accepted": True}, headers=bearer)
    reply = servers.ask_either(person, "GET", "/trial", headers=bearer)
    while reply["state"] == "running":
        assert servers.ask_either(person + 1, "GET", "/trial", headers=bearer) == reply, "one lease, seen by both"
        trial = reply["trial"]

        def press(at: int, trial: dict[str, Any] = trial) -> httpx.Response | None:
            answers = [{"criterion": key, "outcome": "choice", "position": at} for key in trial["criteria"]]
            headers = bearer | {"Idempotency-Key": f"hand {at}"}
            return servers.ask(at, "POST", f"/trial/{trial['id']}/answer", json={"responses": answers}, headers=headers)

        heard = [each for each in together(press, (0, 1)) if each is not None]
        taken = [each for each in heard if each.status_code == httpx.codes.OK]
        assert len(taken) == 1 or (not taken and len(heard) == 1), "one of two hands is quicker"
        servers.count(heard)
        reply = taken[0].json() if taken else servers.ask_either(person, "GET", "/trial", headers=bearer)
    assert reply["state"] == "completed"
