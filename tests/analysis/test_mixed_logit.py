"""The mixed model against lme4's published fits of `cbpp` and studies whose spread is known."""

import numpy as np
import pytest

from analysis.mixed_logit import MixedModelError, fit_mixed_logit, preference_by_person_and_image
from analysis.simulate import Design, Truth, simulate_votes
from analysis.votes import VotesError

HERD_SIZES = (4, 3, 4, 4, 4, 4, 4, 1, 4, 4, 4, 4, 4, 4, 4)
"""Rows per herd; herd 2 lacks period 4 and herd 8 all but the first."""
INCIDENCE = [
    2, 3, 4, 0, 3, 1, 1, 8, 2, 0, 2, 2, 0, 2, 0, 5, 0, 0, 1, 3, 0, 0, 1, 8, 1, 3, 0, 12,
    2, 0, 0, 0, 1, 1, 0, 2, 0, 5, 3, 1, 2, 1, 0, 0, 1, 2, 0, 0, 11, 0, 0, 0, 1, 1, 1, 0,
]  # fmt: skip
SIZE = [
    14, 12, 9, 5, 22, 18, 21, 22, 16, 16, 20, 10, 10, 9, 6, 18, 25, 24, 4, 17, 17, 18, 20, 16, 10, 9, 5, 34,
    9, 6, 8, 6, 22, 22, 18, 22, 25, 27, 22, 22, 10, 8, 6, 5, 21, 24, 19, 23, 19, 2, 3, 2, 19, 15, 15, 15,
]  # fmt: skip


def cbpp() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Contagious bovine pleuropneumonia in 15 herds (lme4's `cbpp`): incidence, size, design, herd."""
    herd = np.repeat(np.arange(15), HERD_SIZES)
    period = np.concatenate([np.arange(size) for size in HERD_SIZES])
    design = np.stack([np.ones(56), *(period == p for p in (1, 2, 3))], axis=1).astype(float)
    return np.array(INCIDENCE, float), np.array(SIZE, float), design, herd


TERMS = ["(Intercept)", "period2", "period3", "period4"]


def test_the_fit_to_cbpp_is_that_of_mixedmodels_and_glmmtmb_and_lme4s_within_its_tolerance() -> None:
    incidence, size, design, herd = cbpp()
    fit = fit_mixed_logit(incidence, size, design, [herd], (TERMS, ["herd"]))
    assert fit.deviance == pytest.approx(2 * 92.0262818648, abs=1e-5)  # MixedModels.jl and glmmTMB
    assert fit.coefficients == pytest.approx([-1.3985324664, -0.9923322929, -1.1286712975, -1.5803136871], abs=2e-5)
    assert fit.deviations == pytest.approx([0.6422616722], abs=2e-5)
    # lme4 stops its inner iterations earlier (tolPwrss = 1e-7) and prints 184.0531.
    assert fit.deviance == pytest.approx(184.0531, abs=6e-4)
    assert fit.coefficients == pytest.approx([-1.3983, -0.9919, -1.1282, -1.5797], abs=7e-4)
    assert fit.standard_errors == pytest.approx([0.2312, 0.3032, 0.3228, 0.4220], rel=0.02)


def test_a_second_random_term_lowers_the_deviance_to_the_published_value() -> None:
    incidence, size, design, herd = cbpp()
    fit = fit_mixed_logit(incidence, size, design, [herd, np.arange(56)], (TERMS, ["herd", "observation"]))
    assert fit.deviance == pytest.approx(174.6383, abs=5e-4)


def test_the_spread_of_people_and_images_is_recovered() -> None:
    # Two utilities differ, so each spread appears sqrt(2) times in the log odds.
    truth = Truth({"a": 0.8, "b": 0.0}, participant_sd=0.5, image_sd=0.4)
    fit = preference_by_person_and_image(simulate_votes(Design(60, 30, 20, ("q",)), truth, seed=5), "q", "a")
    assert fit.terms == ("over b",)
    assert fit.coefficients[0] == pytest.approx(0.8, abs=0.3)
    assert fit.deviations == pytest.approx([0.5 * np.sqrt(2), 0.4 * np.sqrt(2)], rel=0.4)


def test_people_and_images_that_do_not_differ_are_found_not_to() -> None:
    fit = preference_by_person_and_image(
        simulate_votes(Design(60, 30, 20, ("q",)), Truth({"a": 0.5, "b": 0.0}, 0, 0), seed=2), "q", "a"
    )
    assert (fit.deviations < 0.35).all()


def test_what_determines_no_random_effects_is_refused() -> None:
    with pytest.raises(MixedModelError, match="1 group of image"):
        preference_by_person_and_image(
            simulate_votes(Design(30, 1, 1, ("q",)), Truth({"a": 0.0, "b": 0.0}), seed=2), "q", "a"
        )
    with pytest.raises(MixedModelError, match="always wins against b"):
        preference_by_person_and_image(
            simulate_votes(Design(10, 5, 5, ("q",)), Truth({"a": 99.0, "b": 0.0}), seed=2), "q", "a"
        )
    with pytest.raises(VotesError, match="pairwise"):
        preference_by_person_and_image(
            simulate_votes(Design(5, 5, 5, ("q",), best_of_n=True), Truth({"a": 0.0, "b": 0.0, "c": 0.0}), 1), "q", "a"
        )
