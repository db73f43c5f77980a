"""The app that cannot start says why in one sentence and leaves nothing behind."""

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.serving import ROOT, free_port


def _start(folder: Path, port: int, **environment: str) -> "subprocess.CompletedProcess[str]":
    given: Mapping[str, str] = {
        **os.environ,
        "DATABASE_URL": f"sqlite:///{folder / 'asuka.db'}",
        "ASUKA_DATA_DIR": str(folder / "var"),
        **environment,
    }
    command = [sys.executable, "app.py", "--port", str(port)]
    return subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, check=False, timeout=120)


def _one_sentence(finished: "subprocess.CompletedProcess[str]") -> str:
    assert finished.returncode == 2, finished.stderr
    assert finished.stderr.startswith("app: ")
    assert finished.stderr.count("\n") == 1
    return finished.stderr


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        assert str(port) in _one_sentence(_start(tmp_path, port))
    assert not list(tmp_path.iterdir())


def test_a_database_of_a_later_release(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "asuka.db") as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        database.execute("INSERT INTO alembic_version VALUES ('from-the-future')")
    database.close()
    assert "from-the-future" in _one_sentence(_start(tmp_path, free_port()))


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "asuka.db").write_text("a shopping list")
    assert "is not a SQLite database" in _one_sentence(_start(tmp_path, free_port()))
    assert (tmp_path / "asuka.db").read_text() == "a shopping list"


@pytest.mark.parametrize(("name", "value"), [("ASUKA_MAX_UPLOAD_MB", "-3"), ("ASUKA_EXAMPLE", "perhaps")])
def test_a_setting_out_of_range(tmp_path: Path, name: str, value: str) -> None:
    sentence = _one_sentence(_start(tmp_path, free_port(), **{name: value}))
    assert name in sentence
    assert value in sentence
