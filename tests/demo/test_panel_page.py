"""The chosen method's own knobs in a real browser: what is turned is what runs, and what the prior sees can be seen."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from asuka_infer.run_record import RunRecord
from tests.demo.conftest import OpenPage
from tests.demo.painting import Visitor, photo, save

pytestmark = pytest.mark.browser


def open_panel(visitor: Visitor, folder: Path, title: str, key: str) -> None:
    visitor.open(save(photo(300, 200), folder / "photo.png"))
    visitor.drag((60, 60), (90, 90))
    visitor.choose_methods(title)
    visitor.page.click(f'.kp details[data-method="{key}"] summary')


def record_of(path: Path) -> RunRecord:
    with Image.open(path) as image:
        assert isinstance(image, PngImageFile)
        return RunRecord.from_json(image.text["asuka:run_record"])


def test_every_kind_of_knob_reaches_the_method_and_its_record(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    page = visitor.page
    open_panel(visitor, tmp_path, "Prior method", "prior")
    page.fill('[name="prior.level"]', "40")
    page.fill('[name="prior.strength"]', "0.5")
    page.select_option('[name="prior.side"]', "right")
    page.check('[name="prior.marked"]')
    page.fill('[name="prior.words"]', "a quiet street")
    hole = visitor.hole()
    visitor.run()
    downloaded = visitor.download(tmp_path)
    settings = record_of(downloaded).settings
    turned = {"level": 40, "strength": 0.5, "side": "right", "marked": True, "words": "a quiet street"}
    assert {key: settings[key] for key in turned} == turned
    with Image.open(downloaded) as image:
        inside = np.array(image)[hole]
    assert (inside[0] == 0).all()
    assert (inside[1:] == 20).all()


def test_a_value_out_of_range_is_explained_and_knobs_of_two_methods_do_not_mix(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    page = visitor.page
    open_panel(visitor, tmp_path, "Prior method", "prior")
    page.fill('[name="prior.level"]', "999")
    page.click("#demo-run")
    page.wait_for_selector(".rv-message.shown")
    assert "level = 999 is not possible; give a whole number from 0 to 255" in page.inner_text(".rv-message")
    page.fill('[name="prior.level"]', "7")
    visitor.choose_methods("Telea")
    page.wait_for_selector('[name="telea.radius"]', state="attached")
    visitor.run()
    assert "radius" in record_of(visitor.download(tmp_path)).settings
    visitor.choose_methods("Prior method")
    page.wait_for_selector('[name="prior.level"]', state="attached")
    assert page.input_value('[name="prior.level"]') == "7"


def looks(visitor: Visitor) -> list[tuple[str, list[int]]]:
    """Name and mean colour of every picture of what the method sees."""
    visitor.page.click("[data-do=look]")
    visitor.page.wait_for_selector("[data-do=look]:not([disabled])")
    script = """() => Promise.all([...document.querySelectorAll('.kp-looks img')].map(async (image) => {
        await image.decode();
        const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1});
        const pen = canvas.getContext('2d');
        pen.drawImage(image, 0, 0, 1, 1);
        return [image.alt, [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3)]; }))"""
    return [(str(name), [int(level) for level in levels]) for name, levels in visitor.page.evaluate(script)]


def test_the_prior_can_be_shown_something_else_and_it_is_seen(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    page = visitor.page
    open_panel(visitor, tmp_path, "Prior method", "prior")
    page.click(".kp-sight summary")
    seen = looks(visitor)
    assert [name for name, _ in seen] == ["seen", "prior"]
    assert seen[1][1] == [200, 200, 200]
    page.select_option('[name="prior.prior"]', "blank")
    assert looks(visitor)[1][1] == [255, 255, 255]
    page.select_option('[name="prior.prior"]', "colour")
    page.fill(".kp-prior input[type=color]", "#204060")
    assert looks(visitor)[1][1] == [32, 64, 96]
    page.select_option('[name="prior.prior"]', "picture")
    plain = np.full((900, 1200, 3), (250, 10, 10), np.uint8)
    page.set_input_files(".kp-prior input[type=file]", str(save(plain, tmp_path / "red.png")))
    page.wait_for_selector(".kp-prior-picture")
    red = looks(visitor)[1][1]
    assert np.abs(np.subtract(red, [250, 10, 10])).max() <= 3
    visitor.run()
    assert record_of(visitor.download(tmp_path)).settings["prior"] == "picture"


def test_a_file_that_is_no_picture_for_the_prior_is_explained(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    open_panel(visitor, tmp_path, "Prior method", "prior")
    visitor.page.click(".kp-sight summary")
    visitor.page.select_option('[name="prior.prior"]', "picture")
    (tmp_path / "letter.png").write_text("Dear reader")
    visitor.page.set_input_files(".kp-prior input[type=file]", str(tmp_path / "letter.png"))
    visitor.page.wait_for_selector(".kp-message.shown")
    assert "letter.png" in visitor.page.inner_text(".kp-message")


def test_a_method_without_a_prior_has_no_button_to_look_at_it(visit: OpenPage, tmp_path: Path) -> None:
    visitor = visit()
    open_panel(visitor, tmp_path, "Telea", "telea")
    assert not visitor.page.locator(".kp-sight").is_visible()
