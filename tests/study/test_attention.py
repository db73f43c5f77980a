"""Attention trials: a mark that anybody can read says what to choose, and who does not look is caught by it."""

import shutil
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from skimage import data
from skimage.color import rgb2lab
from sqlalchemy import select

from db import models
from db.engine import Database
from db.models import TrialKind
from study import quality
from study.attention import CROSS, TICK, marked
from study.export import read_export
from study.publication import close
from study.simulate import Plan, known_pictures, recogniser, simulate, strengths_taste
from tests.study.stage import METHODS, START, Folders, ingest_and_launch
from tests.study.stage import definition as plain_definition
from tests.study.test_simulate import serving

PLAN = {"real": 2, "gold": {"first_after": 1, "min_gap": 1}, "attention": 3}
ATTENTIVE = strengths_taste({METHODS[0]: 1e-4})
"""Whose slips, in proportion to the weakest taste, are so rare that none happens here."""

RULE = {"rule": "attention", "params": {"most_failed": 0}, "effect": "accept"}


def photograph() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:120, 150:300])


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """WCAG's ratio, from its definition of relative luminance."""

    def luminance(colour: tuple[int, int, int]) -> float:
        channels = [level / 255 for level in colour]
        linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colour", [TICK, CROSS])
def test_a_mark_stands_out_from_its_disc(colour: tuple[int, int, int]) -> None:
    assert contrast(colour, (255, 255, 255)) >= 7


def test_the_marks_differ_in_shape_for_those_who_see_no_colours() -> None:
    tick, cross = (rgb2lab(marked(photograph(), choose=choose))[..., 0] for choose in (True, False))
    assert (np.abs(tick - cross) > 40).mean() > 0.03  # of the whole picture, in lightness alone


def test_a_mark_lies_in_the_middle_and_leaves_the_photograph_around_it_recognisable() -> None:
    before, after = photograph(), marked(photograph(), choose=True)
    rows, columns = np.nonzero((after == 255).all(axis=2))
    assert abs(rows.mean() - 59.5) < 4
    assert abs(columns.mean() - 74.5) < 4
    corner = np.s_[:20, :40]
    assert np.corrcoef(before[corner].ravel(), after[corner].ravel())[0, 1] > 0.99


@pytest.mark.parametrize("side", [8, 32, 900])
def test_pictures_of_any_size_are_marked(side: int) -> None:
    picture = np.full((side, side + 3, 3), 90, dtype=np.uint8)
    tick, cross = marked(picture, choose=True), marked(picture, choose=False)
    assert tick.shape == cross.shape == picture.shape
    assert not np.array_equal(tick, cross)


# ------------------------------------------------------------------------------------------------- in a study


@pytest.fixture
def database(tmp_path: Path, folders: Folders, migrated_file: Path) -> Generator[Database]:
    """A study with a colour plate and attention trials."""
    shutil.copy(migrated_file, tmp_path / "live.sqlite")
    screen = {"colour_vision": 1, "colour_vision_misses": 0}
    study = plain_definition(plan=PLAN, exclusions=[RULE], screen=screen)
    with Database.open(f"sqlite:///{tmp_path / 'live.sqlite'}") as opened:
        ingest_and_launch(opened, folders, study)
        yield opened


def test_those_who_look_at_nothing_are_found_and_those_who_look_are_not(database: Database) -> None:
    with database.read() as db:
        known = known_pictures(db, "trial-run")
    with serving(database) as address:
        for careless in (0.0, 1.0):
            plan = Plan(people=5, seed=4, ties=0.5, careless=careless)
            found = simulate(address, "trial-run", plan, ATTENTIVE, recogniser(known))
            assert (found.completed, found.answers) == (5, 5 * 5)
    with database.read() as db:
        verdicts = quality.verdicts(db, 1)
        right = db.execute(
            select(models.Response.gold_correct)
            .join(models.Trial, models.Trial.id == models.Response.trial_id)
            .where(models.Trial.kind == TrialKind.ATTENTION)
            .order_by(models.Trial.session_id)
        ).all()
    assert len(right) == 10 * 3 * 2  # three trials of two questions each
    assert all(each.accept for each in verdicts[:5])
    # A clicker answers all six rightly once in 64 times between two pictures; three of five do once in 26,000.
    assert sum(not each.accept for each in verdicts[5:]) >= 3
    close(database, "trial-run", now=START)
    with database.read() as db:
        votes = [vote for vote in read_export(db, 1).tables["votes"] if vote["kind"] == "attention"]
    assert len(votes) == len(right)
    assert all(vote["gold_correct"] is not None for vote in votes)
    chosen = {name for vote in votes for name in vote["methods_shown"]}
    assert {name.split("/")[0] for name in chosen} == {"gold:attention"}
    assert not any(vote["in_primary_set"] for vote in votes)
