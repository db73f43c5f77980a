"""Simulated studies to try the analysis on: what the notebooks open when no study of one's own is named."""

import os

import numpy as np
import pandas as pd

from analysis.load import load_votes
from analysis.simulate import PAPER_COUNTS, Design, Truth, simulate_votes
from analysis.votes import Votes

EXAMPLE_METHODS = ("shift-map", "fsr", "telea", "navier-stokes", "biharmonic", "nearest-neighbour")
"""Those of the example study, so that its own database can take this one's place."""

EXAMPLE_WORTHS = (0.9, 0.3, 0.0, -0.1, -0.3, -0.8)
"""Invented, and not measured: nobody has voted here."""

SEED = 2026
DATABASE_VARIABLE = "ASUKA_ANALYSIS_DATABASE"
STUDY_VARIABLE = "ASUKA_ANALYSIS_STUDY"


def example_votes() -> Votes:
    """A simulated round robin of 60 people; or the study named by two environment variables.

    Set ASUKA_ANALYSIS_DATABASE (an address) and ASUKA_ANALYSIS_STUDY (a slug, "example" by default) to open your own.

    Raises:
        DatabaseError: when the named database cannot be opened.
        StudyNotFoundError: when it holds no such study.
    """
    url = os.environ.get(DATABASE_VARIABLE)
    if url:
        return load_votes(url, os.environ.get(STUDY_VARIABLE, "example"))
    truth = Truth(dict(zip(EXAMPLE_METHODS, EXAMPLE_WORTHS, strict=True)), tie_strength=0.3)
    design = Design(participants=60, images=24, trials=20, repeats=2, domains=("indoor", "landscape", "building"))
    return simulate_votes(design, truth, SEED)


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
