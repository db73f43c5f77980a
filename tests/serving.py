"""A server of ours in a process of its own, for tests that meet it as a browser does."""

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Request

ROOT = Path(__file__).parents[1]

PATIENCE_S = 120
"""For a server to start on a busy machine; a quiet one needs four seconds."""

POLL_S = 0.2


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(
    command: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Generator[str, None, None]:
    """Run `python COMMAND` until the block ends; gives the address once it answers.

    Args:
        command: what follows `python`, the port among it.
        port: where it will listen on 127.0.0.1.
        log: where everything it prints is kept, and shown when it does not start.
        environment: beside the test's own.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2", **(environment or {})}
    with log.open("a") as output:
        server = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            _wait_until_served(server, f"http://127.0.0.1:{port}/config", log)
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.terminate()
            server.wait(20)


def note_foreign_requests(page: Page, problems: list[str]) -> None:
    """From now on every request of the page to another host than this machine becomes a sentence in `problems`."""

    def look(request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in {"http", "https", "ws", "wss"} and parts.hostname != "127.0.0.1":
            problems.append(f"foreign request: {request.url}")

    page.on("request", look)


def _wait_until_served(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    for _ in range(int(PATIENCE_S / POLL_S)):
        if server.poll() is not None:
            pytest.fail(f"The server ended at once:\n{log.read_text()}")
        try:
            urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - our own http address
        except (urllib.error.URLError, TimeoutError):
            with pytest.raises(subprocess.TimeoutExpired):
                server.wait(POLL_S)
        else:
            return
    pytest.fail(f"The server did not answer within {PATIENCE_S} seconds:\n{log.read_text()}")
