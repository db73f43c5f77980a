"""Bots with known tastes through the real HTTP API: what they prefer is what the analysis finds."""

import shutil
import struct
import threading
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from analysis.rates import selection_ratios
from analysis.vote_files import read_votes
from db.engine import Database
from study import counters
from study.adapters import adapter_files
from study.api import router
from study.cli import main
from study.export import export_files, find_launched, read_export, write_export
from study.publication import close, unblind
from study.simulate import (
    Plan,
    Simulated,
    SimulationError,
    known_pictures,
    pixel_sha256,
    recogniser,
    simulate,
    strengths_taste,
)
from tests.serving import free_port
from tests.study.stage import METHODS, START


@pytest.fixture
def database(tmp_path: Path, launched_file: Path) -> Generator[Database]:
    shutil.copy(launched_file, tmp_path / "live.sqlite")
    with Database.open(f"sqlite:///{tmp_path / 'live.sqlite'}") as opened:
        yield opened


@contextmanager
def serving(database: Database) -> Generator[str]:
    """The study's routes on a port of their own."""
    app = FastAPI(openapi_url=None)
    app.include_router(router(database))
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def address(database: Database) -> Generator[str]:
    with serving(database) as address:
        yield address


def run(database: Database, address: str, plan: Plan, **strengths: float) -> Simulated:
    with database.read() as db:
        known = known_pictures(db, "trial-run")
    tastes = {name.replace("_", "-"): strength for name, strength in strengths.items()}
    return simulate(address, "trial-run", plan, strengths_taste(tastes), recogniser(known))


def test_a_taste_of_seventy_to_thirty_is_found_again(database: Database, address: str, tmp_path: Path) -> None:
    found = run(database, address, Plan(people=60, seed=3), gleam_fill=7, murk_fill=3, zephyr_fill=3)
    assert found == Simulated(completed=60, left=0, turned_away=0, answers=360, codes=60)
    close(database, "trial-run", now=START)
    unblind(database, "trial-run", now=START, actor="owner")
    with database.read() as db:
        export = read_export(db, find_launched(db, "trial-run"))
    write_export(export_files(export, beside=adapter_files(export)), tmp_path / "out")
    rates = {(rate.criterion, rate.method): rate for rate in selection_ratios(read_votes(tmp_path / "out"))}
    for criterion in ("context_stability", "visual_consistency"):
        target = rates[criterion, METHODS[0]]
        # 240 trials with the target: four standard errors of 0.7 are 0.12 (binomial).
        assert target.n == 240
        assert abs(target.wins / target.n - 0.7) < 4 * (0.7 * 0.3 / target.n) ** 0.5
        others = rates[criterion, METHODS[1]]
        assert abs(others.wins / others.n - 0.4) < 4 * (0.4 * 0.6 / others.n) ** 0.5


def test_a_third_leave_and_the_counts_still_add_up(database: Database, address: str) -> None:
    found = run(database, address, Plan(people=40, seed=1, drop_out=0.35, ties=0.5))
    assert found.turned_away == 0
    assert found.completed + found.left == 40
    assert 6 <= found.left <= 22  # 14 expected, four standard deviations of 3
    with database.read() as db:
        counters.verify(db, 1)


def test_the_same_seed_prefers_the_same(database: Database, address: str) -> None:
    plan = Plan(people=3, seed=5, at_once=1, drop_out=0.5)
    assert run(database, address, plan).answers == run(database, address, plan).answers


@pytest.mark.usefixtures("database")
def test_from_the_terminal(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'live.sqlite'}"
    common = ["simulate", "trial-run", "--url", address, "--database", url]
    assert main([*common, "--people", "2", "--strength", "murk-fill=2.5"]) == 0
    assert "2 completed with 2 codes, 0 left, 0 turned away; 12 trials answered" in capsys.readouterr().out
    assert main([*common, "--strength", "nobody=2"]) == 2
    assert "is no method of trial-run" in capsys.readouterr().err
    assert main([*common, "--strength", "murk-fill=-1"]) == 2
    assert "says no strength" in capsys.readouterr().err


def test_no_server_and_an_unknown_study_are_said_plainly(address: str) -> None:
    with pytest.raises(SimulationError, match="no study called"):
        simulate(address, "other", Plan(people=1), strengths_taste({}), recogniser({}))
    with pytest.raises(SimulationError, match="does not answer"):
        simulate(f"http://127.0.0.1:{free_port()}", "trial-run", Plan(people=1), strengths_taste({}), recogniser({}))


def test_padding_does_not_change_the_hash_of_the_pixels() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    end = chunk(b"IEND", b"")
    plain = head + chunk(b"IDAT", zlib.compress(b"\0abc")) + end
    padded = head + chunk(b"IDAT", zlib.compress(b"\0abc", 0)) + chunk(b"raNd", b"x" * 50) + end
    other = head + chunk(b"IDAT", zlib.compress(b"\0abd")) + end
    assert pixel_sha256(plain) == pixel_sha256(padded) != pixel_sha256(other)
