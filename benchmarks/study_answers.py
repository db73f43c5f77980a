"""Answers per second through the study's real HTTP API, with SQLite at synchronous=FULL and the journal.

    python benchmarks/study_answers.py [--voters 64] [--answers 6000] [--database sqlite:///...] [--server app]

Starts a server process, a study of 40 images and 9 methods (target against each, 40 trials a person, as in the paper),
and voters that answer over raw keep-alive connections as fast as they are served. Server and voters share the machine.
Pictures are not fetched: how many a second is the network's figure, not the study's.

`--server routes` serves the study's routes alone; `app` the whole app (`python app.py --only study`) with its defaults
but for the limits per person, which a voter without a pause would meet; `control` answers everything at once and
without a thought, which is what the voters themselves can do. How late the voters' own event loop ran is reported too:
what they count as waiting for the server begins with it.

Voters are spread over their 40 trials when the clock starts, as people who come one after another are. `--in-step`
starts all at the same trial: then all end and join again in one instant, and whoever answers beside 64 joins waits.
"""

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from db.engine import Database  # noqa: E402 - after the path is known
from db.migrate import migrate  # noqa: E402
from study.definition import definition_from  # noqa: E402
from study.ingest import ingest_study  # noqa: E402
from study.publication import launch  # noqa: E402

PORT = 7951
IMAGES = 40
"""And trials of a person, as in the paper."""
SLUG = "bench"
METHODS = ("ours", *(f"baseline{number}" for number in range(8)))
CRITERIA = ("context_stability", "visual_consistency")
LOOK_EVERY_S = 0.005
"""How often the voters look whether their own event loop is late."""


@dataclass
class Connection:
    """One keep-alive connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(
        self, method: str, path: str, body: object = None, headers: str = ""
    ) -> tuple[int, dict[str, object]]:
        """Ask; the status and the JSON of the reply. `headers` are whole lines."""
        payload = json.dumps(body).encode() if body is not None else b""
        head = f"{method} /study/api/v1{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(payload)}\r\n"
        self.writer.write(f"{head}{headers}\r\n".encode() + payload)
        reply = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        length = int(reply.partition(b"content-length:")[2].partition(b"\r\n")[0])
        return int(reply[9:12]), json.loads(await self.reader.readexactly(length))


@dataclass
class Voter:
    """Somebody who takes part again and again."""

    connection: Connection
    latencies: list[float] = field(default_factory=list[float])
    joins: list[float] = field(default_factory=list[float])
    bearer: str = ""
    reply: dict[str, object] = field(default_factory=dict[str, object])

    async def take_part(self, left: list[int]) -> None:
        """Answer, until `left` answers are used up; whoever has no trial joins and agrees first."""
        while left[0] > 0:
            if self.reply.get("state") != "running":
                began = time.perf_counter()
                await self._join()
                self.joins.append(time.perf_counter() - began)
            left[0] -= 1
            trial: dict[str, str] = self.reply["trial"]  # type: ignore[assignment]
            answers = [
                {"criterion": key, "outcome": "choice", "position": at % 2, "rt_ms": 900}
                for at, key in enumerate(trial["criteria"])
            ]
            headers = f"{self.bearer}Idempotency-Key: {os.urandom(8).hex()}\r\n"
            began = time.perf_counter()
            self.reply = await self._ask("POST", f"/trial/{trial['id']}/answer", {"responses": answers}, headers)
            self.latencies.append(time.perf_counter() - began)

    async def _join(self) -> None:
        token = (await self._ask("POST", "/sessions", {"study": SLUG}))["token"]
        self.bearer = f"Authorization: Bearer {token}\r\n"
        await self._ask("POST", "/sessions/me/consent", {"accepted": True}, self.bearer)
        self.reply = await self._ask("GET", "/trial", None, self.bearer)

    async def _ask(self, method: str, path: str, body: object, headers: str = "") -> dict[str, object]:
        status, reply = await self.connection.request(method, path, body, headers)
        if status != 200:
            raise RuntimeError(f"{method} {path}: {status} {reply}")
        return reply


# ------------------------------------------------------------------------------------------------- servers


def serve(url: str) -> None:
    """The study's routes alone; run in the server's process."""
    import uvicorn  # noqa: PLC0415 - only the server needs it
    from fastapi import FastAPI  # noqa: PLC0415

    from study.api import router  # noqa: PLC0415
    from study.journal import Journal  # noqa: PLC0415

    with ExitStack() as stack:
        journal = None
        if url.startswith("sqlite"):
            journal = Journal(Path(stack.enter_context(tempfile.TemporaryDirectory())))
            stack.callback(journal.close)
        database = stack.enter_context(Database.open(url, follower=journal))
        app = FastAPI(openapi_url=None, routes=list(router(database).routes))
        gc.freeze()  # as the app does: no full collection walks the libraries while everybody waits
        uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning", timeout_keep_alive=120)


class _Thoughtless(asyncio.Protocol):
    """Gives every request the same reply, which means all that a voter wants to hear."""

    trial = json.dumps({"id": "0" * 32, "candidates": ["1" * 32, "2" * 32], "criteria": CRITERIA})
    body = f'{{"token": "{"3" * 32}", "state": "running", "trial": {trial}, "upcoming": {trial}}}'
    reply = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        del data  # a request of ours is smaller than what arrives at once
        self._transport.write(self.reply)


async def serve_control() -> None:
    """Run in the server's process."""
    server = await asyncio.get_running_loop().create_server(_Thoughtless, "127.0.0.1", PORT)
    await server.serve_forever()


def start_server(kind: str, url: str, folder: Path) -> "subprocess.Popen[bytes]":
    """A server of that kind in a process of its own."""
    command = [__file__, "--serve", "control" if kind == "control" else url]
    environment = dict(os.environ)
    if kind == "app":
        command = [str(ROOT / "app.py"), "--only", "study", "--port", str(PORT)]
        free = dict.fromkeys(("ASUKA_ANSWERS_PER_SECOND", "ASUKA_ANSWERS_PER_MINUTE", "ASUKA_SESSIONS_PER_MINUTE"), "0")
        environment |= free | {"DATABASE_URL": url, "ASUKA_DATA_DIR": str(folder / "var"), "ASUKA_EXAMPLE": "false"}
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment)


def prepare(url: str, folder: Path, *, images: int = IMAGES) -> None:
    """Ingest and launch the study."""
    from tests.study.stage import draw_study  # noqa: PLC0415 - the pictures of the tests serve here too

    folders = draw_study(folder / "pictures", images=images, methods=METHODS, size=80)
    question = {"title": "T", "question": "Q", "allow": ["tie"]}
    study = definition_from(
        {
            "study": SLUG,
            "title": "Benchmark",
            "methods": [{"key": key, "role": "target" if key == "ours" else "baseline"} for key in METHODS],
            "criteria": [question | {"key": key} for key in CRITERIA],
            "plan": {"real": images},
            "consent": {"text": "-"},
            "target": {"participants": 1_000_000},
        }
    )
    migrate(url)
    with Database.open(url) as database:
        ingest_study(database, study, folders.images, folders.holes, folders.results, now=0, random_bytes=os.urandom)
        launch(database, SLUG, now=0)


# ------------------------------------------------------------------------------------------------- driving


async def connect() -> Connection:
    """To the server."""
    return Connection(*await asyncio.open_connection("127.0.0.1", PORT))


async def wait_for_server() -> None:
    """Until it accepts connections."""
    for _ in range(600):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", PORT)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    raise RuntimeError("The server did not start within 60 s.")


async def _watch_own_loop(lateness: list[float]) -> None:
    while True:
        due = time.perf_counter() + LOOK_EVERY_S
        await asyncio.sleep(LOOK_EVERY_S)
        lateness.append(time.perf_counter() - due)


def _spread(seconds: Sequence[float]) -> str:
    cuts = statistics.quantiles((1000 * each for each in seconds), n=100)
    return f"p50 {cuts[49]:.0f} ms, p95 {cuts[94]:.0f} ms, p99 {cuts[98]:.0f} ms, max {1000 * max(seconds):.0f} ms"


async def vote(voters: int, answers: int, server: psutil.Process, *, in_step: bool) -> None:
    """Drive the server and print what it did."""
    await wait_for_server()
    crowd = [Voter(await connect()) for _ in range(voters)]
    before = [3 if in_step else 1 + number * IMAGES // voters for number in range(voters)]
    await asyncio.gather(*(voter.take_part([warm]) for voter, warm in zip(crowd, before, strict=True)))
    for voter in crowd:
        voter.latencies.clear()
        voter.joins.clear()
    lateness: list[float] = []
    watch = asyncio.create_task(_watch_own_loop(lateness))
    spent, ours, began = sum(server.cpu_times()[:2]), time.process_time(), time.perf_counter()
    left = [answers]
    await asyncio.gather(*(voter.take_part(left) for voter in crowd))
    wall = time.perf_counter() - began
    spent, ours = sum(server.cpu_times()[:2]) - spent, time.process_time() - ours
    watch.cancel()
    latencies = [latency for voter in crowd for latency in voter.latencies]
    joins = [join for voter in crowd for join in voter.joins]
    each = 1000 / len(latencies)
    print(
        f"{len(latencies)} answers by {voters} voters in {wall:.1f} s: {len(latencies) / wall:.0f} answers/s, "
        f"{_spread(latencies)}; server {each * spent:.2f} ms CPU per answer, voters {each * ours:.2f} ms\n"
        f"{len(joins)} joins (session, consent, first trial): {_spread(joins)}\n"
        f"the voters' own event loop was late by {_spread(lateness)}; load average {os.getloadavg()[0]:.1f}"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voters", type=int, default=64)
    parser.add_argument("--answers", type=int, default=6000)
    parser.add_argument("--in-step", action="store_true", help="all voters begin at the same trial, and join together")
    parser.add_argument("--database")
    parser.add_argument("--server", choices=("routes", "app", "control"), default="routes")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve_control()) if given.serve == "control" else serve(given.serve)
        return
    with tempfile.TemporaryDirectory() as folder:
        url = given.database or f"sqlite:///{folder}/bench.sqlite"
        if given.server != "control":
            prepare(url, Path(folder))
        process = start_server(given.server, url, Path(folder))
        try:
            asyncio.run(vote(given.voters, given.answers, psutil.Process(process.pid), in_step=given.in_step))
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
