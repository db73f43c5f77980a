"""The participant's page in a real browser, against the real server: every answer is looked up in the database."""

import re
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route, expect
from sqlalchemy import func, select, update

from db.engine import Database
from db.migrate import migrate
from db.models import Cell, Consent, Event, EventType, Response, SessionState, StudySession, Trial
from study.api import router, utc_microseconds
from study.ingest import ingest_study
from study.publication import drain, launch
from tests.study.stage import Folders, definition, draw_study, seeded_bytes

pytestmark = pytest.mark.browser

TRIALS = 3
SMALLEST = (360, 480)
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True,
}  # fmt: skip


LAB_CODES = {"complete": "C-42", "screened_out": "S-43"}
STUDIES = {
    study.study: study
    for study in (
        definition(study="pair", plan={"real": TRIALS}, timing={"min_view_ms": 0}),
        definition(study="three", protocol="best_of_n", plan={"real": 1}, timing={"min_view_ms": 0}),
        definition(study="lab", plan={"real": 1}, recruit={"source": "lab", "codes": LAB_CODES}),
        definition(
            study="roomy", plan={"real": 1}, screen={"min_css_width": SMALLEST[0], "min_css_height": SMALLEST[1]}
        ),
        definition(study="zweisprachig", title={"en": "Which is better?", "zh": "哪一个更好"}, plan={"real": 1}),
    )
}


@dataclass
class Later:
    """The time, or later when a test says so."""

    microseconds: int = 0

    def __call__(self) -> int:
        return utc_microseconds() + self.microseconds


@dataclass(frozen=True)
class Served:
    """A running server, its database, and studies that are launched when they are first asked for."""

    url: str
    database: Database
    pictures: Folders
    clock: Later

    def launch(self, slug: str) -> str:
        """The address of a study that takes participants from now on."""
        ingest_study(
            self.database, STUDIES[slug], self.pictures.images, self.pictures.holes, self.pictures.results,
            now=utc_microseconds(), random_bytes=seeded_bytes(),
        )  # fmt: skip
        launch(self.database, slug, now=utc_microseconds())
        return f"{self.url}/study/{slug}"

    def answers(self) -> list[tuple[int, str, str, int | None]]:
        """(place in the session, criterion, outcome, position) of every stored answer."""
        wanted = (
            select(Trial.seq, Response.criterion, Response.outcome, Response.position)
            .join(Response, Response.trial_id == Trial.id)
            .order_by(Trial.seq, Response.id)
        )
        with self.database.read() as db:
            return [(row.seq, row.criterion, row.outcome.value, row.position) for row in db.execute(wanted)]

    def count(self, table: type[Any]) -> int:
        with self.database.read() as db:
            return db.scalar(select(func.count()).select_from(table)) or 0

    def one(self, column: Any) -> Any:
        with self.database.read() as db:
            return db.scalars(select(column)).one()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return draw_study(tmp_path_factory.mktemp("page"), images=4, size=96)


@pytest.fixture
def served(tmp_path: Path, pictures: Folders) -> Generator[Served]:
    url = f"sqlite:///{tmp_path / 'study.sqlite'}"
    migrate(url)
    with Database.open(url) as database:
        app = FastAPI(openapi_url=None)
        clock = Later()
        app.include_router(router(database, clock=clock))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Served(f"http://127.0.0.1:{port}", database, pictures, clock)
        server.should_exit = True
        thread.join()


@pytest.fixture
def visit(browser: Browser) -> Generator[Callable[..., Page]]:
    """Opens pages that must not complain, and reach no host but ours."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def opened(**settings: Any) -> Page:
        desktop: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
        context = browser.new_context(**(desktop | settings))
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: _same_host(request, complaints))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def _same_host(request: Request, complaints: list[str]) -> None:
    if not request.url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:")):
        complaints.append(request.url)


def go_in(page: Page, address: str) -> None:
    """To the first trial, with the mouse."""
    page.goto(address)
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Take part").click()
    page.get_by_role("button", name="Start").click()
    at_trial(page, 1)


def at_trial(page: Page, number: int) -> None:
    """Wait until the pictures of a trial are on the screen and the previous answer is stored."""
    shown(page, number)
    settled(page)


def shown(page: Page, number: int) -> None:
    """Wait until the pictures of a trial are on the screen, whether the previous answer is stored or not."""
    expect(page.get_by_role("heading", name=re.compile(rf"Comparison {number} of"))).to_be_attached()
    expect(page.locator(".notice")).to_have_count(0)


def settled(page: Page) -> None:
    """Wait until nothing is being saved; the page says "Saving" from the moment an answer is given."""
    expect(page.locator(".saved")).to_have_text(re.compile("^(Saved)?$"))


def pick(page: Page, number: int, answer: str, *, tap: bool = False) -> None:
    """Answer a question of the trial on the screen with the mouse or a finger."""
    radio = page.locator("fieldset").nth(number).get_by_role("radio", name=answer)
    if tap:
        radio.tap()
    else:
        radio.click()


def finished(page: Page) -> None:
    expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    expect(page.locator(".notice")).to_have_count(0)


def tab_to(page: Page, name: str) -> None:
    """Press Tab until the element of that name has the focus, as somebody without a mouse does."""
    focused = "() => { let at = document.activeElement; while (at?.shadowRoot) at = at.shadowRoot.activeElement; "
    focused += "return at?.closest('label')?.textContent ?? at?.textContent ?? ''; }"
    expect(page.get_by_text(name).first).to_be_visible()  # a page that is still being drawn has nothing to go to
    for _ in range(30):
        page.keyboard.press("Tab")
        if name in page.evaluate(focused):
            return
    pytest.fail(f"Tab never reached {name}.")


def test_a_whole_study_is_done_by_keyboard_alone(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    page.goto(served.launch("pair"))
    tab_to(page, "I take part freely.")
    page.keyboard.press("Space")
    tab_to(page, "Take part")
    page.keyboard.press("Enter")
    tab_to(page, "Start")
    page.keyboard.press("Enter")
    for number, (first, second) in enumerate([("1", "2"), ("ArrowRight", "0"), ("?", "ArrowLeft")], 1):
        at_trial(page, number)
        page.keyboard.press(first)
        page.keyboard.press(second)
        page.keyboard.press("Enter")
    finished(page)
    assert served.answers() == [
        (1, "context_stability", "choice", 0), (1, "visual_consistency", "choice", 1),
        (2, "context_stability", "choice", 1), (2, "visual_consistency", "tie", None),
        (3, "context_stability", "cant_tell", None), (3, "visual_consistency", "choice", 0),
    ]  # fmt: skip


def test_a_whole_study_is_done_by_mouse(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    go_in(page, served.launch("pair"))
    for number in range(1, TRIALS + 1):
        at_trial(page, number)
        pick(page, 0, "Right")
        pick(page, 1, "No visible difference")
        page.get_by_role("button", name=re.compile("Next|Finish")).click()
    finished(page)
    assert [answer[2:] for answer in served.answers()] == [("choice", 1), ("tie", None)] * TRIALS


def test_a_whole_study_is_done_by_touch_on_a_phone(served: Served, visit: Callable[..., Page]) -> None:
    page = visit(**PHONE)
    page.goto(served.launch("pair"))
    page.get_by_role("checkbox").tap()
    page.get_by_role("button", name="Take part").tap()
    page.get_by_role("button", name="Start").tap()
    for number in range(1, TRIALS + 1):
        at_trial(page, number)
        pick(page, 0, "Left", tap=True)
        pick(page, 1, "Right", tap=True)
        page.get_by_role("button", name=re.compile("Next|Finish")).tap()
    finished(page)
    assert [answer[2:] for answer in served.answers()] == [("choice", 0), ("choice", 1)] * TRIALS
    assert served.one(StudySession.device_class) == "phone"


def test_the_two_results_lie_side_by_side_at_one_size_on_a_phone(served: Served, visit: Callable[..., Page]) -> None:
    page = visit(**PHONE)
    go_in(page, served.launch("pair"))
    left, right = (page.locator(".candidate .frame").nth(at).bounding_box() for at in (0, 1))
    photograph = page.locator(".input .frame").bounding_box()
    assert left is not None
    assert right is not None
    assert photograph is not None
    assert left["y"] == right["y"]
    assert {(box["width"], box["height"]) for box in (left, right, photograph)} == {(left["width"], left["height"])}
    assert left["width"] >= 150
    button = page.get_by_role("button", name="Next").bounding_box()
    assert button is not None
    assert button["y"] + button["height"] <= PHONE["viewport"]["height"]  # nothing to scroll to


def test_best_of_many_is_chosen_by_number(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    go_in(page, served.launch("three"))
    assert page.locator(".candidate").count() == 3
    page.keyboard.press("3")
    page.keyboard.press("0")
    page.keyboard.press("Enter")
    finished(page)
    assert [answer[2:] for answer in served.answers()] == [("choice", 2), ("tie", None)]


def test_next_waits_for_every_answer_and_says_which_is_missing(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    go_in(page, served.launch("pair"))
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Please answer: V.C.")).to_be_visible()
    assert served.answers() == []


def test_a_changed_mind_is_counted_and_the_last_answer_stands(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    go_in(page, served.launch("pair"))
    for side in ("Left", "Right", "Left"):
        pick(page, 0, side)
    pick(page, 1, "Right")
    page.keyboard.press("Enter")
    at_trial(page, 2)
    settled(page)
    with served.database.read() as db:
        changes = db.execute(select(Response.position, Response.n_changes).order_by(Response.id)).all()
    assert changes == [(0, 2), (1, 0)]


def test_the_next_pictures_are_there_before_they_are_needed(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/study/s/" in request.url else None)
    go_in(page, served.launch("pair"))
    page.wait_for_function("() => performance.getEntriesByType('resource').filter(e => e.name.includes('/study/s/')"
                           " && e.responseEnd).length >= 6")  # fmt: skip
    before = list(asked)
    page.route("**/study/s/*", lambda route: route.abort())  # whatever is shown next is already here
    page.keyboard.press("1")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    at_trial(page, 2)
    assert len(before) == 6  # two trials of three pictures
    page.unroute("**/study/s/*")


def test_swapping_trials_shifts_nothing(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    page.add_init_script(
        "window.shift = 0; new PerformanceObserver((list) => { for (const each of list.getEntries())"
        " if (!each.hadRecentInput) window.shift += each.value; }).observe({ type: 'layout-shift', buffered: true });"
    )
    go_in(page, served.launch("pair"))
    boxes = [page.locator(".frame").first.bounding_box()]
    for number in (2, 3):
        page.keyboard.press("1")
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        at_trial(page, number)
        settled(page)
        boxes.append(page.locator(".frame").first.bounding_box())
    assert boxes[0] == boxes[1] == boxes[2]
    assert page.evaluate("window.shift") == 0


def test_an_answer_survives_a_dead_network_and_is_stored_once(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    keys: list[str] = []

    def unplugged(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        route.abort()

    go_in(page, served.launch("pair"))
    page.route("**/answer", unplugged)
    page.keyboard.press("1")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    expect(page.get_by_text(re.compile("Not saved yet"))).to_be_visible()
    shown(page, 2)  # one can already look at the next pair, but not answer past the one that is not saved
    page.keyboard.press("2")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Your previous answer is still being saved")).to_be_visible()
    assert served.answers() == []
    page.unroute("**/answer")
    page.get_by_role("button", name="Try now").click()
    at_trial(page, 3)  # the Enter that was pressed meanwhile is acted on, without another
    settled(page)
    assert [answer[2:] for answer in served.answers()] == [("choice", 0), ("choice", 1)] + [("choice", 1)] * 2
    assert len(set(keys)) == 1


def test_a_lost_reply_is_asked_for_again_with_the_same_key(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    keys: list[str] = []

    def lose_reply(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            route.fetch()  # the server takes the answer, and the page never hears of it
            route.abort()
        else:
            route.continue_()

    go_in(page, served.launch("pair"))
    page.route("**/answer", lose_reply)
    page.keyboard.press("1")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    settled(page)
    at_trial(page, 2)
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert served.count(Response) == 2


def test_an_answer_not_yet_saved_survives_closing_the_page(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    go_in(page, served.launch("pair"))
    page.route("**/answer", lambda route: route.abort())
    page.keyboard.press("1")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    expect(page.get_by_text(re.compile("Not saved yet"))).to_be_visible()
    page.unroute("**/answer")
    page.reload()
    page.get_by_role("button", name="Start").click()
    at_trial(page, 2)
    assert [answer[2:] for answer in served.answers()] == [("choice", 0), ("choice", 1)]


def shown_pictures(page: Page) -> list[str]:
    """What the candidates' pixels are, in order: their bytes read back through a canvas."""
    return page.locator(".candidate img[data-layer=own]").evaluate_all(
        "images => images.map((image) => { const canvas = document.createElement('canvas');"
        " canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;"
        " canvas.getContext('2d').drawImage(image, 0, 0); return canvas.toDataURL(); })"
    )


@pytest.mark.parametrize("storage", ["kept", "blocked"])
def test_a_reload_shows_the_same_trial_with_the_same_sides(
    served: Served, visit: Callable[..., Page], storage: str
) -> None:
    page = visit()
    if storage == "blocked":  # as in a foreign frame of a private window
        page.add_init_script(
            "Object.defineProperty(window, 'localStorage',"
            " { get() { throw new DOMException('no', 'SecurityError'); } })"
        )
    go_in(page, served.launch("pair"))
    page.keyboard.press("1")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    at_trial(page, 2)
    settled(page)
    before = shown_pictures(page)
    page.reload()
    at_trial(page, 2)
    assert shown_pictures(page) == before
    assert before[0] != before[1]
    assert ("session-pair" in page.url) == (storage == "blocked")
    assert served.count(StudySession) == 1


def test_a_recruited_person_comes_back_to_the_same_session_and_gets_the_code(
    served: Served, visit: Callable[..., Page]
) -> None:
    address = f"{served.launch('lab')}?participant=P7"
    go_in(visit(), address)
    page = visit()  # another browser: only the address says who it is
    page.goto(address)
    page.get_by_role("button", name="Start").click()
    at_trial(page, 1)
    page.keyboard.press("1")
    page.keyboard.press("1")
    page.wait_for_function("() => document.querySelector('#study').shadowRoot.querySelector('.next')"
                           ".getAttribute('aria-disabled') === 'false'")  # fmt: skip
    page.keyboard.press("Enter")
    finished(page)
    expect(page.get_by_text("C-42")).to_be_visible()
    assert served.count(StudySession) == 1


def visible_layers(page: Page) -> list[str]:
    return page.locator(".candidate img").evaluate_all(
        "images => images.filter((image) => getComputedStyle(image).visibility === 'visible')"
        ".map((image) => image.dataset.layer)"
    )


def test_who_finds_nothing_left_to_ask_gets_the_code_for_that_and_keeps_it(
    served: Served, visit: Callable[..., Page]
) -> None:
    address = served.launch("lab")
    served.database.write(lambda db: db.execute(update(Cell).values(target=0)))
    drain(served.database, "lab", now=utc_microseconds())
    page = visit()
    page.goto(f"{address}?participant=p1")
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Take part").click()
    page.get_by_role("button", name="Start").click()
    for _ in range(2):
        expect(page.get_by_role("heading", name="Nothing left to ask")).to_be_visible()
        expect(page.get_by_text("S-43")).to_be_visible()
        expect(page.get_by_role("button", name="Check again")).to_have_count(0)  # it would never be another answer
        page.reload()
    assert served.one(StudySession.state) == SessionState.SCREENED_OUT


def test_holding_a_key_shows_the_other_result_or_the_hole_in_place(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    go_in(page, served.launch("pair"))
    frames = page.locator(".candidate .frame").evaluate_all("all => all.map((each) => each.getBoundingClientRect().x)")
    page.keyboard.down("f")
    assert visible_layers(page) == ["other", "other"]
    expect(page.locator(".candidate figcaption").first).to_have_text("Right")
    page.wait_for_function("() => document.querySelector('#study').shadowRoot.querySelector('.candidate')"
                           ".dataset.show === 'own'")  # fmt: skip
    page.keyboard.up("f")
    assert visible_layers(page) == ["own", "own"]
    page.keyboard.down("i")
    assert visible_layers(page) == ["input", "input"]
    page.wait_for_timeout(300)  # longer than a tap, which would keep it on
    page.keyboard.up("i")
    assert visible_layers(page) == ["own", "own"]
    after = page.locator(".candidate .frame").evaluate_all("all => all.map((each) => each.getBoundingClientRect().x)")
    assert after == frames
    page.keyboard.press("1")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    settled(page)
    with served.database.read() as db:
        assert set(db.scalars(select(Response.flips))) <= {2, 3}


def test_all_pictures_zoom_and_move_together(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    go_in(page, served.launch("pair"))
    places = (
        "all => all.map((image) => { const a = image.getBoundingClientRect();"
        " const b = image.parentElement.getBoundingClientRect(); return [a.x - b.x, a.y - b.y, a.width, a.height]; })"
    )
    images = page.locator(".frame img[data-layer=own]")
    page.keyboard.press("z")
    at_native = images.evaluate_all(places)
    assert at_native[0][2:] == [104, 96]  # the picture's own pixels, on a screen with one pixel per CSS pixel
    frame = page.locator(".candidate .frame").first.bounding_box()
    assert frame is not None
    page.mouse.move(frame["x"] + frame["width"] * 0.75, frame["y"] + frame["height"] * 0.25)
    for _ in range(10):
        page.mouse.wheel(0, -200)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] * 0.5, frame["y"] + frame["height"] * 0.5, steps=4)
    page.mouse.up()
    moved = images.evaluate_all(places)
    assert moved[0] == moved[1] == moved[2]
    assert moved[0][2] > at_native[0][2]
    assert moved[0][:2] != at_native[0][:2]
    page.keyboard.press("1")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    settled(page)
    with served.database.read() as db:
        assert min(zoomed or 0 for zoomed in db.scalars(select(Response.zoom_ms))) > 0


def test_single_keys_can_be_switched_off(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    go_in(page, served.launch("pair"))
    page.get_by_role("button", name="Help").click()
    page.get_by_role("switch", name="Single-key shortcuts").uncheck()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("1")
    assert page.get_by_role("radio", checked=True).count() == 0


def test_a_window_too_small_is_told_its_size_until_it_is_large_enough(
    served: Served, visit: Callable[..., Page]
) -> None:
    page = visit()
    go_in(page, served.launch("roomy"))
    page.set_viewport_size({"width": SMALLEST[0] - 20, "height": SMALLEST[1]})
    card = page.get_by_role("alert").filter(has_text="A little more room, please")
    expect(card).to_contain_text(f"{SMALLEST[0] - 20} \u00d7 {SMALLEST[1]}")
    page.keyboard.press("1")
    assert page.get_by_role("radio", checked=True).count() == 0
    page.set_viewport_size({"width": SMALLEST[0], "height": SMALLEST[1] + 300})
    expect(card).to_have_count(0)


def test_declining_stores_nothing(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    page.goto(served.launch("pair"))
    page.get_by_role("button", name="No, thank you").click()
    expect(page.get_by_role("heading", name="That is fine")).to_be_visible()
    assert served.count(StudySession) == 0


def test_nobody_takes_part_without_ticking_every_box(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    page.goto(served.launch("pair"))
    page.get_by_role("button", name="Take part").click()
    expect(page.get_by_role("alert")).to_contain_text("Please tick every statement")
    assert served.count(Consent) == 0


def test_whoever_stops_may_take_their_answers_along(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    go_in(page, served.launch("pair"))
    page.keyboard.press("1")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    settled(page)
    assert served.count(Response) == 2
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Stop and delete my answers").click()
    expect(page.get_by_role("heading", name="You have stopped")).to_be_visible()
    assert (served.count(Response), served.count(Trial), served.count(Event)) == (0, 0, 0)


def test_what_was_looked_at_is_recorded(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    go_in(page, served.launch("pair"))
    page.keyboard.press("z")
    page.close()  # the page leaves by sending what it saw
    expect_events = {EventType.DECODE, EventType.ZOOM}
    for _ in range(100):
        with served.database.read() as db:
            if expect_events <= set(db.scalars(select(Event.type))):
                return
        threading.Event().wait(0.05)
    pytest.fail("The page's events never arrived.")


def test_chinese_visitors_read_chinese_and_may_change_it(served: Served, visit: Callable[..., Page]) -> None:
    page = visit(locale="zh-CN")
    page.goto(served.launch("zweisprachig"))
    expect(page.get_by_role("heading", name="哪一个更好")).to_be_visible()
    expect(page.get_by_role("button", name="不参加")).to_be_visible()
    page.get_by_role("combobox", name="语言").select_option("en")
    expect(page.get_by_role("heading", name="Which is better?")).to_be_visible()
    expect(page.get_by_role("button", name="No, thank you")).to_be_visible()


def test_an_address_of_no_study_is_told_plainly(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    page.goto(f"{served.url}/study/nowhere")
    expect(page.locator("body")).to_contain_text("There is no such study")


def test_an_unknown_token_begins_anew_instead_of_failing(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    page.goto(f"{served.launch('pair')}#session-pair=0123456789abcdef0123456789abcdef")
    expect(page.get_by_role("button", name="Take part")).to_be_visible()


def test_the_page_obeys_a_strict_content_policy(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    go_in(page, served.launch("pair"))
    assert said == []


def test_a_session_left_for_long_goes_on_where_it_was(served: Served, visit: Callable[..., Page]) -> None:
    address = served.launch("pair")
    page = visit()
    go_in(page, address)
    page.keyboard.press("1")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    at_trial(page, 2)
    settled(page)
    before = shown_pictures(page)
    served.clock.microseconds = 700 * 1_000_000  # the lease of a silent session ends after 600 s
    go_in(visit(), address)  # somebody else's request gives the silent session up
    with served.database.read() as db:
        assert SessionState.ABANDONED in set(db.scalars(select(StudySession.state)))
    page.reload()
    at_trial(page, 2)
    assert shown_pictures(page) == before


def test_pictures_that_do_not_come_are_fetched_again(served: Served, visit: Callable[..., Page]) -> None:
    page = visit()
    page.route("**/study/s/*", lambda route: route.abort())
    page.goto(served.launch("pair"))
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Take part").click()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("The server does not answer")).to_be_visible()
    page.unroute("**/study/s/*")
    at_trial(page, 1)
    assert len(set(shown_pictures(page))) == 2


def test_two_fingers_zoom_all_pictures_and_one_moves_them(served: Served, visit: Callable[..., Page]) -> None:
    page = visit(**PHONE)
    go_in(page, served.launch("pair"))
    frame = page.locator(".candidate .frame").first.bounding_box()
    assert frame is not None
    x, y = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
    fingers = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        at = [{"x": each[0], "y": each[1], "id": number} for number, each in enumerate(points)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    touch("touchStart", (x - 10, y), (x + 10, y))
    for apart in range(15, 45, 5):
        touch("touchMove", (x - apart, y), (x + apart, y))
    touch("touchEnd")
    transforms = "images => images.map((image) => [image.offsetWidth, getComputedStyle(image).transform].join(' '))"
    images = page.locator(".frame img[data-layer=own]")
    zoomed = images.evaluate_all(transforms)
    assert len(set(zoomed)) == 1
    assert float(zoomed[0].split()[0]) > 3 * frame["width"]
    touch("touchStart", (x, y))
    touch("touchMove", (x + 20, y + 10))
    touch("touchMove", (x + 30, y + 15))
    touch("touchEnd")
    moved = images.evaluate_all(transforms)
    assert len(set(moved)) == 1
    assert moved != zoomed
