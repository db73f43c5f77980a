"""Whole studies as people do them, by keyboard alone and by touch, on photographs, with accidents in the middle.

With STUDY_SCREENSHOTS=docs/images the pictures of the documents are taken on the way.
"""

import io
import json
import os
import re
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect
from sqlalchemy import select

from db import models
from db.engine import Database
from db.migrate import migrate
from db.models import TrialKind, TrialState
from study.api import router, utc_microseconds
from study.counters import OPEN
from study.definition import StudyDefinition
from study.ingest import ingest_study
from study.plates import figure_of
from study.publication import launch
from tests.study.photographs import NINE, draw_photographs
from tests.study.stage import Folders, definition, seeded_bytes

pytestmark = pytest.mark.browser

TEXTS = Path(__file__).parents[2] / "study" / "texts"
SCREENSHOTS = os.environ.get("STUDY_SCREENSHOTS")
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
TABLET: dict[str, Any] = {"viewport": {"width": 820, "height": 1180}, "has_touch": True, "is_mobile": True}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}

CRITERIA = [
    {
        "key": "context_stability",
        "title": {"en": "Context-stability", "zh": "上下文稳定性"},
        "question": {"en": "Which fits its surroundings better?", "zh": "请选出与周围更协调的一个。"},
        "gold": "foreign_object",
    },
    {
        "key": "visual_consistency",
        "title": {"en": "Visual-consistency", "zh": "视觉一致性"},
        "question": {"en": "Which is more consistent in colour?", "zh": "请选出颜色更一致的一个。"},
        "allow": ["tie", "cant_tell"],
        "gold": "colour_shift",
    },
]
PLAN = {
    "practice": 2,
    "real": 3,
    "gold": {"per_criterion": 1, "first_after": 1, "min_gap": 2},
    "attention": 1,
    "repeats": 1,
}
TRIALS = 3 + 2 + 1 + 1


def walked(slug: str, protocol: str) -> StudyDefinition:
    return definition(
        study=slug,
        protocol=protocol,
        contrasts="round_robin",
        title={"en": "Which repair looks better?", "zh": "请选出更好的修复结果"},
        introduction={"en": "Part of a photograph was removed and filled in.", "zh": "照片的一部分被移除并补全。"},
        methods=[{"key": key} for key in NINE],
        criteria=CRITERIA,
        plan=PLAN | {"repeat_gap": 2},
        timing={"min_view_ms": 0},
        screen={"colour_vision": 2, "colour_vision_misses": 0},
        consent={
            "text": {"en": "Your answers are stored.", "zh": "您的回答将被保存。"},
            "boxes": {"agree": {"en": "I take part freely.", "zh": "我自愿参加。"}},
        },
    )


@dataclass
class Site:
    """A server on one port and one database file, which can be stopped and started again."""

    file: Path
    folders: Folders
    port: int = 0
    database: Database = field(init=False)

    def start(self) -> None:
        self.database = Database.open(f"sqlite:///{self.file}")
        app = FastAPI(openapi_url=None)
        app.include_router(router(self.database))
        config = uvicorn.Config(app, port=self.port, log_level="error", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self.database.close()

    def launch(self, study: StudyDefinition) -> str:
        folders = self.folders
        ingest_study(
            self.database, study, folders.images, folders.holes, folders.results,
            now=utc_microseconds(), random_bytes=seeded_bytes(),
        )  # fmt: skip
        launch(self.database, study.study, now=utc_microseconds())
        return f"http://127.0.0.1:{self.port}/study/{study.study}"

    def figures(self) -> list[str]:
        """What stands on the plates of the one session there is."""
        with self.database.read() as db:
            seed = db.execute(select(models.StudySession.plan_seed)).scalar_one()
        return [figure_of(bytes.fromhex(seed), number) for number in range(2)]

    def now_asked(self) -> models.Trial:
        """The trial on the screen."""
        with self.database.read() as db:
            open_ones = select(models.Trial).where(models.Trial.state.in_(OPEN)).order_by(models.Trial.seq)
            return db.execute(open_ones.limit(1)).scalar_one()

    def answered(self) -> list[tuple[TrialKind, bool | None]]:
        """(kind, whether right) of every answer, in order."""
        with self.database.read() as db:
            rows = db.execute(
                select(models.Trial.kind, models.Response.gold_correct)
                .join(models.Response, models.Response.trial_id == models.Trial.id)
                .order_by(models.Trial.seq, models.Response.id)
            ).all()
        return [(row.kind, row.gold_correct) for row in rows]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return draw_photographs(tmp_path_factory.mktemp("photographs"), scale=2 if SCREENSHOTS else 1)


@pytest.fixture
def site(tmp_path: Path, photographs: Folders) -> Generator[Site]:
    file = tmp_path / "study.sqlite"
    migrate(f"sqlite:///{file}")
    site = Site(file, photographs)
    site.start()
    yield site
    site.stop()


@pytest.fixture
def opened(browser: Browser) -> Generator[Callable[..., Page]]:
    contexts: list[BrowserContext] = []

    def page(**settings: Any) -> Page:
        context = browser.new_context(**(DESKTOP | settings))
        contexts.append(context)
        return context.new_page()

    yield page
    for context in contexts:
        context.close()


def picture(page: Page, name: str) -> None:
    """For the documents, when they are wanted; in few colours, because many pictures make a repository large."""
    if SCREENSHOTS:
        taken = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        taken.quantize(256).save(Path(SCREENSHOTS) / f"study-{name}.png", optimize=True)


def texts(locale: str) -> dict[str, str]:
    return json.loads((TEXTS / f"{locale}.json").read_text(encoding="utf-8"))


def shown(page: Page, title: str) -> None:
    """Wait until a trial's pictures are on the screen and nothing is being saved."""
    expect(page.get_by_role("heading", name=title, exact=True)).to_be_attached()
    expect(page.locator(".notice")).to_have_count(0)
    expect(page.locator(".saved")).to_have_text(re.compile("^(Saved|已保存)?$"))
    expect(page.locator(".candidate img[data-layer=own]").last).to_be_visible()


def tab_to(page: Page, name: str) -> None:
    focused = "() => { let at = document.activeElement; while (at?.shadowRoot) at = at.shadowRoot.activeElement; "
    focused += "return at?.closest('label')?.textContent ?? at?.textContent ?? ''; }"
    expect(page.get_by_text(name).first).to_be_visible()  # a page that is still being drawn has nothing to go to
    for _ in range(30):
        page.keyboard.press("Tab")
        if name == page.evaluate(focused).strip():
            return
    pytest.fail(f"Tab never reached {name}.")


def by_keys(page: Page, site: Site, address: str) -> None:
    """To the first practice trial without a mouse."""
    page.goto(address)
    tab_to(page, "I take part freely.")
    page.keyboard.press("Space")
    tab_to(page, "Take part")
    page.keyboard.press("Enter")
    for number in (1, 2):
        expect(page.get_by_role("heading", name=f"Colours, {number} of 2")).to_be_visible()
        if number == 1:
            picture(page, "colours")
        if number == 1:
            tab_to(page, site.figures()[0])
            page.keyboard.press("Enter")
        else:
            page.keyboard.press(site.figures()[1])
    expect(page.get_by_role("heading", name="How it works")).to_be_visible()
    tab_to(page, "Start")
    page.keyboard.press("Enter")


def answer_by_keys(page: Page, site: Site) -> TrialKind:
    trial = site.now_asked()
    position = trial.gold_position if trial.gold_position is not None else 1
    for _ in range(1 if trial.kind == TrialKind.PRACTICE else 2):
        page.keyboard.press(str(position + 1))
    page.keyboard.press("Enter")
    return trial.kind


def practise_by_keys(page: Page, site: Site) -> None:
    for number in (1, 2):
        shown(page, f"Practice {number} of 2")
        assert answer_by_keys(page, site) == TrialKind.PRACTICE
        told = page.get_by_role("dialog", name="Right")
        expect(told).to_contain_text("is the right answer")
        if number == 1:
            picture(page, "practice")
        page.keyboard.press("Enter")
        expect(told).to_have_count(0)


def finished(page: Page, site: Site) -> None:
    expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    kinds = [kind for kind, _ in site.answered()]
    counts = {kind: kinds.count(kind) for kind in set(kinds)}
    tests = {TrialKind.PRACTICE: 2, TrialKind.GOLD: 4, TrialKind.ATTENTION: 2}
    assert counts == {TrialKind.REAL: 6, TrialKind.REPEAT: 2, **tests}
    assert all(right in {True, None} for _, right in site.answered())


@pytest.mark.parametrize("protocol", ["pairwise", "best_of_n"])
def test_a_whole_study_by_keyboard_alone_through_a_reload_and_a_restart_of_the_server(
    site: Site, opened: Callable[..., Page], protocol: str
) -> None:
    page = opened()
    by_keys(page, site, site.launch(walked(protocol.replace("_", "-"), protocol)))
    practise_by_keys(page, site)
    for number in range(1, TRIALS + 1):
        shown(page, f"Comparison {number} of {TRIALS}")
        expect(page.locator("form .marks")).to_have_text(texts("en")["marks"])
        if number == 1:
            picture(page, "trial-pair" if protocol == "pairwise" else "trial-nine")
        if site.now_asked().kind == TrialKind.ATTENTION and protocol == "pairwise":
            picture(page, "attention")
        if number == 2:
            before = site.now_asked().public_id
            page.reload()
            shown(page, f"Comparison {number} of {TRIALS}")
            assert site.now_asked().public_id == before
        if number == 4:
            site.stop()
            site.start()
        answer_by_keys(page, site)
    finished(page, site)


@pytest.mark.parametrize(("protocol", "device"), [("pairwise", PHONE), ("best_of_n", TABLET)], ids=["pair", "nine"])
def test_a_whole_study_by_touch(site: Site, opened: Callable[..., Page], protocol: str, device: dict[str, Any]) -> None:
    page = opened(**device)
    page.goto(site.launch(walked("touched", protocol)))
    page.get_by_role("checkbox").tap()
    page.get_by_role("button", name="Take part").tap()
    for number in (1, 2):
        expect(page.get_by_role("heading", name=f"Colours, {number} of 2")).to_be_visible()
        page.get_by_role("button", name=site.figures()[number - 1], exact=True).tap()
    page.get_by_role("button", name="Start").tap()
    titles = [f"Practice {number} of 2" for number in (1, 2)]
    titles += [f"Comparison {number} of {TRIALS}" for number in range(1, TRIALS + 1)]
    for title in titles:
        shown(page, title)
        trial = site.now_asked()
        position = trial.gold_position if trial.gold_position is not None else 0
        choice = str(position + 1) if protocol == "best_of_n" else ("Left", "Right")[position]
        for question in page.locator("fieldset").all():
            question.get_by_role("radio", name=choice).first.tap()
        if title == f"Comparison 1 of {TRIALS}":
            picture(page, f"touch-{'pair' if protocol == 'pairwise' else 'nine'}")
        page.get_by_role("button", name=re.compile("Next|Finish")).tap()
        if title.startswith("Practice"):
            page.get_by_role("dialog").get_by_role("button", name="Next").tap()
    finished(page, site)


def test_who_reads_no_figure_is_thanked_and_asked_nothing(site: Site, opened: Callable[..., Page]) -> None:
    page = opened()
    page.goto(site.launch(walked("colours", "pairwise")))
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Take part").click()
    for number in (1, 2):
        expect(page.get_by_role("heading", name=f"Colours, {number} of 2")).to_be_visible()
        page.keyboard.press("0")
    expect(page.get_by_role("heading", name="This study needs another screen")).to_be_visible()
    assert site.answered() == []


def test_a_second_browser_cannot_read_the_first_ones_pictures(site: Site, opened: Callable[..., Page]) -> None:
    address = site.launch(walked("two", "pairwise"))
    first, second = opened(), opened()
    asked: list[str] = []
    first.on("request", lambda request: asked.append(request.url) if "/study/s/" in request.url else None)
    for page in (first, second):
        page.goto(address)
        page.get_by_role("checkbox").check()
        page.get_by_role("button", name="Take part").click()
        expect(page.get_by_role("heading", name="Colours, 1 of 2")).to_be_visible()
        if page is first:
            for number, figure in enumerate(site.figures(), start=1):
                expect(page.get_by_role("heading", name=f"Colours, {number} of 2")).to_be_visible()
                page.get_by_role("button", name=figure, exact=True).click()
            page.get_by_role("button", name="Start").click()
            shown(page, "Practice 1 of 2")
    with_token = "([url, token]) => fetch(url, { headers: { Authorization: `Bearer ${token}` } }).then((r) => r.status)"
    tokens = [json.loads(page.evaluate("localStorage.getItem('asuka-study:two')"))["token"] for page in (first, second)]
    assert len(asked) >= 3
    assert first.evaluate(with_token, [asked[0], tokens[0]]) == 200
    assert {second.evaluate(with_token, [url, tokens[1]]) for url in asked} == {404}
    assert second.evaluate(with_token, [asked[0], "guess"]) == 404


def test_any_number_of_results_alternate_with_the_next_one(site: Site, opened: Callable[..., Page]) -> None:
    page = opened()
    by_keys(page, site, site.launch(walked("alternate", "best_of_n")))
    shown(page, "Practice 1 of 2")
    source = "images => images.map((image) => image.src)"
    own = page.locator(".candidate img[data-layer=own]").evaluate_all(source)
    other = page.locator(".candidate img[data-layer=other]").evaluate_all(source)
    assert other == [*own[1:], own[0]]
    page.keyboard.down("f")
    expect(page.locator(".candidate").first).to_have_attribute("data-show", "other")
    captions = page.locator(".candidate figcaption")
    expect(captions.first).to_have_text("No. 2")
    expect(captions.last).to_have_text("No. 1")
    page.keyboard.up("f")


@pytest.mark.parametrize(("locale", "scheme"), [("en", "light"), ("zh", "dark")])
def test_no_page_has_a_serious_barrier(site: Site, opened: Callable[..., Page], locale: str, scheme: str) -> None:
    """axe-core's rules, WCAG 2.2 AA among them, on every page of a study."""
    page, say = opened(locale=locale, color_scheme=scheme), texts(locale)

    def check(where: str) -> None:
        found = Axe().run(page).response["violations"]
        bad = [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in {"serious", "critical"}]
        assert bad == [], where

    page.goto(site.launch(walked("reached", "pairwise")))
    expect(page.get_by_role("checkbox")).to_be_visible()
    check("consent")
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name=say["take_part"], exact=True).click()
    for number in (1, 2):
        expect(page.get_by_role("heading", name=say["plate_title"].format(n=number, of=2))).to_be_visible()
        check("colours")
        page.get_by_role("button", name=site.figures()[number - 1], exact=True).click()
    expect(page.get_by_role("button", name=say["start"])).to_be_visible()
    check("instructions")
    page.get_by_role("button", name=say["start"]).click()
    titles = [say["practice"].format(n=number, of=2) for number in (1, 2)]
    titles += [say["progress"].format(n=number, of=TRIALS) for number in range(1, TRIALS + 1)]
    for at, title in enumerate(titles):
        shown(page, title)
        if at in {0, 2}:
            check("trial")
        answer_by_keys(page, site)
        if at < 2:
            expect(page.get_by_role("dialog")).to_be_visible()
            check("practice")
            page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=say["done_title"])).to_be_visible()
    check("finish")
    with site.database.read() as db:
        assert set(db.execute(select(models.Trial.state)).scalars()) == {TrialState.ANSWERED}
