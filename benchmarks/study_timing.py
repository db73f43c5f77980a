"""Whether the time that a picture or a trial takes to arrive tells which methods made it.

    python benchmarks/study_timing.py [--rounds 400] [--scale 2]

Serves two studies of nine methods on six photographs of `scale` times 240 x 180 pixels from a process of its own and
sits beside it with a stop-watch, without a network whose delays would hide anything.

* Pictures: of every trial of a best-of-nine study all nine candidates are fetched `rounds` times, in an order drawn
  anew. For each photograph and each pair of methods, did one's first byte, or last byte, come sooner than the other's
  of the same round (Wilcoxon's signed-rank test)? Six photographs, 36 pairs and two times make 432 tests.
* Trials: of every trial of a pairwise study the reply to GET /trial is timed. For each pair of methods, did the trials
  that show one but not the other come sooner than those the other way round (Mann and Whitney's test)? 36 tests.

Holm's correction covers all tests together. A participant sees each picture once; what hundreds of fetches cannot tell,
one cannot. Ends with 1 when anything is told at the 5 % level.
"""

import argparse
import http.client
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu, wilcoxon
from sqlalchemy import select

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from analysis.significance import adjust  # noqa: E402 - after the path is known
from db import models  # noqa: E402
from db.engine import Database  # noqa: E402
from db.migrate import migrate  # noqa: E402
from study.definition import definition_from  # noqa: E402
from study.ingest import ingest_study  # noqa: E402
from study.publication import launch  # noqa: E402
from tests.serving import free_port  # noqa: E402
from tests.study.photographs import NINE, draw_photographs  # noqa: E402
from tests.study.stage import seeded_bytes  # noqa: E402

LEVEL = 0.05
WARM_UP = 30
"""First requests of a connection, which are slower whatever they ask for."""

PATIENCE_S = 60
SEED = 7

BEST, PAIRS = "best", "pairs"
SHARED: dict[str, object] = {
    "title": "Timing",
    "methods": [{"key": key} for key in NINE],
    "criteria": [{"key": "better", "title": "Better", "question": "Which is better?"}],
    "plan": {"real": 6},
    "consent": {"text": "None needed: these are not people."},
}
STUDIES: tuple[dict[str, object], ...] = (
    SHARED | {"study": BEST, "protocol": "best_of_n"},
    SHARED | {"study": PAIRS, "contrasts": "round_robin"},
)

EACH_TRIAL = 5
"""Times that GET /trial is asked of one trial."""

Times = defaultdict[tuple[int, str], list[float]]
"""(image, method) -> milliseconds, one per round, in the order of the rounds."""


@dataclass(frozen=True)
class Test:
    """What was compared, how likely such a difference is by chance, and the median difference."""

    name: str
    p: float
    later_ms: float


@contextmanager
def served(folder: Path, *studies: Mapping[str, object], scale: int) -> Generator[tuple[Database, int]]:
    """Launched studies on photographs, and the port of the process that serves them."""
    url = f"sqlite:///{folder / 'study.sqlite'}"
    migrate(url)
    pictures = draw_photographs(folder / "pictures", scale=scale)
    with Database.open(url) as database:
        for study in studies:
            definition = definition_from(dict(study))
            ingest_study(
                database, definition, pictures.images, pictures.holes, pictures.results,
                now=0, random_bytes=seeded_bytes(),
            )  # fmt: skip
            launch(database, definition.study, now=0)
    port = free_port()
    command = [sys.executable, "-m", "tests.study.study_server", url, str(port)]
    server = subprocess.Popen(command, cwd=ROOT)
    try:
        _wait_for(port)
        with Database.open(url, read_only=True) as database:
            yield database, port
    finally:
        server.terminate()
        server.wait()


def _wait_for(port: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            http.client.HTTPConnection("127.0.0.1", port).connect()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"The server did not start within {PATIENCE_S} s.")


class Visitor:
    """Somebody with a stop-watch."""

    def __init__(self, port: int, slug: str) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port)
        self._headers = {"Idempotency-Key": "k"}
        self._headers["Authorization"] = f"Bearer {self._ask('POST', '/sessions', {'study': slug})['token']}"
        self._ask("POST", "/sessions/me/consent", {"accepted": True})

    def trials(self) -> Iterator[dict[str, Any]]:
        """Every trial in turn; the first picture is taken each time."""
        reply = self._ask("GET", "/trial")
        while trial := reply["trial"]:
            for _ in range(WARM_UP):
                self.picture_ms(trial["input"]["token"])
            yield trial
            answer = {"responses": [{"criterion": "better", "outcome": "choice", "position": 0}]}
            reply = self._ask("POST", f"/trial/{trial['id']}/answer", answer)

    def picture_ms(self, token: str) -> tuple[float, float]:
        """Milliseconds until the first and until the last byte of a picture."""
        return self._timed(f"/study/s/{token}")

    def trial_ms(self) -> float:
        """Milliseconds until all of the reply to GET /trial."""
        return self._timed("/study/api/v1/trial")[1]

    def _timed(self, path: str) -> tuple[float, float]:
        began = time.perf_counter()
        self._http.request("GET", path, headers=self._headers)
        reply = self._http.getresponse()
        first = time.perf_counter()
        reply.read()
        return 1000 * (first - began), 1000 * (time.perf_counter() - began)

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        self._http.request(method, f"/study/api/v1{path}", json.dumps(body or {}), self._headers)
        return json.loads(self._http.getresponse().read())


def time_pictures(port: int, database: Database, rounds: int) -> tuple[Times, Times]:
    """Until the first and until the last byte, by what the visitor cannot know."""
    drawn = random.Random(SEED)
    visitor = Visitor(port, BEST)
    first, last = Times(list), Times(list)
    for trial in visitor.trials():
        image, methods = _shown(database, trial["id"])
        for _ in range(rounds):
            for at in drawn.sample(range(len(methods)), len(methods)):
                began, ended = visitor.picture_ms(trial["candidates"][at]["token"])
                first[image, methods[at]].append(began)
                last[image, methods[at]].append(ended)
    return first, last


def time_trials(port: int, database: Database, people: int) -> dict[frozenset[str], list[float]]:
    """Milliseconds of GET /trial by the pair it shows; the median of a few, one after another."""
    took: dict[frozenset[str], list[float]] = defaultdict(list)
    for _ in range(people):
        visitor = Visitor(port, PAIRS)
        for trial in visitor.trials():
            _, methods = _shown(database, trial["id"])
            took[frozenset(methods)].append(statistics.median(visitor.trial_ms() for _ in range(EACH_TRIAL)))
    return took


def _shown(database: Database, trial: str) -> tuple[int, list[str]]:
    """(image, methods in the order of their positions) of a trial."""
    query = (
        select(models.Trial.image_id, models.Method.key)
        .join(models.TrialSlot, models.TrialSlot.trial_id == models.Trial.id)
        .join(models.Rendition, models.Rendition.id == models.TrialSlot.rendition_id)
        .join(models.Method, models.Method.id == models.Rendition.method_id)
        .where(models.Trial.public_id == trial)
        .order_by(models.TrialSlot.position)
    )
    with database.read() as db:
        rows = db.execute(query).all()
    return rows[0].image_id, [row.key for row in rows]


def picture_tests(name: str, took: Times) -> Iterator[Test]:
    """One for each photograph and pair of methods."""
    for image in sorted({image for image, _ in took}):
        for one, other in combinations(NINE, 2):
            later = np.subtract(took[image, one], took[image, other])
            result: Any = wilcoxon(later)
            yield Test(f"{name}, photograph {image}, {one} - {other}", float(result.pvalue), statistics.median(later))


def trial_tests(took: Mapping[frozenset[str], list[float]]) -> Iterator[Test]:
    """One for each pair of methods: trials that show the one, not the other, against the other way round."""
    for one, other in combinations(NINE, 2):
        with_one = [ms for pair, times in took.items() if one in pair and other not in pair for ms in times]
        with_other = [ms for pair, times in took.items() if other in pair and one not in pair for ms in times]
        later = statistics.median(with_one) - statistics.median(with_other)
        result: Any = mannwhitneyu(with_one, with_other)
        yield Test(f"GET /trial, {one} - {other}", float(result.pvalue), later)


def main() -> int:
    """Measure, test and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400, help="of every picture")
    parser.add_argument("--people", type=int, default=60, help="who are asked six pairs each")
    parser.add_argument("--scale", type=int, default=2, help="of the photographs; 2 is 480 x 360")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder), *STUDIES, scale=given.scale) as (database, port),
    ):
        first, last = time_pictures(port, database, given.rounds)
        trials = time_trials(port, database, given.people)
    groups = {
        "first byte": list(picture_tests("first byte", first)),
        "last byte": list(picture_tests("last byte", last)),
        "GET /trial": list(trial_tests(trials)),
    }
    tests = [test for group in groups.values() for test in group]
    corrected = dict(zip(tests, adjust([test.p for test in tests], "holm"), strict=True))
    middles = [float(np.median(np.concatenate(list(times.values())))) for times in (first, last, trials)]
    print(f"{'':12} {'median':>9} {'tests':>6} {'largest difference':>19} {'least p (Holm)':>15}")
    for (name, group), middle in zip(groups.items(), middles, strict=True):
        largest = max(abs(test.later_ms) for test in group)
        least = min(corrected[test] for test in group)
        print(f"{name:12} {middle:6.3f} ms {len(group):6} {largest:16.4f} ms {least:15.3f}")
    told = sorted((test for test in tests if corrected[test] < LEVEL), key=lambda test: corrected[test])
    for test in told[:10]:
        print(f"told: {test.name}: {test.later_ms:+.4f} ms, p {corrected[test]:.2g}")
    print(f"{len(told)} of {len(tests)} tests tell something at the {LEVEL:.0%} level")
    return int(bool(told))


if __name__ == "__main__":
    sys.exit(main())
