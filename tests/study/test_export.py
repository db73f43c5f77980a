"""What leaves the database: the same bytes from both databases, blind until unblinded, and nothing of the erased."""

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from analysis.vote_files import read_votes
from db import models
from db.engine import Database
from db.migrate import migrate
from study.adapters import adapter_files
from study.api import router
from study.codebook import TABLES
from study.definition import definition_from
from study.export import export_files, find_launched, read_export, write_export
from study.publication import close, unblind
from study.service import RefusedError
from tests.study.conftest import POSTGRES_URL, empty_postgres
from tests.study.stage import (
    METHODS,
    START,
    Clock,
    Folders,
    Participant,
    Stage,
    definition,
    ingest_and_launch,
    seeded_bytes,
)


@contextmanager
def served(database: Database, *, seed: int = 7) -> Generator[tuple[TestClient, Clock]]:
    clock = Clock()
    app = FastAPI(openapi_url=None)
    app.include_router(router(database, clock=clock, random_bytes=seeded_bytes(seed)))
    with TestClient(app) as client:
        yield client, clock


def take_part(client: TestClient, clock: Clock, **report: Any) -> Participant:
    participant = Participant(client)
    participant.join()
    participant.post("/sessions/me/environment", {"css_width": 1280, "css_height": 800} | report)
    participant.agree()
    reply = participant.get("/trial")
    answers = [{"position": 0}, {"position": 1}, {"outcome": "tie", "position": None}]
    while reply["state"] == "running":
        clock.pass_seconds(4)
        reply = participant.answer(reply["trial"], rt_ms=900, **answers[reply["trial"]["number"] % 3])
    participant.post("/events", {"events": [{"type": "blur", "t_ms": 1700}, {"type": "focus", "t_ms": 2000}]})
    return participant


def a_study(database: Database, folders: Folders) -> None:
    """Two people finish, one stops half-way, one is erased."""
    ingest_and_launch(database, folders, definition())
    with served(database) as (client, clock):
        take_part(client, clock)
        erased = take_part(client, clock)
        take_part(client, clock, device_pixel_ratio=1.5)
        half = Participant(client).start()
        half.answer(half.get("/trial")["trial"])
        erased.post("/sessions/me/withdraw", {"erase": True})


def files_of(database: Database) -> dict[str, bytes]:
    with database.read() as db:
        export = read_export(db, find_launched(db, "trial-run"))
    return export_files(export, beside=adapter_files(export), commit="f" * 40)


def end(database: Database) -> None:
    close(database, "trial-run", now=START)
    unblind(database, "trial-run", now=START, actor="owner")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, folders: Folders) -> dict[str, bytes]:
    url = f"sqlite:///{tmp_path_factory.mktemp('export') / 'study.sqlite'}"
    migrate(url)
    with Database.open(url) as database:
        a_study(database, folders)
        end(database)
        files = files_of(database)
        assert files == files_of(database)
    return files


def rows(files: dict[str, bytes], table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(files[f"{table}.csv"].decode())))


def test_the_manifest_has_the_hash_of_every_file_and_the_schema_revision(whole: dict[str, bytes]) -> None:
    manifest = json.loads(whole["manifest.json"])
    assert manifest["sha256"] == {
        name: hashlib.sha256(content).hexdigest() for name, content in whole.items() if name != "manifest.json"
    }
    assert {"pwcmp.csv", "arena_battles.csv", "crowdkit.csv", "study.yaml"} <= set(whole)
    assert manifest["rows"] == {"votes": 26, "sessions": 3, "trials": 15, "exclusions": 0, "events": 4}
    assert manifest["commit"] == "f" * 40
    assert (manifest["blind"], manifest["spec_sha256"]) == (False, definition().sha256)


def test_csv_parquet_and_json_say_the_same(whole: dict[str, bytes]) -> None:
    for table, columns in TABLES.items():
        frame = pd.read_parquet(io.BytesIO(whole[f"{table}.parquet"]))
        as_json = json.loads(whole[f"{table}.json"])
        assert list(frame.columns) == [column.name for column in columns]
        assert len(frame) == len(as_json) == len(rows(whole, table))
        for record, row in zip(as_json, rows(whole, table), strict=True):
            for name, value in record.items():
                text = "|".join(value) if isinstance(value, list) else "" if value is None else value
                assert row[name] == str(int(text) if isinstance(text, bool) else text)


def test_the_definition_and_the_codebook_come_along(whole: dict[str, bytes]) -> None:
    assert definition_from(yaml.safe_load(whole["study.yaml"])).sha256 == definition().sha256
    book = json.loads(whole["codebook.json"])
    question = book["criteria"][0]
    assert question["question_sha256"]["en"] == hashlib.sha256(question["question"]["en"].encode()).hexdigest()
    told = {table: [column["name"] for column in columns] for table, columns in book["tables"].items()}
    assert told == {table: [column.name for column in columns] for table, columns in TABLES.items()}


def test_the_flow_counts_who_arrived_finished_and_was_erased(whole: dict[str, bytes]) -> None:
    flow = json.loads(whole["flow.json"])
    assert (flow["arrived"], flow["erased"], flow["completed"], flow["used"]) == (4, 1, 2, 2)
    assert flow["by_state"] == {"completed": 2, "running": 1}


def test_participants_are_numbered_in_order_of_arrival_and_nothing_is_left_of_the_erased(
    whole: dict[str, bytes],
) -> None:
    assert [row["participant_no"] for row in rows(whole, "sessions")] == ["1", "3", "4"]
    assert {row["participant_no"] for row in rows(whole, "votes")} == {"1", "3", "4"}
    kept = {row["session_id"] for row in rows(whole, "sessions")}
    for table in ("votes", "trials", "events"):
        assert {row["session_id"] for row in rows(whole, table)} <= kept


def test_the_primary_set_is_the_first_answers_of_each_cell(database: Database, folders: Folders) -> None:
    study = definition(target={"per_cell": 2, "participants": 1000}, results="public")
    ingest_and_launch(database, folders, study)
    with served(database) as (client, clock):
        for _ in range(14):
            take_part(client, clock)
    votes = json.loads(files_of(database)["votes.json"])
    taken: Counter[tuple[Any, ...]] = Counter()
    for vote in sorted(votes, key=lambda vote: vote["answered_at"]):
        cell = (vote["image_key"], tuple(vote["methods_shown"]), vote["criterion"])
        taken[cell] += 1
        assert vote["in_primary_set"] == (taken[cell] <= 1)  # two per pair: one for each side
    assert max(taken.values()) > 1


def test_the_analysis_reads_the_folder(whole: dict[str, bytes], tmp_path: Path) -> None:
    write_export(whole, tmp_path / "out")
    from_parquet = read_votes(tmp_path / "out")
    from_csv = read_votes(tmp_path / "out" / "votes.csv")
    assert from_parquet.methods == from_csv.methods == METHODS
    assert from_parquet.position.tolist() == from_csv.position.tolist()
    assert len(from_csv.position) == 26


@pytest.mark.parametrize(("name", "ties"), [("pwcmp.csv", 0), ("arena_battles.csv", 8)])
def test_the_analysis_reads_other_tools_layouts_with_the_same_winners(
    whole: dict[str, bytes], tmp_path: Path, name: str, ties: int
) -> None:
    (tmp_path / name).write_bytes(whole[name])
    read = read_votes(tmp_path / name)
    chosen = [row["method_chosen"] for row in rows(whole, "votes") if row["outcome"] == "choice"]
    won = [read.methods[read.shown[at, place]] for at, place in enumerate(read.position.tolist()) if place >= 0]
    assert Counter(won) == Counter(chosen)
    assert len(read.position) == len(chosen) + ties


def test_hidden_until_closed_and_aliased_until_unblinded(stage: Stage) -> None:
    stage.participant().start().answer_all()
    with stage.database.read() as db, pytest.raises(RefusedError, match="hidden until it is closed"):
        read_export(db, find_launched(db, "trial-run"))
    close(stage.database, "trial-run", now=START)
    blind = files_of(stage.database)
    assert json.loads(blind["manifest.json"])["blind"] is True
    for name in set(blind) - {"study.yaml"}:
        assert not any(method.encode() in blind[name] for method in METHODS)
    with stage.database.read() as db:
        aliases = {row.alias: row.key for row in db.execute(select(models.Method.alias, models.Method.key))}
    unblind(stage.database, "trial-run", now=START, actor="owner")
    seen = rows(files_of(stage.database), "votes")
    assert [aliases[row["method_chosen"]] for row in rows(blind, "votes")] == [row["method_chosen"] for row in seen]


def test_an_unknown_version_is_refused_naming_those_there_are(stage: Stage) -> None:
    with stage.database.read() as db, pytest.raises(RefusedError, match=r"no launched version 7 \(there are: 1\)"):
        find_launched(db, "trial-run", 7)


@pytest.mark.postgres
@pytest.mark.skipif(not POSTGRES_URL, reason="ASUKA_TEST_POSTGRES_URL is not set; .ci/postgres prints its value")
def test_sqlite_and_postgresql_export_the_same_bytes(whole: dict[str, bytes], folders: Folders) -> None:
    url = os.environ["ASUKA_TEST_POSTGRES_URL"]
    empty_postgres(url)
    migrate(url)
    with Database.open(url) as database:
        a_study(database, folders)
        end(database)
        assert files_of(database) == whole
