"""Checks of the one-scale model: published deviances, hand-made circles, and data that obey or break the model."""

import numpy as np
import pytest
from published import baseball, games, puddings

from analysis.fit_checks import domain_differences, goodness_of_fit, image_differences, luce_axiom, transitivity
from analysis.simulate import Design, Truth, simulate_votes
from analysis.votes import VotesError, make_votes

FOUR = {"a": 0.6, "b": 0.1, "c": -0.3, "d": 0.0}


def test_the_fit_to_davidsons_puddings_has_as_many_degrees_as_he_counts() -> None:
    found = goodness_of_fit(puddings(), "preference")
    assert found.degrees_of_freedom == 15 * 2 - 6
    assert found.pearson == pytest.approx(found.statistic, rel=0.1)
    assert found.p_value is not None
    assert found.p_value > 0.5  # he finds the model adequate


def test_nine_methods_leave_twenty_eight_degrees() -> None:
    votes = simulate_votes(Design(60, 40, 40, ("q",)), Truth({f"m{i}": 0.1 * i for i in range(9)}, 0, 0), seed=1)
    assert goodness_of_fit(votes, "q").degrees_of_freedom == 28


def test_votes_that_obey_the_model_fit_and_circles_do_not() -> None:
    p_values = [
        goodness_of_fit(simulate_votes(Design(40, 20, 20, ("q",)), Truth(FOUR, 0, 0), seed), "q").p_value or 0
        for seed in range(40)
    ]
    assert np.mean(np.array(p_values) < 0.05) < 0.18
    circle = games(([(0, 1, 0), (1, 2, 0), (2, 0, 0)] * 80) + ([(0, 1, 1), (1, 2, 1), (2, 0, 1)] * 20), ("a", "b", "c"))
    found = goodness_of_fit(circle, "preference")
    assert found.p_value is not None
    assert found.p_value < 1e-10
    assert found.degrees_of_freedom == 1


def test_the_statistic_is_the_deviance_agresti_prints_when_sides_are_kept_apart() -> None:
    # With sides pooled the deviance must be below the 44.05 on 42 degrees of the unpooled table.
    found = goodness_of_fit(baseball(), "preference")
    assert found.degrees_of_freedom == 15
    assert found.statistic < 44.05
    assert found.statistic == pytest.approx(15.7365, abs=0.05)  # Agresti 2002, section 10.6.1: G2 = 15.7, df = 15


def test_circular_triads_are_counted() -> None:
    circle = games([(0, 1, 0), (1, 2, 0), (2, 0, 0), (0, 3, 0), (1, 3, 0), (2, 3, 0)], tuple("abcd"))
    found = transitivity(circle, "preference")
    assert (found.triples, found.circular, found.weak) == (4, 1, 3)


def test_stochastic_transitivity_compares_the_long_step_with_the_short_ones() -> None:
    def with_long_step(wins: int) -> tuple[int, int, int]:
        rows = [(0, 1, 0)] * 7 + [(0, 1, 1)] * 3 + [(1, 2, 0)] * 6 + [(1, 2, 1)] * 4
        rows += [(0, 2, 0)] * wins + [(0, 2, 1)] * (10 - wins)
        found = transitivity(games(rows, ("a", "b", "c")), "preference")
        return found.weak, found.moderate, found.strong

    assert (with_long_step(9), with_long_step(7), with_long_step(6)) == ((1, 1, 1), (1, 1, 1), (1, 1, 0))
    rows = [(0, 1, 0)] * 7 + [(0, 1, 1)] * 3 + [(0, 2, 0)] * 5 + [(0, 2, 1)] * 5
    assert transitivity(games(rows, ("a", "b", "c")), "preference").undecided == 1


def test_domains_that_differ_are_told_from_those_that_do_not() -> None:
    votes = simulate_votes(
        Design(60, 40, 20, ("q",), domains=("indoor", "outdoor")), Truth({"a": 0.5, "b": 0.0, "c": -0.2}, 0, 0), seed=1
    )
    same = domain_differences(votes, "q")
    assert (same.degrees_of_freedom, same.p_value is not None and same.p_value > 0.01) == (2, True)
    outdoor = votes.domain[votes.image] == 1
    shown = np.where(outdoor[:, None], 2 - votes.shown, votes.shown)  # a and c trade places outdoors
    mixed = make_votes(
        participant=votes.participant, image=votes.image, criterion=votes.criterion, shown=shown, outcome=votes.outcome,
        position=votes.position, participants=votes.participants, images=votes.images, criteria=votes.criteria,
        methods=votes.methods, domain=votes.domain, domains=votes.domains,
    )  # fmt: skip
    found = domain_differences(mixed, "q")
    assert found.p_value is not None
    assert found.p_value < 1e-3
    with pytest.raises(VotesError, match="at least two"):
        domain_differences(simulate_votes(Design(10, 10, 10, ("q",)), Truth(FOUR, 0, 0), seed=1), "q")


def test_the_spread_between_images_is_recovered() -> None:
    alike = image_differences(
        simulate_votes(Design(400, 30, 30, ("q",)), Truth({"a": 0.0, "b": 0.0}, 0, 0), 1), "q", "a"
    )
    varied = image_differences(
        simulate_votes(Design(400, 30, 30, ("q",)), Truth({"a": 0.0, "b": 0.0}, 0, 1), 1), "q", "a"
    )
    assert alike.i_squared < 0.5
    assert varied.i_squared > 0.9
    # Utilities differ with sd sqrt(2); the logistic slope at one half is 1/4, flatter further out.
    assert 0.2 < varied.tau < 0.36


def test_lonely_images_and_unanimous_votes_have_no_spread() -> None:
    alone = image_differences(simulate_votes(Design(20, 1, 1, ("q",)), Truth({"a": 0.0, "b": 0.0}), 1), "q", "a")
    assert (alone.p_value, alone.tau) == (None, 0.0)
    votes = simulate_votes(Design(5, 5, 5, ("q",)), Truth({"a": 99.0, "b": 0.0, "c": 0.0}), 1)
    assert image_differences(votes, "q", "a").tau == 0.0


def test_luces_axiom_holds_for_luces_choosers_and_not_for_twins() -> None:
    truth = Truth(FOUR, 0, 0)
    p_values = []
    for seed in range(30):
        pairs = simulate_votes(Design(40, 20, 20, ("q",)), truth, seed)
        among_all = simulate_votes(Design(40, 20, 20, ("q",), best_of_n=True), truth, seed + 1000)
        found = luce_axiom(pairs, among_all, "q")
        p_values.append(found.p_value or 0)
        assert found.degrees_of_freedom == 3
    assert np.mean(np.array(p_values) < 0.05) < 0.2
    # c and d are twins: shown together they split their votes.
    pairs = simulate_votes(Design(60, 20, 20, ("q",)), Truth(dict.fromkeys("abcd", 0.0), 0, 0), 1)
    split = {"a": 0.0, "b": 0.0, "c": -0.7, "d": -0.7}
    among_all = simulate_votes(Design(60, 20, 20, ("q",), best_of_n=True), Truth(split, 0, 0), 2)
    assert (luce_axiom(pairs, among_all, "q").p_value or 0) < 1e-4
    with pytest.raises(VotesError, match="different methods"):
        luce_axiom(pairs, simulate_votes(Design(5, 5, 5, ("q",)), Truth({"a": 0.0, "b": 0.0}), 1), "q")
