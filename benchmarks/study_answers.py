"""Answers per second through the study's real HTTP API, with SQLite at synchronous=FULL.

    python benchmarks/study_answers.py [--voters 64] [--answers 6000] [--database sqlite:///...]

Starts a server process with the study's routes alone, a study of 40 images and 9 methods (target against each, 40
trials a person, as in the paper), and voters that answer over raw keep-alive connections as fast as they are served.
Server and voters share the machine. Pictures are not fetched: how many a second is the network's figure, not the
study's.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
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
METHODS = ("ours", *(f"baseline{number}" for number in range(8)))


@dataclass
class Voter:
    """One keep-alive connection that takes part again and again."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    latencies: list[float] = field(default_factory=list)

    async def request(self, method: str, path: str, body: object = None, **headers: str) -> dict[str, object]:
        """Ask and read the JSON reply."""
        payload = json.dumps(body).encode() if body is not None else b""
        lines = [f"{method} /study/api/v1{path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(payload)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + payload)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        reply = json.loads(await self.reader.readexactly(length))
        if b" 200 " not in head.splitlines()[0]:
            raise RuntimeError(f"{method} {path}: {reply}")
        return reply

    async def take_part(self, left: list[int]) -> None:
        """Join, agree and answer, until `left` answers are used up."""
        while left[0] > 0:
            token = (await self.request("POST", "/sessions", {"study": "bench"}))["token"]
            bearer = {"Authorization": f"Bearer {token}"}
            await self.request("POST", "/sessions/me/consent", {"accepted": True}, **bearer)
            reply = await self.request("GET", "/trial", **bearer)
            while reply["state"] == "running" and left[0] > 0:
                left[0] -= 1
                trial: dict[str, str] = reply["trial"]  # type: ignore[assignment]
                answers = [
                    {"criterion": key, "outcome": "choice", "position": at % 2, "rt_ms": 900}
                    for at, key in enumerate(trial["criteria"])
                ]
                key = os.urandom(8).hex()
                began = time.perf_counter()
                path = f"/trial/{trial['id']}/answer"
                reply = await self.request("POST", path, {"responses": answers}, Idempotency_Key=key, **bearer)
                self.latencies.append(time.perf_counter() - began)


def serve(url: str) -> None:
    """Run in the server's process."""
    import uvicorn  # noqa: PLC0415 - only the server needs it
    from fastapi import FastAPI  # noqa: PLC0415

    from study.api import router  # noqa: PLC0415

    with Database.open(url) as database:
        app = FastAPI(openapi_url=None)
        app.include_router(router(database))
        uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning", timeout_keep_alive=120)


def prepare(url: str, folder: Path) -> None:
    """Ingest and launch the study."""
    from tests.study.stage import draw_study  # noqa: PLC0415 - the pictures of the tests serve here too

    folders = draw_study(folder / "pictures", images=40, methods=METHODS, size=80)
    question = {"title": "T", "question": "Q", "allow": ["tie"]}
    study = definition_from(
        {
            "study": "bench",
            "title": "Benchmark",
            "methods": [{"key": key, "role": "target" if key == "ours" else "baseline"} for key in METHODS],
            "criteria": [question | {"key": "context_stability"}, question | {"key": "visual_consistency"}],
            "consent": {"text": "-"},
            "target": {"participants": 1_000_000},
        }
    )
    migrate(url)
    with Database.open(url) as database:
        ingest_study(database, study, folders.images, folders.holes, folders.results, now=0, random_bytes=os.urandom)
        launch(database, "bench", now=0)


async def vote(voters: int, answers: int, server: psutil.Process) -> None:
    """Drive the server and print what it did."""
    crowd = [Voter(*await asyncio.open_connection("127.0.0.1", PORT)) for _ in range(voters)]
    warm = [voters * 3]
    await asyncio.gather(*(voter.take_part(warm) for voter in crowd))
    for voter in crowd:
        voter.latencies.clear()
    spent, ours = sum(server.cpu_times()[:2]), time.process_time()
    began = time.perf_counter()
    left = [answers]
    await asyncio.gather(*(voter.take_part(left) for voter in crowd))
    wall = time.perf_counter() - began
    spent, ours = sum(server.cpu_times()[:2]) - spent, time.process_time() - ours
    latencies = sorted(latency * 1000 for voter in crowd for latency in voter.latencies)
    cuts = statistics.quantiles(latencies, n=100)
    print(
        f"{len(latencies)} answers by {voters} voters in {wall:.1f} s: {len(latencies) / wall:.0f} answers/s, "
        f"p50 {cuts[49]:.0f} ms, p95 {cuts[94]:.0f} ms, p99 {cuts[98]:.0f} ms; "
        f"server {1000 * spent / len(latencies):.2f} ms CPU per answer, voters {1000 * ours / len(latencies):.2f} ms; "
        f"load average {os.getloadavg()[0]:.1f}"
    )


async def wait_for_server() -> None:
    """Until it accepts connections."""
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", PORT)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    raise RuntimeError("The server did not start within 20 s.")


async def drive(voters: int, answers: int, server: psutil.Process) -> None:
    """Wait, then vote."""
    await wait_for_server()
    await vote(voters, answers, server)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voters", type=int, default=64)
    parser.add_argument("--answers", type=int, default=6000)
    parser.add_argument("--database")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return
    with tempfile.TemporaryDirectory() as folder:
        url = given.database or f"sqlite:///{folder}/bench.sqlite"
        prepare(url, Path(folder))
        process = subprocess.Popen([sys.executable, __file__, "--serve", url])
        try:
            asyncio.run(drive(given.voters, given.answers, psutil.Process(process.pid)))
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
