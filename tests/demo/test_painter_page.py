"""The painter in a real browser: every tool paints where the pointer is, and Run gets what is painted."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Request
from scipy import ndimage

from asuka_infer.request import Hole
from tests.demo.conftest import OpenPage
from tests.demo.painting import Point, Visitor, capsule, photo, rectangle, save

pytestmark = pytest.mark.browser

SIZES = {"portrait": (700, 1000), "small": (320, 200), "large": (4000, 3000)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("photos")
    return {name: save(photo(*size), folder / f"{name}.jpg", quality=90) for name, size in SIZES.items()}


def assert_within_a_pixel(painted: Hole, expected: Hole) -> None:
    """Neither reaches further than one pixel beyond the other."""
    square = np.ones((3, 3), bool)
    assert expected.any()
    assert not (painted & np.logical_not(ndimage.binary_dilation(expected, square))).any()
    assert not (expected & np.logical_not(ndimage.binary_dilation(painted, square))).any()


@pytest.mark.parametrize(("name", "ratio"), [("large", 1), ("portrait", 2), ("small", 3)])
def test_every_tool_paints_where_the_pointer_is(
    visit: OpenPage, photos: dict[str, Path], name: str, ratio: int
) -> None:
    visitor = visit(device_scale_factor=ratio)
    visitor.open(photos[name])
    box = visitor.layer()
    size = int(box["h"]), int(box["w"])

    at = visitor.snapped

    stroke = [at(0.2, 0.2), at(0.4, 0.3), at(0.3, 0.4)]
    visitor.drag(*stroke)
    expected = capsule(size, stroke, visitor.radius())
    assert_within_a_pixel(visitor.hole(), expected)

    visitor.tool("rectangle")
    visitor.drag(at(0.55, 0.15), at(0.9, 0.45))
    expected |= rectangle(size, at(0.55, 0.15), at(0.9, 0.45))
    assert_within_a_pixel(visitor.hole(), expected)

    visitor.tool("lasso")
    corners = [at(0.1, 0.6), at(0.4, 0.6), at(0.4, 0.9), at(0.1, 0.9)]
    for corner in corners:
        visitor.click(corner)
    visitor.page.keyboard.press("Enter")
    visitor.drag(at(0.6, 0.6), at(0.9, 0.6), at(0.9, 0.9), at(0.6, 0.9))
    expected |= rectangle(size, corners[0], corners[2]) | rectangle(size, at(0.6, 0.6), at(0.9, 0.9))
    assert_within_a_pixel(visitor.hole(), expected)

    visitor.tool("eraser")
    visitor.drag(at(0.7, 0.3), at(0.75, 0.75))
    expected &= ~capsule(size, [at(0.7, 0.3), at(0.75, 0.75)], visitor.radius())
    assert_within_a_pixel(visitor.hole(), expected)


def test_painting_follows_the_pointer_when_zoomed_and_moved(visit: OpenPage, photos: dict[str, Path]) -> None:
    visitor = visit()
    visitor.open(photos["large"])
    visitor.page.mouse.move(*visitor.screen((500, 300)))
    visitor.page.keyboard.down("Control")
    visitor.page.mouse.wheel(0, -500)
    visitor.page.keyboard.up("Control")
    visitor.page.mouse.wheel(60, 30)
    box = visitor.layer()
    assert box["width"] > 3 * 576
    visitor.drag((480, 300), (530, 330))
    assert_within_a_pixel(
        visitor.hole(), capsule((int(box["h"]), int(box["w"])), [(480, 300), (530, 330)], visitor.radius())
    )


def test_the_menu_does_what_it_says_and_undo_takes_it_back(visit: OpenPage, photos: dict[str, Path]) -> None:
    visitor = visit()
    visitor.open(photos["portrait"])
    visitor.tool("rectangle")
    visitor.drag((100, 100), (300, 400))
    visitor.page.click('[data-effect="subtract"].mp-text')
    visitor.drag((150, 150), (250, 250))
    ring = visitor.hole()

    visitor.menu("fill")
    filled = np.asarray(ndimage.binary_fill_holes(ring))
    assert np.array_equal(visitor.hole(), filled)
    visitor.menu("grow")
    grown = np.asarray(ndimage.distance_transform_edt(~filled)) <= 5
    assert np.array_equal(visitor.hole(), grown)
    visitor.menu("shrink")
    visitor.menu("invert")
    assert np.array_equal(visitor.hole(), np.asarray(ndimage.distance_transform_edt(grown)) <= 5)
    visitor.menu("clear")
    assert not visitor.hole().any()

    visitor.page.focus(".mp-stage")
    for _ in range(5):
        visitor.page.keyboard.press("Control+z")
    assert np.array_equal(visitor.hole(), ring)
    visitor.page.keyboard.press("Control+Shift+z")
    assert np.array_equal(visitor.hole(), filled)


def test_history_stays_small_however_long_one_paints(visit: OpenPage, photos: dict[str, Path]) -> None:
    visitor = visit()
    visitor.open(photos["small"])
    visitor.tool("rectangle")
    script = """([x, y]) => {
        const stage = document.querySelector('.mp-stage');
        const send = (type, by) => stage.dispatchEvent(new PointerEvent(type, {
            clientX: x + by, clientY: y + by, pointerId: 1, button: 0, bubbles: true, pointerType: 'mouse'}));
        for (let i = 0; i < 250; i++) {
            send('pointerdown', i % 40); send('pointermove', 20 + i % 60); send('pointerup', 20 + i % 60);
        } }"""
    visitor.page.evaluate(script, list(visitor.screen((100, 50))))
    undone = 0
    while visitor.page.locator('[data-do="undo"]').is_enabled() and undone < 300:
        visitor.page.keyboard.press("Control+z")
        undone += 1
    assert undone == 199


def test_a_finger_paints_and_two_fingers_zoom(visit: OpenPage, photos: dict[str, Path]) -> None:
    visitor = visit(viewport={"width": 390, "height": 844}, device_scale_factor=3, has_touch=True, is_mobile=True)
    visitor.open(photos["portrait"])
    touch = visitor.page.context.new_cdp_session(visitor.page)

    def fingers(kind: str, *points: Point) -> None:
        touched = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touched})

    stroke = [(200.0, 300.0), (400.0, 500.0)]
    start, end = (visitor.screen(point) for point in stroke)
    fingers("touchStart", start)
    fingers("touchMove", end)
    radius = visitor.radius()
    fingers("touchEnd")
    painted = visitor.hole()
    assert_within_a_pixel(painted, capsule((1000, 700), stroke, radius))

    before = visitor.layer()["width"]
    middle = visitor.screen((350, 500))
    fingers("touchStart", middle)
    fingers("touchStart", middle, (middle[0] + 40, middle[1]))
    fingers("touchMove", (middle[0] - 60, middle[1]), (middle[0] + 100, middle[1]))
    fingers("touchEnd")
    assert visitor.layer()["width"] == pytest.approx(4 * before, rel=0.02)
    assert np.array_equal(visitor.hole(), painted)


def test_the_keyboard_alone_is_enough(visit: OpenPage) -> None:
    visitor = visit()
    page = visitor.page
    page.focus('[data-sample="chelsea"]')
    page.keyboard.press("Enter")
    page.wait_for_selector('.mp[data-state="ready"]')
    page.focus(".mp-stage")
    page.keyboard.press("r")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    box = visitor.layer()
    step = box["w"] / box["width"]
    corner = box["w"] / 2 - 8 * step, box["h"] / 2
    opposite = corner[0] + 120 * step, corner[1] + 120 * step
    assert_within_a_pixel(visitor.hole(), rectangle((int(box["h"]), int(box["w"])), corner, opposite))
    page.focus("#demo-run")
    page.keyboard.press("Enter")
    page.wait_for_selector('.rv[data-state="shown"]')


def test_every_button_has_a_name_for_screen_readers(visit: OpenPage) -> None:
    visitor = visit()
    visitor.page.click('[data-sample="chelsea"]')
    visitor.page.wait_for_selector('.mp[data-state="ready"]')
    nameless = """() => {
        const silent = ['status', 'alert', 'progressbar'];   // regions whose text is their name
        const named = (node) => node.getAttribute('aria-label') || node.textContent.trim()
            || node.querySelector('img[alt]:not([alt=""])') || silent.includes(node.getAttribute('role'));
        const controls = ':is(button, summary, a, input, [role])';
        const all = document.querySelectorAll('.mp ' + controls + ', .rv ' + controls);
        return [...all].filter((node) => node.checkVisibility() && !named(node)).map((node) => node.outerHTML); }"""
    assert visitor.page.evaluate(nameless) == []


def test_a_reload_keeps_photo_and_hole(visit: OpenPage, photos: dict[str, Path]) -> None:
    visitor = visit()
    visitor.open(photos["portrait"])
    visitor.drag((200, 300), (400, 500))
    painted = visitor.hole()
    visitor.page.wait_for_function("() => JSON.parse(sessionStorage.getItem('asuka-demo-painter') || '{}').hole")
    kept = visitor.sent()["hole"]
    visitor.page.wait_for_function(
        "(hole) => JSON.parse(sessionStorage.getItem('asuka-demo-painter')).hole === hole", arg=kept
    )
    visitor.page.reload()
    visitor.page.wait_for_selector('.mp[data-state="ready"]:not([data-busy="on"])')
    assert np.array_equal(visitor.hole(), painted)


def test_strokes_cost_no_traffic_and_the_photo_is_sent_once(visit: OpenPage, photos: dict[str, Path]) -> None:
    visitor = visit()
    requests: list[Request] = []
    visitor.page.on("requestfinished", lambda request: requests.append(request))  # noqa: PLW0108 - Playwright marks its handlers, builtins cannot be marked

    def sent() -> int:
        size = sum(int(request.header_value("content-length") or 0) for request in requests)
        requests.clear()
        return size

    visitor.open(photos["large"])
    photo_size, opening = photos["large"].stat().st_size, sent()
    assert photo_size <= opening < photo_size + 5_000
    for row in range(10):
        visitor.drag((200, 100 + 90 * row), (1200, 120 + 90 * row))
    assert requests == []
    visitor.choose_methods("Telea")
    sent()
    visitor.run()
    running = sent()
    print(f"\n12 MP: {opening - photo_size} bytes beside the photo's {photo_size}, {running} bytes per run")  # noqa: T201
    assert running < 15_000


def test_an_uploaded_mask_counts_at_its_own_resolution(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    visitor.open(save(photo(2000, 1500), tmp_path / "photo.png", compress_level=1))
    black = np.zeros((1500, 2000), bool)
    black[301:304, 777:1405] = True
    black[700:1001, 333] = True
    visitor.page.set_input_files(
        ".mp-mask-file", str(save(np.where(black, 0, 255).astype(np.uint8), tmp_path / "m.png"))
    )
    visitor.page.wait_for_selector('.mp[data-ask="on"]')
    assert visitor.page.locator(".mp-ask .likely").get_attribute("data-missing") == "black"
    visitor.page.click('[data-missing="black"]')
    visitor.choose_methods("Telea")
    visitor.run()
    with Image.open(visitor.download(tmp_path)) as result, Image.open(tmp_path / "photo.png") as original:
        changed = (np.array(result) != np.array(original)).any(axis=2)
    assert not (changed & ~black).any()
    assert changed[black].mean() > 0.5


def test_another_mask_than_the_photo_is_explained_and_the_page_goes_on(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    mask = np.zeros((90, 90), np.uint8)
    mask[20:60, 30:50] = 255
    visitor.page.set_input_files(".mp-mask-file", str(save(mask, tmp_path / "square.png")))
    visitor.page.wait_for_selector(".mp-message.shown")
    assert "90x90" in visitor.page.inner_text(".mp-message")
    visitor.drag((100, 100), (150, 120))
    assert visitor.hole().any()


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_photo_can_be_dropped_and_pasted(visit: OpenPage, photos: dict[str, Path], way: str) -> None:
    visitor = visit()
    script = """([data, way]) => {
        const carrier = new DataTransfer(), bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        carrier.items.add(new File([bytes], 'small.jpg', {type: 'image/jpeg'}));
        const event = way === 'drop' ? new DragEvent('drop', {bubbles: true, dataTransfer: carrier})
            : new ClipboardEvent('paste', {bubbles: true, clipboardData: carrier});
        document.querySelector('.mp-stage').dispatchEvent(event); }"""
    visitor.page.evaluate(script, [base64.b64encode(photos["small"].read_bytes()).decode(), way])
    visitor.page.wait_for_selector('.mp[data-state="ready"]')
    assert "320 × 200" in visitor.page.inner_text(".mp-info")  # noqa: RUF001 - the sign the page shows


def words(language: str) -> dict[str, str]:
    return json.loads(Path("demo/static/texts.json").read_text(encoding="utf-8"))[language]


def test_a_chinese_browser_gets_chinese_words(visit: OpenPage) -> None:
    visitor = visit(locale="zh-CN")
    assert visitor.page.inner_text(".mp-choose") == words("zh")["choose"]
    assert visitor.page.inner_text("#demo-run") == words("zh")["run"]


def test_both_languages_say_everything_once() -> None:
    text = Path("demo/static/texts.json").read_text(encoding="utf-8")
    pairs = json.loads(text, object_pairs_hook=lambda pairs: [name for name, _words in pairs])
    assert pairs == ["en", "zh"]
    english, chinese = words("en").keys(), words("zh").keys()
    assert english <= chinese
    # English takes these words from the code that they name.
    assert {key.partition("_")[0] for key in chinese - english} == {"knob", "option", "sample"}


def hold(visitor: Visitor) -> str:
    return str(visitor.page.evaluate("() => getComputedStyle(document.querySelector('.mp-hole')).opacity"))


def test_holding_o_shows_the_photo_without_the_hole(visit: OpenPage, photos: dict[str, Path]) -> None:
    visitor = visit(reduced_motion="reduce")
    visitor.open(photos["small"])
    visitor.drag((50, 50), (150, 120))
    visitor.page.keyboard.down("o")
    visitor.page.wait_for_function("() => getComputedStyle(document.querySelector('.mp-hole')).opacity === '0'")
    visitor.page.keyboard.up("o")
    visitor.page.wait_for_function("() => getComputedStyle(document.querySelector('.mp-hole')).opacity > 0.8")
