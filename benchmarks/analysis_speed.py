"""Speed of the analysis beside evalica, choix and row resampling: reading, fitting, resampling, in one run.

`python benchmarks/analysis_speed.py [--votes 1000000] [--quick]` prints a Markdown table. Every time is the best of
several runs in one process; competitors that would take minutes are timed on fewer replicates and scaled up, which the
table says.
"""

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # these matrices are small: threads only wait for one another
sys.path.insert(0, str(Path(__file__).parents[1]))

import choix
import evalica
import numpy as np
import pandas as pd

from analysis.bootstrap import REPLICATES, resample_participants, resample_participants_and_images
from analysis.bradley_terry import fit_tables
from analysis.counts import half_wins, outcome_counts
from analysis.load import load_votes
from analysis.rates import selection_ratios
from analysis.votes import NONE, Votes, make_votes
from db.migrate import migrate

METHODS = 9
IMAGES = 40
HASH = "0" * 64


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--votes", type=int, default=1_000_000)
    parser.add_argument("--participants", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="leave the slow competitors out")
    given = parser.parse_args()
    votes = random_votes(given.votes, given.participants)
    print(f"{len(votes):,} votes, {METHODS} methods, 2 criteria, {given.participants} participants\n")
    print("| what | ms | CPU ms |\n|---|---|---|")
    ours(votes)
    competitors(votes, quick=given.quick)
    with tempfile.TemporaryDirectory() as folder:
        reading(votes, Path(folder) / "large.sqlite")
        paper_size(Path(folder) / "paper.sqlite")


def random_votes(n: int, participants: int) -> Votes:
    """Pairwise votes with 10 % ties; people sit in blocks, as they do when they answer one after the other."""
    rng = np.random.default_rng(0)
    worth = np.linspace(-1, 1, METHODS)
    first = rng.integers(0, METHODS, n)
    second = (first + rng.integers(1, METHODS, n)) % METHODS
    left = rng.random(n) < 1 / (1 + np.exp(worth[second] - worth[first]))
    tie = rng.random(n) < 0.1
    return make_votes(
        participant=(np.arange(n) * participants // n).astype(np.int32),
        image=rng.integers(0, IMAGES, n).astype(np.int16),
        criterion=(np.arange(n) % 2).astype(np.int8),
        shown=np.stack([first, second], axis=1).astype(np.int16),
        outcome=tie.astype(np.int8),
        position=np.where(tie, NONE, np.where(left, 0, 1)).astype(np.int8),
        participants=[str(i) for i in range(participants)],
        images=[f"i{i}" for i in range(IMAGES)],
        criteria=["context_stability", "visual_consistency"],
        methods=[f"m{i}" for i in range(METHODS)],
    )


def ours(votes: Votes) -> None:
    """Tensor, fit, and both bootstraps."""
    row("count tensor by participant", best(lambda: outcome_counts(votes, "participant")))
    tables = half_wins(outcome_counts(votes))
    row("Bradley-Terry fit, both criteria, from counts", best(lambda: fit_tables(tables)))
    row(
        f"{REPLICATES:,} participant-clustered replicates, both criteria, from votes",
        best(lambda: resample_participants(votes)),
    )
    row(f"{REPLICATES:,} crossed replicates, from votes", best(lambda: resample_participants_and_images(votes), 2))


def competitors(votes: Votes, *, quick: bool) -> None:
    """The same by libraries; resampling as each offers it."""
    rows = votes.only(votes.criterion == 0)
    left, right = rows.shown.T.astype(np.int64)
    winners = np.where(rows.position == 0, 1, np.where(rows.position == 1, 2, 0))
    kinds = np.array([evalica.Winner.Draw, evalica.Winner.X, evalica.Winner.Y], dtype=object)[winners]

    def by_evalica(weights: np.ndarray | None = None) -> object:
        return evalica.bradley_terry(
            left.tolist(), right.tolist(), kinds.tolist(), weights=weights, index=pd.Index(range(METHODS))
        )

    row("evalica: one fit, one criterion", best(by_evalica, 1))
    table = half_wins(outcome_counts(votes))[0].astype(float)
    row("choix: one fit from a count matrix, one criterion", best(lambda: choix.ilsr_pairwise_dense(table)))
    if quick:
        return
    people = (
        np.random.default_rng(0).multinomial(1000, np.full(1000, 0.001)) if len(votes.participants) == 1000 else None
    )
    weights = None if people is None else people[rows.participant].astype(float)
    one = best(lambda: by_evalica(weights), 1)
    row(f"evalica: {REPLICATES:,} clustered replicates by weights, both criteria (one, scaled)", one, 2 * REPLICATES)
    one = best(lambda: resampled_rows(rows), 1)
    row(
        f"resampled rows (arena style): {REPLICATES:,} replicates, both criteria (one, scaled)",
        one,
        2 * REPLICATES,
    )


def resampled_rows(rows: Votes) -> object:
    """Draw votes, not people, again, and fit."""
    drawn = np.random.default_rng(0).integers(0, len(rows), len(rows))
    keep = rows.position[drawn] != NONE
    chosen = rows.chosen[drawn][keep]
    lost = rows.shown[drawn][keep][np.arange(keep.sum()), 1 - rows.position[drawn][keep]]
    table = np.zeros((METHODS, METHODS))
    np.add.at(table, (chosen, lost), 1.0)
    return choix.ilsr_pairwise_dense(table)


def reading(votes: Votes, path: Path) -> None:
    """From the schema that ships."""
    url = fill(votes, path)
    row("reading from SQLite, columns of estimates", best(lambda: load_votes(url, "large", details=False)))
    row("reading from SQLite, all columns", best(lambda: load_votes(url, "large")))
    columns = "participant_id, image_id, criterion, first_method_id, second_method_id, outcome, position"

    def fetchall() -> object:
        connection = sqlite3.connect(path)
        table = np.array(connection.execute(f"SELECT {columns} FROM analysis_vote").fetchall(), dtype=object)  # noqa: S608 - names of our own
        connection.close()
        return table

    row("sqlite3 fetchall into an array, seven columns", best(fetchall, 1))


def paper_size(path: Path) -> None:
    """8,000 votes from database to rates and strengths with replicates."""
    url = fill(random_votes(8000, 100), path)

    def whole() -> object:
        votes = load_votes(url, "large", details=False)
        return selection_ratios(votes), resample_participants(votes)

    row("paper-size study (8,000 votes): read, rates with all intervals, 1,000 replicates", best(whole))

    def without_rates() -> object:
        return resample_participants(load_votes(url, "large", details=False))

    row("paper-size study: read and 1,000 replicates", best(without_rates))


def fill(votes: Votes, path: Path) -> str:
    """A migrated database whose fact table holds the votes."""
    url = f"sqlite:///{path}"
    migrate(url)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    spec = json.dumps({"criteria": [{"key": name} for name in votes.criteria]})
    connection.execute("INSERT INTO study (id, slug, created_at) VALUES (1, 'large', 0)")
    version = (1, 1, 1, spec, HASH, HASH, "closed", 0)
    insert(
        connection,
        "study_version",
        "id study_id version spec_json spec_sha256 design_seed status created_at",
        [version],
    )
    methods = [(i + 1, 1, name, f"M{i}", "baseline") for i, name in enumerate(votes.methods)]
    insert(connection, "method", "id version_id key alias role", methods)
    images = [(i + 1, 1, name, HASH, HASH, "") for i, name in enumerate(votes.images)]
    insert(connection, "image", "id version_id key source_sha256 hole_sha256 stratum", images)
    people = [(i + 1, 1, "s", f"{i:064d}", 0) for i in range(len(votes.participants))]
    insert(connection, "participant", "id version_id source ext_hmac created_at", people)
    columns = (
        "response_id criterion image_id session_id participant_id trial_id first_method_id second_method_id "
        "chosen_method_id outcome position version_id kind rt_ms answered_at used"
    )
    insert(connection, "analysis_vote", columns, facts(votes))
    connection.commit()
    connection.close()
    return url


def insert(connection: sqlite3.Connection, table: str, columns: str, rows: Iterable[Sequence[object]]) -> None:
    """Rows into a table, columns given by name."""
    names = columns.split()
    places = ", ".join("?" * len(names))
    connection.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})", rows)  # noqa: S608 - names of our own


def facts(votes: Votes) -> Iterator[tuple[int | None, ...]]:
    """Rows of the fact table, one by one."""
    chosen = votes.chosen.tolist()
    position = votes.position.tolist()
    people, images = (votes.participant + 1).tolist(), (votes.image + 1).tolist()
    first, second = ((votes.shown[:, side] + 1).tolist() for side in (0, 1))
    criterion, outcome = votes.criterion.tolist(), votes.outcome.tolist()
    for i in range(len(votes)):
        none = chosen[i] == NONE
        yield (
            i + 1, criterion[i], images[i], people[i], people[i], i // 2 + 1, first[i], second[i],
            None if none else chosen[i] + 1, outcome[i], None if none else position[i], 1, 0, 3000, 0, 1,
        )  # fmt: skip


def best(job: Callable[[], object], times: int = 7) -> tuple[float, float]:
    """Seconds of the fastest run: by the clock and of the processor, which a busy machine disturbs less."""
    clock = cpu = float("inf")
    for _ in range(times):
        started, used = time.perf_counter(), time.process_time()
        job()
        clock = min(clock, time.perf_counter() - started)
        cpu = min(cpu, time.process_time() - used)
    return clock, cpu


def row(what: str, seconds: tuple[float, float], scale: float = 1) -> None:
    """One line of the table."""
    print(f"| {what} | {1000 * scale * seconds[0]:,.1f} | {1000 * scale * seconds[1]:,.1f} |", flush=True)


if __name__ == "__main__":
    main()
