"""A study's report: a self-contained HTML page, tables for papers, numbers for scripts, a methods paragraph."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from plotly import graph_objects as go

from analysis import figures as draw_figures
from analysis.breakdown import convergence, shares_by_image, shares_by_person
from analysis.human_vs_metric import Correlation, correlate, system_means
from analysis.pictures import PicturesUnavailableError, draw
from analysis.rates import Interval, Population, Rate, exact_percent, tie_counts, vote_counts
from analysis.summary import SCHEMA_VERSION, Summary, Unknown, as_json, attempt, summarise
from analysis.votes import Votes

P_DECIMALS = 4
SHORT = 3  # decimals of strengths


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        folder: where.
        files: names below it, in the order written.
        pictures: empty, or why there are no static pictures.
    """

    folder: Path
    files: tuple[str, ...]
    pictures: str


def write_report(
    votes: Votes,
    folder: Path,
    *,
    title: str,
    target: str | None = None,
    metrics: pd.DataFrame | None = None,
    population: Population = "people and images",
    seed: int = 0,
    static: bool = True,
) -> Report:
    """Write report.html, methods.txt, stats.json, stats.schema.json, tables/ and figures/ into a folder.

    Args:
        votes: of one study version.
        folder: made where it is missing; files of an earlier report there are replaced.
        title: of the page.
        target: the method of interest, compared with each other one; every pair by default.
        metrics: per-image scores from `human_vs_metric.read_metrics`, to compare with people.
        population: whom intervals, tests and bootstrap speak about: new people on new images, or on these images.
        seed: of every resampling.
        static: also draw SVG and PNG, where something here can.

    Raises:
        VotesError: for an unknown target.
    """
    summary = summarise(votes, target=target, population=population, seed=seed)
    correlations = () if metrics is None else _correlations(summary, metrics)
    tables = report_tables(summary, correlations)
    drawn = report_figures(votes, summary, metrics)
    paragraph = methods_paragraph(summary)
    files: dict[str, bytes] = {
        "methods.txt": (paragraph + "\n").encode(),
        "stats.json": _json(stats(summary, correlations)),
        "stats.schema.json": SCHEMA_FILE.read_bytes(),
        "report.html": _page(title, summary, paragraph, tables, drawn).encode(),
    }
    files |= {f"tables/{name}.csv": table.to_csv(index=False).encode() for name, table in tables.items()}
    files |= {f"tables/{name}.tex": latex(table).encode() for name, table in tables.items()}
    problem = ""
    if static:
        try:
            pictures = draw(drawn)
            files |= {f"figures/{name}.{kind}": content for (name, kind), content in pictures.items()}
        except PicturesUnavailableError as error:
            problem = str(error)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for name, table in tables.items():
        table.to_parquet(folder / f"tables/{name}.parquet", index=False)
    return Report(folder, (*files, *(f"tables/{name}.parquet" for name in tables)), problem)


SCHEMA_FILE = Path(__file__).with_name("stats.schema.json")
"""JSON Schema of stats.json."""


def stats(summary: Summary, correlations: Sequence[Correlation] = ()) -> dict[str, object]:
    """The content of stats.json."""
    return {"schema_version": SCHEMA_VERSION, **as_json(summary), "metrics": as_json(correlations)}


def report_tables(summary: Summary, correlations: Sequence[Correlation] = ()) -> dict[str, pd.DataFrame]:
    """The tables of a report by name; numbers are printed exactly, rounded half up."""
    tables = {"selection_ratios": rates_table(summary.selection)}
    if summary.preferences:
        tables["preference_rates"] = rates_table(summary.preferences)
        tables["tests"] = _tests_table(summary)
    tables["strengths"] = _strengths_table(summary)
    tables["quality"] = _quality_table(summary)
    tables["exclusions"] = _exclusions_table(summary)
    if correlations:
        tables["metrics"] = pd.DataFrame([as_json(found) for found in correlations])
    return {name: table for name, table in tables.items() if len(table)}


def rates_table(rates: Sequence[Rate]) -> pd.DataFrame:
    """Rates as a table: percent printed from whole counts, interval, and the counts themselves."""
    return pd.DataFrame(
        [
            {
                "criterion": rate.criterion,
                "method": rate.method,
                **({} if rate.against is None else {"against": rate.against}),
                "percent": rate.percent(),
                "interval": _ends(rate.interval),
                "clustered by": rate.headline,
                "wins": rate.wins,
                "ties": rate.ties,
                "losses": rate.losses,
                "n": rate.n,
                "participants": rate.participants,
                "images": rate.images,
                "note": rate.interval.note,
            }
            for rate in rates
        ]
    )


def report_figures(votes: Votes, summary: Summary, metrics: pd.DataFrame | None = None) -> dict[str, go.Figure]:
    """The figures of a report by name; those that need what the study has not are left out."""
    drawn = {"selection_ratios": draw_figures.rate_bars(summary.selection, votes.methods)}
    if summary.target and summary.preferences:
        drawn["preference_rates"] = draw_figures.rate_bars(summary.preferences, votes.methods)
    lead = summary.target or _most_chosen(summary.selection)
    headline = [rate for rate in summary.selection if rate.method == lead and rate.n]
    if headline:
        drawn["interval_comparison"] = draw_figures.interval_comparison(headline[0])
    rankings = [part.ranking for part in summary.criteria if not isinstance(part.ranking, Unknown)]
    if rankings:
        drawn["strengths"] = draw_figures.strength_forest(rankings, votes.methods)
    for name in votes.criteria:
        drawn |= {f"{kind}_{name}": figure for kind, figure in _criterion_figures(votes, summary, name, lead).items()}
    biases = [part.position_bias for part in summary.criteria if sum(part.position_bias.chosen)]
    if biases:
        drawn["positions"] = draw_figures.position_bars(biases)
    if (votes.response_ms > 0).any():
        drawn["response_times"] = draw_figures.response_time_curve(votes)
    drawn["exclusions"] = draw_figures.exclusion_flow(_flow(summary))
    if metrics is not None:
        drawn |= _metric_figures(votes, summary, metrics)
    return drawn


def methods_paragraph(summary: Summary) -> str:
    """Design, numbers, exclusions and estimators in words ready for a paper."""
    return " ".join([*_design_in_words(summary), *_estimators_in_words(summary)])


def _design_in_words(summary: Summary) -> list[str]:
    counts = summary.counts
    protocol = "two at a time" if counts.pairwise else "side by side, choosing the best"
    criteria = "criteria" if len(counts.criteria) > 1 else "criterion"
    design = (
        f"{counts.participants} participants compared {len(counts.methods)} methods ({', '.join(counts.methods)}) "
        f"{protocol} on {counts.images} images by {len(counts.criteria)} {criteria} ({', '.join(counts.criteria)}), "
        f"giving {counts.answers} answers."
    )
    kept = (
        f"{counts.excluded} answers were excluded by the rules of the study and {counts.repeats} answers to repeated "
        f"questions were used for consistency only, which leaves {counts.counted} answers; {counts.ties} of them are "
        f"ties and {counts.cant_tell} are can't-tell answers, which enter no rate."
    )
    return [design, kept, f"A tie counts {_TIES_IN_WORDS[summary.ties]}."]


def _estimators_in_words(summary: Summary) -> list[str]:
    rates = (
        "Rates are shares of the trials that showed a method, printed from whole counts and rounded half up. "
        "Their 95 % intervals are Wilson's at the effective sample size given by "
        f"{_ERRORS_IN_WORDS[summary.population]}."
    )
    model = "Bradley-Terry model (ties as half wins)" if summary.counts.pairwise else "Luce model"
    strengths = (
        f"Strengths are maximum-likelihood estimates of the {model} without regularisation, with "
        f"{_SANDWICH_IN_WORDS[summary.population]} sandwich errors; plotted intervals are quasi-standard errors."
    )
    sentences = [rates, strengths]
    if summary.tests:
        tests = (
            "Preferences were tested against one half by t tests with the same errors, Holm-corrected over the family "
            f"of {summary.tests[0].family} comparisons, beside exact sign-flip tests over participants."
        )
        sentences.insert(1, tests)
    if not isinstance(summary.replicates, Unknown):
        checked = (
            f"They were checked by {len(summary.replicates.log_worth)} bootstrap replicates of "
            f"{summary.replicates.resampled} (seed {summary.seed})."
        )
        sentences.append(checked)
    return sentences


def latex(table: pd.DataFrame) -> str:
    """A table for LaTeX (booktabs), special characters escaped."""
    lines = [" & ".join(_tex(str(name)) for name in table.columns) + r" \\", r"\midrule"]
    lines += [" & ".join(_tex("" if cell is None else str(cell)) for cell in row) + r" \\" for row in table.to_numpy()]
    columns = "l" * len(table.columns)
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}", ""])


_TIES_IN_WORDS = {
    "half": "half a win for each side",
    "dropped": "for nothing and is left out",
    "lost": "as a trial that no method won",
}

_ERRORS_IN_WORDS = {
    "people and images": "a two-way cluster-robust variance over participants and images (Cameron, Gelbach and Miller "
    "2011), so they speak about new people on new images",
    "people, these images": "a variance clustered by participant, so they speak about new people on these images",
}

_SANDWICH_IN_WORDS = {"people and images": "two-way", "people, these images": "participant-clustered"}

_TEX_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    character: f"\\{character}" for character in "&%$#_{}"
}


def _tex(text: str) -> str:
    return "".join(_TEX_SPECIAL.get(character, character) for character in text)


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _ends(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return ""
    scale = 10**4  # an end is an estimate, not a count: its second decimal of a percent is rounded from the float
    return " to ".join(exact_percent(max(round(end * scale), 0), scale) for end in (interval.low, interval.high))


def _tests_table(summary: Summary) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "criterion": test.criterion,
                "method": test.method,
                "other": test.other,
                "binomial p": _p(test.binomial_p),
                "sign-flip p (people)": _p(test.sign_flip_p),
                "Wilcoxon p (people)": _p(test.wilcoxon_p),
                "clustered p": _p(test.clustered_p),
                f"{test.correction} adjusted p": _p(test.adjusted_p),
            }
            for test in summary.tests
        ]
    )


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return f"< {10**-P_DECIMALS:.{P_DECIMALS}f}" if value < 10**-P_DECIMALS else f"{value:.{P_DECIMALS}f}"


def _p_in_words(value: float | None) -> str:
    text = _p(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _strengths_table(summary: Summary) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for part in summary.criteria:
        if isinstance(part.ranking, Unknown):
            rows.append({"criterion": part.name, "rank": "", "method": "", "note": part.ranking.reason})
            continue
        ranking, ranks = part.ranking, part.ranking.ranks()
        quasi = ranking.quasi_standard_errors()
        for method in ranking.order:
            code = ranking.methods.index(method)
            to_best = ranking.contrast(ranking.order[0], method)
            rows.append(
                {
                    "criterion": part.name,
                    "rank": ranks[method],
                    "method": method,
                    "log strength": f"{ranking.log_worth[code]:.{SHORT}f}",
                    "quasi-SE": "" if quasi is None else f"{quasi[code]:.{SHORT}f}",
                    "behind the best": f"{to_best.difference:.{SHORT}f}",
                    "p against the best": _p(to_best.p_value),
                    "note": ranking.note,
                }
            )
    return pd.DataFrame(rows)


def _quality_table(summary: Summary) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for part in summary.criteria:
        agreed, again, times = part.agreement, part.retest, part.response_times
        fit = part.goodness_of_fit
        rows.append(
            {
                "criterion": part.name,
                "questions answered twice or more": agreed.items,
                "percent agreement": _number(agreed.estimates["percent"]),
                "Krippendorff's alpha": _with_interval(agreed.estimates["alpha"], agreed.intervals["alpha"]),
                "Gwet's AC1": _with_interval(agreed.estimates["ac1"], agreed.intervals["ac1"]),
                "Fleiss' kappa": _with_interval(agreed.estimates["kappa"], agreed.intervals["kappa"]),
                "repeated questions": again.pairs,
                "same answer": _number(again.share),
                "split-half reliability [95 % of divisions]": _with_interval(
                    part.split_half.reliability, part.split_half.spread
                ),
                "positions chosen": " / ".join(map(str, part.position_bias.chosen)),
                "position p": _p(part.position_bias.p_value),
                "median seconds": "" if times.quartiles is None else f"{times.quartiles[1] / 1000:.1f}",
                "below 0.8 s": times.fast,
                "goodness of fit": fit.reason
                if isinstance(fit, Unknown)
                else f"G2 = {fit.statistic:.1f}, df = {fit.degrees_of_freedom}, {_p_in_words(fit.p_value)}",
            }
        )
    return pd.DataFrame(rows)


def _exclusions_table(summary: Summary) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "criterion": pair.with_exclusions.criterion,
                "method": pair.with_exclusions.method,
                "against": pair.with_exclusions.against or "",
                "with exclusions": pair.with_exclusions.percent(),
                "n with": pair.with_exclusions.n,
                "without exclusions": pair.without_exclusions.percent(),
                "n without": pair.without_exclusions.n,
            }
            for pair in summary.exclusions
        ]
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.{SHORT}f}"


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    ends = "" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]"
    return "" if value is None else f"{value:.{SHORT}f}{ends}"


def _criterion_figures(votes: Votes, summary: Summary, name: str, lead: str | None) -> Mapping[str, go.Figure]:
    part = next(part for part in summary.criteria if part.name == name)
    drawn: dict[str, go.Figure] = {}
    if votes.is_pairwise:
        wins, ties = vote_counts(votes, name), tie_counts(votes, name)
        drawn["wins"] = draw_figures.win_heatmap(wins, ties, votes.methods, f"How often the row won: {name}")
        drawn["trials"] = draw_figures.count_heatmap(wins, ties, votes.methods, f"Trials per pair: {name}")
        if not isinstance(part.ranking, Unknown):
            drawn["calibration"] = draw_figures.calibration(part.ranking, wins, ties)
    if not isinstance(summary.replicates, Unknown) and summary.replicates.exists.any():
        drawn["bootstrap"] = draw_figures.bootstrap_boxes(summary.replicates, name)
    if lead is not None and len(votes):
        curve = attempt(lambda: convergence(votes, name, lead, seed=summary.seed))
        if not isinstance(curve, Unknown):
            drawn["convergence"] = draw_figures.convergence_lines(curve, lead, name)
        drawn["people"] = draw_figures.person_caterpillar(shares_by_person(votes, name, lead), lead, name)
        drawn["images"] = draw_figures.image_heatmap(shares_by_image(votes, name), votes, name)
    return drawn


def _most_chosen(rates: Sequence[Rate]) -> str | None:
    known = [rate for rate in rates if rate.n]
    return max(known, key=lambda rate: rate.estimate or 0.0).method if known else None


def _flow(summary: Summary) -> list[tuple[str, int]]:
    counts = summary.counts
    first = counts.answers - counts.repeats
    decided = counts.counted - counts.ties - counts.cant_tell
    return [
        ("all answers", counts.answers),
        ("to first questions", first),
        ("after exclusions", counts.counted),
        ("decided", decided),
    ]


def _people(summary: Summary, criterion: str) -> dict[str, float]:
    rates = [rate for rate in summary.selection if rate.criterion == criterion]
    return {rate.method: rate.estimate for rate in rates if rate.estimate is not None}


def _correlations(summary: Summary, metrics: pd.DataFrame) -> tuple[Correlation, ...]:
    names = sorted(set(metrics["metric"]))
    found = [
        attempt(lambda c=criterion, m=metric: correlate(_people(summary, c), system_means(metrics, m), f"{m}, {c}"))
        for criterion in summary.counts.criteria
        for metric in names
    ]
    return tuple(one for one in found if not isinstance(one, Unknown))


def _metric_figures(votes: Votes, summary: Summary, metrics: pd.DataFrame) -> dict[str, go.Figure]:
    drawn: dict[str, go.Figure] = {}
    for criterion in votes.criteria:
        people = _people(summary, criterion)
        for metric in sorted(set(metrics["metric"])):
            means = system_means(metrics, metric)
            found = attempt(lambda p=people, v=means, m=metric: correlate(p, v, m))
            if not isinstance(found, Unknown):
                drawn[f"metric_{metric}_{criterion}"] = draw_figures.metric_scatter(people, means, found, votes.methods)
    return drawn


def _readable(table: pd.DataFrame, *, across: bool) -> pd.DataFrame:
    """A table as the page shows it: columns that say nothing are left out, few rows of many columns are turned."""
    told = table.loc[:, [bool((table[name].astype(str) != "").any()) for name in table.columns]]
    return told.set_index("criterion").T.rename_axis(columns=None).reset_index(names="") if across else told


STYLE = """
body { font: 16px/1.5 system-ui, "Segoe UI", Arial, sans-serif; color: #222; max-width: 1100px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.85rem; }
th, td { text-align: left; padding: 0.25rem 0.6rem; border-bottom: 1px solid #eee; }
td { white-space: nowrap; } th { vertical-align: bottom; }
td:last-child { white-space: normal; } .methods { background: #f6f6f6; padding: 1rem; border-radius: 6px; }
"""


def _page(
    title: str, summary: Summary, paragraph: str, tables: Mapping[str, pd.DataFrame], drawn: Mapping[str, go.Figure]
) -> str:
    counts = summary.counts
    size = (
        f"{counts.participants} participants, {counts.images} images, {len(counts.methods)} methods, "
        f"{counts.counted} answers in the estimates of {counts.answers}."
    )
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>",
        f"<p>{size}</p>",
        f"<h2>Methods paragraph</h2><p class='methods'>{escape(paragraph)}</p>",
    ]
    for name, table in tables.items():
        html = _readable(table, across=name == "quality").to_html(index=False, border=0, na_rep="")
        parts.append(f"<h2>{escape(name.replace('_', ' ').capitalize())}</h2><div class='table'>{html}</div>")
    parts.append("<h2>Figures</h2>")
    for place, (name, figure) in enumerate(drawn.items()):
        # The first figure carries plotly.js, so the page needs no other file and no network. Plotly would draw a random
        # id, and no two pages of one study would be the same file.
        options: dict[str, Any] = {"include_plotlyjs": place == 0, "div_id": f"figure-{name}"}
        parts.append(figure.to_html(full_html=False, config={"displaylogo": False}, **options))
    return "\n".join([*parts, "</body></html>", ""])
