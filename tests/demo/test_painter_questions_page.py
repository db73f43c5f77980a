"""What the painter asks the server for, in a real browser: the thing that was clicked on, and a larger canvas."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asuka_infer.request import Hole
from tests.demo.conftest import OpenPage
from tests.demo.painting import Point, Visitor, photo, save

pytestmark = pytest.mark.browser


def two_discs(folder: Path) -> tuple[Path, Hole, Hole]:
    y, x = np.mgrid[0:200, 0:300]
    left, right = np.hypot(x - 80, y - 100) < 40, np.hypot(x - 210, y - 100) < 40
    pixels = np.full((200, 300, 3), (40, 110, 60), np.float64)
    pixels[left | right] = (230, 140, 40)
    noisy = np.clip(pixels + np.random.default_rng(1).normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
    return save(noisy, folder / "discs.png"), left, right


def select(visitor: Visitor, point: Point, dots: int) -> None:
    visitor.click(point)
    visitor.page.wait_for_function(
        "(count) => document.querySelectorAll('.mp-picks circle').length === count", arg=dots
    )


def overlap(painted: Hole, expected: Hole) -> float:
    return float((painted & expected).sum() / (painted | expected).sum())


def test_clicks_select_things_and_each_can_be_undone(visit: OpenPage, tmp_path: Path) -> None:
    path, left, right = two_discs(tmp_path)
    visitor = visit()
    visitor.open(path)
    visitor.drag((20, 20), (60, 20))
    stroke = visitor.hole()
    visitor.page.focus(".mp-stage")
    visitor.page.keyboard.press("s")
    assert "SAM 2.1" in visitor.page.inner_text(".mp-hint")
    select(visitor, (80, 100), 1)
    assert overlap(visitor.hole(), left | stroke) > 0.95
    visitor.page.click('[data-do="nextThing"]')
    select(visitor, (210, 100), 1)
    assert overlap(visitor.hole(), left | right | stroke) > 0.95
    visitor.page.click('[data-point="out"]')
    select(visitor, (230, 100), 2)
    assert not visitor.hole()[100, 230]
    for expected in (left | right | stroke, left | stroke, stroke):
        visitor.page.keyboard.press("Control+z")
        assert overlap(visitor.hole(), expected) > 0.95
    assert np.array_equal(visitor.hole(), stroke)


def test_a_click_that_excludes_before_anything_is_selected_is_explained(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    visitor.open(two_discs(tmp_path)[0])
    visitor.tool("select")
    visitor.page.click('[data-point="out"]')
    visitor.click((80, 100))
    visitor.page.wait_for_selector(".mp-message.shown")
    assert "click on it first" in visitor.page.inner_text(".mp-message")
    visitor.page.click('[data-point="in"]')
    select(visitor, (80, 100), 1)


def extend(visitor: Visitor, **sides: str) -> None:
    visitor.menu("openExtend")
    for name, said in sides.items():
        visitor.page.fill(f".mp-side-{name} input", said)
    visitor.page.keyboard.press("Enter")


def test_the_canvas_grows_and_only_the_new_border_is_filled(visit: OpenPage, tmp_path: Path) -> None:
    """Larger than the proxy, so that what is seen and what is filled have different pixels."""
    visitor = visit()
    visitor.open(save(photo(2003, 1501), tmp_path / "photo.png", compress_level=1))
    extend(visitor, left="10", bottom="77 px")
    visitor.page.wait_for_selector("text=2203")
    assert "1578" in visitor.page.inner_text(".mp-info")
    visitor.choose_methods("Telea")
    visitor.run()
    downloaded = visitor.download(tmp_path)
    assert downloaded.name == "photo-extended-telea-seed0.png"
    with Image.open(downloaded) as result, Image.open(tmp_path / "photo.png") as original:
        assert result.size == (2203, 1578)
        assert np.array_equal(np.array(result)[:1501, 200:], np.array(original))
    assert visitor.page.inner_text(".rv-changed") == "0 pixels"


def test_undo_leads_back_over_results_and_canvases_and_redo_forth(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    page = visitor.page
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    visitor.choose_methods("Telea")
    visitor.drag((60, 60), (90, 90))
    painted = visitor.hole()
    visitor.run()
    page.click('.rv [data-do="reuse"]')
    page.wait_for_function("() => document.querySelector('.mp').dataset.holePixels === '0'")
    extend(visitor, top="40px")
    page.wait_for_selector("text=300 × 240")  # noqa: RUF001 - the sign the page shows
    border = visitor.hole()
    assert border[:40].all()
    assert not border[40:].any()
    page.focus(".mp-stage")
    page.keyboard.press("Control+z")
    page.wait_for_selector("text=300 × 200")  # noqa: RUF001 - the sign the page shows
    page.keyboard.press("Control+z")
    page.wait_for_function("(n) => +document.querySelector('.mp').dataset.holePixels === n", arg=int(painted.sum()))
    assert np.array_equal(visitor.hole(), painted)
    for count in (0, int(border.sum())):
        page.keyboard.press("Control+Shift+z")
        page.wait_for_function("(n) => +document.querySelector('.mp').dataset.holePixels === n", arg=count)
    assert np.array_equal(visitor.hole(), border)


def test_a_border_that_cannot_be_is_explained_and_the_photo_stays(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    visitor.drag((60, 60), (90, 90))
    painted = visitor.hole()
    extend(visitor, left="lots")
    visitor.page.wait_for_selector(".mp-message.shown")
    assert "'lots' is no amount" in visitor.page.inner_text(".mp-message")
    assert np.array_equal(visitor.hole(), painted)


def test_a_transparent_photo_stays_transparent_but_for_the_hole(visit: OpenPage, tmp_path: Path) -> None:
    pixels = np.dstack([photo(300, 200), np.tile(np.linspace(1, 254, 300).astype(np.uint8), (200, 1))])
    visitor = visit()
    visitor.open(save(pixels, tmp_path / "glass.png"))
    visitor.choose_methods("Telea")
    visitor.drag((100, 60), (180, 120))
    hole = visitor.hole()
    visitor.run()
    with Image.open(visitor.download(tmp_path)) as result:
        assert result.mode == "RGBA"
        after = np.array(result)
    assert np.array_equal(after[~hole], pixels[~hole])
    assert (after[hole][:, 3] == 255).all()
