"""Figures must carry the numbers they are given, keep one look per method, and survive having nothing to show."""

from dataclasses import replace
from typing import Any

import numpy as np

from analysis.figures import (
    count_heatmap,
    interval_comparison,
    method_looks,
    rate_bars,
    response_time_curve,
    win_heatmap,
)
from analysis.rates import preference_rates, selection_ratios
from analysis.simulate import Design, Truth, simulate_votes

METHODS = tuple("abcdefghi")
VOTES = simulate_votes(Design(20, 10, 10), Truth(dict(zip(METHODS, np.linspace(-1, 1, 9), strict=True))), seed=2)


def traces(figure: Any) -> list[Any]:
    """Plotly's own types promise less than its figures hold."""
    return list(figure.data)


def test_no_two_of_thirty_two_methods_look_alike() -> None:
    looks = method_looks([f"m{i}" for i in range(32)])
    assert len({(look.colour, look.pattern) for look in looks.values()}) == 32


def test_bars_show_the_shares_with_their_intervals_in_percent() -> None:
    rates = selection_ratios(VOTES)
    figure = rate_bars(rates, VOTES.methods)
    bars = [trace for trace in traces(figure) if trace.type == "bar"]
    assert [bar.y[0] for bar in bars] == [100 * (rate.estimate or 0) for rate in rates]
    first, interval = bars[0], rates[0].interval
    assert first.y[0] + first.error_y.array[0] == 100 * (interval.high or 0)
    assert rates[0].percent() in first.hovertemplate


def test_a_method_has_the_same_colour_in_every_panel_and_as_an_opponent() -> None:
    looks = method_looks(VOTES.methods)
    for rates in (selection_ratios(VOTES), preference_rates(VOTES, target="a")):
        for trace in traces(rate_bars(rates, VOTES.methods)):
            assert trace.marker.color == looks[trace.name].colour


def test_the_neutral_colour_of_the_win_heatmap_is_one_half() -> None:
    figure = win_heatmap(np.array([[0.0, 1.0], [8.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 0.0]]), ["a", "b"])
    (heatmap,) = traces(figure)
    assert (heatmap.zmin, heatmap.zmax) == (0, 1)
    assert heatmap.text[0][0] == ""
    assert (heatmap.text[0][1], heatmap.y[0]) == ("0.85<br>n=10", "b")


def test_pairs_that_never_met_show_a_zero_count() -> None:
    figure = count_heatmap(np.zeros((2, 2)), np.zeros((2, 2)), ["a", "b"])
    assert list(traces(figure)[0].text[0]) == ["", "0"]


def test_all_four_intervals_of_a_rate_are_drawn_and_missing_ones_left_out() -> None:
    rate = preference_rates(VOTES, target="a")[0]
    assert len(traces(interval_comparison(rate))) == 4
    alone = simulate_votes(Design(1, 10, 10), Truth({"a": 0.0, "b": 0.0}), seed=2)
    assert len(traces(interval_comparison(selection_ratios(alone)[0]))) == 2


def test_a_study_without_votes_draws_an_empty_figure() -> None:
    figure: Any = rate_bars((), VOTES.methods)
    assert figure.layout.title.text == "No answers yet"


def test_logarithmic_axes_label_ones_twos_and_fives_in_full() -> None:
    times = np.array([1500, 9000, 23000, 60000])
    votes = simulate_votes(Design(4, 1, 1, ("q",)), Truth({"a": 0.0, "b": 0.0}), 1)
    figure: Any = response_time_curve(replace(votes, response_ms=times))
    assert list(figure.layout.xaxis.ticktext) == ["1", "2", "5", "10", "20", "50"]
    assert list(figure.layout.xaxis.tickvals) == [1, 2, 5, 10, 20, 50]
    low, high = figure.layout.xaxis.range
    assert 10**low < 0.8  # the dashed line of answers that are too fast stays in sight
    assert 10**high > 60
