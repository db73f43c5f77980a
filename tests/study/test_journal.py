"""The journal has every acknowledged answer, nobody can read it, and erasing a session empties it of that one."""

import base64
import json
import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import models
from db.engine import Database
from db.models import ExclusionEffect
from db.writer import Note, note
from study import audit, counters, quality
from study.api import router
from study.backup import make_snapshot, restore
from study.export import export_files, find_launched, read_export
from study.journal import Journal, JournalError, Keys
from study.publication import close, unblind
from tests.study.stage import START, Participant


@pytest.fixture
def home(tmp_path: Path, launched_file: Path) -> Path:
    (tmp_path / "live.sqlite").write_bytes(launched_file.read_bytes())
    return tmp_path


@contextmanager
def running(home: Path, database: str = "live.sqlite") -> Generator[TestClient]:
    journal = Journal(home / "backups")
    with Database.open(f"sqlite:///{home / database}", follower=journal) as opened:
        app = FastAPI(openapi_url=None)
        app.include_router(router(opened))
        with TestClient(app) as client:
            yield client
    journal.close()


def restored(home: Path, name: str = "back.sqlite") -> str:
    restore(home / "backups", f"sqlite:///{home / name}")
    return f"sqlite:///{home / name}"


def tables_of(url: str) -> dict[str, object]:
    with Database.open(url) as database:
        close(database, "trial-run", now=START)
        unblind(database, "trial-run", now=START, actor="owner")
        with database.read() as db:
            files = export_files(read_export(db, find_launched(db, "trial-run")))
    return {name: json.loads(files[f"{name}.json"]) for name in ("votes", "trials", "sessions")}


def journal_text(home: Path) -> str:
    return "".join(file.read_text() for file in sorted((home / "backups" / "journal").glob("*.jsonl")))


def test_a_lost_database_comes_back_from_an_old_copy_and_the_journal(home: Path) -> None:
    make_snapshot(home / "live.sqlite", home / "backups")
    with running(home) as client:
        Participant(client).start().answer_all()
    with running(home) as client:  # after a restart: a journal of its own
        half = Participant(client).start()
        half.answer(half.answer(half.get("/trial")["trial"])["trial"])
    assert len(list((home / "backups" / "journal").iterdir())) == 2
    was, now = tables_of(f"sqlite:///{home / 'live.sqlite'}"), tables_of(restored(home))
    assert now["votes"] == was["votes"]
    assert now["sessions"] == was["sessions"]


def test_a_participant_goes_on_in_the_restored_database(home: Path) -> None:
    make_snapshot(home / "live.sqlite", home / "backups")
    with running(home) as client:
        before = Participant(client).start()
        before.answer(before.get("/trial")["trial"])
    restored(home)
    with running(home, "back.sqlite") as client:
        after = Participant(client, token=before.token, keys=before.keys)
        assert after.get("/sessions/me")["progress"]["answered"] == 1
        assert after.answer_all()["state"] == "completed"


def test_a_key_that_was_not_finished_when_the_power_went_stops_nobody(home: Path) -> None:
    make_snapshot(home / "live.sqlite", home / "backups")
    with running(home) as client:
        participant = Participant(client).start()
        with sqlite3.connect(home / "live.sqlite") as connection:
            (public,) = connection.execute("SELECT public_id FROM session").fetchone()
        connection.close()
        (home / "backups" / "keys" / f"{public}.new").write_bytes(b"half")
        participant.answer_all()
    assert [file.name for file in (home / "backups" / "keys").iterdir()] == [f"{public}.key"]
    assert tables_of(restored(home))["votes"] == tables_of(f"sqlite:///{home / 'live.sqlite'}")["votes"]


def test_many_who_begin_at_once_have_a_key_each(home: Path) -> None:
    keys = Keys(home / "keys")
    people = [f"{number:032x}" for number in range(40)]
    keys.make([*people, people[0]])
    sealed = {person: keys[person].encrypt(b"n" * 12, person.encode(), None) for person in people}
    again = Keys(home / "keys")
    again.make(people)
    assert [again[person].decrypt(b"n" * 12, sealed[person], None).decode() for person in people] == people
    assert len({file.read_bytes() for file in (home / "keys").iterdir()}) == 40


def test_what_the_copy_has_already_is_not_written_twice_nor_set_back(home: Path) -> None:
    with running(home) as client:
        Participant(client).start().answer_all()
    make_snapshot(home / "live.sqlite", home / "backups")
    assert tables_of(restored(home)) == tables_of(f"sqlite:///{home / 'live.sqlite'}")


def test_exclusions_and_what_undid_them_come_back_with_their_reasons(home: Path) -> None:
    with running(home) as client:
        for _ in range(3):
            Participant(client).start().answer_all()
    make_snapshot(home / "live.sqlite", home / "backups")
    journal = Journal(home / "backups")
    with Database.open(f"sqlite:///{home / 'live.sqlite'}", follower=journal) as database:
        with database.read() as db:
            first, second, third = (each.session for each in quality.verdicts(db, 1))

        def by_hand(db: Session) -> None:
            common: dict[str, Any] = {"actor": "page:owner", "at": START}
            for session, effect in ((first, "use"), (second, "use"), (third, "accept")):
                told = ExclusionEffect(effect)
                made = quality.exclude(db, 1, session, effect=told, reason=f"phone rang {effect}", **common)
                if session == second:
                    quality.reverse(db, 1, made, reason="it did not", **common)

        database.write(by_hand)
        with database.read() as db:
            was = (quality.verdicts(db, 1), used_votes(db), audit.entries(db))
    journal.close()
    assert "phone rang" not in journal_text(home)
    with Database.open(restored(home)) as database, database.read() as db:
        now = (quality.verdicts(db, 1), used_votes(db), audit.entries(db))
        counters.verify(db, 1)
    assert now[:2] == was[:2]
    assert [each.use for each in now[0]] == [False, True, True]
    assert [each.accept for each in now[0]] == [True, True, False]
    told = [[(each.at, each.actor, each.action, each.payload_sha256) for each in trail] for _, _, trail in (was, now)]
    assert told[0] == told[1]


def used_votes(db: Session) -> dict[int, int]:
    """Votes that are analysed, by session."""
    vote = models.AnalysisVote
    rows = db.execute(select(vote.session_id, func.sum(vote.used).label("used")).group_by(vote.session_id))
    return {row.session_id: row.used for row in rows}


def test_nothing_of_an_answer_can_be_read_without_the_sessions_key(home: Path) -> None:
    with running(home) as client:
        Participant(client).start().answer_all()
    lines = [json.loads(line) for line in journal_text(home).splitlines()]
    assert len(lines) == 6
    for line in lines:
        assert set(line) == {"place", "session", "data"}
        assert b"response" not in base64.b64decode(line["data"])
    assert (home / "backups" / "keys" / f"{lines[0]['session']}.key").stat().st_mode & 0o077 == 0


def test_erasing_a_session_destroys_its_key_and_reaches_old_copies(home: Path) -> None:
    with running(home) as client:
        leaver, stayer = Participant(client).start(), Participant(client).start()
        leaver.answer_all()
        make_snapshot(home / "live.sqlite", home / "backups")
        stayer.answer_all()
        leaver.post("/sessions/me/withdraw", {"erase": True})
    assert len(list((home / "backups" / "keys").iterdir())) == 1
    with Database.open(restored(home)) as database, database.read() as db:
        states = db.execute(select(models.StudySession.state).order_by(models.StudySession.id)).scalars().all()
        assert states == [models.SessionState.WITHDRAWN, models.SessionState.COMPLETED]
        answered = {row.session_id for row in db.execute(select(models.Trial.session_id))}
        assert len(answered) == 1


def test_a_line_that_broke_off_was_never_acknowledged_and_is_left_out(home: Path) -> None:
    make_snapshot(home / "live.sqlite", home / "backups")
    with running(home) as client:
        Participant(client).start().answer_all()
    file = next((home / "backups" / "journal").iterdir())
    file.write_bytes(file.read_bytes() + b'{"place": "half a li')
    assert len(tables_of(restored(home))["votes"]) == 12  # type: ignore[arg-type]


def test_a_changed_line_is_refused_and_leaves_no_database_behind(home: Path) -> None:
    make_snapshot(home / "live.sqlite", home / "backups")
    with running(home) as client:
        Participant(client).start().answer_all()
    file = next((home / "backups" / "journal").iterdir())
    first, *rest = file.read_text().splitlines()
    second = json.loads(rest[0])
    file.write_text("\n".join([json.dumps(json.loads(first) | {"data": second["data"]}), *rest, ""]))
    with pytest.raises(JournalError, match="was changed"):
        restored(home)
    assert not (home / "back.sqlite").exists()


class Refusing:
    """A follower whose disk is full once."""

    def __init__(self) -> None:
        self.refuse = True
        self.kept: list[bytes] = []

    def collect(self, connection: sqlite3.Connection, notes: list[Note]) -> bytes:
        del connection
        return b"".join(f"{each.word} {each.row_id};".encode() for each in notes)

    def append(self, record: bytes) -> None:
        if self.refuse:
            self.refuse = False
            raise JournalError("full")
        self.kept.append(record)


def test_nobody_is_answered_before_the_journal_has_it(home: Path) -> None:
    follower = Refusing()
    with Database.open(f"sqlite:///{home / 'live.sqlite'}", follower=follower) as database:  # type: ignore[arg-type]
        with pytest.raises(JournalError, match="full"):
            database.write(lambda db: note(db, "answered", 1))
        database.write(lambda db: note(db, "answered", 2))
        with pytest.raises(RuntimeError, match="undone"):
            database.write(_noted_and_undone)
    assert b"".join(follower.kept) == b"answered 2;"


def _noted_and_undone(db: object) -> None:
    note(db, "answered", 3)  # type: ignore[arg-type]
    raise RuntimeError("undone")


def test_a_full_disk_is_said_and_made_good_by_the_next_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(home / "backups")
    write = os.write

    def write_three(file: int, content: bytes) -> int:
        return write(file, content[:3])

    monkeypatch.setattr(os, "write", write_three)
    with pytest.raises(JournalError, match="only a part"):
        journal.append(b'{"a": 1}\n')
    monkeypatch.undo()
    journal.append(b'{"b": 2}\n')
    journal.close()
    assert journal_text(home) == '{"a": 1}\n{"b": 2}\n'
