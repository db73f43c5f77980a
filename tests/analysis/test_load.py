"""Loading from a real SQLite database must give back, row by row, the votes that were written."""

import dataclasses
import os
import secrets
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, make_url, text
from study_database import FIRST_ID, fill_study, write_study

import analysis.load
from analysis.load import StudyNotFoundError, UnreadableVotesError, load_votes
from analysis.rates import preference_rates, selection_ratios
from analysis.simulate import Design, Truth, simulate_votes
from analysis.votes import NONE, Votes
from db.engine import Database
from db.models import StudyVersion

TRUTH = Truth({"zebra": 0.5, "asuka": 0.0, "lama": -0.5}, tie_strength=0.5)
SMALL = Design(participants=6, images=12, trials=9, repeats=2, domains=("indoor", "outdoor"))


def with_some_excluded(votes: Votes) -> Votes:
    return dataclasses.replace(votes, used=np.arange(len(votes)) % 5 != 0)


def rows_of(votes: Votes) -> list[tuple[object, ...]]:
    """What each vote says, in names, in an order of its own."""
    return sorted(
        (
            votes.images[votes.image[row]],
            votes.criteria[votes.criterion[row]],
            tuple(votes.methods[code] for code in votes.shown[row]),
            int(votes.outcome[row]),
            int(votes.position[row]),
            int(votes.response_ms[row]),
            bool(votes.used[row]),
            bool(votes.repeat_of[row] == NONE),
        )
        for row in range(len(votes))
    )


@pytest.fixture(params=[False, True], ids=["pairwise", "best of three"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Votes, str]:
    truth = dataclasses.replace(TRUTH, tie_strength=0.0) if request.param else TRUTH
    votes = with_some_excluded(simulate_votes(dataclasses.replace(SMALL, best_of_n=request.param), truth, seed=4))
    return votes, write_study(tmp_path, votes)


def test_what_was_written_is_read_back(written: tuple[Votes, str]) -> None:
    votes, url = written
    loaded = load_votes(url, "example")
    assert rows_of(loaded) == rows_of(votes)
    assert loaded.methods == votes.methods
    assert loaded.participants == tuple(str(FIRST_ID + i) for i in range(6))
    assert [loaded.domains[code] for code in loaded.domain] == [votes.domains[code] for code in votes.domain]


def test_a_repeat_points_to_the_trial_it_repeats(written: tuple[Votes, str]) -> None:
    votes, url = written
    loaded = load_votes(url, "example")
    again = loaded.only(loaded.repeat_of != NONE)
    originals = {int(trial): int(image) for trial, image in zip(loaded.trial, loaded.image, strict=True)}
    assert len(again) == int((votes.repeat_of != NONE).sum())
    assert [originals[int(trial)] for trial in again.repeat_of] == again.image.tolist()


def test_the_packed_query_reads_the_same_as_the_plain_one(
    written: tuple[Votes, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, url = written
    plain = load_votes(url, "example")
    monkeypatch.setattr(analysis.load, "MANY_VOTES", 0)
    monkeypatch.setattr(analysis.load, "FEWEST_IMAGES_PER_THREAD", 3)
    assert rows_of(load_votes(url, "example")) == rows_of(plain)


@pytest.mark.parametrize("many", [0, 10**6], ids=["packed", "row by row"])
def test_an_answer_that_does_not_say_what_was_shown_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    url = write_study(tmp_path, simulate_votes(SMALL, TRUTH, seed=4))
    monkeypatch.setattr(analysis.load, "MANY_VOTES", many)
    with Database.open(url) as database:
        damage = "UPDATE analysis_vote SET first_method_id = NULL"
        last = "(SELECT max(response_id) FROM analysis_vote)"
        database.write(lambda session: session.execute(text(f"{damage} WHERE response_id = {last}")))
    with pytest.raises(UnreadableVotesError, match=r"1 of 132 answers lack|does not have"):
        load_votes(url, "example")


def test_without_details_the_estimates_stay_the_same(written: tuple[Votes, str]) -> None:
    _, url = written
    full, narrow = load_votes(url, "example"), load_votes(url, "example", details=False)
    assert selection_ratios(full, ties="lost") == selection_ratios(narrow, ties="lost")
    assert len(narrow) < len(full)


def test_an_unknown_study_or_version_is_refused_naming_those_there_are(tmp_path: Path) -> None:
    url = write_study(tmp_path, simulate_votes(Design(2, 2, 2, ("q",)), TRUTH, seed=1))
    with pytest.raises(StudyNotFoundError, match=r"no study 'exmaple'.*it has: example"):
        load_votes(url, "exmaple")
    with pytest.raises(StudyNotFoundError, match=r"no version 3; it has: 1"):
        load_votes(url, "example", version=3)


def test_a_new_version_starts_without_the_answers_to_the_old_one(tmp_path: Path) -> None:
    url = write_study(tmp_path, simulate_votes(Design(2, 2, 2, ("q",)), TRUTH, seed=1))
    with Database.open(url) as database:
        database.write(
            lambda session: session.add(
                StudyVersion(
                    study_id=FIRST_ID, version=2, spec_json='{"criteria": [{"key": "q"}]}', spec_sha256="1" * 64,
                    design_seed="1" * 64, created_at=1,
                )
            )
        )  # fmt: skip
    assert len(load_votes(url, "example")) == 0
    assert preference_rates(load_votes(url, "example")) == ()
    assert len(load_votes(url, "example", version=1)) == 4


@pytest.mark.postgres
def test_postgresql_gives_the_same_votes_plain_and_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    server = os.environ.get("ASUKA_TEST_POSTGRES_URL")
    if not server:
        pytest.skip("ASUKA_TEST_POSTGRES_URL is not set")
    name = f"analysis_{secrets.token_hex(6)}"
    address = make_url(server).set(drivername="postgresql+psycopg")
    engine = create_engine(address, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            url = address.set(database=name).render_as_string(hide_password=False)
            votes = with_some_excluded(simulate_votes(SMALL, TRUTH, seed=4))
            fill_study(url, votes)
            assert rows_of(load_votes(url, "example")) == rows_of(votes)
            monkeypatch.setattr(analysis.load, "MANY_VOTES", 0)
            monkeypatch.setattr(analysis.load, "FEWEST_IMAGES_PER_THREAD", 3)
            assert rows_of(load_votes(url, "example")) == rows_of(votes)
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()
