"""Studies to try the analysis on: what the notebooks open when no study of one's own is named."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.load import StudyNotFoundError, load_votes
from analysis.simulate import PAPER_COUNTS, Design, Truth, simulate_votes
from analysis.votes import Votes

EXAMPLE_METHODS = ("shift-map", "fsr", "telea", "navier-stokes", "biharmonic", "nearest-neighbour")
"""Names to tell apart in the figures; any would do."""

EXAMPLE_WORTHS = (0.9, 0.3, 0.0, -0.1, -0.3, -0.8)
"""Invented, and not measured: nobody has voted here."""

SEED = 2026
DATABASE_VARIABLE = "ASUKA_ANALYSIS_DATABASE"
STUDY_VARIABLE = "ASUKA_ANALYSIS_STUDY"
SIMULATED = "simulated"
APP_DATABASE = Path(__file__).parents[1] / "var/asuka.db"
"""Where `make run` keeps its database unless DATABASE_URL says otherwise."""

FEWEST_PEOPLE = 5
"""Below this, clustered intervals are refused or say nothing (our choice)."""


def example_votes() -> Votes:
    """The app's example study when enough people have answered it here, or else a simulated round robin of 60 people.

    Set ASUKA_ANALYSIS_DATABASE (an address) and ASUKA_ANALYSIS_STUDY (a slug, "example" by default) to open your own;
    the address "simulated" asks for the simulation in any case. `example_source` says what it was.

    Raises:
        DatabaseError: when the named database cannot be opened.
        StudyNotFoundError: when it holds no such study.
    """
    return _example()[0]


def example_source() -> str:
    """Where the votes of `example_votes` come from, in one sentence."""
    return _example()[1]


def _example() -> tuple[Votes, str]:
    url = os.environ.get(DATABASE_VARIABLE)
    slug = os.environ.get(STUDY_VARIABLE, "example")
    if url and url != SIMULATED:
        return load_votes(url, slug), f"Answers to the study {slug!r} of the database named by {DATABASE_VARIABLE}."
    if not url:
        votes = _votes_of_the_app()
        if votes is not None:
            people = len(votes.participants)
            return votes, f"Answers of {people} people to the example study of this app ({APP_DATABASE})."
    truth = Truth(dict(zip(EXAMPLE_METHODS, EXAMPLE_WORTHS, strict=True)), tie_strength=0.3)
    design = Design(participants=60, images=24, trials=20, repeats=2, domains=("indoor", "landscape", "building"))
    why = f"fewer than {FEWEST_PEOPLE} people have answered the example study of the app on this machine"
    return simulate_votes(design, truth, SEED), f"Simulated, nobody voted: {why}."


def _votes_of_the_app() -> Votes | None:
    """The example study where `make run` keeps it; None when it is not there or too few have answered for estimates."""
    if not APP_DATABASE.is_file():
        return None
    try:
        votes = load_votes(f"sqlite:///{APP_DATABASE}", "example")
    except StudyNotFoundError:
        return None  # the app has been started, but its example study is still being prepared
    return votes if len(votes.participants) >= FEWEST_PEOPLE else None


def paper_like_votes(seed: int = SEED) -> Votes:
    """A simulated best-of-nine study of the paper's size whose expected shares are those of its Table 2c."""
    truths = {
        criterion: Truth({method: float(np.log(count)) for method, count in counts.items()}, 0.3, 0.3)
        for criterion, counts in PAPER_COUNTS.items()
    }
    return simulate_votes(Design(participants=100, images=40, trials=40, best_of_n=True), truths, seed)


def example_metrics(votes: Votes, seed: int = SEED) -> pd.DataFrame:
    """Invented per-image scores that follow the order of `votes.methods` roughly: method, image, metric, value."""
    rng = np.random.default_rng(seed)
    quality = np.linspace(1, 0, len(votes.methods))[:, None] + rng.normal(
        0, 0.5, (len(votes.methods), len(votes.images))
    )
    rows = [
        (method, image, metric, sign * quality[m, i])
        for metric, sign in (("psnr", 1.0), ("lpips", -1.0))
        for m, method in enumerate(votes.methods)
        for i, image in enumerate(votes.images)
    ]
    return pd.DataFrame(rows, columns=["method", "image", "metric", "value"])
