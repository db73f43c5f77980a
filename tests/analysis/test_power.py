"""Sample sizes against published tables, scipy's exact test, and simulated studies against closed forms."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from analysis.power import (
    Plan,
    design_effect,
    read_plan,
    sign_test_power,
    sign_test_votes,
    simulate_power,
    two_way_standard_error,
)
from analysis.rates import preference_rates
from analysis.simulate import Design, DesignError, Truth, expected_share, simulate_votes

DEFINITION = """
study: s
methods: [{key: asuka, role: target}, {key: lama}, {key: telea}]
criteria: [{key: c1}, {key: c2}]
plan: {real: 20}
images: {sample: {n: 30, seed: 1}}
target: {participants: 50}
"""


def test_sample_sizes_are_those_of_the_tables() -> None:
    assert [sign_test_votes(share) for share in (0.6, 0.65, 0.7)] == [199, 90, 49]
    assert [sign_test_votes(share, alpha=0.05 / 36) for share in (0.6, 0.65, 0.7)] == [410, 180, 101]
    assert [sign_test_votes(share, alpha=0.05 / 72) for share in (0.6, 0.65, 0.7)] == [449, 199, 108]


def test_the_power_of_the_sign_test_adds_up_what_scipy_rejects() -> None:
    for votes, share in ((20, 0.7), (111, 0.64), (7, 0.9)):
        rejected = [k for k in range(votes + 1) if stats.binomtest(k, votes).pvalue <= 0.05]
        assert sign_test_power(votes, share) == pytest.approx(stats.binom.pmf(rejected, votes, share).sum())


def test_the_design_effect_is_kishs() -> None:
    assert design_effect(40, 0.05) == pytest.approx(2.95)


def test_no_preference_cannot_be_found_and_nonsense_is_refused() -> None:
    with pytest.raises(DesignError, match="no preference"):
        sign_test_votes(0.5)
    with pytest.raises(DesignError, match="make no test"):
        sign_test_power(0, 0.6)


def test_the_first_order_error_is_that_of_simulated_studies() -> None:
    design = Design(60, 30, 15, ("q",))
    truth = Truth({"a": 0.0, "b": 0.0}, 0.4, 0.4)
    shares = [preference_rates(simulate_votes(design, truth, seed), target="a")[0].estimate or 0 for seed in range(300)]
    # Both utilities of a pair vary, so each spread counts sqrt(2) times.
    expected = two_way_standard_error(design, 1, 0.4 * np.sqrt(2), 0.4 * np.sqrt(2))
    assert np.std(shares) == pytest.approx(expected, rel=0.15)


def test_a_definition_says_how_large_its_study_is(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(DEFINITION)
    plan = read_plan(tmp_path / "study.yaml")
    assert (plan.methods, plan.tests) == (("asuka", "lama", "telea"), 4)
    assert (plan.design.participants, plan.design.images, plan.design.trials) == (50, 30, 20)
    assert plan.design.target == "asuka"
    (tmp_path / "round.yaml").write_text(DEFINITION + "contrasts: round_robin\n")
    assert read_plan(tmp_path / "round.yaml").tests == 6


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [", "cannot be read"),
        ("hello", "no list of methods"),
        ("methods: [{name: x}]", "describe a study's size"),
        (DEFINITION.replace("images:", "pictures:"), "--images"),
    ],
)
def test_a_definition_that_says_too_little_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(DesignError, match=complaint):
        read_plan(tmp_path / "study.yaml")


def test_simulated_power_keeps_its_level_and_grows_with_the_preference() -> None:
    plan = Plan(Design(40, 20, 20, ("q",), target="a"), ("a", "b"), 1)
    nothing = simulate_power(plan, 0.5, simulations=120)
    strong = simulate_power(plan, 0.7, simulations=40)
    assert nothing.power < 0.13
    assert strong.power > 0.75
    assert strong.any_power >= strong.power


def test_simulated_people_prefer_as_often_as_expected() -> None:
    truth = Truth({"a": 0.8, "b": 0.0}, 0.6, 0.6)
    votes = simulate_votes(Design(2000, 2000, 4, ("q",)), truth, seed=1)
    share = preference_rates(votes, target="a")[0].estimate
    assert share == pytest.approx(expected_share(truth, "a", ["b"], 200_000, seed=2), abs=0.025)


def test_impossible_designs_are_refused() -> None:
    with pytest.raises(DesignError, match="sees 5 images of 4"):
        simulate_votes(Design(2, 4, 5), Truth({"a": 0.0, "b": 0.0}), 1)
    with pytest.raises(DesignError, match="has 1 methods"):
        simulate_votes(Design(2, 4, 4), Truth({"a": 0.0}), 1)
    with pytest.raises(DesignError, match="target 'x'"):
        simulate_votes(Design(2, 4, 4, target="x"), Truth({"a": 0.0, "b": 0.0}), 1)


def test_power_of_best_of_n_lies_between_the_closed_forms_of_its_first_and_last_holm_step() -> None:
    # Without person or image effects a contrast of Luce's strengths is a log odds of two multinomial counts.
    plan = Plan(Design(60, 20, 8, ("q",), target="a", best_of_n=True), ("a", "b", "c"), 2)
    found = simulate_power(plan, 0.6, participant_sd=0.0, image_sd=0.0, simulations=150)
    votes, odds = 60 * 8, 0.6 / 0.4
    target = odds / (odds + 2)
    error = np.sqrt((1 / target + (odds + 2)) / votes)
    last, first = (stats.norm.sf(stats.norm.isf(alpha / 2) - np.log(odds) / error) for alpha in (0.05, 0.025))
    assert first - 0.1 < found.power < last + 0.1  # three standard errors of 150 studies, and t instead of normal
    assert last < 0.97
    assert found.interval_width == pytest.approx(2 * 1.96 * np.sqrt(target * (1 - target) / votes), rel=0.15)


def test_best_of_n_keeps_its_level_with_people_and_images_that_vary() -> None:
    plan = Plan(Design(40, 30, 15, ("q", "r"), target="a", best_of_n=True), ("a", "b", "c"), 4)
    nothing = simulate_power(plan, 0.5, simulations=100)
    assert nothing.any_power < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)


def test_a_best_of_n_family_without_a_target_is_every_pair() -> None:
    design = Design(40, 20, 20, ("q",), best_of_n=True)
    methods = ("a", "b", "c", "d")
    declared = simulate_power(Plan(replace(design, target="a"), methods, 3), 0.62, simulations=40)
    every = simulate_power(Plan(design, methods, 6), 0.62, simulations=40)
    # The same studies; three more tests in the correction can only take findings away.
    assert 0 < every.power < declared.power
    assert every.interval_width == declared.interval_width


def test_a_best_of_n_study_without_finite_strengths_finds_nothing() -> None:
    plan = Plan(Design(5, 3, 1, ("q",), target="a", best_of_n=True), ("a", "b", "c", "d", "e", "f", "g"), 6)
    assert simulate_power(plan, 0.9, simulations=3).power == 0.0
