"""Platform ids: readable to pay by, in one encrypted column and nowhere else, gone when their time is up."""

import base64
import csv
import io
import shutil
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, inspect, select, update

from db import models
from db.base import Base
from db.engine import Database
from study import export, payment, quality, service
from study.admin import Admission, Surroundings, admin_router
from study.cli import main
from study.codebook import TABLES
from study.design import Designs
from study.messages import JoinRequest
from study.payment import DAY, PaymentError, PaymentKeys, keys_folder
from study.publication import close
from study.service import Clocked
from tests.study.stage import START, Folders, Stage, definition, open_stage, seeded_bytes, soaked

RECRUIT = {"source": "prolific", "codes": {"complete": "DONE1"}}
PEOPLE = soaked(300, 10_000)


@pytest.fixture
def keys(tmp_path: Path) -> PaymentKeys:
    return PaymentKeys(tmp_path / "payment-keys")


@pytest.fixture
def paid(database: Database, folders: Folders, keys: PaymentKeys) -> Iterator[Stage]:
    study = definition(recruit=RECRUIT, privacy={"retention_days": 30})
    with open_stage(database, folders, study, payments=keys) as stage:
        yield stage


@pytest.fixture
def launched_prolific(tmp_path: Path, migrated_file: Path, folders: Folders) -> str:
    """A SQLite address with a study that one person finished and one did not."""
    url = f"sqlite:///{tmp_path / 'alone.sqlite'}"
    shutil.copy(migrated_file, tmp_path / "alone.sqlite")
    beside = keys_folder(url)
    assert beside is not None
    with (
        Database.open(url) as database,
        open_stage(database, folders, definition(recruit=RECRUIT), payments=PaymentKeys(beside)) as stage,
    ):
        stage.participant().start(link=link("anna")).answer_all()
        stage.participant().start(link=link("ben"))
    return url


def link(person: str) -> dict[str, str]:
    return {"PROLIFIC_PID": person, "STUDY_ID": f"study-of-{person}", "SESSION_ID": f"visit-of-{person}"}


def key_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "payment-keys").iterdir())


def payments(stage: Stage, keys: PaymentKeys) -> list[payment.Payment]:
    with stage.database.read() as db:
        return payment.payments(db, stage.ingested.version_id, keys)


def purge(stage: Stage, keys: PaymentKeys, now: int) -> int:
    return stage.database.write(lambda db: payment.purge(db, keys, now=now))


def test_the_researcher_reads_whom_to_pay_and_whom_not(paid: Stage, keys: PaymentKeys) -> None:
    for person in ("anna", "ben"):
        paid.participant().start(link=link(person)).answer_all()
    with paid.database.read() as db:
        session = quality.verdicts(db, paid.ingested.version_id)[1].session
    accept = models.ExclusionEffect.ACCEPT
    paid.database.write(
        lambda db: quality.exclude(
            db, paid.ingested.version_id, session, effect=accept, reason="a copy", actor="owner", at=START
        )
    )
    anna, ben = payments(paid, keys)
    assert (dict(anna.ids), anna.code, anna.accepted) == (link("anna"), "DONE1", True)
    assert (dict(ben.ids), ben.accepted) == (link("ben"), False)


def test_coming_back_keeps_one_link(paid: Stage, keys: PaymentKeys, tmp_path: Path) -> None:
    for _ in range(3):
        paid.participant().join(link=link("anna"))
    assert len(payments(paid, keys)) == len(key_files(tmp_path)) == 1


def test_keys_are_files_for_this_user_alone(paid: Stage, tmp_path: Path) -> None:
    paid.participant().join(link=link("anna"))
    (file,) = key_files(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert len(file.read_bytes()) == 32


def test_ids_are_purged_after_their_time_and_not_before(paid: Stage, keys: PaymentKeys, tmp_path: Path) -> None:
    paid.participant().start(link=link("anna")).answer_all()
    assert purge(paid, keys, START + 30 * DAY - 1) == 0
    assert payments(paid, keys)[0].ids
    assert purge(paid, keys, START + 30 * DAY) == 1
    assert key_files(tmp_path) == []
    (anna,) = payments(paid, keys)
    assert (anna.ids, anna.code) == ({}, "DONE1")


def test_erasure_destroys_the_key_so_that_copies_cannot_be_read(paid: Stage, keys: PaymentKeys, tmp_path: Path) -> None:
    participant = paid.participant()
    participant.start(link=link("anna"))
    with paid.database.read() as db:
        copied = db.execute(select(models.PaymentLink.key_id)).scalar_one()
    participant.post("/sessions/me/withdraw", {"erase": True})
    assert key_files(tmp_path) == []
    assert keys.find(copied) is None
    with paid.database.read() as db:
        assert db.scalar(select(func.count()).select_from(models.PaymentLink)) == 0


@pytest.mark.parametrize("where", ["terminal", "page"])
def test_an_erasure_by_the_researcher_destroys_the_key_at_once(launched_prolific: str, where: str) -> None:
    folder = keys_folder(launched_prolific)
    assert folder is not None
    with Database.open(launched_prolific) as database:
        with database.read() as db:
            session, other = db.execute(
                select(models.StudySession.public_id).order_by(models.StudySession.id)
            ).scalars()
        if where == "page":
            app = FastAPI()
            around = Surroundings(payments=PaymentKeys(folder))
            app.include_router(admin_router(database, Admission({"owner": "the owner's own word"}), around))
            with TestClient(app) as client:
                said = client.post("/study/admin/api/login", json={"password": "the owner's own word"}).json()
                client.post(
                    "/study/admin/api/studies/trial-run/erase", json={"session": session},
                    headers={"X-CSRF-Token": said["csrf"]},
                ).raise_for_status()  # fmt: skip
    if where == "terminal":
        assert main(["erase", "trial-run", "--session", session, "--database", launched_prolific]) == 0
    with Database.open(launched_prolific, read_only=True) as database, database.read() as db:
        (left,) = payment.payments(db, 1, PaymentKeys(folder))[1:]
    assert len(list(folder.iterdir())) == 1
    assert (left.session, dict(left.ids)) == (other, link("ben"))


class TellingKeys(PaymentKeys):
    """Keys that tell when one of them is destroyed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.destroyed = threading.Event()

    def destroy(self, name: str) -> None:
        super().destroy(name)
        self.destroyed.set()


def test_ids_are_deleted_in_time_though_nobody_comes(paid: Stage, tmp_path: Path) -> None:
    keys = TellingKeys(tmp_path / "payment-keys")
    paid.participant().join(link=link("anna"))
    retention = payment.Retention(paid.database, keys, clock=paid.clock, every_s=0.01)
    retention.start()
    assert len(key_files(tmp_path)) == 1
    paid.clock.pass_seconds(30 * 24 * 3600)
    assert keys.destroyed.wait(20)
    retention.stop()
    assert key_files(tmp_path) == []
    later = payment.Retention(paid.database, keys, clock=paid.clock)
    paid.participant().join(link=link("ben"))
    paid.clock.pass_seconds(30 * 24 * 3600)
    later.start()  # at the start of the program too, after a long rest
    later.stop()
    later.stop()
    assert key_files(tmp_path) == []


def test_a_key_without_a_row_goes_once_it_is_old(paid: Stage, keys: PaymentKeys, tmp_path: Path) -> None:
    keys.make()
    (file,) = key_files(tmp_path)
    made = round(file.stat().st_mtime * 1_000_000)
    purge(paid, keys, made + 3500 * 1_000_000)
    assert key_files(tmp_path) == [file]
    purge(paid, keys, made + 3601 * 1_000_000)
    assert key_files(tmp_path) == []


def test_ids_moved_to_another_row_or_changed_are_not_believed(paid: Stage, keys: PaymentKeys) -> None:
    for person in ("anna", "ben"):
        paid.participant().join(link=link(person))
    table = Base.metadata.tables["payment_link"]

    def swap(db: Any) -> None:
        first = db.execute(select(table).order_by(table.c.participant_id)).first()
        db.execute(update(table).values(sealed=first.sealed, key_id=first.key_id))

    paid.database.write(swap)
    with pytest.raises(PaymentError, match="belong to another row"):
        payments(paid, keys)


def test_without_keys_no_id_is_kept_at_all(database: Database, folders: Folders) -> None:
    with open_stage(database, folders, definition(recruit=RECRUIT)) as stage:
        stage.participant().start(link=link("anna")).answer_all()
        with stage.database.read() as db:
            assert db.scalar(select(func.count()).select_from(models.PaymentLink)) == 0


def test_a_public_visitor_leaves_no_link(database: Database, folders: Folders, keys: PaymentKeys) -> None:
    with open_stage(database, folders, definition(), payments=keys) as stage:
        stage.participant().join()
        assert payments(stage, keys)[0].ids == {}


def test_no_export_has_a_column_for_what_pays_people(paid: Stage, keys: PaymentKeys) -> None:
    paid.participant().start(link=link("anna")).answer_all()
    close(paid.database, "trial-run", now=START)
    with paid.database.read() as db:
        files = export.export_files(export.read_export(db, paid.ingested.version_id))
        sealed = db.execute(select(models.PaymentLink.sealed)).scalar_one()
    whole = b"".join(files.values())
    assert all(value.encode() not in whole for value in (*link("anna").values(), sealed))
    assert {"payment_link", "signal"}.isdisjoint(TABLES)
    assert payments(paid, keys)[0].ids


def test_no_column_is_named_or_made_for_an_address_or_a_browser(database: Database) -> None:
    forbidden = ("ip", "ips", "addr", "address", "agent", "ua", "fingerprint", "email", "prolific", "worker", "pid")
    with database.read() as db:
        inspector = inspect(db.get_bind())
        columns = [
            (table, column["name"], str(column["type"]).upper())
            for table in inspector.get_table_names()
            for column in inspector.get_columns(table)
        ]
    assert columns
    for table, name, kind in columns:
        assert not set(name.split("_")) & set(forbidden), f"{table}.{name}"
        assert kind not in {"INET", "CIDR", "MACADDR"}, f"{table}.{name}"


def test_a_dump_holds_peoples_ids_nowhere_and_every_one_can_be_paid(
    paid: Stage, keys: PaymentKeys, tmp_path: Path
) -> None:
    people = [f"synthetic{number:05d}person" for number in range(PEOPLE)]
    at, designs = Clocked(START, seeded_bytes(3)), Designs()

    def arrive(db: Any) -> None:
        for person in people:
            request = JoinRequest(study="trial-run", link=link(person))
            service.join(db, designs, request, at, payments=keys)

    paid.database.write(arrive)
    assert [dict(each.ids) for each in payments(paid, keys)] == [link(person) for person in people]
    if paid.database.dialect == "sqlite":
        with sqlite3.connect(tmp_path / "study.sqlite") as connection:
            dump = "\n".join(connection.iterdump())
        connection.close()
        assert "synthetic" not in dump
        assert b"synthetic" not in b"".join(file.read_bytes() for file in tmp_path.glob("study.sqlite*"))
    with paid.database.read() as db:
        for sealed in db.execute(select(models.PaymentLink.sealed)).scalars():
            assert b"synthetic" not in base64.b64decode(sealed)


def test_whom_to_pay_is_told_in_the_terminal_as_a_table(
    tmp_path: Path, launched_prolific: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["payments", "trial-run", "--database", launched_prolific]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["PROLIFIC_PID"], row["pay"], row["code"]) for row in table] == [
        ("anna", "yes", "DONE1"),
        ("ben", "no", ""),
    ]
    assert main(["payments", "trial-run", "--database", launched_prolific, "--keys", str(tmp_path / "elsewhere")]) == 2
    assert "name the folder" in capsys.readouterr().err


def test_keys_lie_beside_the_file_or_where_they_are_told() -> None:
    assert keys_folder("sqlite:////srv/a/study.sqlite") == Path("/srv/a/study.sqlite.payment-keys")
    assert keys_folder("postgresql://u:p@h/n") is None
    assert keys_folder("postgresql://u:p@h/n", Path("/srv/keys")) == Path("/srv/keys")
