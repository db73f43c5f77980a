"""Rates against the paper's printed table, a sandwich written out in loops, and cases without an answer."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.rates import exact_percent, preference_rates, selection_ratios, tie_counts, vote_counts
from analysis.simulate import PAPER_COUNTS, PAPER_TRIALS, Design, Truth, simulate_votes
from analysis.votes import CANT_TELL, CHOICE, NONE, TIE, Votes, VotesError, make_votes

PAPER_TABLE_2C = {
    "context_stability": "3.98 7.40 8.18 4.88 10.58 7.70 16.18 1.60 39.43",
    "visual_consistency": "4.98 3.20 8.28 5.60 5.75 15.83 15.78 0.55 40.05",
}


def pair_votes(rows: list[tuple[int, int, int, int, int, int]]) -> Votes:
    """(participant, image, left, right, outcome, position) on methods a, b, c and one criterion."""
    table = np.array(rows, dtype=np.int64).reshape(-1, 6)
    return make_votes(
        participant=table[:, 0], image=table[:, 1], criterion=np.zeros(len(table), np.int64), shown=table[:, 2:4],
        outcome=table[:, 4], position=table[:, 5], participants=["p0", "p1", "p2", "p3"],
        images=["i0", "i1", "i2"], criteria=["looks"], methods=["a", "b", "c"],
    )  # fmt: skip


@pytest.mark.parametrize("criterion", PAPER_TABLE_2C)
def test_the_papers_table_is_printed_digit_for_digit_from_its_whole_numbers(criterion: str) -> None:
    printed = [exact_percent(count, PAPER_TRIALS) for count in PAPER_COUNTS[criterion].values()]
    assert printed == PAPER_TABLE_2C[criterion].split()


def test_the_papers_first_column_lacks_four_answers() -> None:
    sums = {criterion: sum(counts.values()) for criterion, counts in PAPER_COUNTS.items()}
    assert sums == {"context_stability": 3996, "visual_consistency": 4000}


def test_binary_formatting_would_misprint_four_cells_of_the_papers_table() -> None:
    wrong = [
        method
        for criterion, table in PAPER_TABLE_2C.items()
        for (method, count), cell in zip(PAPER_COUNTS[criterion].items(), table.split(), strict=True)
        if f"{100 * count / PAPER_TRIALS:.2f}" != cell
    ]
    assert wrong == ["SD", "ASUKA", "Co-Mod", "SD-text"]


@given(count=st.integers(0, 10**6), more=st.integers(1, 10**6), decimals=st.integers(0, 6))
def test_a_printed_share_is_within_half_a_unit_of_the_exact_one(count: int, more: int, decimals: int) -> None:
    total = count + more
    unit = int(exact_percent(count, total, decimals).replace(".", ""))
    # |printed - exact| <= half a unit in the last place, in whole numbers; the upper bound is open: half goes up.
    assert -total < 2 * (count * 100 * 10**decimals - unit * total) < total or (
        2 * (count * 100 * 10**decimals - unit * total) == -total
    )


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(VotesError, match="0 of 0"):
        exact_percent(0, 0)


def test_the_intervals_agree_with_sandwiches_written_out_in_loops() -> None:
    votes = simulate_votes(Design(20, 8, 8, ("q",)), Truth({"a": 0.4, "b": 0.0}), seed=3)
    (rate,) = preference_rates(votes, target="a")
    won = (votes.chosen == votes.method_code("a")).astype(float)
    share = won.mean()

    def variance(codes: np.ndarray) -> float:
        groups = np.unique(codes)
        total = sum(float((won[codes == group] - share).sum()) ** 2 for group in groups)
        return len(groups) / (len(groups) - 1) * total / len(won) ** 2

    both = votes.participant * 100 + votes.image
    expected = {
        "naive": variance(np.arange(len(won))),
        "participant": variance(votes.participant),
        "image": variance(votes.image),
        "two-way": variance(votes.participant) + variance(votes.image) - variance(both),
    }
    for clustering, value in expected.items():
        assert rate.intervals[clustering].standard_error == pytest.approx(sqrt(value), rel=1e-12)  # type: ignore[index]


def test_with_many_independent_voters_the_interval_is_wilsons() -> None:
    votes = simulate_votes(Design(4000, 4000, 1, ("q",)), Truth({"a": 0.3, "b": 0.0}, 0, 0), seed=1)
    (rate,) = preference_rates(votes, target="a")
    wilson = stats.binomtest(rate.wins, rate.n).proportion_ci(method="wilson")
    assert rate.intervals["participant"].low == pytest.approx(wilson.low, abs=2e-4)
    assert rate.intervals["participant"].high == pytest.approx(wilson.high, abs=2e-4)


def test_counts_ties_and_denominators_are_stated() -> None:
    votes = pair_votes(
        [(0, 0, 0, 1, CHOICE, 0), (1, 0, 1, 0, CHOICE, 0), (2, 1, 0, 1, TIE, NONE), (3, 1, 0, 1, CANT_TELL, NONE)]
    )
    (half,) = preference_rates(votes, target="a", ties="half")[:1]
    (dropped,) = preference_rates(votes, target="a", ties="dropped")[:1]
    assert (half.wins, half.ties, half.losses, half.half_points, half.n, half.percent(0)) == (1, 1, 1, 3, 3, "50")
    assert (dropped.wins, dropped.ties, dropped.losses, dropped.n) == (1, 0, 1, 2)
    assert vote_counts(votes, "looks").tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert tie_counts(votes, "looks").tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_the_average_selection_ratio_of_unequally_diligent_people_differs_from_the_pooled_one() -> None:
    votes = pair_votes(
        [(0, 0, 0, 1, CHOICE, 0), (1, 0, 0, 1, CHOICE, 1), (1, 1, 0, 1, CHOICE, 1), (1, 2, 0, 1, CHOICE, 1)]
    )
    (rate,) = preference_rates(votes, target="a")[:1]
    assert (rate.estimate, rate.participant_mean) == (0.25, 0.5)


def test_excluded_and_repeated_trials_do_not_count_until_exclusions_are_lifted() -> None:
    votes = pair_votes([(0, 0, 0, 1, CHOICE, 0), (1, 0, 0, 1, CHOICE, 1)])
    excluded = make_votes(
        participant=votes.participant, image=votes.image, criterion=votes.criterion, shown=votes.shown,
        outcome=votes.outcome, position=votes.position, participants=votes.participants, images=votes.images,
        criteria=votes.criteria, methods=votes.methods, used=np.array([True, False]),
    )  # fmt: skip
    assert preference_rates(excluded, target="a")[0].n == 1
    assert preference_rates(excluded.with_exclusions_lifted(), target="a")[0].n == 2


def test_without_votes_nothing_is_estimated_and_the_reason_is_given() -> None:
    rates = selection_ratios(pair_votes([]))
    assert [(rate.n, rate.estimate, rate.percent()) for rate in rates] == [(0, None, "-")] * 3
    assert all("no trial" in rate.interval.note for rate in rates)


def test_one_participant_gives_a_share_but_no_interval_over_people() -> None:
    votes = pair_votes([(0, 0, 0, 1, CHOICE, 0), (0, 1, 0, 1, CHOICE, 1), (0, 2, 0, 1, CHOICE, 0)])
    (rate,) = preference_rates(votes, target="a")[:1]
    assert rate.estimate == pytest.approx(2 / 3)
    assert rate.interval.low is None
    assert "participants" in rate.interval.note
    assert rate.intervals["image"].low is not None


def test_one_image_gives_an_interval_over_people_only() -> None:
    votes = pair_votes([(person, 0, 0, 1, CHOICE, person % 2) for person in range(4)])
    (rate,) = preference_rates(votes, target="a")[:1]
    assert "images" in rate.interval.note
    assert rate.intervals["participant"].low is not None


def test_a_method_that_never_wins_gets_an_upper_bound_from_the_number_of_clusters() -> None:
    votes = pair_votes([(person, image, 0, 1, CHOICE, 1) for person in range(4) for image in range(3)])
    (rate,) = preference_rates(votes, target="a")[:1]
    assert rate.estimate == 0
    assert rate.interval.standard_error is None
    assert rate.interval.low == 0
    assert rate.interval.high is not None
    assert rate.interval.high > 0.5  # three images that all agree say little about the fourth
    assert rate.interval.note


def test_all_ties_are_a_half_with_a_warning_or_nothing_decided() -> None:
    votes = pair_votes([(person, image, 0, 1, TIE, NONE) for person in range(4) for image in range(3)])
    (half,) = preference_rates(votes, target="a", ties="half")[:1]
    assert (half.percent(), half.ties, half.interval.standard_error) == ("50.00", 12, None)
    assert preference_rates(votes, target="a", ties="dropped") == ()


def test_a_tie_among_three_cannot_be_halved() -> None:
    votes = make_votes(
        participant=np.array([0]), image=np.array([0]), criterion=np.array([0]), shown=np.array([[0, 1, 2]]),
        outcome=np.array([TIE]), position=np.array([NONE]), participants=["p"], images=["i"], criteria=["q"],
        methods=["a", "b", "c"],
    )  # fmt: skip
    with pytest.raises(VotesError, match="cannot be halved"):
        selection_ratios(votes)
    with pytest.raises(VotesError, match="selection_ratios"):
        preference_rates(votes)


def test_a_level_outside_zero_to_one_is_refused() -> None:
    with pytest.raises(VotesError, match="95"):
        selection_ratios(pair_votes([]), level=95)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.integers(1, 30))
def test_renaming_people_and_images_changes_nothing(seed: int, shift: int) -> None:
    votes = simulate_votes(Design(12, 6, 4, ("q",)), Truth({"a": 0.5, "b": 0.0, "c": -0.3}, tie_strength=0.4), seed)
    order = np.random.default_rng(shift).permutation(len(votes))
    renamed = make_votes(
        participant=11 - votes.participant[order], image=5 - votes.image[order], criterion=votes.criterion[order],
        shown=votes.shown[order], outcome=votes.outcome[order], position=votes.position[order],
        participants=votes.participants, images=votes.images, criteria=votes.criteria, methods=votes.methods,
    )  # fmt: skip
    for one, other in zip(selection_ratios(votes), selection_ratios(renamed), strict=True):
        assert one.half_points == other.half_points
        assert one.interval.low == pytest.approx(other.interval.low)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_rate_of_a_over_b_and_of_b_over_a_mirror_each_other(seed: int) -> None:
    votes = simulate_votes(Design(12, 6, 6, ("q",)), Truth({"a": 0.5, "b": 0.0}, tie_strength=0.4), seed)
    (forth,), (back,) = preference_rates(votes, target="a"), preference_rates(votes, target="b")
    assert forth.half_points + back.half_points == 2 * forth.n
    assert (forth.interval.low, forth.interval.high) == (
        pytest.approx(1 - (back.interval.high or 0)),
        pytest.approx(1 - (back.interval.low or 0)),
    )


def test_doubling_every_vote_leaves_participant_intervals_alone() -> None:
    votes = simulate_votes(Design(30, 10, 5, ("q",)), Truth({"a": 0.5, "b": 0.0}), seed=8)
    twice = np.concatenate([np.arange(len(votes))] * 2)
    doubled = make_votes(
        participant=votes.participant[twice], image=votes.image[twice], criterion=votes.criterion[twice],
        shown=votes.shown[twice], outcome=votes.outcome[twice], position=votes.position[twice],
        participants=votes.participants, images=votes.images, criteria=votes.criteria, methods=votes.methods,
    )  # fmt: skip
    (once,), (two,) = preference_rates(votes, target="a"), preference_rates(doubled, target="a")
    for clustering in ("participant", "image", "two-way"):
        assert once.intervals[clustering].low == pytest.approx(two.intervals[clustering].low)
    assert (once.intervals["naive"].low or 0) < (two.intervals["naive"].low or 0)
