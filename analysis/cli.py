"""The commands of `python -m analysis`: rates of a file, the report of a study, the power of a definition."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from analysis.human_vs_metric import read_metrics
from analysis.load import load_votes
from analysis.power import (
    ALPHA,
    IMAGE_SD,
    PARTICIPANT_SD,
    SHARES,
    SIMULATIONS,
    read_plan,
    sign_test_votes,
    simulate_power,
)
from analysis.rates import Population, Rate, preference_rates, selection_ratios
from analysis.report import write_report
from analysis.summary import as_json
from analysis.vote_files import read_votes
from analysis.votes import Votes, VotesError
from db.connections import DatabaseError

MISTAKE = 2
"""Exit status for what the caller can mend."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; problems the caller can mend are one sentence on standard error and exit status 2."""
    given = _parser().parse_args(arguments)
    try:
        given.run(given)
    except (VotesError, DatabaseError, OSError) as problem:
        print(f"analysis: {problem}", file=sys.stderr)
        return MISTAKE
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description="From recorded answers to numbers.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    rates = commands.add_parser("rates", help="preference rates and selection ratios of a votes file or export folder")
    rates.add_argument("votes", type=Path, metavar="FILE")
    rates.add_argument("--target", help="compare this method with each other one")
    rates.add_argument("--ties", choices=("half", "dropped", "lost"), default="half")
    rates.add_argument("--these-images", action="store_true", help="speak about new people on exactly these images")
    rates.add_argument("--json", action="store_true", help="numbers for scripts")
    rates.set_defaults(run=_rates)
    report = commands.add_parser("report", help="HTML report, tables, figures and stats.json of a study")
    report.add_argument("--database", metavar="URL", help="sqlite:///... or postgresql://...")
    report.add_argument("--study", metavar="SLUG")
    report.add_argument("--version", type=int, help="of the definition; the newest by default")
    report.add_argument("--votes", type=Path, metavar="FILE", help="instead of a database")
    report.add_argument("--out", type=Path, required=True, metavar="DIR")
    report.add_argument("--target", help="the method of interest")
    report.add_argument("--metrics", type=Path, metavar="FILE", help="per-image scores: method, image, metric, value")
    report.add_argument(
        "--population",
        choices=get_args(Population),
        default="people and images",
        help="whom the intervals speak about: new people on new images (the default), or on exactly these images",
    )
    report.add_argument("--seed", type=int, default=0)
    report.add_argument("--no-pictures", action="store_true", help="no SVG and PNG files")
    report.set_defaults(run=_report)
    power = commands.add_parser("power", help="what a study definition can find, by simulating it")
    power.add_argument("definition", type=Path, metavar="DEFINITION")
    power.add_argument("--images", type=int, help="how many, where the definition does not say")
    power.add_argument("--share", type=float, action="append", help="true preference for the target; repeatable")
    power.add_argument("--simulations", type=int, default=SIMULATIONS)
    power.add_argument("--participant-sd", type=float, default=PARTICIPANT_SD)
    power.add_argument("--image-sd", type=float, default=IMAGE_SD)
    power.add_argument("--seed", type=int, default=0)
    power.add_argument("--json", action="store_true", help="numbers for scripts")
    power.set_defaults(run=_power)
    return parser


def _rates(given: argparse.Namespace) -> None:
    votes = read_votes(given.votes)
    population: Population = "people, these images" if given.these_images else "people and images"
    ties = given.ties
    if ties == "half" and not votes.is_pairwise:
        ties = "lost"
    rates = selection_ratios(votes, ties=ties, population=population)
    if votes.is_pairwise:
        rates += preference_rates(votes, target=given.target, ties=ties, population=population)
    if given.json:
        print(json.dumps(as_json(rates), indent=1, ensure_ascii=False))
        return
    for rate in rates:
        print(_line(rate))


def _line(rate: Rate) -> str:
    interval = rate.interval
    ends = "no interval"
    if interval.low is not None and interval.high is not None:
        ends = f"{100 * interval.low:.2f} to {100 * interval.high:.2f}"
    against = f" over {rate.against}" if rate.against else ""
    note = f"  ({interval.note})" if interval.note else ""
    return (
        f"{rate.criterion:24} {rate.method + against:40} {rate.percent():>7} %  [{ends}]  "
        f"{rate.wins} + {rate.ties} ties of {rate.n}{note}"
    )


def _votes(given: argparse.Namespace) -> Votes:
    if given.votes is not None:
        return read_votes(given.votes)
    if given.database is None or given.study is None:
        raise VotesError("Give --database and --study, or --votes.")
    return load_votes(given.database, given.study, version=given.version)


def _report(given: argparse.Namespace) -> None:
    votes = _votes(given)
    metrics = None if given.metrics is None else read_metrics(given.metrics)
    title = f"Human study: {given.study or given.votes}"
    written = write_report(
        votes, given.out, title=title, target=given.target, metrics=metrics, population=given.population,
        seed=given.seed, static=not given.no_pictures,
    )  # fmt: skip
    if written.pictures:
        print(written.pictures, file=sys.stderr)
    print(given.out / "report.html")


def _power(given: argparse.Namespace) -> None:
    plan = read_plan(given.definition, given.images)
    found = [
        simulate_power(
            plan, share, participant_sd=given.participant_sd, image_sd=given.image_sd,
            simulations=given.simulations, seed=given.seed,
        )
        for share in given.share or SHARES
    ]  # fmt: skip
    if given.json:
        print(json.dumps(as_json(found), indent=1))
        return
    design = plan.design
    print(
        f"{design.participants} people, {design.trials} trials each, {design.images} images, "
        f"{len(plan.methods)} methods {'all at once' if design.best_of_n else 'in pairs'}, "
        f"{plan.tests} tests (Holm); spreads {given.participant_sd} between people, {given.image_sd} between images"
    )
    for one in found:
        print(
            f"true preference {one.share:.2f}: power {one.power:.2f} (+-{2 * one.standard_error:.2f}), interval "
            f"{100 * one.interval_width:.1f} points wide; independent votes a sign test would need per pair: "
            f"{_votes_needed(one.share, plan.tests)}"
        )


def _votes_needed(share: float, tests: int) -> str:
    try:
        return str(sign_test_votes(share, alpha=ALPHA / max(tests, 1)))
    except VotesError:
        return "no number"
