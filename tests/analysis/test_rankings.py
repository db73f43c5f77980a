"""Strengths against published fits, other libraries, and what must not depend on names or on doubling the votes."""

import choix
import evalica
import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from published import BASEBALL_TEAMS, JOURNALS, baseball, citations, games, puddings
from scipy import special, stats

from analysis.bradley_terry import groups_without_defeat, strongly_connected
from analysis.rankings import JOD, NoFiniteStrengthsError, quasi_standard_errors, rank
from analysis.simulate import PAPER_COUNTS, Design, Truth, simulate_votes
from analysis.votes import CHOICE, NONE, Votes, VotesError, make_votes

THREE = Truth({"a": 0.6, "b": 0.0, "c": -0.5}, tie_strength=0.5)


def printed(values: list[float], decimals: int) -> list[float]:
    return [round(value, decimals) for value in values]


def test_baseball_strengths_and_errors_are_those_in_agresti() -> None:
    ranking = rank(baseball(), "preference", errors="model")
    contrasts = [ranking.contrast(team, "Baltimore") for team in BASEBALL_TEAMS[:-1]]
    assert printed([c.difference for c in contrasts], 4) == [1.5814, 1.4364, 1.2945, 1.2476, 1.1077, 0.6839]
    assert printed([c.standard_error or 0 for c in contrasts], 4) == [0.3433, 0.3396, 0.3367, 0.3359, 0.3339, 0.3319]


def test_playing_at_home_is_worth_what_agresti_says() -> None:
    ranking = rank(baseball(), "preference", errors="model", order_effect=True)
    differences = [ranking.contrast(team, "Baltimore").difference for team in BASEBALL_TEAMS[:-1]]
    assert printed(differences, 4) == [1.6196, 1.4754, 1.3271, 1.2813, 1.1438, 0.7047]
    assert round(ranking.extra["first place"], 4) == 0.3023
    plain = rank(baseball(), "preference", errors="model")
    assert round(2 * (ranking.log_likelihood - plain.log_likelihood), 1) == 5.4  # deviance 44.05 - 38.64


def test_stiglers_citations_rank_the_journals_as_published() -> None:
    ranking = rank(citations(), "preference", errors="model")
    contrasts = [ranking.contrast(name, "Biometrika") for name in JOURNALS[1:]]
    assert printed([c.difference for c in contrasts], 5) == [-2.94907, -0.47957, 0.26895]
    assert printed([c.standard_error or 0 for c in contrasts], 5) == [0.10255, 0.06059, 0.07083]


def test_davidsons_puddings_have_the_published_worths_errors_and_quasi_errors() -> None:
    ranking = rank(puddings(), "preference", "davidson", errors="model")
    worth = special.softmax(ranking.log_worth)
    published = [0.1388005, 0.1729985, 0.1617420, 0.1653930, 0.1586805, 0.2023855]
    assert worth == pytest.approx(published, abs=2.5e-5)  # the published fit stops after seven iterations
    assert np.exp(ranking.extra["log tie"]) == pytest.approx(0.7468147, abs=5e-5)
    errors = [ranking.contrast(brand, "1").standard_error for brand in "23456"]
    assert errors == pytest.approx([0.1872168, 0.1935181, 0.1882110, 0.1927043, 0.1924059], abs=5e-6)
    quasi = [0.1328950, 0.1327373, 0.1395740, 0.1330240, 0.1399253, 0.1392047]
    assert ranking.quasi_standard_errors() == pytest.approx(quasi, abs=2e-4)
    assert ranking.log_likelihood == pytest.approx(-809.710, abs=5e-4)


def test_rao_and_kuppers_model_fits_the_puddings_as_well_as_davidsons() -> None:
    ranking = rank(puddings(), "preference", "rao-kupper", errors="model")
    assert ranking.log_likelihood == pytest.approx(-809.697, abs=5e-4)
    assert ranking.parameters == 6


def test_errors_of_rao_and_kuppers_model_agree_with_numerical_curvature() -> None:
    votes = puddings()
    ranking = rank(votes, "preference", "rao-kupper", errors="model")
    first, second = votes.shown.T

    def negative_log_likelihood(theta: np.ndarray) -> float:
        d, kappa = theta[first] - theta[second], np.exp(theta[-1])
        p_first, p_second = 1 / (1 + kappa * np.exp(-d)), 1 / (1 + kappa * np.exp(d))
        chosen = np.choose(
            np.where(votes.position == NONE, 2, votes.position), [p_first, p_second, 1 - p_first - p_second]
        )
        return -float(np.log(chosen).sum())

    from statsmodels.tools.numdiff import approx_hess  # noqa: PLC0415 - only this test needs it

    at = np.append(ranking.log_worth, ranking.extra["threshold"])
    curvature = np.linalg.pinv(approx_hess(at, negative_log_likelihood))
    assert ranking.extra_errors["threshold"] == pytest.approx(np.sqrt(curvature[-1, -1]), rel=0.02)


def test_bradley_terry_agrees_with_evalica_choix_and_statsmodels() -> None:
    votes = simulate_votes(Design(40, 20, 10, ("q",)), Truth({"a": 0.6, "b": 0.1, "c": -0.5, "d": -0.2}), seed=5)
    ranking = rank(votes, "q", errors="model")
    won = votes.chosen
    lost = votes.shown[np.arange(len(votes)), 1 - votes.position]
    assert ranking.log_worth == pytest.approx(
        choix.ilsr_pairwise(4, list(zip(won, lost, strict=True)), tol=1e-12), abs=1e-7
    )
    scores = evalica.bradley_terry(
        [votes.methods[i] for i in won],
        [votes.methods[i] for i in lost],
        [evalica.Winner.X] * len(won),
        tolerance=1e-12,
    ).scores
    assert ranking.log_worth == pytest.approx(
        np.log(np.array([scores[name] for name in votes.methods])) - np.log(scores).mean(), abs=1e-5
    )
    design = np.eye(4)[votes.shown[:, 0]] - np.eye(4)[votes.shown[:, 1]]
    fit = sm.GLM((votes.position == 0).astype(float), design[:, :3], family=sm.families.Binomial()).fit(tol=1e-12)
    assert [ranking.contrast(name, "d").difference for name in "abc"] == pytest.approx(fit.params, abs=1e-7)
    assert [ranking.contrast(name, "d").standard_error for name in "abc"] == pytest.approx(fit.bse, rel=1e-5)


@pytest.mark.parametrize("errors", ["participant", "image"])
def test_clustered_errors_agree_with_statsmodels_up_to_its_own_factor(errors: str) -> None:
    votes = simulate_votes(Design(30, 12, 10, ("q",)), Truth({"a": 0.6, "b": 0.1, "c": -0.5}), seed=6)
    ranking = rank(votes, "q", errors=errors)  # type: ignore[arg-type]
    design = np.eye(3)[votes.shown[:, 0]] - np.eye(3)[votes.shown[:, 1]]
    groups = votes.participant if errors == "participant" else votes.image
    fit = sm.GLM((votes.position == 0).astype(float), design[:, :2], family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": groups}, tol=1e-12
    )
    n, k = design[:, :2].shape
    ours = np.array([ranking.contrast(name, "c").standard_error for name in "ab"])
    assert ours * np.sqrt((n - 1) / (n - k)) == pytest.approx(fit.bse, rel=1e-5)


def test_two_way_errors_add_people_and_images_and_take_away_their_overlap() -> None:
    votes = simulate_votes(Design(30, 12, 10, ("q",)), Truth({"a": 0.6, "b": 0.1, "c": -0.5}), seed=6)
    person, image, both = (rank(votes, "q", errors=e).covariance for e in ("participant", "image", "two-way"))
    overlap = votes.participant * 1000 + votes.image
    single = make_votes(
        participant=overlap, image=votes.image, criterion=votes.criterion, shown=votes.shown, outcome=votes.outcome,
        position=votes.position, participants=[str(i) for i in range(overlap.max() + 1)], images=votes.images,
        criteria=votes.criteria, methods=votes.methods,
    )  # fmt: skip
    cell = rank(single, "q", errors="participant").covariance
    assert person is not None
    assert image is not None
    assert both is not None
    assert cell is not None
    assert both == pytest.approx(person + image - cell, abs=1e-12)


def test_thurstone_agrees_with_a_probit_regression_and_is_told_in_jod() -> None:
    votes = simulate_votes(Design(40, 20, 10, ("q",)), Truth({"a": 0.6, "b": 0.1, "c": -0.5}), seed=7)
    ranking = rank(votes, "q", "thurstone", errors="model")
    design = np.eye(3)[votes.shown[:, 0]] - np.eye(3)[votes.shown[:, 1]]
    family = sm.families.Binomial(link=sm.families.links.Probit())
    fit = sm.GLM((votes.position == 0).astype(float), design[:, :2], family=family).fit(tol=1e-12)
    assert [ranking.contrast(name, "c").difference for name in "ab"] == pytest.approx(fit.params / 0.67449, rel=1e-5)
    assert [ranking.contrast(name, "c").standard_error for name in "ab"] == pytest.approx(fit.bse / 0.67449, rel=1e-4)
    assert stats.norm.cdf(JOD) == pytest.approx(0.75)


def test_luce_on_full_sets_is_the_logarithm_of_the_share() -> None:
    counts = PAPER_COUNTS["visual_consistency"]
    chosen = np.repeat(np.arange(9), list(counts.values()))
    n = chosen.size
    votes = make_votes(
        participant=np.arange(n) % 100, image=np.arange(n) % 40, criterion=np.zeros(n, np.int8),
        shown=np.tile(np.arange(9), (n, 1)), outcome=np.zeros(n, np.int8), position=chosen,
        participants=[str(i) for i in range(100)], images=[str(i) for i in range(40)], criteria=["q"],
        methods=tuple(counts),
    )  # fmt: skip
    share = np.log(np.array(list(counts.values())) / 4000)
    ranking = rank(votes, "q", "luce", errors="model")
    assert ranking.log_worth == pytest.approx(share - share.mean(), abs=1e-9)
    error = np.sqrt(1 / counts["ASUKA"] + 1 / counts["SD-text"])  # multinomial log odds
    assert ranking.contrast("ASUKA", "SD-text").standard_error == pytest.approx(error, rel=1e-9)


def test_luce_on_partial_sets_agrees_with_choix() -> None:
    full = simulate_votes(
        Design(60, 30, 10, ("q",), best_of_n=True), Truth({"a": 0.8, "b": 0.2, "c": -0.3, "d": 0.0}), 9
    )
    rng = np.random.default_rng(0)
    shown, position, data = [], [], []
    for _ in range(len(full)):
        size = int(rng.integers(2, 5))
        members = rng.permutation(4)[:size]
        weights = np.exp(np.array([0.8, 0.2, -0.3, 0.0])[members])
        place = int(rng.choice(size, p=weights / weights.sum()))
        shown.append([*members, *[NONE] * (4 - size)])
        position.append(place)
        data.append((int(members[place]), tuple(int(m) for m in np.delete(members, place))))
    votes = make_votes(
        participant=full.participant, image=full.image, criterion=full.criterion, shown=np.array(shown),
        outcome=np.full(len(full), CHOICE), position=np.array(position), participants=full.participants,
        images=full.images, criteria=full.criteria, methods=full.methods,
    )  # fmt: skip
    expected = choix.ilsr_top1(4, data, tol=1e-12)
    assert rank(votes, "q", "luce").log_worth == pytest.approx(expected - expected.mean(), abs=1e-7)


def test_luce_on_pairs_is_bradley_terry() -> None:
    votes = simulate_votes(Design(20, 10, 10, ("q",)), Truth({"a": 0.6, "b": 0.1, "c": -0.5}), seed=3)
    luce, pairs = rank(votes, "q", "luce"), rank(votes, "q")
    assert luce.log_worth == pytest.approx(pairs.log_worth, abs=1e-9)
    assert luce.covariance == pytest.approx(pairs.covariance, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), model=st.sampled_from(["bradley-terry", "davidson", "rao-kupper", "thurstone"]))
def test_strengths_do_not_depend_on_the_order_of_sides_or_names(seed: int, model: str) -> None:
    votes = simulate_votes(Design(20, 12, 12, ("q",)), THREE, seed)
    mirrored = make_votes(
        participant=votes.participant, image=votes.image, criterion=votes.criterion, shown=2 - votes.shown[:, ::-1],
        outcome=votes.outcome, position=np.where(votes.position == NONE, NONE, 1 - votes.position),
        participants=votes.participants, images=votes.images, criteria=votes.criteria, methods=votes.methods[::-1],
    )  # fmt: skip
    one, other = (rank(v, "q", model) for v in (votes, mirrored))  # type: ignore[arg-type]
    assert one.log_worth == pytest.approx(other.log_worth[::-1], abs=1e-7)
    assert one.contrast("a", "c").standard_error == pytest.approx(other.contrast("a", "c").standard_error, rel=1e-6)
    assert one.extra == pytest.approx(other.extra, abs=1e-7)


def test_preferring_the_opposite_turns_every_strength_around() -> None:
    votes = simulate_votes(Design(20, 12, 12, ("q",)), THREE, 1)
    flipped = make_votes(
        participant=votes.participant, image=votes.image, criterion=votes.criterion, shown=votes.shown[:, ::-1],
        outcome=votes.outcome, position=votes.position, participants=votes.participants, images=votes.images,
        criteria=votes.criteria, methods=votes.methods,
    )  # fmt: skip
    for model in ("bradley-terry", "davidson", "rao-kupper", "thurstone"):
        assert rank(votes, "q", model).log_worth == pytest.approx(-rank(flipped, "q", model).log_worth, abs=1e-7)


def test_doubling_every_vote_keeps_strengths_and_divides_model_variance_by_two() -> None:
    votes = simulate_votes(Design(20, 12, 12, ("q",)), THREE, 1)
    doubled = votes.only(np.ones(len(votes), dtype=bool))
    twice = np.concatenate([np.arange(len(votes))] * 2)
    doubled = make_votes(
        participant=votes.participant[twice], image=votes.image[twice], criterion=votes.criterion[twice],
        shown=votes.shown[twice], outcome=votes.outcome[twice], position=votes.position[twice],
        participants=votes.participants, images=votes.images, criteria=votes.criteria, methods=votes.methods,
    )  # fmt: skip
    once, two = rank(votes, "q", "davidson", errors="model"), rank(doubled, "q", "davidson", errors="model")
    assert once.log_worth == pytest.approx(two.log_worth, abs=1e-8)
    assert once.covariance == pytest.approx(2 * (two.covariance if two.covariance is not None else 0), abs=1e-9)
    assert rank(votes, "q").covariance == pytest.approx(rank(doubled, "q").covariance, abs=1e-9)


def test_quasi_errors_of_three_methods_reproduce_every_contrast_exactly() -> None:
    ranking = rank(simulate_votes(Design(20, 12, 12, ("q",)), THREE, 1), "q")
    quasi = ranking.quasi_standard_errors()
    assert quasi is not None
    for i, j in ((0, 1), (0, 2), (1, 2)):
        error = ranking.contrast(ranking.methods[i], ranking.methods[j]).standard_error
        assert np.hypot(quasi[i], quasi[j]) == pytest.approx(error, rel=1e-6)
    assert quasi_standard_errors(np.diag([1.0, 4.0, 9.0, 16.0])) == pytest.approx([1, 2, 3, 4], rel=1e-6)


def test_ranks_count_who_is_stronger_beyond_doubt() -> None:
    clear = games([(0, 1, 0)] * 95 + [(0, 1, 1)] * 5 + [(1, 2, 0)] * 50 + [(1, 2, 1)] * 50, ("a", "b", "c"))
    assert rank(clear, "preference", errors="model").ranks() == {"a": 1, "b": 2, "c": 2}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(0, 1, 0), (1, 0, 1), (1, 2, 0), (2, 1, 0)], "never lost: a"),
        ([(0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 2, 0)], "never won: c"),
        ([(0, 1, 0), (0, 1, 1)], "never met another: c"),
        ([(0, 1, 0), (0, 1, 1), (2, 3, 0), (2, 3, 1), (0, 2, 0)], "no chain of wins joins the groups"),
    ],
)
def test_without_finite_strengths_the_methods_are_named_and_a_stated_prior_helps(
    rows: list[tuple[int, int, int]], words: str
) -> None:
    votes = games(rows, ("a", "b", "c", "d") if words.startswith("no chain") else ("a", "b", "c"))
    for model in ("bradley-terry", "thurstone", "luce"):
        with pytest.raises(NoFiniteStrengthsError, match=words):
            rank(votes, "preference", model)
        regularised = rank(votes, "preference", model, ghost=0.5)
        assert np.isfinite(regularised.log_worth).all()
        assert "0.5 wins and losses" in regularised.regularisation


def test_the_ghost_reproduces_placketts_and_luces_published_example() -> None:
    # PlackettLuce's vignette, section 2.3: A > B, C > A, A > D, B > A, B > C with npseudo = 0.5.
    votes = games([(0, 1, 0), (2, 0, 0), (0, 3, 0), (1, 0, 0), (1, 2, 0)], ("A", "B", "C", "D"))
    ranking = rank(votes, "preference", ghost=0.5)
    differences = [ranking.contrast(name, "A").difference for name in "BCD"]
    assert differences == pytest.approx([0.5184185, 0.1354707, -1.1537565], abs=1e-6)
    without_d = games([(0, 1, 0), (2, 0, 0), (1, 0, 0), (1, 2, 0)], ("A", "B", "C"))
    plain = rank(without_d, "preference", errors="model")
    assert printed([plain.contrast(name, "A").difference for name in "BC"], 4) == [0.8392, 0.4196]
    assert printed([plain.contrast(name, "A").standard_error or 0 for name in "BC"], 4) == [1.3596, 1.5973]


@settings(max_examples=60, deadline=None)
@given(wins=st.lists(st.integers(0, 1), min_size=25, max_size=25))
def test_the_fast_connection_check_agrees_with_the_named_one(wins: list[int]) -> None:
    table = np.array(wins, dtype=float).reshape(5, 5) * (1 - np.eye(5))
    assert strongly_connected(table[None])[0] == (groups_without_defeat(table, tuple("abcde")) == "")


def test_what_cannot_be_ranked_is_refused_by_name() -> None:
    votes = simulate_votes(Design(3, 3, 3, ("q",)), Truth({"a": 0.0, "b": 0.0}), 1)
    nobody = votes.only(np.zeros(len(votes), dtype=bool))
    with pytest.raises(NoFiniteStrengthsError, match="Nobody"):
        rank(nobody, "q")
    with pytest.raises(VotesError, match="no criterion called 'x'"):
        rank(votes, "x")
    with pytest.raises(VotesError, match="no ties"):
        rank(votes, "q", "davidson")
    triples = simulate_votes(Design(5, 5, 5, ("q",), best_of_n=True), Truth({"a": 0.0, "b": 0.0, "c": 0.0}), 1)
    with pytest.raises(VotesError, match="'luce'"):
        rank(triples, "q", "thurstone")


def test_one_participant_has_strengths_but_no_errors_over_people() -> None:
    votes = simulate_votes(Design(1, 40, 40, ("q",)), Truth({"a": 0.0, "b": 0.0}), 1)
    ranking = rank(votes, "q")
    assert np.isfinite(ranking.log_worth).all()
    assert ranking.covariance is None
    assert ranking.contrast("a", "b").low is None
    assert "participants" in ranking.note


def only_ties() -> Votes:
    return games([(0, 1, NONE), (1, 2, NONE), (0, 2, NONE)], ("a", "b", "c"))


def test_all_ties_make_equals_of_all_in_half_tie_models() -> None:
    assert rank(only_ties(), "preference", errors="model").log_worth == pytest.approx([0, 0, 0], abs=1e-12)
    with pytest.raises(VotesError, match="only ties"):
        rank(only_ties(), "preference", "davidson")
