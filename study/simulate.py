"""Participants made up by a seed, who answer a running study through its real HTTP API, with tastes that are known.

They speak HTTP alone; what a picture shows they are told by somebody who has the database. Never run them against a
study of real people: their answers are stored as anybody's would be. The server's limits hold for them too.
"""

import hashlib
import http.client
import json
import random
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import RenditionKind, TrialKind
from study.design import RENDITION, load_design
from study.plates import read_plate
from study.publication import newest_version
from study.trials import BLOB

PICTURE_TIMEOUT_S = 60.0


class SimulationError(RuntimeError):
    """The server did not answer as the study's API does; the message says to what."""


@dataclass(frozen=True)
class Plan:
    """Who comes and how they behave.

    Attributes:
        people: participants.
        seed: of everything that is drawn; the n-th participant behaves alike whatever the others do.
        drop_out: share of participants who leave after a trial drawn at random.
        ties: share of answers that are "no visible difference", where the study allows it and no picture is marked.
        careless: share of participants who look at nothing and take any picture.
        at_once: participants at the same time.
        source: as which kind of participant they come, with made-up ids; "public" needs none.
    """

    people: int
    seed: int = 0
    drop_out: float = 0.0
    ties: float = 0.0
    at_once: int = 8
    source: str = "public"
    careless: float = 0.0


@dataclass(frozen=True)
class Simulated:
    """What came of it."""

    completed: int
    left: int
    turned_away: int
    answers: int
    codes: int


Taste = Callable[[Sequence[str], random.Random], int]
"""(what each candidate is, in position order; a source of chance) -> the position that is preferred."""

Recognise = Callable[[bytes], str]
"""The bytes of a served picture -> what it is; only somebody who has the files can know."""


def strengths_taste(strengths: Mapping[str, float]) -> Taste:
    """Choose each candidate with a probability proportional to its strength (Luce's choice rule): 7 to 3 is 70/30."""
    slip = SLIP * min([1.0, *strengths.values()])

    def choose(shown: Sequence[str], chance: random.Random) -> int:
        weight = {WRONG: slip / max(shown.count(WRONG), 1), **strengths}
        return chance.choices(range(len(shown)), [weight.get(name, 1.0) for name in shown])[0]

    return choose


def pixel_sha256(png: bytes) -> str:
    """A hash of the pixels of a PNG that no padding changes: of its decompressed image data, filters and all."""
    data, at = b"", 8
    while at + 8 <= len(png):
        size = int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + size]
        at += 12 + size
    return hashlib.sha256(zlib.decompress(data)).hexdigest()


def simulate(address: str, slug: str, plan: Plan, taste: Taste, recognise: Recognise) -> Simulated:
    """Let made-up participants take part.

    Args:
        address: of the running server, for example "http://127.0.0.1:7860".
        slug: of the study.
        plan: who comes.
        taste: what they prefer.
        recognise: what a served picture is; see `recogniser`.

    Raises:
        SimulationError: when the server cannot be reached or speaks another language.
    """
    with closing(_Connection(address)) as visitor:
        study = visitor.ask("GET", f"/studies/{slug}")
    seen = _Remembered(recognise)

    def take_part(number: int) -> tuple[str, int, bool]:
        with closing(_Connection(address)) as connection:
            return _Bot(connection, study, taste, seen, plan=plan, number=number).take_part()

    with ThreadPoolExecutor(plan.at_once) as crowd:
        ends = list(crowd.map(take_part, range(plan.people)))
    return Simulated(
        completed=sum(end == "completed" for end, _, _ in ends),
        left=sum(end == "left" for end, _, _ in ends),
        turned_away=sum(end not in {"completed", "left"} for end, _, _ in ends),
        answers=sum(answers for _, answers, _ in ends),
        codes=sum(code for _, _, code in ends),
    )


class _Connection:
    """One keep-alive connection."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._http = kind(parts.hostname or "", parts.port, timeout=PICTURE_TIMEOUT_S)
        self._base = parts.path.rstrip("/")
        self._address = address
        self.token = ""

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def ask(self, method: str, path: str, body: object = None, *, key: str | None = None) -> dict[str, Any]:
        """The JSON reply; a server that finds this too fast is asked again when it says so."""
        while True:
            status, content, wait_s = self.request(method, f"/study/api/v1{path}", body, key=key)
            if status != http.client.TOO_MANY_REQUESTS:
                break
            time.sleep(wait_s)
        if status == http.client.NO_CONTENT:
            return {}
        try:
            reply: dict[str, Any] = json.loads(content)
        except ValueError as error:
            raise SimulationError(f"{self._address} answered {method} {path} with no JSON ({status}).") from error
        if status >= http.client.BAD_REQUEST:
            raise SimulationError(f"{method} {path}: {reply.get('error', status)}")
        return reply

    def request(
        self, method: str, path: str, body: object = None, *, key: str | None = None
    ) -> tuple[int, bytes, float]:
        """(status, body, seconds to wait before the next try)."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if key is not None:
            headers["Idempotency-Key"] = key
        try:
            self._http.request(method, self._base + path, None if body is None else json.dumps(body), headers)
            reply = self._http.getresponse()
            return reply.status, reply.read(), float(reply.headers.get("Retry-After", 1))
        except OSError as error:
            raise SimulationError(f"{self._address} does not answer ({error}); start the app first.") from error


class _Bot:
    """One made-up participant."""

    def __init__(
        self,
        to: _Connection,
        study: Mapping[str, Any],
        taste: Taste,
        seen: "_Remembered",
        *,
        plan: Plan,
        number: int,
    ) -> None:
        self._to = to
        self._study = study
        self._plan = plan
        self._number = number
        self._taste = taste
        self._seen = seen
        self._chance = random.Random(f"{plan.seed} {number}")
        self._careless = random.Random(f"{plan.seed} {number} careless").random() < plan.careless

    def take_part(self) -> tuple[str, int, bool]:
        """(how it ended, answers given, whether there was a completion code)."""
        self._join()
        leave_after = self._leave_after()
        answers, reply = 0, self._to.ask("GET", "/trial")
        while reply.get("trial"):
            if answers == leave_after:
                return "left", answers, False
            reply = self._answer(reply["trial"])
            answers += 1
        code = (reply.get("completion") or {}).get("code")
        return str(reply["state"]), answers, bool(code)

    def _join(self) -> None:
        request: dict[str, Any] = {"study": self._study["slug"]}
        if self._plan.source != "public":
            request |= {"source": self._plan.source, "external_id": f"bot-{self._plan.seed}-{self._number}"}
        self._to.token = str(self._to.ask("POST", "/sessions", request)["token"])
        screen = {"css_width": 1280, "css_height": 800, "device": "desktop", "browser": "other"}
        self._to.ask("POST", "/sessions/me/environment", screen)
        plates = [self._plate(number) for number in range(self._study["screen"]["colour_vision"])]
        if plates:
            self._to.ask("POST", "/sessions/me/plates", {"figures": plates})
        boxes = list(self._study["consent"]["boxes"])
        self._to.ask("POST", "/sessions/me/consent", {"accepted": True, "boxes": boxes})

    def _leave_after(self) -> int | None:
        leaves = self._chance.random() < self._plan.drop_out
        trial = self._chance.randrange(1, max(2, int(self._study["trials"])))
        return trial if leaves else None

    def _answer(self, trial: Mapping[str, Any]) -> dict[str, Any]:
        shown = [self._picture(candidate["token"]) for candidate in trial["candidates"]]
        self._to.ask("POST", f"/trial/{trial['id']}/shown")
        allow_tie = {criterion["key"]: criterion["allow_tie"] for criterion in self._study["criteria"]}
        responses: list[dict[str, Any]] = []
        for criterion in trial["criteria"]:
            answer: dict[str, Any] = {"criterion": criterion, "outcome": "choice"}
            answer["rt_ms"] = round(self._chance.lognormvariate(8.0, 0.5))  # a median of three seconds
            if self._careless:
                answer["position"] = self._chance.randrange(len(shown))
            elif allow_tie[criterion] and MARKED not in shown and self._chance.random() < self._plan.ties:
                answer["outcome"] = "tie"
            else:
                answer["position"] = self._taste(shown, self._chance)
            responses.append(answer)
        key = f"{self._plan.seed}-{self._number}-{trial['id']}"
        return self._to.ask("POST", f"/trial/{trial['id']}/answer", {"responses": responses}, key=key)

    def _picture(self, token: str) -> str:
        return self._seen(self._bytes(f"/study/s/{token}"))

    def _plate(self, number: int) -> str:
        return read_plate(self._bytes(f"/study/api/v1/sessions/me/plates/{number}"))

    def _bytes(self, path: str) -> bytes:
        status, content, _ = self._to.request("GET", path)
        if status != http.client.OK:
            raise SimulationError(f"A picture was not served ({status}).")
        return content


class _Remembered:
    """Recognising, one thread at a time."""

    def __init__(self, recognise: Recognise) -> None:
        self._recognise = recognise
        self._one = threading.Lock()

    def __call__(self, png: bytes) -> str:
        with self._one:
            return self._recognise(png)


WRONG, RIGHT, MARKED = "wrong", "right", "marked"
"""What bots call the pictures of gold trials and the marked one of an attention trial; they hardly ever take a wrong
one."""

SLIP = 0.02
"""How strong the wrong pictures of a trial are, all together, beside a right one of 1: an attentive person's slips."""


def known_pictures(db: Session, slug: str) -> dict[str, str]:
    """`pixel_sha256` of every stored candidate of a study's newest version -> its method's key, RIGHT, WRONG or MARKED.

    Raises:
        study.publication.PublicationError: for an unknown study.
    """
    design = load_design(db, newest_version(db, slug).id)
    keys = {method.id: method.key for method in design.methods}
    rows = db.execute(
        select(RENDITION.c.method_id, RENDITION.c.kind, RENDITION.c.variant, BLOB.c.content)
        .join(BLOB, BLOB.c.id == RENDITION.c.blob_id)
        .where(RENDITION.c.version_id == design.version_id)
        .where(RENDITION.c.kind.in_((RenditionKind.OUTPUT, RenditionKind.GOLD)))
        .order_by(RENDITION.c.kind)  # a method's own picture last: a gold trial's right one may be the same pixels
    )
    known: dict[str, str] = {}
    for row in rows:
        kind = row.variant.partition("/")[0]
        gold = WRONG if WRONG in row.variant else MARKED if kind == TrialKind.ATTENTION else RIGHT
        known[pixel_sha256(row.content)] = gold if row.kind == RenditionKind.GOLD else keys[row.method_id]
    return known


def recogniser(known: Mapping[str, str]) -> Recognise:
    """Recognise pictures by their pixels.

    Args:
        known: `pixel_sha256` of a stored picture -> what it is.
    """

    def recognise(png: bytes) -> str:
        return known.get(pixel_sha256(png), "")

    return recognise
