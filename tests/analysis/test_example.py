"""What the notebooks open: a named database, the app's own example study, or a simulation, and they say which."""

from pathlib import Path

import pytest
from study_database import write_study

import analysis.example
from analysis.example import DATABASE_VARIABLE, SIMULATED, example_source, example_votes
from analysis.simulate import Design, Truth, simulate_votes

TRUTH = Truth({"zebra": 0.5, "asuka": 0.0, "lama": -0.5}, tie_strength=0.5)


def app_database(folder: Path, monkeypatch: pytest.MonkeyPatch, people: int) -> str:
    """A database where `make run` would keep it, answered by so many."""
    url = write_study(folder, simulate_votes(Design(people, 4, 3, ("q",)), TRUTH, seed=1))
    monkeypatch.setattr(analysis.example, "APP_DATABASE", Path(url.removeprefix("sqlite:///")))
    monkeypatch.delenv(DATABASE_VARIABLE, raising=False)
    return url


def test_five_people_who_answered_are_enough_to_see_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app_database(tmp_path, monkeypatch, people=5)
    assert len(example_votes().participants) == 5
    assert example_source().startswith("Answers of 5 people to the example study")


def test_fewer_give_way_to_a_simulation_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app_database(tmp_path, monkeypatch, people=4)
    assert len(example_votes().participants) == 60
    assert "nobody voted" in example_source()


def test_the_simulation_can_be_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app_database(tmp_path, monkeypatch, people=5)
    monkeypatch.setenv(DATABASE_VARIABLE, SIMULATED)
    assert len(example_votes().participants) == 60


def test_a_named_database_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = app_database(tmp_path, monkeypatch, people=2)
    monkeypatch.setenv(DATABASE_VARIABLE, url)
    assert len(example_votes().participants) == 2
    assert DATABASE_VARIABLE in example_source()
