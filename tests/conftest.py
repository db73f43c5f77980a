"""What every test has: no network but this machine, and Debian's Chromium for the browser tests."""

import os
import shutil
from collections.abc import Mapping
from typing import Any

import psycopg
import psycopg.sql
import pytest
from playwright.sync_api import expect

# Before anything imports torch or gradio: waiting threads must not burn the core that works, and no version check
# may leave the machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _database_of_this_worker(server: str, worker: str) -> str:
    """Two workers of pytest-xdist empty their databases whenever they like, so each has its own."""
    name = f"asuka_{worker}"
    with psycopg.connect(server, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
    return f"{server.rpartition('/')[0]}/{name}"


if "ASUKA_TEST_POSTGRES_URL" in os.environ and "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["ASUKA_TEST_POSTGRES_URL"] = _database_of_this_worker(
        os.environ["ASUKA_TEST_POSTGRES_URL"], os.environ["PYTEST_XDIST_WORKER"]
    )

# A browser on a machine with two busy cores: a page that is right after six seconds is right. Playwright's own default
# of five made a correct page fail now and then.
expect.set_options(timeout=20_000)

CHROMIUM_FLAGS = (
    "--no-sandbox",  # continuous integration runs as root, where Chromium refuses to start with its sandbox
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides pytest-playwright's: the browser is the system's, never a download."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.fail("There is no Chromium on this machine; `make test` installs it, or set CHROMIUM=/path/to/chromium.")
    return {**browser_type_launch_args, "executable_path": chromium, "args": list(CHROMIUM_FLAGS)}
