"""The study from a terminal, as a researcher uses it; and what it says when it cannot."""

import csv
import io
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from db import models
from db.engine import Database
from study.api import router
from study.audit import entries
from study.cli import main
from tests.study.stage import METHODS, Folders, Participant, definition


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(definition().canonical)  # JSON is YAML
    return path


def test_a_whole_study_from_files_to_votes(
    tmp_path: Path, yaml_file: Path, folders: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'cli.sqlite'}"
    pictures = ["--images", str(folders.images), "--holes", str(folders.holes), "--results", str(folders.results)]
    assert main(["validate", str(yaml_file)]) == 0
    assert definition().sha256 in capsys.readouterr().out
    assert main(["ingest", str(yaml_file), *pictures, "--database", url]) == 0
    assert "stored trial-run version 1: 8 images, 3 methods" in capsys.readouterr().out
    assert main(["ingest", str(yaml_file), *pictures, "--database", url]) == 0
    assert "is there" in capsys.readouterr().out
    assert main(["launch", "trial-run", "--database", url]) == 0
    assert "/study/trial-run" in capsys.readouterr().out
    take_part(url)
    assert main(["status", "trial-run", "--database", url]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["status"], status["answered_trials"], status["sessions"]) == ("live", 6, {"completed": 1})
    assert main(["export", "trial-run", "--database", url]) == 2
    assert "hidden until it is closed" in capsys.readouterr().err
    assert main(["close", "trial-run", "--database", url]) == 0
    assert "closed with 6 answered trials" in capsys.readouterr().out
    assert main(["unblind", "trial-run", "--database", url]) == 0
    files = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for file in files:
        assert main(["export", "trial-run", "--database", url, "--out", str(file)]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    check_votes(list(csv.DictReader(io.StringIO(files[0].read_text()))))
    capsys.readouterr()
    assert main(["export", "trial-run", "--database", url]) == 0
    assert capsys.readouterr().out == files[0].read_text()
    folders_out = [tmp_path / "first", tmp_path / "second"]
    for folder in folders_out:
        assert main(["export", "trial-run", "--version", "1", "--database", url, "--out", str(folder)]) == 0
    written = [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders_out]
    assert written[0] == written[1]
    assert written[0]["votes.csv"] == files[0].read_bytes()
    assert main(["verify", "--database", url]) == 0
    assert "every count equals its trials; the audit trail of 3 rows is whole" in capsys.readouterr().out


@pytest.fixture
def launched(tmp_path: Path, launched_file: Path) -> str:
    shutil.copy(launched_file, tmp_path / "launched.sqlite")
    return f"sqlite:///{tmp_path / 'launched.sqlite'}"


def test_a_study_rests_goes_on_drains_and_ends(launched: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command, then in (
        ("pause", "paused"), ("launch", "live"), ("drain", "draining"), ("pause", "paused"), ("close", "closed"),
    ):  # fmt: skip
        assert main([command, "trial-run", "--database", launched]) == 0
        capsys.readouterr()
        assert main(["status", "trial-run", "--database", launched]) == 0
        assert json.loads(capsys.readouterr().out)["status"] == then
    assert main(["pause", "trial-run", "--database", launched]) == 2
    assert "is closed and cannot become paused" in capsys.readouterr().err


def test_unblinding_waits_for_the_end_and_is_written_down(launched: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unblind", "trial-run", "--database", launched]) == 2
    assert "is live; close it first" in capsys.readouterr().err
    for command in ("close", "unblind", "unblind"):
        assert main([command, "trial-run", "--database", launched]) == 0
    with Database.open(launched) as database, database.read() as db:
        assert [(entry.action, entry.object) for entry in entries(db)] == [
            (action, "trial-run v1") for action in ("unblind", "close", "launch")
        ]


def test_a_changed_audit_trail_and_a_wrong_count_are_found(launched: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = launched.removeprefix("sqlite:///")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE cell SET n_live = 3 WHERE id = 2")
    assert main(["verify", "--database", launched]) == 2
    assert "1 of 48 cells are miscounted" in capsys.readouterr().err
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE cell SET n_live = 0 WHERE id = 2")
        connection.execute("DROP TRIGGER audit_is_never_edited")
        connection.execute("UPDATE audit SET actor = 'nobody'")
    assert main(["verify", "--database", launched]) == 2
    assert "Row 1 of the audit trail (launch of trial-run v1) does not follow" in capsys.readouterr().err


def test_one_session_is_erased(launched: str, capsys: pytest.CaptureFixture[str]) -> None:
    take_part(launched)
    with Database.open(launched) as database, database.read() as db:
        session = db.execute(select(models.StudySession.public_id)).scalar_one()
    assert main(["erase", "trial-run", "--session", "nobody", "--database", launched]) == 2
    assert "has no session 'nobody'" in capsys.readouterr().err
    assert main(["erase", "trial-run", "--session", session, "--database", launched]) == 0
    with Database.open(launched) as database, database.read() as db:
        assert db.execute(select(models.Response)).first() is None
    assert main(["verify", "--database", launched]) == 0


def test_a_copy_is_made_beside_the_app_and_becomes_a_database_again(
    launched: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Database.open(launched):
        assert main(["backup", str(tmp_path / "backups"), "--database", launched]) == 0
    back = f"sqlite:///{tmp_path / 'back.sqlite'}"
    assert main(["restore", str(tmp_path / "backups"), "--database", back]) == 0
    assert "0 answered trials from the journal" in capsys.readouterr().out
    assert main(["verify", "--database", back]) == 0
    assert main(["restore", str(tmp_path / "backups"), "--database", back]) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_disk_that_forgets_is_refused_unless_told(
    launched: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACE_ID", "me/study")
    assert main(["launch", "trial-run", "--database", launched]) == 2
    assert "answers would be lost" in capsys.readouterr().err
    assert main(["launch", "trial-run", "--database", launched, "--ephemeral"]) == 0


def test_the_preview_shows_the_words_and_the_pictures_blind(launched: str, tmp_path: Path) -> None:
    page = tmp_path / "preview.html"
    assert main(["preview", "trial-run", "--database", launched, "--out", str(page)]) == 0
    text = page.read_text()
    assert "More stable?" in text
    assert "I take part freely." in text
    assert text.count("<img") == 8 * 4
    assert not any(method in text for method in METHODS)


def take_part(url: str) -> None:
    app = FastAPI()
    with Database.open(url) as database:
        app.include_router(router(database))
        with TestClient(app) as client:
            participant = Participant(client).start()
            reply = participant.get("/trial")
            while reply["state"] == "running":
                reply = participant.answer(reply["trial"], position=1, rt_ms=900)


def check_votes(votes: list[dict[str, str]]) -> None:
    assert len(votes) == 12
    assert [vote["criterion"] for vote in votes] == ["context_stability", "visual_consistency"] * 6
    assert len({vote["image_key"] for vote in votes}) == 6
    for vote in votes:
        shown = vote["methods_shown"].split("|")
        assert vote["method_chosen"] == shown[1]
        assert set(shown) <= set(METHODS)
        assert (vote["position_chosen"], vote["rt_ms"], vote["used"]) == ("1", "900", "1")
        assert vote["spec_sha256"] == definition().sha256


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["validate", "absent.yaml"], "absent.yaml: No such file"),
        (["ingest", "absent.yaml", "--images", "a", "--holes", "b", "--results", "c"], "absent.yaml"),
        (["status", "x"], "give --database"),
        (["status", "x", "--database", "mysql://x"], "not supported"),
        (["launch", "nowhere", "--database", "sqlite:///{tmp}/new.sqlite"], "no study 'nowhere'"),
        (["close", "nowhere", "--database", "sqlite:///{tmp}/new.sqlite"], "no study 'nowhere'"),
    ],
)
def test_bad_input_ends_with_two_and_one_sentence(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main([argument.replace("{tmp}", str(tmp_path)) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.startswith("study: ")
    assert "Traceback" not in said


def test_missing_pictures_are_listed_one_per_line(
    tmp_path: Path, yaml_file: Path, folders: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'cli.sqlite'}"
    pictures = ["--images", str(folders.images), "--holes", str(tmp_path), "--results", str(folders.results)]
    assert main(["ingest", str(yaml_file), *pictures, "--database", url]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "8 problems; nothing was stored" in lines[0]
    assert len(lines) == 9


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "StudyDefinition"


def test_a_definition_is_written_out_for_registration(yaml_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preregister", str(yaml_file)]) == 0
    assert definition().sha256 in capsys.readouterr().out


def test_an_unknown_command_is_told_by_argparse(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["publish"])
    assert stopped.value.code == 2
    assert "publish" in capsys.readouterr().err
