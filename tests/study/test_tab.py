"""The study's tab in a real Gradio page: the same participant's page, mounted when the tab is first opened."""

import os
import re
from collections.abc import Generator
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported

import gradio as gr
import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import func, select

from db.engine import Database
from db.migrate import migrate
from db.models import Response
from study.api import router, utc_microseconds
from study.ingest import ingest_study
from study.publication import launch
from study.tab import build_study_tab
from tests.study.stage import METHODS, definition, draw_study, seeded_bytes

pytestmark = pytest.mark.browser


@pytest.fixture
def database(tmp_path: Path) -> Generator[Database]:
    url = f"sqlite:///{tmp_path / 'study.sqlite'}"
    migrate(url)
    pictures = draw_study(tmp_path / "pictures", images=3, size=96)
    with Database.open(url) as opened:
        study = definition(study="in-a-tab", plan={"real": 2}, timing={"min_view_ms": 0})
        ingest_study(
            opened, study, pictures.images, pictures.holes, pictures.results,
            now=utc_microseconds(), random_bytes=seeded_bytes(),
        )  # fmt: skip
        launch(opened, study.study, now=utc_microseconds())
        yield opened


@pytest.fixture
def app(database: Database) -> Generator[str]:
    with gr.Blocks() as page, gr.Tabs():
        with gr.Tab("First"):
            gr.Textbox(label="Elsewhere")
        with gr.Tab("Study"):
            build_study_tab("in-a-tab")
    _, url, _ = page.launch(
        prevent_thread_lock=True, quiet=True, ssr_mode=False, run_history=False, server_name="127.0.0.1",
        app_kwargs={"routes": router(database).routes},
    )  # fmt: skip
    yield url
    page.close()


@pytest.fixture
def page(browser: Browser) -> Generator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


def stored(database: Database) -> int:
    with database.read() as db:
        return db.scalar(select(func.count()).select_from(Response)) or 0


def test_a_study_is_done_in_its_tab_and_keys_stay_out_of_other_tabs(app: str, database: Database, page: Page) -> None:
    page.goto(app)
    page.get_by_role("tab", name="Study").click()
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Take part").click()
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".heading")).to_have_text("Comparison 1 of 2")
    expect(page.locator(".notice")).to_have_count(0)
    page.get_by_role("tab", name="First").click()
    page.get_by_label("Elsewhere").fill("")
    page.get_by_label("Elsewhere").press_sequentially("1212")
    page.get_by_role("tab", name="First").focus()
    page.keyboard.press("1")
    assert page.get_by_label("Elsewhere").input_value() == "1212"
    page.get_by_role("tab", name="Study").click()
    assert page.locator("#study-host").get_by_role("radio", checked=True).count() == 0
    for number in (1, 2):
        expect(page.locator(".heading")).to_have_text(f"Comparison {number} of 2")
        expect(page.locator(".notice")).to_have_count(0)
        for question in (0, 1):
            page.locator("fieldset").nth(question).get_by_role("radio", name="Left").click()
        page.get_by_role("button", name=re.compile("Next|Finish")).click()
    expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    assert stored(database) == 4


def test_what_gradio_tells_the_browser_names_no_method(app: str, page: Page) -> None:
    config = page.request.get(f"{app}config").text()
    assert "in-a-tab" in config
    assert [method for method in METHODS if method in config] == []
