"""The product as a newcomer meets it: fill a hole, vote blind, read the rates, take the votes home."""

import csv
import io
import sqlite3
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.demo.painting import Visitor, photo, save
from tests.serving import free_port, note_foreign_requests, served

pytestmark = pytest.mark.browser

EXAMPLE_PATIENCE_MS = 400_000
"""The example study makes 130 pictures; about half a minute on two quiet cores."""

TRIALS = 10


@dataclass(frozen=True)
class Running:
    """The app, started from nothing."""

    url: str
    database: Path


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("app")
    port = free_port()
    environment = {
        "DATABASE_URL": f"sqlite:///{folder / 'asuka.db'}",
        "ASUKA_DATA_DIR": str(folder / "var"),
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
    }
    with served(["app.py", "--port", str(port)], port, folder / "log.txt", environment) as url:
        yield Running(url, folder / "asuka.db")


@pytest.fixture
def page(browser: Browser, app: Running) -> Iterator[Page]:
    """A newcomer's browser; any error in the page and any request to another host fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, locale="en-GB")
    context.set_default_timeout(60_000)
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    note_foreign_requests(opened, problems)
    opened.goto(app.url)
    yield opened
    context.close()
    assert not problems


def test_a_newcomer_fills_a_hole_votes_and_reads_the_rates(app: Running, page: Page, tmp_path: Path) -> None:
    _fill_a_hole(page, tmp_path)
    _vote(page)
    assert _stored(app.database) == {"trials": TRIALS, "responses": 2 * TRIALS, "votes": 2 * TRIALS, "sides": {0, 1}}
    rows = _read_rates(page)
    assert sum(int(row[4]) for row in rows) == 2 * TRIALS, "every trial has one winner per criterion"
    votes = _download_votes(app)
    assert len(votes) == 2 * TRIALS
    assert {vote["outcome"] for vote in votes} == {"choice"}
    # Left was chosen for the first question and right for the second, every time: the file must say the same.
    assert {(vote["criterion"], vote["position_chosen"]) for vote in votes} == {
        ("context_stability", "0"),
        ("visual_consistency", "1"),
    }


def _fill_a_hole(page: Page, folder: Path) -> None:
    visitor = Visitor(page)
    original = photo(640, 480)
    visitor.open(save(original, folder / "photo.png"))
    visitor.choose_methods("Telea")
    visitor.drag((200, 150), (320, 260), (420, 200))
    visitor.run()
    hole = visitor.save_mask(folder)
    with Image.open(visitor.download(folder)) as image:
        changed = (np.array(image) != original).any(axis=2)
    assert hole.any()
    assert not (changed & ~hole).any()
    assert changed[hole].mean() > 0.9


def _vote(page: Page) -> None:
    page.get_by_role("tab", name="Study").click()
    page.get_by_role("checkbox").first.wait_for(timeout=EXAMPLE_PATIENCE_MS)
    page.get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Take part").click()
    page.get_by_role("button", name="Start").click()
    for number in range(1, TRIALS + 1):
        expect(page.locator("#study-page")).to_contain_text(f"{number} / {TRIALS}")
        left, right = page.get_by_role("radio", name="Left").first, page.get_by_role("radio", name="Right").last
        left.check(force=True)
        right.check(force=True)
        page.get_by_role("button", name="Finish" if number == TRIALS else "Next").click()
    expect(page.locator("#study-page")).to_contain_text("Thank you")


def _stored(database: Path) -> dict[str, object]:
    """What the rows themselves say, read past all of our own code."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:

        def one(query: str) -> int:
            return int(connection.execute(query).fetchone()[0])

        return {
            "trials": one("SELECT count(*) FROM trial WHERE state = 'answered'"),
            "responses": one("SELECT count(*) FROM response"),
            "votes": one("SELECT count(*) FROM analysis_vote"),
            "sides": {row[0] for row in connection.execute("SELECT DISTINCT position FROM response")},
        }


def _read_rates(page: Page) -> list[list[str]]:
    page.get_by_role("tab", name="Results").click()
    expect(page.locator("#results-summary")).to_contain_text(f"{2 * TRIALS} answers, 1 completed session")
    expect(page.locator("#results-rates .main-svg").first).to_be_visible()
    expect(page.locator("#results-pairs .main-svg").first).to_be_visible()
    expect(page.locator("#results-table")).to_contain_text("Visual-consistency")
    cells = [row.get_by_role("gridcell").all_inner_texts() for row in page.locator("#results-table [role=row]").all()]
    return [row for row in cells if any(text.strip() for text in row)]  # not the heading, nor the row for measuring


def _download_votes(app: Running) -> list[dict[str, str]]:
    with urllib.request.urlopen(f"{app.url}study/api/v1/studies/example/votes.csv", timeout=30) as reply:  # noqa: S310 - our own http address
        return list(csv.DictReader(io.TextIOWrapper(reply, encoding="utf-8")))
