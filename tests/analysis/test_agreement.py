"""Agreement against the published examples of Krippendorff, Fleiss and Gwet, and evalica's alpha."""

import evalica
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import fleiss_kappa

from analysis.agreement import agreement, measures
from analysis.simulate import Design, Truth, simulate_votes
from analysis.votes import make_votes

KRIPPENDORFF_2011 = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
)
"""Four observers, twelve units, 0 = missing."""


def table_of(ratings: np.ndarray) -> np.ndarray:
    """(items, categories) counts of an (observers, items) table, 0 = missing."""
    return np.array([[(unit == c).sum() for c in range(1, ratings.max() + 1)] for unit in ratings.T], dtype=float)


def fleiss_table() -> np.ndarray:
    """Thirty patients, six psychiatrists, five diagnoses, from the ratings each patient got (Fleiss 1971, table 1)."""
    ratings = (
        "444444 222555 233335 555555 222444 113333 333355 113334 114444 555555 "
        "144444 124444 222333 144444 224445 333335 111455 111112 224444 133555 "
        "555555 244444 224555 114444 144445 222224 111155 224444 133333 555555"
    )
    return np.array([[row.count(str(c)) for c in range(1, 6)] for row in ratings.split()], dtype=float)


def test_krippendorffs_example_gives_his_alpha_and_gwets_values() -> None:
    found = measures(table_of(KRIPPENDORFF_2011))
    assert found["alpha"][0] == pytest.approx(0.743, abs=5e-4)
    assert found["percent"][0] == pytest.approx(0.8182, abs=5e-5)
    assert found["ac1"][0] == pytest.approx(0.7754, abs=5e-5)
    assert found["kappa"][0] == pytest.approx(0.7612, abs=5e-5)


def test_fleiss_example_gives_his_kappa() -> None:
    assert measures(fleiss_table())["kappa"][0] == pytest.approx(0.430, abs=5e-4)
    assert measures(fleiss_table())["kappa"][0] == pytest.approx(fleiss_kappa(fleiss_table()), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_alpha_agrees_with_evalica_on_any_table_with_gaps(seed: int) -> None:
    ratings = np.random.default_rng(seed).integers(0, 4, (5, 12))
    filled = pd.DataFrame(np.where(ratings == 0, np.nan, ratings))
    ours = measures(table_of(ratings))["alpha"][0]
    assert ours == pytest.approx(evalica.alpha(filled, distance="nominal").alpha, abs=1e-9)


def test_kinds_of_items_are_judged_by_their_own_chance() -> None:
    # Within each kind people answer at random; pooled, the names of the answers alone would look like agreement.
    rng = np.random.default_rng(0)
    counts = np.zeros((400, 4))
    kind = np.arange(400) % 2
    for item in range(400):
        for answer in rng.integers(0, 2, 6):
            counts[item, 2 * kind[item] + answer] += 1
    assert measures(counts, kind)["alpha"][0] == pytest.approx(0, abs=0.05)
    assert measures(counts)["alpha"][0] > 0.3


def test_people_of_one_mind_agree_and_coin_tossers_do_not() -> None:
    one_mind = simulate_votes(Design(20, 10, 10, ("q",)), Truth({"a": 9.0, "b": 0.0, "c": -9.0}, 0, 0), seed=1)
    found = agreement(one_mind, "q")
    assert found.estimates["percent"] == pytest.approx(1, abs=0.01)
    assert found.estimates["ac1"] == pytest.approx(1, abs=0.01)
    coins = simulate_votes(Design(60, 30, 30, ("q",)), Truth({"a": 0.0, "b": 0.0}, 0, 0), seed=1)
    found = agreement(coins, "q")
    for measure in ("alpha", "kappa", "ac1"):
        interval = found.intervals[measure]
        assert interval is not None
        assert interval[0] < interval[1]
        assert abs(found.estimates[measure] or 0) < 0.05


def test_without_two_answers_to_a_question_agreement_is_unknown() -> None:
    votes = simulate_votes(Design(1, 6, 6, ("q",)), Truth({"a": 0.0, "b": 0.0}), seed=1)
    found = agreement(votes, "q")
    assert set(found.estimates.values()) == {None}
    assert (found.items, found.single) == (0, 6)
    assert "cannot be estimated" in found.note


def test_if_all_always_answer_alike_chance_correction_is_undefined_except_gwets() -> None:
    n = 12
    votes = make_votes(
        participant=np.arange(n) % 3, image=np.arange(n) // 3, criterion=np.zeros(n, np.int8),
        shown=np.tile([0, 1], (n, 1)), outcome=np.zeros(n, np.int8), position=np.zeros(n, np.int8),
        participants="xyz", images="1234", criteria=["q"], methods=["a", "b"],
    )  # fmt: skip
    found = agreement(votes, "q")
    assert (found.estimates["alpha"], found.estimates["kappa"]) == (None, None)
    assert (found.estimates["percent"], found.estimates["ac1"]) == (1.0, 1.0)
