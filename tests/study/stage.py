"""A small real study on disk and in a real database, and a participant who walks through it over HTTP."""

import itertools
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.testclient import TestClient

from asuka_infer.compositing import exact
from asuka_infer.holes import hole_sha256, write_hole_png
from asuka_infer.images import encode_png, pixel_sha256, write_atomically
from asuka_infer.run_record import RunRecord, record_path
from db.engine import Database
from study.api import router
from study.definition import StudyDefinition, definition_from
from study.ingest import Ingested, ingest_study
from study.publication import launch

METHODS = ("gleam-fill", "murk-fill", "zephyr-fill")
START = 1_790_000_000_000_000  # microseconds: some day in 2026


def soaked(sample: int, whole: int) -> int:
    """How many of something a test tries: a sample, or with ASUKA_SOAK set the whole that the design asks for."""
    return whole if os.environ.get("ASUKA_SOAK") else sample


@dataclass
class Clock:
    """UTC microseconds that move only when a test says so."""

    now: int = START

    def __call__(self) -> int:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += round(seconds * 1_000_000)


@dataclass
class Folders:
    """A study's pictures on disk."""

    images: Path
    holes: Path
    results: Path


def definition(**changes: Any) -> StudyDefinition:
    plain: dict[str, Any] = {
        "study": "trial-run",
        "title": "Which is better?",
        "protocol": "pairwise",
        "contrasts": "round_robin",
        "methods": [{"key": key} for key in METHODS],
        "criteria": [
            {"key": "context_stability", "title": "C.S.", "question": "More stable?", "allow": ["tie", "cant_tell"]},
            {"key": "visual_consistency", "title": "V.C.", "question": "More consistent?", "allow": ["tie"]},
        ],
        "plan": {"real": 6},
        "consent": {"text": "Answers are stored.", "boxes": {"agree": "I take part freely."}},
        "results": "on_close",
    }
    return definition_from(plain | changes)


def draw_study(root: Path, *, images: int = 8, methods: tuple[str, ...] = METHODS, size: int = 48) -> Folders:
    """Photographs, holes and results as `asuka_infer batch` writes them; every picture differs from every other."""
    folders = Folders(root / "images", root / "holes", root / "results")
    for folder in (folders.images, folders.holes, *(folders.results / method for method in methods)):
        folder.mkdir(parents=True)
    generator = np.random.default_rng(5)
    for number in range(images):
        key = f"scene{number:02d}"
        original = generator.integers(0, 256, (size, size + 8, 3), dtype=np.uint8)
        hole = np.zeros(original.shape[:2], dtype=np.bool_)
        hole[10 : 20 + number, 12:30] = True
        write_atomically(folders.images / f"{key}.png", encode_png(original))
        write_hole_png(folders.holes / f"{key}.png", hole)
        for at, method in enumerate(methods):
            filling = np.full_like(original, (40 + 60 * at) % 256)
            # Different methods compress differently, as real ones do: the length oracle has something to find.
            filling[:: at + 2] = generator.integers(0, 256, filling[:: at + 2].shape, dtype=np.uint8)
            save_result(folders, method, key, exact(original, filling, hole), original=original, hole=hole)
    return folders


def save_result(
    folders: Folders, method: str, key: str, result: np.ndarray, *, original: np.ndarray, hole: np.ndarray
) -> None:
    path = folders.results / method / f"{key}.png"
    write_atomically(path, encode_png(result, text={"Software": method}))
    record = RunRecord(
        method=method,
        seed=1,
        settings={},
        framing={},
        compositing="exact",
        image_sha256=pixel_sha256(original),
        hole_sha256=hole_sha256(hole),
        result_sha256=pixel_sha256(result),
        width=result.shape[1],
        height=result.shape[0],
        weights={},
        versions={"app": "test"},
        seconds=0.1,
        created_at="2026-11-20T12:00:00+00:00",
    )
    write_atomically(record_path(path), record.to_json().encode())


def seeded_bytes(seed: int = 1) -> Callable[[int], bytes]:
    generator = random.Random(seed)
    return generator.randbytes


@dataclass
class Participant:
    """Answers a study through the HTTP API as the page does."""

    client: TestClient
    slug: str = "trial-run"
    token: str = ""
    keys: Iterator[str] = field(default_factory=lambda: (f"key-{number}" for number in itertools.count()))

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def join(self, **request: Any) -> dict[str, Any]:
        reply = self.client.post("/study/api/v1/sessions", json={"study": self.slug} | request)
        assert reply.status_code == 200, reply.text
        self.token = reply.json()["token"]
        return reply.json()["session"]

    def agree(self) -> dict[str, Any]:
        return self.post("/sessions/me/consent", {"accepted": True, "boxes": ["agree"]})

    def start(self, **request: Any) -> "Participant":
        self.join(**request)
        assert self.agree()["state"] == "running"
        return self

    def start_practice(self) -> "Participant":
        self.join()
        assert self.agree()["state"] == "practising"
        return self

    def get(self, path: str) -> dict[str, Any]:
        reply = self.client.get(f"/study/api/v1{path}", headers=self.headers)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        reply = self.client.post(f"/study/api/v1{path}", json=body or {}, headers=self.headers)
        assert reply.is_success, reply.text
        return reply.json() if reply.content else {}

    def try_answer(self, trial: dict[str, Any], *, key: str | None = None, **changes: Any) -> Any:
        responses = [{"criterion": criterion, "outcome": "choice", "position": 0} for criterion in trial["criteria"]]
        body = {"responses": [response | changes for response in responses]}
        headers = self.headers | {"Idempotency-Key": key if key is not None else next(self.keys)}
        return self.client.post(f"/study/api/v1/trial/{trial['id']}/answer", json=body, headers=headers)

    def answer(self, trial: dict[str, Any], **changes: Any) -> dict[str, Any]:
        reply = self.try_answer(trial, **changes)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def picture(self, token: str) -> Any:
        return self.client.get(f"/study/s/{token}", headers=self.headers)

    def answer_all(self) -> dict[str, Any]:
        reply = self.get("/trial")
        while reply["state"] == "running":
            reply = self.answer(reply["trial"])
        return reply


@dataclass
class Stage:
    """A launched study with its server."""

    database: Database
    clock: Clock
    folders: Folders
    client: TestClient
    ingested: Ingested

    def participant(self) -> Participant:
        return Participant(self.client)


def ingest_and_launch(
    database: Database, folders: Folders, study: StudyDefinition, *, seed: int = 1, replace: bool = False
) -> Ingested:
    ingested = ingest_study(
        database, study, folders.images, folders.holes, folders.results, now=START, random_bytes=seeded_bytes(seed)
    )
    launch(database, study.study, now=START, replace=replace)
    return ingested


class open_stage:  # noqa: N801 - used as a function in `with`
    """Ingest, launch and serve a study; `seed` is of its secrets, `options` are the router's."""

    def __init__(
        self,
        database: Database,
        folders: Folders,
        study: StudyDefinition,
        *,
        seed: int = 1,
        replace: bool = False,
        **options: Any,
    ) -> None:
        clock = Clock()
        ingested = ingest_and_launch(database, folders, study, seed=seed, replace=replace)
        app = FastAPI(openapi_url=None)
        app.include_router(router(database, clock=clock, **options))
        self._client = TestClient(app)
        self._stage = Stage(database, clock, folders, self._client, ingested)

    def __enter__(self) -> Stage:
        self._client.__enter__()
        return self._stage

    def __exit__(self, *error: object) -> None:
        self._client.__exit__()
