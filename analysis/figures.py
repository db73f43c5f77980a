"""Figures of a study in Plotly: one function, one figure; a method has the same colour in all of them.

Colours are Okabe and Ito's eight, told apart by all common kinds of colour vision; from the ninth method on a pattern
is added, so that no two methods look alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, floor, log10

import numpy as np
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from analysis.bootstrap import Replicates, probability_of_best
from analysis.breakdown import Convergence, Shares
from analysis.clustered import CLUSTERINGS, Floats
from analysis.human_vs_metric import Correlation
from analysis.quality import FAST_MS, PositionBias
from analysis.rankings import Ranking
from analysis.rates import HALVES, Rate
from analysis.votes import Votes

OKABE_ITO = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A6A00", "#4D4D4D")
"""Okabe and Ito (2008), Color Universal Design; their yellow and black are darkened and greyed to carry text."""

PATTERNS = ("", "/", "x", ".")
"""Bar fillings for methods 1-8, 9-16, 17-24, 25-32."""

MARKERS = ("circle", "square", "diamond", "cross")
"""Point shapes, in the same order as the patterns."""

INK = "#222222"
GRID = "#E4E4E4"
GUIDE = "#777777"
FONT = "system-ui, 'Segoe UI', 'Helvetica Neue', Arial, 'Noto Sans', sans-serif"
HEIGHT_PER_ROW = 34  # pixels a horizontal row needs for its label
HEIGHT_OF_FRAME = 220  # title, axis and margins
HEIGHT = 460  # of a figure that has no rows to count
BAND = "rgba(0, 114, 178, 0.18)"
MOST_LABELS = 60  # images whose names still fit under a heatmap
NORMAL_95 = 1.959964
STANDOFF = 6  # pixels between a heatmap and the names beside it
LOG_STEPS = (1, 2, 5)  # labelled in every decade
MARGIN_OF_LOG_AXIS = 1.08  # keeps the outermost points off the frame
PERCENT = 100.0


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    colour: str
    pattern: str
    marker: str


def method_looks(methods: Sequence[str]) -> Mapping[str, Look]:
    """Each method's look, from its place in `votes.methods`: hand in that tuple and colours agree everywhere."""
    kinds = len(OKABE_ITO)
    return {
        method: Look(OKABE_ITO[i % kinds], PATTERNS[i // kinds % len(PATTERNS)], MARKERS[i // kinds % len(MARKERS)])
        for i, method in enumerate(methods)
    }


def rate_bars(rates: Sequence[Rate], methods: Sequence[str]) -> go.Figure:
    """Bars per method with the headline interval, one panel per criterion; a dashed line marks chance.

    Args:
        rates: selection ratios, or preference rates of one target against the others.
        methods: `votes.methods`, which fixes the colours.
    """
    panels = [(name, list(group)) for name, group in groupby(rates, key=lambda rate: rate.criterion)]
    figure = _panels([name for name, _ in panels], "share of trials, %")
    looks = method_looks(methods)
    for column, (_, group) in enumerate(panels, start=1):
        for rate in group:
            figure.add_trace(_bar(rate, looks[rate.against or rate.method]), row=1, col=column)
        figure.add_hline(PERCENT * _chance(group), line_dash="dash", line_color=GUIDE, row=1, col=column)  # pyright: ignore[reportArgumentType] - plotly's stub knows only "all" for row and col
    figure.update_yaxes(rangemode="tozero")
    return _finish(figure, _rates_title(rates))


def win_heatmap(wins: Floats, ties: Floats, methods: Sequence[str], title: str = "") -> go.Figure:
    """How often the row's method won against the column's, ties as half; best methods first, the diagonal blank.

    Args:
        wins: (methods, methods) from `rates.vote_counts`.
        ties: (methods, methods) from `rates.tie_counts`.
        methods: `votes.methods`.
        title: stands above.
    """
    trials = wins + wins.T + ties
    shares = np.divide(wins + ties / HALVES, trials, out=np.full(trials.shape, np.nan), where=trials > 0)
    order = _best_first(wins + ties / HALVES, trials)
    text = [
        ["" if np.isnan(shares[a, b]) else f"{shares[a, b]:.2f}<br>n={trials[a, b]:.0f}" for b in order] for a in order
    ]
    names = [methods[code] for code in order]
    # The scale is fixed, so that 0.5 is its neutral middle whatever the data.
    figure = _heatmap(shares[np.ix_(order, order)], text, names, title or "How often the row won against the column")
    return figure.update_traces(zmin=0.0, zmax=1.0, colorscale="RdBu")


def count_heatmap(wins: Floats, ties: Floats, methods: Sequence[str], title: str = "") -> go.Figure:
    """How many trials each pair of methods met in: shows unbalanced and missing pairs; best methods first."""
    trials = wins + wins.T + ties
    order = _best_first(wins + ties / HALVES, trials)
    shown = np.where(np.eye(len(order), dtype=bool), np.nan, trials[np.ix_(order, order)])
    text = [["" if np.isnan(count) else f"{count:.0f}" for count in row] for row in shown]
    figure = _heatmap(shown, text, [methods[code] for code in order], title or "Trials per pair")
    return figure.update_traces(zmin=0.0, zmax=max(float(trials.max(initial=0)), 1.0), colorscale="Blues")


def interval_comparison(rate: Rate) -> go.Figure:
    """One rate with all four intervals: what ignoring people or images would have claimed."""
    figure = go.Figure()
    for clustering in CLUSTERINGS:
        interval = rate.intervals[clustering]
        share = rate.estimate
        if share is None or interval.low is None or interval.high is None:
            continue
        figure.add_scatter(
            x=[PERCENT * share],
            y=[clustering],
            error_x=_error(share, interval.low, interval.high),
            mode="markers",
            marker={"size": 10, "color": INK if clustering == rate.headline else GUIDE},
            hovertemplate=f"{PERCENT * interval.low:.2f} to {PERCENT * interval.high:.2f} %<extra></extra>",
        )
    figure.update_yaxes(categoryorder="array", categoryarray=list(reversed(CLUSTERINGS)))
    figure.update_xaxes(title="share of trials, %")
    figure.update_layout(showlegend=False, height=8 * HEIGHT_PER_ROW)
    return _finish(figure, f"{_label(rate)}, {rate.criterion}: {PERCENT * rate.level:g} % interval by what it clusters")


def strength_forest(rankings: Sequence[Ranking], methods: Sequence[str]) -> go.Figure:
    """Strengths with intervals that compare as contrasts do (quasi-standard errors), one panel per criterion."""
    figure = _panels([ranking.criterion for ranking in rankings], "")
    looks = method_looks(methods)
    for column, ranking in enumerate(rankings, start=1):
        quasi = ranking.quasi_standard_errors()
        for method in reversed(ranking.order):
            code = ranking.methods.index(method)
            reach = None if quasi is None else [NORMAL_95 * float(quasi[code])]
            figure.add_trace(
                go.Scatter(
                    x=[ranking.log_worth[code]],
                    y=[method],
                    error_x=None if reach is None else {"type": "data", "array": reach, "color": looks[method].colour},
                    mode="markers",
                    marker={"size": 10, "color": looks[method].colour, "symbol": looks[method].marker},
                    name=method,
                    showlegend=False,
                ),
                row=1,
                col=column,
            )
    unit = "JOD" if rankings and rankings[0].model == "thurstone" else "log strength"
    figure.update_xaxes(title=f"{unit} against the average method")
    figure.update_layout(height=HEIGHT_OF_FRAME + HEIGHT_PER_ROW * len(methods))
    return _finish(figure, "Strength of each method; intervals compare pairwise (quasi-standard errors)")


def bootstrap_boxes(replicates: Replicates, criterion: str) -> go.Figure:
    """The strengths of every resampled study, with the probability of being the best."""
    best = probability_of_best(replicates, criterion)
    c = replicates.criteria.index(criterion)
    looks = method_looks(replicates.methods)
    figure = go.Figure()
    for code in np.argsort(-replicates.estimate[c]):
        method = replicates.methods[code]
        figure.add_box(
            y=replicates.log_worth[replicates.exists[:, c], c, code],
            name=f"{method}<br>best {PERCENT * best[code]:.0f} %",
            marker={"color": looks[method].colour},
            boxpoints=False,
            showlegend=False,
        )
    figure.update_yaxes(title="log strength")
    return _finish(figure, f"{len(replicates.log_worth)} studies of resampled {replicates.resampled}: {criterion}")


def convergence_lines(curve: Convergence, method: str, criterion: str) -> go.Figure:
    """How the share settles and its interval narrows as people take part; dotted: 1 / sqrt(people)."""
    figure = make_subplots(rows=1, cols=2, subplot_titles=["share of trials, %", "width of its interval, points"])
    x = curve.participants
    band = {"mode": "lines", "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
    upper, lower = PERCENT * (curve.share + curve.spread), PERCENT * (curve.share - curve.spread)
    figure.add_trace(go.Scatter(x=x, y=upper, **band), row=1, col=1)
    figure.add_trace(go.Scatter(x=x, y=lower, fill="tonexty", fillcolor=BAND, **band), row=1, col=1)
    line = {"mode": "lines+markers", "line": {"color": INK}, "showlegend": False}
    figure.add_trace(go.Scatter(x=x, y=PERCENT * curve.share, **line), row=1, col=1)
    figure.add_trace(go.Scatter(x=x, y=PERCENT * curve.width, **line), row=1, col=2)
    guide = PERCENT * curve.width[-1] * np.sqrt(x[-1] / x)
    dotted = {"color": GUIDE, "dash": "dot"}
    figure.add_trace(go.Scatter(x=x, y=guide, mode="lines", line=dotted, showlegend=False), row=1, col=2)
    figure.update_xaxes(_log_axis(float(x[0]), float(x[-1])), title="participants")
    return _finish(figure, f"{method}, {criterion}: what fewer people would have said")


def image_heatmap(shares: Floats, votes: Votes, criterion: str) -> go.Figure:
    """Each method's share on each image, images grouped by domain: where a method works and where not.

    Args:
        shares: (methods, images) from `breakdown.shares_by_image`.
        votes: names of methods, images and domains.
        criterion: stands in the title.
    """
    order = np.lexsort((np.arange(len(votes.images)), votes.domain))
    names = [
        f"{votes.domains[votes.domain[i]]}: {votes.images[i]}" if votes.domain[i] >= 0 else votes.images[i]
        for i in order
    ]
    # The scale is fixed, so that two criteria can be compared by eye.
    scale = {"colorscale": "Cividis", "zmin": 0.0, "zmax": PERCENT}
    heat = go.Heatmap(z=PERCENT * shares[:, order], x=names, y=list(votes.methods), **scale)
    figure = go.Figure(heat.update(hovertemplate="%{y}<br>%{x}<br>%{z:.0f} %<extra></extra>", colorbar={"title": "%"}))
    figure.update_xaxes(showticklabels=len(names) <= MOST_LABELS, tickangle=90, ticklabelstandoff=STANDOFF)
    figure.update_yaxes(autorange="reversed", ticklabelstandoff=STANDOFF)
    figure.update_layout(height=HEIGHT_OF_FRAME + HEIGHT_PER_ROW * len(votes.methods))
    return _finish(figure, f"Share of trials by image: {criterion}")


def person_caterpillar(shares: Shares, method: str, criterion: str) -> go.Figure:
    """A method's share for every person, with intervals: who stands apart."""
    figure = go.Figure(
        go.Scatter(
            x=np.arange(1, len(shares.names) + 1),
            y=PERCENT * shares.shares,
            error_y={
                "type": "data",
                "symmetric": False,
                "array": PERCENT * (shares.high - shares.shares),
                "arrayminus": PERCENT * (shares.shares - shares.low),
                "color": GUIDE,
                "width": 0,
            },
            mode="markers",
            marker={"color": INK, "size": 5},
            text=[f"{name}, {n:.0f} trials" for name, n in zip(shares.names, shares.trials, strict=True)],
            hovertemplate="%{text}<br>%{y:.0f} %<extra></extra>",
        )
    )
    figure.update_xaxes(title="participants, by their share")
    figure.update_yaxes(title="share of trials, %")
    return _finish(figure, f"Every person's share for {method}: {criterion}")


def metric_scatter(
    people: Mapping[str, float], metric: Mapping[str, float], found: Correlation, methods: Sequence[str]
) -> go.Figure:
    """People's score against a metric's, one point per method, with the correlations."""
    looks = method_looks(methods)
    figure = go.Figure()
    for method in methods:
        if method in people and method in metric:
            figure.add_scatter(
                x=[metric[method]],
                y=[people[method]],
                mode="markers+text",
                text=[method],
                textposition="top center",
                marker={"size": 11, "color": looks[method].colour, "symbol": looks[method].marker},
                showlegend=False,
            )
    figure.update_xaxes(title=f"{found.metric}{' (smaller is better)' if found.turned else ''}")
    figure.update_yaxes(title="people")
    rho = "undefined" if found.spearman is None else f"{found.spearman:.2f} (p = {found.spearman_p:.3g})"
    tau = "undefined" if found.kendall is None else f"{found.kendall:.2f}"
    return _finish(figure, f"People and {found.metric}: Spearman {rho}, Kendall {tau}, {found.methods} methods")


def calibration(ranking: Ranking, wins: Floats, ties: Floats) -> go.Figure:
    """Predicted against observed share of each pair: points off the line are pairs one scale does not describe."""
    trials = wins + wins.T + ties
    a, b = np.nonzero(np.triu(trials, 1))
    names = ranking.methods
    predicted = [ranking.win_probability(names[i], names[j]) for i, j in zip(a, b, strict=True)]
    observed = (wins[a, b] + ties[a, b] / HALVES) / trials[a, b]
    figure = go.Figure(
        go.Scatter(
            x=predicted,
            y=observed,
            mode="markers",
            marker={"size": 6 + 8 * np.sqrt(trials[a, b] / trials.max()), "color": OKABE_ITO[1], "opacity": 0.75},
            showlegend=False,
            text=[f"{names[i]} over {names[j]}, n = {trials[i, j]:.0f}" for i, j in zip(a, b, strict=True)],
            hovertemplate="%{text}<br>predicted %{x:.2f}, observed %{y:.2f}<extra></extra>",
        )
    )
    _identity_line(figure, 0.0, 1.0)
    figure.update_xaxes(title="predicted share", range=[0, 1])
    figure.update_yaxes(title="observed share", range=[0, 1])
    return _finish(figure, f"Does one scale describe every pair? {ranking.criterion} ({ranking.model})")


def design_scatter(pairwise: Ranking, best_of_n: Ranking) -> go.Figure:
    """Strengths from pairs against strengths from choices among all; on the line Luce's axiom holds."""
    looks = method_looks(pairwise.methods)
    figure = go.Figure()
    for code, method in enumerate(pairwise.methods):
        figure.add_scatter(
            x=[pairwise.log_worth[code]],
            y=[best_of_n.log_worth[best_of_n.methods.index(method)]],
            mode="markers+text",
            text=[method],
            textposition="top center",
            marker={"size": 11, "color": looks[method].colour, "symbol": looks[method].marker},
            showlegend=False,
        )
    both = np.concatenate([pairwise.log_worth, best_of_n.log_worth])
    _identity_line(figure, float(both.min()), float(both.max()))
    figure.update_xaxes(title="log strength from pairs")
    figure.update_yaxes(title="log strength from best of N")
    return _finish(figure, f"Pairs against best of N: {pairwise.criterion}")


def position_bars(biases: Sequence[PositionBias]) -> go.Figure:
    """How often each position was chosen, per criterion; dashed: equal chances."""
    figure = _panels([bias.criterion for bias in biases], "share of decided votes, %")
    for column, bias in enumerate(biases, start=1):
        total = max(sum(bias.chosen), 1)
        places = ["left", "right"] if len(bias.chosen) == len(("left", "right")) else [
            str(i + 1) for i in range(len(bias.chosen))
        ]  # fmt: skip
        shares = [PERCENT * count / total for count in bias.chosen]
        figure.add_trace(
            go.Bar(x=places, y=shares, marker={"color": OKABE_ITO[5]}, showlegend=False), row=1, col=column
        )
        figure.add_hline(PERCENT / len(places), line_dash="dash", line_color=GUIDE, row=1, col=column)  # pyright: ignore[reportArgumentType] - as in rate_bars
    return _finish(figure, "Was a side preferred whatever it showed?")


def response_time_curve(votes: Votes) -> go.Figure:
    """Share of answers given within a time, per criterion; dashed: what counts as too fast."""
    figure = go.Figure()
    for code, criterion in enumerate(votes.criteria):
        rows = votes.counted & (votes.criterion == code) & (votes.response_ms > 0)
        seconds = np.sort(votes.response_ms[rows]) / 1000
        figure.add_scatter(
            x=seconds, y=PERCENT * np.arange(1, seconds.size + 1) / max(seconds.size, 1), mode="lines", name=criterion,
            line={"color": OKABE_ITO[code % len(OKABE_ITO)], "shape": "hv"},
        )  # fmt: skip
    figure.add_vline(FAST_MS / 1000, line_dash="dash", line_color=GUIDE)
    known = votes.response_ms[votes.counted & (votes.response_ms > 0)] / 1000
    ends = np.append(known, [FAST_MS / 1000])
    axis = _log_axis(float(ends.min()), float(ends.max()))
    figure.update_xaxes(axis, title="seconds from shown to answered")
    figure.update_yaxes(title="share of answers, %", rangemode="tozero")
    return _finish(figure, "How long answers took")


def exclusion_flow(steps: Sequence[tuple[str, int]]) -> go.Figure:
    """What remained after each step, from all answers to those in the estimates.

    Args:
        steps: names and counts, in order.
    """
    figure = go.Figure(
        go.Funnel(
            y=[name for name, _ in steps],
            x=[count for _, count in steps],
            textinfo="value",
            marker={"color": OKABE_ITO[1]},
            connector={"fillcolor": GRID},
        )
    )
    return _finish(figure, "From all answers to those in the estimates")


def _bar(rate: Rate, look: Look) -> go.Bar:
    label = rate.against or rate.method
    share, interval = rate.estimate, rate.interval
    bounds = None if share is None or interval.low is None or interval.high is None else (interval.low, interval.high)
    detail = "no interval" if bounds is None else f"{PERCENT * bounds[0]:.2f} to {PERCENT * bounds[1]:.2f} %"
    return go.Bar(
        x=[label],
        y=[None if share is None else PERCENT * share],
        error_y=None if share is None or bounds is None else _error(share, *bounds),
        marker={"color": look.colour, "pattern": {"shape": look.pattern}},
        name=label,
        showlegend=False,
        hovertemplate=(
            f"{_label(rate)}<br>{rate.percent()} % ({detail})<br>"
            f"{rate.wins} chosen, {rate.ties} tied, {rate.losses} not, of {rate.n}<extra></extra>"
        ),
    )


def _label(rate: Rate) -> str:
    return rate.method if rate.against is None else f"{rate.method} over {rate.against}"


def _error(share: float, low: float, high: float) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [PERCENT * (high - share)],
        "arrayminus": [PERCENT * (share - low)],
        "color": INK,
        "thickness": 1.5,
        "width": 5,
    }


def _chance(rates: Sequence[Rate]) -> float:
    """Without any preference: 1/2 in pairs, 1/N when everyone chooses among the same N."""
    halves, trials = sum(rate.half_points for rate in rates), sum(rate.n for rate in rates)
    if rates[0].against is not None or not halves:
        return 0.5
    return halves / (HALVES * trials)


def _rates_title(rates: Sequence[Rate]) -> str:
    if not rates:
        return "No answers yet"
    first = rates[0]
    what = "How often each method was chosen" if first.against is None else f"How often {first.method} was preferred"
    return f"{what}, with {PERCENT * first.level:g} % intervals ({first.headline} clustered)"


def _log_axis(low: float, high: float) -> dict[str, object]:
    """A logarithmic axis from `low` to `high` whose labels are whole numbers; Plotly's own print 20 as a bare 2."""
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    values = [float(f"{step}e{decade}") for decade in decades for step in LOG_STEPS]
    inside = [value for value in values if low <= value <= high]
    ends = [log10(low / MARGIN_OF_LOG_AXIS), log10(high * MARGIN_OF_LOG_AXIS)]
    return {"type": "log", "range": ends, "tickvals": inside, "ticktext": [f"{value:g}" for value in inside]}


def _identity_line(figure: go.Figure, low: float, high: float) -> None:
    line = {"color": GUIDE, "dash": "dash"}
    figure.add_scatter(x=[low, high], y=[low, high], mode="lines", line=line, showlegend=False, hoverinfo="skip")


def _best_first(points: Floats, trials: Floats) -> list[int]:
    """Codes by average share over opponents met."""
    met = trials > 0
    shares = np.divide(points, trials, out=np.zeros(trials.shape), where=met)
    average = shares.sum(axis=1) / np.maximum(met.sum(axis=1), 1)
    return np.argsort(-average, kind="stable").tolist()


def _heatmap(values: Floats, text: Sequence[Sequence[str]], methods: Sequence[str], title: str) -> go.Figure:
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=list(methods),
            y=list(methods),
            text=text,
            texttemplate="%{text}",
            xgap=1,
            ygap=1,
            hovertemplate="%{y} over %{x}<br>%{text}<extra></extra>",
        )
    )
    figure.update_xaxes(side="top", showgrid=False, ticklabelstandoff=STANDOFF)
    figure.update_yaxes(autorange="reversed", showgrid=False, ticklabelstandoff=STANDOFF)
    figure.update_layout(height=HEIGHT_OF_FRAME + HEIGHT_PER_ROW * len(methods))
    return _finish(figure, title)


def _panels(names: Sequence[str], axis: str) -> go.Figure:
    figure = make_subplots(rows=1, cols=max(len(names), 1), subplot_titles=list(names) or None, shared_yaxes=True)
    figure.update_yaxes(title=axis, row=1, col=1)
    return figure


def _finish(figure: go.Figure, title: str) -> go.Figure:
    if figure.layout.height is None:  # pyright: ignore[reportAttributeAccessIssue] - plotly's stub lacks layout
        figure.update_layout(height=HEIGHT)
    figure.update_layout(
        title={"text": title, "font": {"size": 15}},
        template="plotly_white",
        font={"family": FONT, "color": INK, "size": 13},
        margin={"l": 70, "r": 25, "t": 90, "b": 60},
        bargap=0.25,
    )
    figure.update_xaxes(gridcolor=GRID, automargin=True)
    figure.update_yaxes(gridcolor=GRID, automargin=True)
    return figure
