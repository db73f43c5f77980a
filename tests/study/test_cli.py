"""The study from a terminal, as a researcher uses it; and what it says when it cannot."""

import csv
import io
import json
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from db.engine import Database
from study.api import router
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
    files = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for file in files:
        assert main(["export", "trial-run", "--database", url, "--out", str(file)]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    check_votes(list(csv.DictReader(io.StringIO(files[0].read_text()))))
    capsys.readouterr()
    assert main(["export", "trial-run", "--database", url]) == 0
    assert capsys.readouterr().out == files[0].read_text()
    assert main(["close", "trial-run", "--database", url]) == 0
    assert "closed with 6 answered trials" in capsys.readouterr().out


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


def test_an_unknown_command_is_told_by_argparse(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["publish"])
    assert stopped.value.code == 2
    assert "publish" in capsys.readouterr().err
