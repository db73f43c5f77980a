"""The whole tab in a real browser: from a photo to a downloaded file, and everything that can go wrong on the way."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile

from asuka_infer.holes import hole_sha256
from asuka_infer.run_record import RunRecord
from tests.demo.conftest import OpenPage
from tests.demo.painting import Visitor, photo, save

pytestmark = pytest.mark.browser


def test_the_downloaded_file_differs_only_inside_the_hole(visit: OpenPage, tmp_path: Path) -> None:
    """A photo lying on its side, larger than the proxy, and Run pressed the moment the stroke ends."""
    exif = Image.Exif()
    exif[0x0112] = 8
    path = save(photo(2400, 1800), tmp_path / "phone.jpg", exif=exif, quality=92)
    visitor = visit()
    visitor.open(path)
    visitor.choose_methods("Telea")
    visitor.page.locator(".mp-stage").scroll_into_view_if_needed()
    visitor.drag((300, 500), (500, 700), (400, 900))
    visitor.run()
    hole = visitor.save_mask(tmp_path)
    downloaded = visitor.download(tmp_path)
    assert downloaded.name == "phone-telea-seed0.png"
    with Image.open(downloaded) as image, Image.open(path) as original:
        assert isinstance(image, PngImageFile)
        record = RunRecord.from_json(image.text["asuka:run_record"])
        result, before = np.array(image), np.array(ImageOps.exif_transpose(original))
    assert result.shape == before.shape == (2400, 1800, 3)
    changed = (result != before).any(axis=2)
    assert not (changed & ~hole).any()
    assert changed[hole].mean() > 0.9
    assert record.hole_sha256 == hole_sha256(hole)
    assert visitor.page.inner_text(".rv-changed") == "0 pixels"


def test_several_methods_and_seeds_are_compared_on_the_same_hole(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    visitor.choose_methods("Telea", "Navier-Stokes")
    visitor.drag((100, 60), (180, 120))
    visitor.page.click("#demo-run")
    visitor.page.wait_for_selector(".rv-strip button >> nth=1")
    visitor.page.wait_for_selector('.rv:not([data-busy="on"])')
    assert visitor.page.locator(".rv-strip b").all_inner_texts() == ["Telea (fast marching)", "Navier-Stokes"]
    assert visitor.page.get_attribute(".rv-strip button >> nth=0", "aria-pressed") == "true"
    visitor.page.click(".rv-strip button >> nth=1")
    assert "Navier-Stokes" in visitor.page.inner_text(".rv-facts")
    holes: set[str] = set()
    for number in range(2):
        visitor.page.click(f".rv-strip button >> nth={number}")
        with Image.open(visitor.download(tmp_path)) as image:
            assert isinstance(image, PngImageFile)
            holes.add(RunRecord.from_json(image.text["asuka:run_record"]).hole_sha256)
    assert len(holes) == 1


def test_what_the_method_saw_can_be_looked_at(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    visitor.drag((60, 60), (90, 90))
    visitor.choose_methods("Prior method")
    visitor.run()
    visitor.page.click(".rv-inside summary")
    shown = "() => document.querySelector('.rv-inside img[alt=\"what its prior imagines\"]').naturalWidth === 64"
    visitor.page.wait_for_function(shown)
    visitor.choose_methods("Telea")
    visitor.run()
    visitor.page.wait_for_selector(".rv-inside", state="hidden")


def test_a_result_becomes_the_new_photo(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    visitor.choose_methods("Telea")
    visitor.drag((60, 60), (90, 90))
    visitor.run()
    first = visitor.download(tmp_path).rename(tmp_path / "first.png")
    visitor.page.click('.rv [data-do="reuse"]')
    visitor.page.wait_for_function("() => document.querySelector('.mp').dataset.holePixels === '0'")
    visitor.drag((200, 100), (240, 140))
    hole = visitor.hole()
    visitor.run()
    with Image.open(visitor.download(tmp_path)) as second, Image.open(first) as start:
        assert not ((np.array(second) != np.array(start)).any(axis=2) & ~hole).any()


def test_the_divider_moves_by_mouse_and_keyboard_and_hold_shows_before(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit(reduced_motion="reduce")
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    visitor.choose_methods("Telea")
    visitor.drag((100, 60), (180, 120))
    visitor.run()
    page = visitor.page
    stage = page.locator(".rv-stage").bounding_box()
    assert stage is not None
    page.locator(".rv-stage").click(position={"x": stage["width"] * 0.75, "y": 50})
    assert float(page.input_value(".rv-range")) == pytest.approx(750, abs=5)
    page.focus(".rv-range")
    page.keyboard.press("Home")
    assert "inset(0px)" in str(page.evaluate("() => document.querySelector('.rv-after').style.clipPath"))
    page.keyboard.down("o")
    assert page.evaluate("() => getComputedStyle(document.querySelector('.rv-after')).visibility") == "hidden"
    page.keyboard.up("o")
    assert page.evaluate("() => getComputedStyle(document.querySelector('.rv-after')).visibility") == "visible"


def test_run_pressed_twice_is_one_run_and_a_press_meanwhile_is_answered(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    page = visitor.page
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    visitor.drag((100, 60), (180, 120))
    visitor.choose_methods("Telea")
    page.dblclick("#demo-run")
    page.wait_for_selector('.rv[data-state="shown"]:not([data-busy="on"])')
    visitor.choose_methods("Slow method")
    page.click("#demo-run")
    page.wait_for_function("() => /step \\d+ of/.test(document.querySelector('.rv-doing').textContent)")
    page.click("#demo-run")
    page.wait_for_selector(".rv-message >> text=under way")
    page.click('.rv [data-do="cancel"]')
    page.wait_for_selector("text=Stopped.")
    assert page.locator(".rv-strip button").count() == 1


def test_cancel_stops_a_slow_method_and_the_page_goes_on(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    visitor.drag((100, 60), (180, 120))
    visitor.choose_methods("Slow method")
    visitor.page.click("#demo-run")
    visitor.page.wait_for_function("() => /step \\d+ of/.test(document.querySelector('.rv-doing').textContent)")
    visitor.page.wait_for_selector(".rv-preview", state="visible")
    visitor.page.click('.rv [data-do="cancel"]')
    visitor.page.wait_for_selector(".rv-message.shown")
    assert visitor.page.inner_text(".rv-message") == "Stopped."
    visitor.choose_methods("Telea")
    visitor.run()
    assert visitor.page.locator(".rv-strip button").count() == 1


def test_two_visitors_wait_for_each_other_and_never_see_each_others_pictures(visit: OpenPage, tmp_path: Path) -> None:
    first, second = visit(), visit()
    for number, visitor in enumerate((first, second)):
        visitor.open(save(photo(300, 200, seed=number), tmp_path / f"visitor{number}.png"))
        visitor.drag((100, 60), (150 + 50 * number, 120))
    first.choose_methods("Slow method")
    first.page.click("#demo-run")
    first.page.wait_for_function("() => /step \\d+ of/.test(document.querySelector('.rv-doing').textContent)")
    second.choose_methods("Telea")
    second.page.click("#demo-run")
    second.page.wait_for_selector("text=Number 1 of 1 in the queue")
    first.page.click('.rv [data-do="cancel"]')
    second.page.wait_for_selector('.rv[data-state="shown"]:not([data-busy="on"])')
    with Image.open(second.download(tmp_path)) as result, Image.open(tmp_path / "visitor1.png") as mine:
        assert not ((np.array(result) != np.array(mine)).any(axis=2) & ~second.hole()).any()
    assert first.page.locator(".rv-strip button").count() == 0


def refused(visitor: Visitor) -> str:
    visitor.page.wait_for_selector(".mp-message.shown")
    assert not visitor.page.evaluate("() => document.querySelector('.mp').dataset.busy")
    return visitor.page.inner_text(".mp-message")


def test_what_is_missing_is_said_before_anything_is_sent(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    visitor.page.click("#demo-run")
    assert refused(visitor) == "Choose a photo first."
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    visitor.page.click("#demo-run")
    assert "Nothing is painted yet" in refused(visitor)
    visitor.menu("invert")
    visitor.page.click("#demo-run")
    assert "Everything is painted" in refused(visitor)
    visitor.menu("clear")
    visitor.drag((100, 60), (180, 120))
    visitor.choose_methods("Telea")
    visitor.run()


def test_files_that_are_no_photo_are_explained_and_the_page_goes_on(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    (tmp_path / "letter.png").write_text("Dear reader")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "film.png").write_bytes(bytes(21_000_000))
    for name, words in (("letter.png", "letter.png"), ("empty.png", "empty file"), ("film.png", "at most 20 MB")):
        visitor.page.set_input_files(".mp-file", str(tmp_path / name))
        visitor.page.wait_for_function(
            "(words) => document.querySelector('.mp-message').textContent.includes(words)", arg=words
        )
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    assert not visitor.page.locator(".mp-message").is_visible()


@pytest.mark.parametrize(
    ("title", "words"), [("Broken method", "weights are damaged"), ("Far method", "Download its weights first")]
)
def test_a_method_that_fails_is_explained_and_the_page_goes_on(
    visit: OpenPage, tmp_path: Path, title: str, words: str
) -> None:
    visitor = visit()
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    visitor.drag((100, 60), (180, 120))
    visitor.choose_methods(title)
    visitor.page.click("#demo-run")
    visitor.page.wait_for_selector(".rv-message.shown")
    assert words in visitor.page.inner_text(".rv-message")
    visitor.choose_methods("Telea")
    visitor.run()


def test_a_lost_connection_is_said_and_nothing_painted_is_lost(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    visitor.drag((100, 60), (180, 120))
    painted = visitor.hole()
    visitor.page.wait_for_function("() => JSON.parse(sessionStorage.getItem('asuka-demo-painter') || '{}').hole")
    visitor.page.context.set_offline(True)
    visitor.page.click("#demo-run")
    visitor.page.wait_for_selector("text=/connection to the server was lost/i")
    with visitor.page.expect_navigation():  # Gradio opens the page again once the server answers
        visitor.page.context.set_offline(False)
    visitor.page.wait_for_selector('.mp[data-state="ready"]:not([data-busy="on"])')
    assert np.array_equal(visitor.hole(), painted)
    visitor.choose_methods("Telea")
    visitor.run()


def event_number(config: dict[str, Any], name: str) -> int:
    return next(
        event["id"] for event in config["dependencies"] if any(target[1] == name for target in event["targets"])
    )


@pytest.mark.parametrize("field", ["photo", "mask"])
def test_files_that_nobody_uploaded_cannot_be_opened(demo_url: str, field: str) -> None:
    with urllib.request.urlopen(f"{demo_url}config") as answer:  # noqa: S310 - our own http address
        number = event_number(json.load(answer), "photo")
    forged = {"path": str(Path("demo/engine.py").resolve()), "meta": {"_type": "gradio.FileData"}}
    body = {"data": [{"serial": 1, field: forged}], "fn_index": number, "session_hash": "forger"}
    request = urllib.request.Request(  # noqa: S310 - our own http address
        f"{demo_url}gradio_api/run/predict", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request)  # noqa: S310 - our own http address
    assert refusal.value.code == 500
    assert b"Runs what the demo tab asks for" not in refusal.value.read()


def test_the_tab_can_be_left_and_found_again(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    visitor.drag((100, 60), (180, 120))
    painted = visitor.hole()
    visitor.page.get_by_role("tab", name="Other").click()
    visitor.page.get_by_role("tab", name="Inpaint").click()
    visitor.page.wait_for_selector('.mp[data-state="ready"]')
    assert np.array_equal(visitor.hole(), painted)
