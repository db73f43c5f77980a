"""Tests of preference against enumeration, scipy, statsmodels and Benjamini and Hochberg's own example."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import false_discovery_control
from statsmodels.stats.multitest import multipletests

from analysis.significance import TestInputError, adjust, preference_tests, sign_flip_p_value
from analysis.simulate import Design, Truth, simulate_votes

BENJAMINI_HOCHBERG_1995 = [
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0,
]  # fmt: skip


def test_benjamini_and_hochbergs_example_rejects_four_and_holm_three() -> None:
    assert sum(p <= 0.05 for p in adjust(BENJAMINI_HOCHBERG_1995, "benjamini-hochberg")) == 4
    assert sum(p <= 0.05 for p in adjust(BENJAMINI_HOCHBERG_1995, "holm")) == 3


@settings(max_examples=50, deadline=None)
@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_benjamini_and_hochbergs_correction_agrees_with_scipy(p: list[float]) -> None:
    assert adjust(p, "benjamini-hochberg") == pytest.approx(false_discovery_control(p, method="bh"))
    assert adjust(p, "none") == p


@settings(max_examples=8, deadline=None)  # statsmodels collects garbage at every call: half a second beside other tests
@given(p=st.lists(st.floats(0, 1), min_size=3, max_size=12))
def test_holms_correction_agrees_with_statsmodels(p: list[float]) -> None:
    assert adjust(p, "holm") == pytest.approx(multipletests(p, method="holm")[1])


def test_a_p_value_that_is_none_is_refused() -> None:
    for wrong in (float("nan"), -0.1, 1.5):
        with pytest.raises(TestInputError):
            adjust([wrong], "holm")


@settings(max_examples=25, deadline=None)
@given(differences=st.lists(st.integers(-6, 6), min_size=1, max_size=9))
def test_the_sign_flip_p_value_counts_all_sign_patterns(differences: list[int]) -> None:
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    assert sign_flip_p_value(differences) == pytest.approx(np.mean([total >= abs(sum(differences)) for total in sums]))


def test_with_single_votes_the_sign_flip_test_is_the_sign_test() -> None:
    assert sign_flip_p_value([1] * 17 + [-1] * 5) == pytest.approx(stats.binomtest(17, 22).pvalue)


def test_a_large_study_uses_the_normal_limit_near_the_exact_value() -> None:
    rng = np.random.default_rng(0)
    differences = rng.integers(-40, 44, 1500)
    monte_carlo = np.abs(rng.choice([-1, 1], (4000, 1500)) @ differences)
    assert sign_flip_p_value(differences) == pytest.approx((monte_carlo >= abs(differences.sum())).mean(), abs=0.025)


def test_the_family_covers_every_pair_and_criterion() -> None:
    votes = simulate_votes(Design(30, 20, 12), Truth({"a": 1.5, "b": 0.0, "c": 0.0}, tie_strength=0.2), seed=3)
    tests = preference_tests(votes)
    assert [test.family for test in tests] == [6] * 6
    assert len(preference_tests(votes, target="a")) == 4
    expected = multipletests([test.clustered_p for test in tests], method="holm")[1]
    assert [test.adjusted_p for test in tests] == pytest.approx(expected)
    first = tests[0]
    assert (first.method, first.other) == ("a", "b")
    assert first.binomial_p == pytest.approx(stats.binomtest(first.wins, first.wins + first.losses).pvalue)
    assert max(p for p in (first.sign_flip_p, first.wilcoxon_p, first.clustered_p) if p is not None) < 0.01


def test_clustered_tests_keep_their_level_where_counting_votes_does_not() -> None:
    naive = clustered = 0
    for seed in range(80):
        votes = simulate_votes(Design(40, 20, 10, ("q",)), Truth({"a": 0.0, "b": 0.0}, 0.8, 0.8), seed)
        (test,) = preference_tests(votes, target="a")
        naive += test.binomial_p < 0.05
        clustered += test.clustered_p is not None and test.clustered_p < 0.05
    assert naive / 80 > 0.2
    assert clustered / 80 < 0.13  # 5 % and three standard errors


def test_nobody_deciding_gives_no_evidence() -> None:
    votes = simulate_votes(Design(4, 4, 4, ("q",)), Truth({"a": 0.0, "b": 0.0}, tie_strength=1e9), seed=1)
    (test,) = preference_tests(votes, target="a")
    assert (test.binomial_p, test.sign_flip_p, test.wilcoxon_p, test.clustered_p) == (1.0, 1.0, None, None)
