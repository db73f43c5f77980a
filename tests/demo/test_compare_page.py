"""Several results of one run in a real browser: side by side, what changed, and offered to a study."""

from pathlib import Path

import pytest

from tests.demo.conftest import OpenPage
from tests.demo.painting import Visitor, photo, save

pytestmark = pytest.mark.browser


def run_several(visitor: Visitor, folder: Path, *titles: str) -> None:
    visitor.open(save(photo(300, 200), folder / "photo.png"))
    visitor.choose_methods(*titles)
    visitor.drag((100, 60), (180, 120))
    visitor.page.click("#demo-run")
    visitor.page.wait_for_selector(f".rv-strip button >> nth={len(titles) - 1}")
    visitor.page.wait_for_selector('.rv[data-state="shown"]:not([data-busy="on"])')


def test_rivals_are_seen_side_by_side_at_the_same_place(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    page = visitor.page
    run_several(visitor, tmp_path, "Telea", "Navier-Stokes", "Prior method")
    page.click('.rv [data-do="grid"]')
    page.wait_for_selector(".rv-pane >> nth=2")
    assert [text.partition(" · ")[0] for text in page.locator(".rv-pane figcaption").all_inner_texts()] == [
        "Telea (fast marching)", "Navier-Stokes", "Prior method",
    ]  # fmt: skip
    box = page.locator(".rv-pane >> nth=1").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 100, box["y"] + 60)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    page.mouse.down()
    page.mouse.move(box["x"] + 120, box["y"] + 80)
    page.mouse.up()
    views: list[str] = page.eval_on_selector_all(".rv-pane .rv-layer", "layers => layers.map((l) => l.style.transform)")
    assert len(set(views)) == 1
    assert "scale(1)" not in views[0]
    page.click('.rv [data-do="grid"]')
    assert page.locator(".rv-stage").is_visible()
    visitor.choose_methods("Telea")
    visitor.run()
    assert not page.locator(".rv-pair").is_visible()


def test_what_changed_is_shown_where_the_hole_is(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    visitor.open(save(photo(300, 200), tmp_path / "photo.png"))
    visitor.choose_methods("Prior method")
    visitor.drag((100, 60), (180, 120))
    hole = visitor.hole()
    visitor.run()
    assert not visitor.page.locator(".rv-stage .rv-changes").is_visible()
    visitor.page.click('.rv [data-do="changes"]')
    assert visitor.page.locator(".rv-stage .rv-changes").is_visible()
    script = """async () => {
        const image = document.querySelector('.rv-stage .rv-changes');
        await image.decode();
        const canvas = Object.assign(document.createElement('canvas'), {width: 300, height: 200});
        const pen = canvas.getContext('2d');
        pen.drawImage(image, 0, 0);
        const pixels = pen.getImageData(0, 0, 300, 200).data;
        return Array.from({length: 60000}, (_, i) => pixels[4 * i + 3] > 0 ? 1 : 0); }"""
    changed = [bool(bit) for bit in visitor.page.evaluate(script)]
    outside = [bit for bit, missing in zip(changed, hole.ravel(), strict=True) if not missing]
    assert not any(outside)
    assert sum(changed) > 0.95 * hole.sum()


def test_rivals_are_offered_to_a_study_after_a_second_thought(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    run_several(visitor, tmp_path, "Telea", "Navier-Stokes")
    missing = int(visitor.hole().sum())
    visitor.page.click('.rv [data-do="offer"]')
    assert "Strangers will see" in visitor.page.inner_text('.rv [data-do="offer"]')
    assert not visitor.page.locator(".rv-message").is_visible()
    visitor.page.click('.rv [data-do="offer"]')
    visitor.page.wait_for_selector(".rv-message.shown")
    assert f"telea, navier-stokes, {missing} missing pixels" in visitor.page.inner_text(".rv-message")


def test_one_method_alone_is_not_offered(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    run_several(visitor, tmp_path, "Telea")
    assert not visitor.page.locator(".rv-offer").is_visible()
