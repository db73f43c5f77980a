"""The headline interval covers the truth as often as it says, over simulated studies with people and image effects."""

import numpy as np
import pytest

from analysis.rates import rate_interval
from analysis.simulate import Truth, expected_share

PEOPLE, IMAGES, STUDIES = 60, 30, 500
TRUTH = Truth({"a": 0.4, "b": 0.0}, 0.5, 0.5)


def simulated_wins(seed: int) -> np.ndarray:
    """Everybody compares a and b once on every image; 1 where a is preferred."""
    rng = np.random.default_rng(seed)
    people = rng.normal(0, TRUTH.participant_sd, (PEOPLE, 1, 2))
    images = rng.normal(0, TRUTH.image_sd, (1, IMAGES, 2))
    taste = np.array([0.4, 0.0]) + people + images + rng.gumbel(size=(PEOPLE, IMAGES, 2))
    return (taste[:, :, 0] > taste[:, :, 1]).astype(float).ravel()


def test_two_way_intervals_cover_and_ignoring_images_or_people_does_not() -> None:
    share = expected_share(TRUTH, "a", ["b"], 400_000, seed=1)
    participant, image = np.repeat(np.arange(PEOPLE), IMAGES), np.tile(np.arange(IMAGES), PEOPLE)
    covered = dict.fromkeys(("naive", "participant", "two-way"), 0)
    for seed in range(STUDIES):
        points = simulated_wins(seed)
        for clustering in covered:
            interval = rate_interval(points, participant, image, clustering)  # type: ignore[arg-type]
            covered[clustering] += (interval.low or 0) <= share <= (interval.high or 1)
    rates = {name: hits / STUDIES for name, hits in covered.items()}
    assert rates["two-way"] == pytest.approx(0.95, abs=0.03)  # three standard errors of 500 studies
    assert rates["participant"] < 0.85
    assert rates["naive"] < 0.7
