"""Coming from a recruiting platform, and working for a public session, in a real browser."""

import threading
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, expect
from sqlalchemy import select

from db.engine import Database
from db.migrate import migrate
from db.models import Signal, SignalOutcome, StudySession
from study.api import router, utc_microseconds
from study.definition import StudyDefinition
from study.ingest import ingest_study
from study.limits import Limits
from study.payment import PaymentKeys, payments
from study.publication import launch
from tests.study.stage import Folders, definition, seeded_bytes

pytestmark = pytest.mark.browser

Serve = Callable[[StudyDefinition], str]


@pytest.fixture
def database(tmp_path: Path) -> Generator[Database]:
    url = f"sqlite:///{tmp_path / 'study.sqlite'}"
    migrate(url)
    with Database.open(url) as opened:
        yield opened


@pytest.fixture
def keys(tmp_path: Path) -> PaymentKeys:
    return PaymentKeys(tmp_path / "keys")


@pytest.fixture
def serve(database: Database, folders: Folders, keys: PaymentKeys) -> Generator[Serve]:
    """Launches a study behind the limits that participants meet; its address."""
    app = FastAPI(openapi_url=None)
    app.include_router(router(database, limits=Limits(), payments=keys))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)

    def serve_study(study: StudyDefinition) -> str:
        paths, now = (folders.images, folders.holes, folders.results), utc_microseconds()
        ingest_study(database, study, *paths, now=now, random_bytes=seeded_bytes())
        launch(database, study.study, now=now)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/study/{study.study}"

    yield serve_study
    server.should_exit = True
    thread.join()


@pytest.fixture
def page(browser: Browser) -> Generator[Page]:
    context: BrowserContext = browser.new_context(viewport={"width": 1280, "height": 800})
    yield context.new_page()
    context.close()


def take_part(page: Page) -> None:
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Take part").click()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("radio").first).to_be_visible()


def test_a_sona_student_sees_the_study_alone_and_goes_back_with_their_own_code(
    serve: Serve, page: Page, database: Database, keys: PaymentKeys
) -> None:
    back = "https://school.sona-systems.com/webstudy_credit.aspx?experiment_id=7&survey_code={survey_code}"
    recruit = {"source": "sona", "redirect": back}
    address = serve(definition(recruit=recruit, plan={"real": 1}, timing={"min_view_ms": 0}))
    page.goto(f"{address}?survey_code=40%20123&utm_source=mail")
    take_part(page)
    assert page.get_by_role("tab").count() == page.get_by_role("link").count() == 0
    for question in range(2):
        page.locator("fieldset").nth(question).get_by_role("radio").first.click()
    page.get_by_role("button", name="Finish").click()
    expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    (link,) = page.get_by_role("link").all()
    assert link.get_attribute("href") == back.replace("{survey_code}", "40%20123")
    with database.read() as db:
        (paid,) = payments(db, 1, keys)
    assert dict(paid.ids) == {"survey_code": "40 123"}


def test_a_public_visitors_browser_does_the_work_that_is_asked(serve: Serve, page: Page, database: Database) -> None:
    page.goto(serve(definition(recruit={"proof_of_work": 10}, plan={"real": 1})))
    take_part(page)
    with database.read() as db:
        assert db.scalars(select(Signal.outcome)).all() == [SignalOutcome.PASS]


def test_a_browser_that_cannot_do_the_work_takes_part_and_is_marked(
    serve: Serve, page: Page, database: Database
) -> None:
    page.add_init_script("Object.defineProperty(crypto, 'subtle', { value: undefined });")
    page.goto(serve(definition(recruit={"proof_of_work": 10}, plan={"real": 1})))
    take_part(page)
    with database.read() as db:
        assert db.scalars(select(Signal.outcome)).all() == [SignalOutcome.UNKNOWN]
        assert len(db.scalars(select(StudySession.id)).all()) == 1
