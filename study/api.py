"""The study over HTTP: the participant's page, its JSON API and the blind picture bytes, all under /study.

| method | path                                       | body -> reply                                               |
|--------|--------------------------------------------|-------------------------------------------------------------|
| GET    | /study/{slug}                              | the participant's page (study/web/page.html)                |
| GET    | /study/static/{path}                       | files of study/web; texts/{locale}.json from study/texts    |
| GET    | /study/s/{token}                           | picture bytes; needs the bearer token of the session too    |
| GET    | /study/api/v1/studies                      | StudyList                                                   |
| GET    | /study/api/v1/studies/{slug}               | StudyView                                                   |
| GET    | /study/api/v1/studies/{slug}/votes.csv     | the votes, when the study is closed or its results public   |
| GET    | /study/api/v1/challenge                    | Challenge, for public studies that ask for work             |
| POST   | /study/api/v1/sessions                     | JoinRequest -> Joined                                       |
| GET    | /study/api/v1/sessions/me                  | SessionView                                                 |
| POST   | /study/api/v1/sessions/me/environment      | EnvironmentReport -> SessionView                            |
| GET    | /study/api/v1/sessions/me/plates/{number}  | PNG of a colour-vision plate, counted from 0                |
| POST   | /study/api/v1/sessions/me/plates           | PlateAnswers -> SessionView                                 |
| POST   | /study/api/v1/sessions/me/consent          | ConsentRequest -> SessionView                               |
| POST   | /study/api/v1/sessions/me/heartbeat        | nothing -> SessionView                                      |
| POST   | /study/api/v1/sessions/me/withdraw         | WithdrawRequest -> SessionView                              |
| GET    | /study/api/v1/sessions/me/completion       | Completion                                                  |
| GET    | /study/api/v1/trial                        | TrialReply: the current trial and the upcoming one          |
| POST   | /study/api/v1/trial/{id}/shown             | nothing -> 204; after all pictures are decoded              |
| POST   | /study/api/v1/trial/{id}/answer            | AnswerRequest, header Idempotency-Key -> TrialReply         |
| POST   | /study/api/v1/events                       | EventsRequest -> 204                                        |

Everything of a session is asked for with `Authorization: Bearer <token of POST /sessions>`, pictures included: fetch
them, make an object URL of the blob, decode it. An error is a `Problem` with status 400, 401 (unknown_session: join
again), 404, 409 (the state does not allow it), 413 or 429 (too fast; Retry-After says for how long); a repeated answer
with the same Idempotency-Key gets the stored reply again.
"""

import mimetypes
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ValidationError
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from db.engine import Database
from study import export, payment, proof_of_work, publication, quality, service, signals, trials
from study.blinding import pad_png, token_hash
from study.design import Designs
from study.limits import Gate, Limits, Monotonic, TooManyError
from study.messages import (
    AnswerRequest,
    ConsentRequest,
    EnvironmentReport,
    EventsRequest,
    Joined,
    JoinRequest,
    PlateAnswers,
    Problem,
    WithdrawRequest,
)
from study.payment import PaymentKeys
from study.proof_of_work import Proofs
from study.service import Clocked, RandomBytes, RefusedError

WEB_DIR = Path(__file__).parent / "web"
TEXTS_DIR = Path(__file__).parent / "texts"

LARGEST_BODY = 64 * 1024
"""Bytes of a request; the largest we send, 200 events, has some 30 kB. Our choice."""

NULL, NULL_IN_JSON = "\0", b"\\u0000"
"""PostgreSQL stores no text with this character and ends the transaction that tries; nobody types it."""

MICROSECOND_NS = 1000

STATUS_OF_CODE: Mapping[str, int] = {
    "bad_request": 400,
    "wrong_answer": 400,
    "unknown_session": 401,
    "not_public": 403,
    "unknown_study": 404,
    "unknown_trial": 404,
    "not_found": 404,
    "not_open": 409,
    "consent_needed": 409,
    "already_answered": 409,
    "late": 409,
    "too_large": 413,
    "too_many": 429,
}

PRIVATE = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
"""On everything that belongs to a session; a picture must not be kept by a cache under its token."""

PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
        "base-uri 'none'"
    ),
}

Clock = Callable[[], int]
Body = TypeVar("Body", bound=BaseModel)
T = TypeVar("T")


def utc_microseconds() -> int:
    """The time, as the database counts it."""
    return time.time_ns() // MICROSECOND_NS


def router(
    database: Database,
    *,
    clock: Clock = utc_microseconds,
    random_bytes: RandomBytes = os.urandom,
    web_dir: Path = WEB_DIR,
    texts_dir: Path = TEXTS_DIR,
    limits: Limits | None = None,
    monotonic: Monotonic = time.monotonic,
    payments: PaymentKeys | None = None,
) -> APIRouter:
    """The routes of the study, for `launch(app_kwargs={"routes": study_router.routes})`.

    Args:
        database: of the studies.
        clock: UTC microseconds.
        random_bytes: source of every token and of the padding.
        web_dir: the page's files.
        texts_dir: its catalogues, `<locale>.json`.
        limits: how fast anybody may ask; None for tests and benchmarks.
        monotonic: seconds on the clock that the limits are counted by.
        payments: the keys under which the platforms' ids are kept; None to keep none.
    """
    api = _Api(database, clock, random_bytes, Gate(limits, monotonic, random_bytes), payments)
    files = _Files(database, web_dir, texts_dir)
    routes = APIRouter()
    table: tuple[tuple[str, str, Callable[[Request], Awaitable[Response]]], ...] = (
        # The first match is taken, so those asked most often come first: of twenty patterns each costs its part.
        ("POST", "/api/v1/trial/{id}/answer", api.answer),
        ("GET", "/s/{token}", api.stimulus),
        ("GET", "/api/v1/studies", api.studies),
        ("GET", "/api/v1/studies/{slug}", api.study),
        ("GET", "/api/v1/studies/{slug}/votes.csv", api.votes),
        ("GET", "/api/v1/challenge", api.challenge),
        ("POST", "/api/v1/sessions", api.join),
        ("GET", "/api/v1/sessions/me", api.session),
        ("POST", "/api/v1/sessions/me/environment", api.environment),
        ("GET", "/api/v1/sessions/me/plates/{number:int}", api.plate),
        ("POST", "/api/v1/sessions/me/plates", api.read_plates),
        ("POST", "/api/v1/sessions/me/consent", api.consent),
        ("POST", "/api/v1/sessions/me/heartbeat", api.heartbeat),
        ("POST", "/api/v1/sessions/me/withdraw", api.withdraw),
        ("GET", "/api/v1/sessions/me/completion", api.completion),
        ("GET", "/api/v1/trial", api.trial),
        ("POST", "/api/v1/trial/{id}/shown", api.shown),
        ("POST", "/api/v1/events", api.events),
        ("GET", "/static/{path:path}", files.static),
        ("GET", "/{slug}", files.page),
    )
    for method, path, endpoint in table:
        # Plain routes: bodies are read by `_body`, with a limit, so FastAPI's own reading would only cost time.
        routes.add_route(f"/study{path}", _answering_refusals(endpoint), methods=[method], include_in_schema=False)
    return routes


class _Api:
    """The endpoints that speak JSON, and the pictures."""

    def __init__(
        self, database: Database, clock: Clock, random_bytes: RandomBytes, gate: Gate, payments: PaymentKeys | None
    ) -> None:
        self._database = database
        self._gate = gate
        self._payments = payments
        self._proofs = Proofs(random_bytes)
        self._designs = Designs()
        self._clock = clock
        self._random_bytes = random_bytes

    async def studies(self, _request: Request) -> Response:
        return _json(await self._read(publication.open_studies))

    async def study(self, request: Request) -> Response:
        return _json(await self._read(publication.study_view, request.path_params["slug"]))

    async def votes(self, request: Request) -> Response:
        slug = request.path_params["slug"]
        text = await self._read(export.public_votes_csv, slug)
        disposition = {"Content-Disposition": f'attachment; filename="{slug}-votes.csv"'}
        return Response(text, media_type="text/csv; charset=utf-8", headers=PRIVATE | disposition)

    async def join(self, request: Request) -> Response:
        self._gate.session(request.client.host if request.client else "", request.headers.get("x-forwarded-for", ""))
        wanted, at = await _body(request, JoinRequest), self._at()
        view = await self._read(publication.study_view, wanted.study)
        seen = signals.ask(self._defences(wanted, view.proof_of_work, now=at.now))
        join = partial(service.join, payments=self._payments, signals=seen)
        token, session = await self._write(join, wanted, at)
        return _json(Joined(token=token, session=session))

    def _defences(self, wanted: JoinRequest, bits: int, *, now: int) -> Mapping[str, signals.Defence]:
        if not bits:
            return {}
        return {proof_of_work.NAME: lambda: self._proofs.judge(wanted.proof, bits=bits, now=now)}

    async def challenge(self, _request: Request) -> Response:
        return _json(self._proofs.challenge(now=self._clock()))

    async def session(self, request: Request) -> Response:
        token = _bearer(request)
        return _json(await self._read(service.view_of, self._designs, token))

    async def environment(self, request: Request) -> Response:
        report = await _body(request, EnvironmentReport)
        return _json(await self._write(service.report_environment, _bearer(request), report, self._at()))

    async def plate(self, request: Request) -> Response:
        png = await self._read(service.plate, self._designs, _bearer(request), request.path_params["number"])
        return Response(png, media_type="image/png", headers=PRIVATE)

    async def read_plates(self, request: Request) -> Response:
        given = await _body(request, PlateAnswers)
        return _json(await self._write(service.read_plates, _bearer(request), given, self._at()))

    async def consent(self, request: Request) -> Response:
        given = await _body(request, ConsentRequest)
        return _json(await self._write(service.consent, _bearer(request), given, self._at()))

    async def heartbeat(self, request: Request) -> Response:
        return _json(await self._write(service.heartbeat, _bearer(request), self._at()))

    async def withdraw(self, request: Request) -> Response:
        erase, token = (await _body(request, WithdrawRequest)).erase, _bearer(request)
        key = await self._read(payment.key_of, token_hash(token)) if erase and self._payments else None
        view = await self._write(partial(service.withdraw, erase=erase), token, self._at())
        if key and self._payments:
            self._payments.destroy(key)  # only now, when the row it opened is gone for good
        return _json(view)

    async def completion(self, request: Request) -> Response:
        return _json(await self._read(service.completion_of, self._designs, _bearer(request)))

    async def trial(self, request: Request) -> Response:
        return _json(await self._write(trials.current, _bearer(request), self._at()))

    async def shown(self, request: Request) -> Response:
        token, trial, at = _bearer(request), request.path_params["id"], self._at()
        await self._database.write_async(lambda db: trials.shown(db, token, trial, at))
        return Response(status_code=204, headers=PRIVATE)

    async def answer(self, request: Request) -> Response:
        self._gate.answer(_bearer(request))
        answers = await _body(request, AnswerRequest)
        key = request.headers.get("idempotency-key", "")
        take = partial(trials.answer, key=key, at=self._at())
        reply = await self._write(take, _bearer(request), request.path_params["id"], answers)
        if isinstance(reply, trials.Refusal):
            raise RefusedError(reply.code, reply.sentence)
        response = _json(reply)
        if reply.state == "completed":
            # The answer is stored; whom the rules take out is nothing that its giver should wait for.
            response.background = BackgroundTask(self._judge, _bearer(request))
        return response

    async def _judge(self, token: str) -> None:
        """Bring the definition's rules to bear after the last answer; closing the study does it for all once more."""
        now = self._clock()

        def judge(db: Session) -> int:
            visit = service.find_visit(db, token)
            design = self._designs.of(db, visit.version_id)
            return quality.apply_rules(db, visit.version_id, at=now, only=(visit.session_id,), design=design)

        await self._database.write_async(judge)

    async def events(self, request: Request) -> Response:
        sent = await _body(request, EventsRequest)
        token, at = sent.token or _bearer(request), self._at()
        await self._database.write_async(lambda db: service.record_events(db, token, sent.events, at))
        return Response(status_code=204, headers=PRIVATE)

    async def stimulus(self, request: Request) -> Response:
        token = request.path_params["token"]
        try:
            picture = await self._read(trials.stimulus, _bearer(request), token)
        except RefusedError:
            # No session, another session's token, a forged one, one that is over: nobody learns which.
            return _problem("not_found", "There is nothing here.")
        return Response(
            pad_png(picture.png, picture.length, self._random_bytes), media_type="image/png", headers=PRIVATE
        )

    def _at(self) -> Clocked:
        return Clocked(self._clock(), self._random_bytes)

    async def _write(self, step: Callable[..., T], *arguments: Any) -> T:
        return await self._database.write_async(lambda db: step(db, self._designs, *arguments))

    async def _read(self, question: Callable[..., T], *arguments: Any) -> T:
        def ask() -> T:
            with self._database.read() as db:
                return question(db, *arguments)

        return await run_in_threadpool(ask)


class _Files:
    """The page and its files."""

    def __init__(self, database: Database, web_dir: Path, texts_dir: Path) -> None:
        self._database = database
        self._folders = {"texts": texts_dir.resolve(), "": web_dir.resolve()}

    async def static(self, request: Request) -> Response:
        path: str = request.path_params["path"]
        first, _, rest = path.partition("/")
        folder, name = (self._folders["texts"], rest) if first == "texts" else (self._folders[""], path)
        file = _below(folder, name)
        if file is None:
            raise RefusedError("not_found", "There is no such file here.")
        return await run_in_threadpool(_file, file)

    async def page(self, request: Request) -> Response:
        """The page, also for an unknown study: it says so itself, in the visitor's language."""
        known = await run_in_threadpool(self._is_known, request.path_params["slug"])
        return await run_in_threadpool(_file, self._folders[""] / "page.html", 200 if known else 404)

    def _is_known(self, slug: str) -> bool:
        with self._database.read() as db:
            try:
                publication.find_version(db, slug)
            except RefusedError:
                return False
        return True


def _below(folder: Path, name: str) -> Path | None:
    """The file of that name in a folder or below it, None if there is none."""
    try:
        file = (folder / name).resolve()
        return file if folder in file.parents and file.is_file() else None
    except (OSError, ValueError):  # a name that no file can have: too long, or with a null character
        return None


def _file(path: Path, status: int = 200) -> Response:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return Response(path.read_bytes(), status, media_type=kind, headers=PAGE_HEADERS)


def _answering_refusals(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def answering(request: Request) -> Response:
        if NULL in request.scope["path"]:
            return _problem("not_found", "There is nothing here.")
        try:
            return await endpoint(request)
        except TooManyError as refused:
            reply = _problem(refused.code, str(refused))
            reply.headers["Retry-After"] = str(refused.wait_s)
            return reply
        except RefusedError as refused:
            return _problem(refused.code, str(refused))

    return answering


def _problem(code: Any, sentence: str) -> Response:
    return _json(Problem(error=sentence, code=code), STATUS_OF_CODE[code])


def _json(message: BaseModel, status: int = 200) -> Response:
    return Response(message.model_dump_json(), status, media_type="application/json", headers=PRIVATE)


def _bearer(request: Request) -> str:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token:
        raise RefusedError("unknown_session", "The session's token is missing; open the study's link again.")
    return token


async def _body(request: Request, model: type[Body]) -> Body:
    """The body as a message.

    Raises:
        RefusedError: when it is too large or is no such message.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise RefusedError("too_large", f"A request may have at most {LARGEST_BODY} bytes.")
    if NULL_IN_JSON in body:
        raise RefusedError("bad_request", "The request holds a null character, which no text has; leave it out.")
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise RefusedError("bad_request", f"The request is not understood ({place}: {first['msg']}).") from error
