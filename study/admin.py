"""The researcher's page under /study/admin: run a study, watch it, keep it safe; off unless a password is set.

Three roles. An *owner* may do everything. An *operator* runs the study and looks after quality, and never sees a
result. A *viewer* sees progress, and results when everybody may. Nobody sees a rate before a study is closed, unless
its definition says `results: public`; until it is unblinded methods are called by their aliases.

| method | path under /study/admin             | who             | what                                               |
|--------|-------------------------------------|-----------------|----------------------------------------------------|
| GET    | (nothing)                           | anybody         | the page                                           |
| POST   | /api/login, /api/logout             | anybody         | password -> cookie                                 |
| GET    | /api/me                             | signed in       | role and CSRF token                                |
| GET    | /api/studies                        | signed in       | every study and how it stands                      |
| POST   | /api/studies                        | owner           | a definition and folders on this machine -> draft  |
| POST   | /api/definition                     | owner, operator | check a definition                                 |
| GET    | /api/studies/{slug}                 | signed in       | progress, cells, audit trail, backups              |
| POST   | /api/studies/{slug}/do/{action}     | see ACTIONS     | launch, pause, drain, close, unblind               |
| GET    | /api/studies/{slug}/preview         | signed in       | words and pictures of the newest version           |
| GET    | /api/studies/{slug}/results         | owner, viewer   | counts, by alias until unblinded                   |
| GET    | /api/studies/{slug}/export.zip      | owner           | the whole export                                   |
| GET    | /api/studies/{slug}/quality         | owner, operator | sessions to decide about                           |
| POST   | /api/studies/{slug}/quality         | owner, operator | exclude, or undo an exclusion, with a reason       |
| POST   | /api/studies/{slug}/erase           | owner           | delete all that a session answered                 |
| GET    | /api/studies/{slug}/planning/{name} | signed in       | what app.py hands in that tells no result          |
| GET    | /api/studies/{slug}/outcomes/{name} | owner, viewer   | what app.py hands in that does                     |
| POST   | /api/backup                         | owner, operator | a copy now                                         |
"""

import hashlib
import hmac
import io
import json
import os
import secrets
import zipfile
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from db.connections import DatabaseError
from db.engine import Database
from db.models import ExclusionEffect, SessionState
from study import audit, export, publication, quality, signals
from study.adapters import adapter_files
from study.api import PAGE_HEADERS, PRIVATE, STATUS_OF_CODE, WEB_DIR, Clock, utc_microseconds
from study.backup import BackupError, Backups
from study.counters import CELL, SESSION, CountError
from study.definition import DefinitionError, parse_definition
from study.design import Design, DesignError, Designs, load_design
from study.erasure import erase
from study.ingest import IngestError, ingest_study
from study.payment import PaymentKeys
from study.preview import preview_page
from study.publication import PublicationError, Visibility
from study.results import aliased_results
from study.service import Clocked, RandomBytes, RefusedError

Role = Literal["owner", "operator", "viewer"]
ROLES: tuple[Role, ...] = ("owner", "operator", "viewer")

ACTIONS: Mapping[str, frozenset[Role]] = {
    "launch": frozenset({"owner", "operator"}),
    "pause": frozenset({"owner", "operator"}),
    "drain": frozenset({"owner", "operator"}),
    "close": frozenset({"owner"}),
    "unblind": frozenset({"owner"}),
}

COOKIE = "asuka_admin"
SIGNED_IN_S = 12 * 3600
"""A working day, our choice; then the password again."""

SHORTEST_PASSWORD = 12
"""Characters; with five tries a minute a random one of 12 letters is never guessed."""

TRIES, TRIES_WITHIN_S = 5, 60
"""Wrong passwords per address and minute, our choice; addresses are kept in memory alone, salted and hashed."""

TRIES_OF_ALL = 50
"""Wrong passwords per minute from everywhere, against those who come from many addresses."""

LARGEST_BODY = 1_000_000
"""Bytes; a definition is the largest thing sent, and its own bound is the same."""

ZIP_DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest a ZIP can say: the same study gives the same file."""

Table = Mapping[str, Any]
"""What an analysis shows: `title`, `columns` (names), `rows` (lists of text and numbers), `note`."""

Analysis = Callable[[str], Table]
T = TypeVar("T")
Body = TypeVar("Body", bound=BaseModel)


class AdminError(Exception):
    """The admin page cannot be offered so; the message says what to set."""


@dataclass(frozen=True)
class Admission:
    """Who may come in: a password by role; roles without one do not exist.

    Args:
        passwords: at least 12 characters each, all different.
        secret: signs the cookies; replicas that share it share who is signed in. Random by default.

    Raises:
        AdminError: for a short or a shared password.
    """

    passwords: Mapping[Role, str]
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def __post_init__(self) -> None:
        given = list(self.passwords.values())
        if len(set(given)) != len(given):
            raise AdminError("Two roles have the same password; give each its own.")
        for role, password in self.passwords.items():
            if len(password) < SHORTEST_PASSWORD:
                raise AdminError(
                    f"The password of the {role} has {len(password)} characters; use {SHORTEST_PASSWORD} or more."
                )

    def role_of(self, password: str) -> Role | None:
        """Whose password this is; every password is compared, so the time tells nothing."""
        found: Role | None = None
        for role, right in self.passwords.items():
            if hmac.compare_digest(password.encode(), right.encode()):
                found = role
        return found

    def cookie(self, role: Role, *, now_s: int) -> str:
        """A cookie that says the role until it is too old."""
        said = f"{role}.{now_s + SIGNED_IN_S}.{secrets.token_hex(16)}"
        return f"{said}.{self._sign('cookie', said)}"

    def role_in(self, cookie: str, *, now_s: int) -> Role | None:
        """The role a cookie says, None if it is forged, too old or of a role that is no more."""
        said, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature, self._sign("cookie", said)):
            return None
        role, until, _ = said.split(".")
        return next((each for each in self.passwords if each == role and now_s < int(until)), None)

    def csrf(self, cookie: str) -> str:
        """What a form must say beside the cookie, so that no other site can send it."""
        return self._sign("csrf", cookie)

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.digest(self.secret, f"{purpose} {text}".encode(), "sha256").hex()


@dataclass(frozen=True)
class Surroundings:
    """What the page reaches beside the database.

    Attributes:
        backups: makes copies; None on PostgreSQL, whose server has its own.
        payments: the keys of the platforms' ids, destroyed with whom they belong to; None where none are kept.
        refuse_launch: raises `DatabaseError` when answers would be lost at a restart.
        studies_dir: below it lie the folders a new study may be made from; None offers no making.
        planning: analyses that tell nothing of the results (power), by name.
        outcomes: analyses that do, shown when results may be seen, by name.
    """

    backups: Backups | None = None
    payments: PaymentKeys | None = None
    refuse_launch: Callable[[], None] = lambda: None
    studies_dir: Path | None = None
    planning: Mapping[str, Analysis] = field(default_factory=dict[str, Analysis])
    outcomes: Mapping[str, Analysis] = field(default_factory=dict[str, Analysis])


def admin_router(
    database: Database,
    admission: Admission,
    around: Surroundings | None = None,
    *,
    clock: Clock = utc_microseconds,
    random_bytes: RandomBytes = os.urandom,
) -> APIRouter:
    """The routes of the admin page; put them before those of `study.api.router`, whose page takes any other word.

    Args:
        database: of the studies.
        admission: who may come in; without a password there is no page.
        around: what it reaches besides.
        clock: UTC microseconds.
        random_bytes: for a new study's seeds.

    Raises:
        AdminError: when no password is set.
    """
    if not admission.passwords:
        raise AdminError("The admin page needs a password; set ASUKA_ADMIN_OWNER, or leave the page out.")
    admin = _Admin(database, admission, around or Surroundings(), clock, random_bytes)
    everybody, running = frozenset(ROLES), frozenset[Role]({"owner", "operator"})
    owner, seeing = frozenset[Role]({"owner"}), frozenset[Role]({"owner", "viewer"})
    routes = APIRouter()
    routes.add_route("/study/admin", admin.page, methods=["GET"], include_in_schema=False)
    for method, path, roles, endpoint in (
        ("POST", "/login", None, admin.login),
        ("POST", "/logout", everybody, admin.logout),
        ("GET", "/me", everybody, admin.me),
        ("GET", "/studies", everybody, admin.studies),
        ("POST", "/studies", owner, admin.create),
        ("POST", "/definition", running, admin.check),
        ("GET", "/studies/{slug}", everybody, admin.study),
        ("POST", "/studies/{slug}/do/{action}", running, admin.act),
        ("GET", "/studies/{slug}/preview", everybody, admin.preview),
        ("GET", "/studies/{slug}/results", seeing, admin.results),
        ("GET", "/studies/{slug}/export.zip", owner, admin.export),
        ("GET", "/studies/{slug}/quality", running, admin.quality_queue),
        ("POST", "/studies/{slug}/quality", running, admin.decide),
        ("POST", "/studies/{slug}/erase", owner, admin.erase),
        ("GET", "/studies/{slug}/planning/{name}", everybody, admin.planning),
        ("GET", "/studies/{slug}/outcomes/{name}", seeing, admin.outcome),
        ("POST", "/backup", running, admin.backup),
    ):
        guarded = admin.guarded(endpoint, roles)
        routes.add_route(f"/study/admin/api{path}", guarded, methods=[method], include_in_schema=False)
    return routes


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Login(_Given):
    password: str = Field(max_length=1000)


class _Check(_Given):
    definition: str = Field(max_length=LARGEST_BODY)


class _Create(_Check):
    images: str
    holes: str
    results: str


class _Erase(_Given):
    session: str = Field(max_length=200)


class _Decision(_Given):
    """Either an exclusion or the undoing of one."""

    session: str | None = Field(default=None, max_length=200)
    effect: Literal["accept", "use", "flag"] = "use"
    exclusion: int | None = None
    reason: str = Field(min_length=3, max_length=1000)


class _RefusalError(Exception):
    """A request that gets another answer than it asked for."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.headers = headers or {}
        super().__init__(sentence)


_UNDERSTOOD = (
    PublicationError, DefinitionError, DesignError, IngestError, DatabaseError, BackupError, CountError,
    audit.AuditError,
)  # fmt: skip
"""Errors whose message is written for the researcher."""


class _Admin:
    """The endpoints."""

    def __init__(
        self,
        database: Database,
        admission: Admission,
        around: Surroundings,
        clock: Clock,
        random_bytes: RandomBytes,
    ) -> None:
        self._database = database
        self._admission = admission
        self._around = around
        self._clock = clock
        self._random_bytes = random_bytes
        self._designs = Designs()
        self._tries = _Tries()

    def guarded(
        self, endpoint: Callable[[Request], Awaitable[Response]], roles: frozenset[Role] | None
    ) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint for some roles alone, its refusals as replies; a change needs the CSRF token too."""

        async def guarding(request: Request) -> Response:
            try:
                if roles is not None:
                    self._admit(request, roles)
                return await endpoint(request)
            except _RefusalError as refusal:
                return _json({"error": str(refusal)}, refusal.status, refusal.headers)
            except RefusedError as refused:
                # A participant's session that is not there says nothing about who is signed in here.
                status = 404 if refused.code == "unknown_session" else STATUS_OF_CODE[refused.code]
                return _json({"error": str(refused)}, status)
            except _UNDERSTOOD as error:
                return _json({"error": str(error)}, 409)

        return guarding

    async def page(self, request: Request) -> Response:
        """The page itself, the same for everybody; what it shows it asks for."""
        del request
        text = await run_in_threadpool((WEB_DIR / "admin" / "admin.html").read_bytes)
        return Response(text, media_type="text/html", headers=_PAGE_HEADERS)

    async def login(self, request: Request) -> Response:
        given = await _read_body(request, _Login)
        visitor = request.client.host if request.client else ""
        now_s = self._clock() // 1_000_000
        if self._tries.too_many(visitor, now_s):
            raise _RefusalError(429, "Too many wrong passwords; wait a minute.", {"Retry-After": str(TRIES_WITHIN_S)})
        role = self._admission.role_of(given.password)
        if role is None:
            self._tries.remember(visitor, now_s)
            raise _RefusalError(401, "This is no password here.")
        cookie = self._admission.cookie(role, now_s=now_s)
        reply = _json({"role": role, "csrf": self._admission.csrf(cookie)})
        reply.set_cookie(
            COOKIE, cookie, max_age=SIGNED_IN_S, path="/study/admin", httponly=True, samesite="strict",
            secure=_is_https(request),
        )  # fmt: skip
        return reply

    async def logout(self, request: Request) -> Response:
        del request
        reply = _json({})
        reply.delete_cookie(COOKIE, path="/study/admin", httponly=True, samesite="strict")
        return reply

    async def me(self, request: Request) -> Response:
        offers = {
            "planning": sorted(self._around.planning),
            "outcomes": sorted(self._around.outcomes),
            "create": self._around.studies_dir is not None,
            "backups": self._around.backups is not None,
        }
        return _json({"role": _role(request), "csrf": self._admission.csrf(request.cookies[COOKIE]), "offers": offers})

    async def studies(self, request: Request) -> Response:
        del request

        def ask(db: Session) -> list[dict[str, Any]]:
            return [asdict(publication.status(db, slug)) for slug in publication.every_study(db)]

        return _json(await self._read(ask))

    async def check(self, request: Request) -> Response:
        text = (await _read_body(request, _Check)).definition
        study = await run_in_threadpool(parse_definition, text)
        return _json(
            {"study": study.study, "sha256": study.sha256, "protocol": study.protocol, "methods": len(study.methods),
             "trials": study.plan.real}
        )  # fmt: skip

    async def create(self, request: Request) -> Response:
        given = await _read_body(request, _Create)
        study = parse_definition(given.definition)
        folders = [self._folder(name) for name in (given.images, given.holes, given.results)]

        def work() -> dict[str, Any]:
            stored = ingest_study(self._database, study, *folders, now=self._clock(), random_bytes=self._random_bytes)
            return asdict(stored)

        stored = await run_in_threadpool(work)
        await self._audited(request, "ingest", study.study, stored)
        return _json(stored)

    async def study(self, request: Request) -> Response:
        slug = request.path_params["slug"]

        def ask(db: Session) -> dict[str, Any]:
            status = publication.status(db, slug)
            row = publication.newest_version(db, slug)
            design = load_design(db, row.id)
            return {
                "status": asdict(status),
                "visibility": publication.visibility(db, row.id).value,
                "cells": _cells(db, design),
                "flow": asdict(quality.flow(db, row.id)),
                "alarms": [alarm.sentence for alarm in signals.alarms(db, row.id, now=self._clock())],
                "sessions_by_hour": _arrivals(db, row.id),
                "audit": [asdict(entry) for entry in audit.entries(db, limit=20)],
                "audit_rows": audit.verify_chain(db),
            }

        found = await self._read(ask)
        backups = self._around.backups
        found["backup"] = None if backups is None else asdict(await run_in_threadpool(backups.state))
        return _json(found)

    async def act(self, request: Request) -> Response:
        slug, action = request.path_params["slug"], request.path_params["action"]
        if action not in ACTIONS:
            raise _RefusalError(404, f"There is no action {action!r}.")
        if _role(request) not in ACTIONS[action]:
            raise _RefusalError(403, f"Your role may not {action} a study.")
        if action == "launch":
            await run_in_threadpool(self._around.refuse_launch)
        deed = getattr(publication, action)
        actor = f"page:{_role(request)}"
        await run_in_threadpool(lambda: deed(self._database, slug, now=self._clock(), actor=actor))
        if self._around.backups is not None:
            await run_in_threadpool(self._around.backups.copy_now)
        return _json(asdict(await self._read(lambda db: publication.status(db, slug))))

    async def preview(self, request: Request) -> Response:
        page = await self._read(lambda db: preview_page(db, request.path_params["slug"]))
        return Response(page, media_type="text/html", headers=PRIVATE | {"Content-Security-Policy": _PREVIEW_POLICY})

    async def results(self, request: Request) -> Response:
        return _json(asdict(await self._read(lambda db: aliased_results(db, request.path_params["slug"]))))

    async def export(self, request: Request) -> Response:
        slug = request.path_params["slug"]

        def work(db: Session) -> bytes:
            read = export.read_export(db, export.find_launched(db, slug))
            return _zip(export.export_files(read, beside=adapter_files(read)))

        content = await self._read(work)
        await self._audited(request, "export", slug, {"sha256": hashlib.sha256(content).hexdigest()})
        disposition = {"Content-Disposition": f'attachment; filename="{slug}.zip"'}
        return Response(content, media_type="application/zip", headers=PRIVATE | disposition)

    async def quality_queue(self, request: Request) -> Response:
        return _json(await self._read(lambda db: _queue(db, request.path_params["slug"])))

    async def decide(self, request: Request) -> Response:
        slug, given = request.path_params["slug"], await _read_body(request, _Decision)
        actor, now = f"page:{_role(request)}", self._clock()

        def step(db: Session) -> int:
            version = publication.find_version(db, slug).id
            if given.session is not None and given.exclusion is None:
                effect = ExclusionEffect(given.effect)
                return quality.exclude(
                    db, version, given.session, effect=effect, reason=given.reason, actor=actor, at=now
                )
            if given.exclusion is not None and given.session is None:
                return quality.reverse(db, version, given.exclusion, reason=given.reason, actor=actor, at=now)
            raise _RefusalError(400, "Name either a session to exclude or an exclusion to undo.")

        return _json({"id": await self._database.write_async(step)})

    async def erase(self, request: Request) -> Response:
        session, slug = (await _read_body(request, _Erase)).session, request.path_params["slug"]
        at, actor = Clocked(self._clock(), self._random_bytes), f"page:{_role(request)}"
        step = partial(erase, actor=actor, keys=self._around.payments)
        await run_in_threadpool(step, self._database, self._designs, slug, session, at)
        return _json({})

    async def planning(self, request: Request) -> Response:
        return await self._analysis(request, self._around.planning)

    async def outcome(self, request: Request) -> Response:
        slug = request.path_params["slug"]
        seen = await self._read(lambda db: publication.visibility(db, publication.find_version(db, slug).id))
        if seen is not Visibility.OPEN:
            raise _RefusalError(403, "Results are shown when the study is closed and unblinded.")
        return await self._analysis(request, self._around.outcomes)

    async def backup(self, request: Request) -> Response:
        del request
        if self._around.backups is None:
            raise _RefusalError(409, "No backup folder is set (ASUKA_BACKUP_DIR), or the database is a server's.")
        made = await run_in_threadpool(self._around.backups.copy_now)
        return _json({"made_at": made.made_at, "sha256": made.sha256})

    async def _analysis(self, request: Request, offered: Mapping[str, Analysis]) -> Response:
        analysis = offered.get(request.path_params["name"])
        if analysis is None:
            raise _RefusalError(404, "There is no such analysis here.")
        return _json(await run_in_threadpool(analysis, request.path_params["slug"]))

    def _admit(self, request: Request, roles: frozenset[Role]) -> None:
        cookie = request.cookies.get(COOKIE, "")
        role = self._admission.role_in(cookie, now_s=self._clock() // 1_000_000) if cookie else None
        if role is None:
            raise _RefusalError(401, "Sign in first.")
        if role not in roles:
            raise _RefusalError(403, f"This is not for the role {role}.")
        if request.method != "GET":
            said = request.headers.get("x-csrf-token", "")
            if not hmac.compare_digest(said.encode(), self._admission.csrf(cookie).encode()):
                raise _RefusalError(403, "The page is out of date; reload it.")
        request.state.role = role

    def _folder(self, name: str) -> Path:
        """A folder below the one for studies; nobody reads another through this page."""
        if self._around.studies_dir is None:
            raise _RefusalError(409, "Studies are made from a terminal here: python -m study ingest.")
        root = self._around.studies_dir.resolve()
        folder = (root / name).resolve()
        if not folder.is_relative_to(root) or not folder.is_dir():
            raise _RefusalError(400, f"There is no folder {name!r} below {root}; put the pictures there first.")
        return folder

    async def _audited(self, request: Request, action: str, slug: str, payload: Mapping[str, Any]) -> None:
        actor, now = f"page:{_role(request)}", self._clock()
        await self._database.write_async(
            lambda db: audit.append(db, at=now, actor=actor, action=action, about=slug, payload=payload)
        )

    async def _read(self, question: Callable[[Session], T]) -> T:
        def ask() -> T:
            with self._database.read() as db:
                return question(db)

        return await run_in_threadpool(ask)


class _Tries:
    """Wrong passwords of the last minute, by a salted hash of where they came from; forgotten with the process."""

    def __init__(self) -> None:
        self._salt = secrets.token_bytes(16)
        self._wrong: deque[tuple[int, bytes]] = deque()

    def too_many(self, visitor: str, now_s: int) -> bool:
        while self._wrong and self._wrong[0][0] <= now_s - TRIES_WITHIN_S:
            self._wrong.popleft()
        theirs = self._hash(visitor)
        return len(self._wrong) >= TRIES_OF_ALL or sum(who == theirs for _, who in self._wrong) >= TRIES

    def remember(self, visitor: str, now_s: int) -> None:
        self._wrong.append((now_s, self._hash(visitor)))

    def _hash(self, visitor: str) -> bytes:
        return hmac.digest(self._salt, visitor.encode(), "sha256")


_PAGE_HEADERS = PAGE_HEADERS | {
    "X-Robots-Tag": "noindex",
    # Shown within our own page alone: nobody can lay something over its buttons.
    "Content-Security-Policy": f"{PAGE_HEADERS['Content-Security-Policy']}; frame-ancestors 'self'",
}
_PREVIEW_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def _cells(db: Session, design: Design) -> dict[str, Any]:
    """The grid of cells: valid answers and those under way, images down, pairs with their sides (or orders) across."""
    rows = db.execute(
        select(CELL.c.n_valid, CELL.c.n_live, CELL.c.n_partial)
        .where(CELL.c.version_id == design.version_id)
        .order_by(CELL.c.id)
    ).all()
    images, pairs, sides = design.shape
    across = pairs * sides
    alias = {method.id: method.alias for method in design.methods}
    columns = (
        [f"{alias[pair[side]]} left of {alias[pair[1 - side]]}" for pair in design.pairs for side in range(sides)]
        if design.pairs
        else [f"order {number + 1}" for number in range(across)]
    )
    return {
        "target": design.cell_target,
        "columns": columns,
        "images": [image.key for image in design.images],
        "valid": [[row.n_valid for row in rows[at * across : (at + 1) * across]] for at in range(images)],
        "live": [[row.n_live for row in rows[at * across : (at + 1) * across]] for at in range(images)],
    }


_ASKED_NOTHING = frozenset({SessionState.CREATED, SessionState.SCREENED_OUT, SessionState.DECLINED})
"""Nothing of them can be used, and by no rule of theirs is anybody paid: their platform's code for it says that."""


def _queue(db: Session, slug: str) -> list[dict[str, Any]]:
    """Sessions with what the rules say of them, those that break one first, those that were asked nothing last."""
    found = quality.verdicts(db, publication.find_version(db, slug).id)
    told: list[dict[str, Any]] = []

    def broken_by(verdict: quality.Verdict) -> list[quality.Finding]:
        asked = verdict.state not in _ASKED_NOTHING
        return [each for each in verdict.findings if each.broken and asked]

    for verdict in sorted(found, key=lambda each: (each.state in _ASKED_NOTHING, not broken_by(each))):
        asked, broken = verdict.state not in _ASKED_NOTHING, broken_by(verdict)
        told.append(
            {
                "session": verdict.session,
                "state": verdict.state.value,
                "accept": verdict.accept if asked else None,
                "use": verdict.use if asked else None,
                "broken": [f"{each.rule} ({each.effect.value}): {_evidence(each.evidence)}" for each in broken],
                "exclusions": [
                    {"id": each.id, "rule": each.rule, "effect": each.effect.value} for each in verdict.in_force
                ],
            }
        )
    return told


def _evidence(evidence: Mapping[str, float | str | None]) -> str:
    return ", ".join(f"{name} {value}" for name, value in evidence.items())


HOUR = 3600 * 1_000_000
MOST_HOURS = 72


def _arrivals(db: Session, version_id: int) -> list[tuple[int, int]]:
    """(hour as UTC microseconds, sessions begun) for the latest hours in which anybody came."""
    hour = (SESSION.c.created_at // HOUR).label("hour")
    rows = db.execute(
        select(hour, func.count())
        .where(SESSION.c.version_id == version_id)
        .group_by(hour)
        .order_by(hour.desc())
        .limit(MOST_HOURS)
    ).all()
    return [(int(found) * HOUR, number) for found, number in reversed(rows)]


def _zip(files: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), data, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _role(request: Request) -> str:
    return request.state.role


def _is_https(request: Request) -> bool:
    """Whether the visitor came by https, also through a proxy that ends it."""
    return request.headers.get("x-forwarded-proto", request.url.scheme).split(",")[0].strip() == "https"


async def _read_body(request: Request, model: type[Body]) -> Body:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise _RefusalError(413, f"A request may have at most {LARGEST_BODY} bytes.")
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise _RefusalError(400, f"The request is not understood ({place}: {first['msg']}).") from error


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return Response(text, status, media_type="application/json", headers={**PRIVATE, **(headers or {})})
