"""Resampling held to exact weights, to refitting the copied votes, and to the sandwich it should agree with."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.bootstrap import (
    BootstrapError,
    contrast_interval,
    probability_of_best,
    resample_participants,
    resample_participants_and_images,
    resampling_weights,
    strength_interval,
)
from analysis.bradley_terry import fit_tables
from analysis.counts import CountsError, half_wins, outcome_counts
from analysis.rankings import rank
from analysis.simulate import Design, Truth, simulate_votes
from analysis.votes import Votes, VotesError

TRUTH = Truth({"a": 0.6, "b": 0.1, "c": -0.5, "d": 0.0}, tie_strength=0.3)
VOTES = simulate_votes(Design(40, 20, 12), TRUTH, seed=11)


def copied(votes: Votes, rows: np.ndarray) -> Votes:
    """The votes with rows repeated as given."""
    names = ("participant", "image", "criterion", "shown", "outcome", "position", "repeat_of", "response_ms", "used")
    columns = {name: getattr(votes, name)[rows] for name in names}
    return dataclasses.replace(votes, **columns, trial=np.arange(rows.size))


def test_count_tensors_agree_with_counting_one_by_one() -> None:
    counts = outcome_counts(VOTES, "both")
    expected = np.zeros_like(counts)
    for row in range(len(VOTES)):
        answer = 2 if VOTES.outcome[row] == 1 else VOTES.position[row]
        expected[VOTES.participant[row], VOTES.image[row], VOTES.criterion[row], *VOTES.shown[row], answer] += 1
    assert (counts == expected).all()
    assert (outcome_counts(VOTES, "participant") == expected.sum(axis=1)).all()
    wins = half_wins(outcome_counts(VOTES))
    assert (wins + wins.swapaxes(-1, -2)).sum() == 2 * len(VOTES)


def test_excluded_votes_leave_the_tensor() -> None:
    some = dataclasses.replace(VOTES, used=np.arange(len(VOTES)) % 3 > 0)
    assert outcome_counts(some).sum() == some.used.sum()


def test_every_resample_draws_as_many_clusters_as_there_are() -> None:
    weights = resampling_weights(np.random.default_rng(0), 30, 500)
    assert (weights.sum(axis=1) == 30).all()
    assert weights.var(axis=0).mean() == pytest.approx(29 / 30, rel=0.1)  # multinomial


def test_a_replicate_is_the_fit_to_the_copied_votes() -> None:
    weights = resampling_weights(np.random.default_rng(3), 40, 5)
    replicates = resample_participants(VOTES, weights=weights)
    for number, weight in enumerate(weights):
        rows = np.repeat(np.arange(len(VOTES)), weight[VOTES.participant].astype(int))
        for place, criterion in enumerate(VOTES.criteria):
            fitted = rank(copied(VOTES, rows), criterion, errors="model").log_worth
            assert replicates.log_worth[number, place] == pytest.approx(fitted, abs=1e-7)


def test_a_replicate_of_people_and_images_is_the_fit_to_the_doubly_copied_votes() -> None:
    rng = np.random.default_rng(4)
    people, images = resampling_weights(rng, 40, 3), resampling_weights(rng, 20, 3)
    replicates = resample_participants_and_images(VOTES, weights=(people, images))
    for number in range(3):
        times = (people[number][VOTES.participant] * images[number][VOTES.image]).astype(int)
        rows = np.repeat(np.arange(len(VOTES)), times)
        fitted = rank(copied(VOTES, rows), VOTES.criteria[0], errors="model").log_worth
        assert replicates.log_worth[number, 0] == pytest.approx(fitted, abs=1e-7)


def test_the_same_seed_draws_the_same_studies_and_another_seed_others() -> None:
    one, again, other = (resample_participants(VOTES, replicates=20, seed=seed) for seed in (1, 1, 2))
    assert (one.log_worth == again.log_worth).all()
    assert (one.log_worth != other.log_worth).any()


def test_resampling_and_the_sandwich_tell_about_the_same_error() -> None:
    votes = simulate_votes(Design(150, 20, 12, ("q",)), TRUTH, seed=2)
    drawn = contrast_interval(resample_participants(votes, replicates=600), "q", "a", "c")
    sandwich = rank(votes, "q", errors="participant").contrast("a", "c")
    assert drawn.standard_error == pytest.approx(sandwich.standard_error, rel=0.12)
    assert drawn.estimate == pytest.approx(sandwich.difference, abs=1e-8)


def test_images_add_to_the_spread_of_people_alone() -> None:
    people = strength_interval(resample_participants(VOTES), VOTES.criteria[0], "a")
    both = strength_interval(resample_participants_and_images(VOTES), VOTES.criteria[0], "a")
    assert (both.standard_error or 0) > (people.standard_error or 0)


def test_the_probabilities_of_being_best_sum_to_one_and_favour_the_best() -> None:
    votes = simulate_votes(Design(40, 20, 12, ("q",)), Truth({"a": 2.0, "b": 0.0, "c": -0.5}), seed=11)
    best = probability_of_best(resample_participants(votes), "q")
    assert best.sum() == pytest.approx(1)
    assert best.argmax() == 0


def test_replicates_without_finite_strengths_are_counted_not_hidden() -> None:
    few = simulate_votes(Design(4, 6, 6, ("q",)), Truth({"a": 2.5, "b": 0.0, "c": -2.5}), seed=1)
    replicates = resample_participants(few, replicates=200)
    interval = strength_interval(replicates, "q", "a")
    assert interval.without == int((~replicates.exists).sum())
    assert interval.without + interval.replicates == 200
    assert np.isnan(replicates.log_worth[~replicates.exists]).all()
    assert resample_participants(few, replicates=200, ghost=0.5).exists.all()


def test_too_few_people_or_images_and_wrong_weights_are_refused() -> None:
    alone = simulate_votes(Design(1, 4, 4), TRUTH, 1)
    with pytest.raises(BootstrapError, match="1 participants"):
        resample_participants(alone)
    one_image = simulate_votes(Design(4, 1, 1), TRUTH, 1)
    with pytest.raises(BootstrapError, match="1 images"):
        resample_participants_and_images(one_image)
    with pytest.raises(BootstrapError, match=r"need \(replicates, 40\)"):
        resample_participants(VOTES, weights=np.ones((3, 5), dtype=np.float32))
    triples = simulate_votes(Design(5, 5, 5, best_of_n=True), Truth({"a": 0.0, "b": 0.0, "c": 0.0}), 1)
    with pytest.raises(CountsError, match="up to 3 methods"):
        resample_participants(triples)


def test_a_count_that_is_negative_or_not_a_number_is_refused() -> None:
    for wrong in (-1.0, np.nan):
        with pytest.raises(VotesError, match="negative count"):
            fit_tables(np.full((1, 2, 2), wrong))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), tables=st.integers(1, 60))
def test_at_the_maximum_expected_wins_equal_observed_wins(seed: int, tables: int) -> None:
    wins = np.random.default_rng(seed).integers(0, 20, (tables, 5, 5)) * (1 - np.eye(5))
    fit = fit_tables(wins, np.random.default_rng(seed).normal(0, 1, 5))
    worth = np.exp(fit.log_worth[fit.converged])
    share = worth[:, :, None] / (worth[:, :, None] + worth[:, None, :])
    found = wins[fit.converged]
    expected = ((found + found.swapaxes(1, 2)) * share).sum(axis=2)
    assert expected == pytest.approx(found.sum(axis=2), abs=1e-6)
