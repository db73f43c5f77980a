"""A demo tab served by a process of its own, and visitors."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.demo.painting import Visitor
from tests.serving import free_port, note_foreign_requests, served


@pytest.fixture(scope="session")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the served demo keeps what visitors upload."""
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="session")
def demo_url(uploads: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("log") / "demo.txt"
    command = ["tests/demo/serve_demo.py", str(port)]
    with served(command, port, log, {"GRADIO_TEMP_DIR": str(uploads)}) as url:
        yield url


OpenPage = Callable[..., Visitor]

PATIENCE_MS = 60_000
"""For one step of a visitor on a busy machine."""


@pytest.fixture
def visit(browser: Browser, demo_url: str) -> Iterator[OpenPage]:
    """Opens the demo as a new visitor; `options` are a browser context's. Fails on any error or foreign request."""
    pages: list[Page] = []
    problems: list[str] = []

    def open_page(**options: Any) -> Visitor:
        chosen: dict[str, Any] = {"viewport": {"width": 1280, "height": 1000}, "locale": "en-GB", **options}
        context = browser.new_context(**chosen)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"page error: {error}"))
        note_foreign_requests(page, problems)
        page.goto(demo_url)
        page.wait_for_selector(".mp-start", state="visible")
        pages.append(page)
        return Visitor(page)

    yield open_page
    for page in pages:
        page.context.close()
    assert problems == []
