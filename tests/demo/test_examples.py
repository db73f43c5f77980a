"""Examples are prepared once, kept, and made anew as soon as anything that made them is another."""

import logging
from pathlib import Path

import numpy as np
import pytest

from asuka_infer.datasets.sample_pictures import SAMPLE_PICTURES
from demo import examples
from demo.engine import DemoEngine
from demo.examples import EXAMPLES, ExampleGallery
from tests.demo.conftest import OpenPage


@pytest.fixture
def engine() -> DemoEngine:
    return DemoEngine(samples=[sample for sample in SAMPLE_PICTURES if sample.name == "coffee"])


def prepared(engine: DemoEngine, folder: Path, key: str = "telea") -> ExampleGallery:
    gallery = ExampleGallery(engine, folder, keys=(key,))
    gallery.prepare()
    return gallery


def files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_an_example_is_filled_where_its_hole_is_and_nowhere_else(engine: DemoEngine, tmp_path: Path) -> None:
    [example] = prepared(engine, tmp_path).ready
    assert example.example.sample == "coffee"
    [result] = example.results
    assert (result.title, result.changed_outside) == ("Telea (fast marching)", 0)
    assert result.changed[example.hole].mean() > 0.9


def test_a_second_start_reads_what_the_first_made(engine: DemoEngine, tmp_path: Path) -> None:
    [first] = prepared(engine, tmp_path).ready
    before = files(tmp_path)
    [second] = prepared(engine, tmp_path).ready
    assert files(tmp_path) == before
    assert np.array_equal(second.results[0].view, first.results[0].view)
    assert second.results[0].record == first.results[0].record


def test_who_comes_while_examples_are_prepared_is_told_that_there_will_be_more(
    engine: DemoEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = ExampleGallery(engine, tmp_path, keys=("telea",))
    seen: list[bool] = []
    monkeypatch.setattr(gallery, "prepare", lambda: seen.append(gallery.preparing))
    assert not gallery.preparing
    gallery.prepare_in_background().join()
    assert seen == [True]
    assert not gallery.preparing


def test_other_code_or_another_method_makes_new_files_and_the_old_ones_go(
    engine: DemoEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(engine, tmp_path)
    before = files(tmp_path)
    monkeypatch.setattr(examples, "code_sha256", lambda: "another version")
    prepared(engine, tmp_path)
    assert len(files(tmp_path)) == 1
    assert not files(tmp_path).keys() & before.keys()
    prepared(engine, tmp_path, "navier-stokes")
    assert [name.partition("-")[0] for name in files(tmp_path)] == ["navier"]


@pytest.mark.parametrize("damage", [b"half a picture", b""])
def test_a_damaged_file_is_made_anew(engine: DemoEngine, tmp_path: Path, damage: bytes) -> None:
    [first] = prepared(engine, tmp_path).ready
    path = next(tmp_path.iterdir())
    path.write_bytes(damage)
    [second] = prepared(engine, tmp_path).ready
    assert np.array_equal(second.results[0].view, first.results[0].view)
    assert path.stat().st_size > 1000


def test_a_method_that_cannot_run_leaves_the_page_without_examples_and_says_so_in_the_log(
    engine: DemoEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gallery = ExampleGallery(engine, tmp_path, keys=("unheard-of",))
    with caplog.at_level(logging.ERROR):
        gallery.prepare_in_background().join()
    assert gallery.ready == ()
    assert "could not be prepared" in caplog.text


def test_every_hole_lies_in_its_picture_and_leaves_most_of_it() -> None:
    for example in EXAMPLES:
        share = example.hole((300, 400)).mean()
        assert 0.02 < share < 0.2


@pytest.mark.browser
def test_a_click_on_an_example_shows_photo_hole_and_results(visit: OpenPage) -> None:
    visitor = visit()
    page = visitor.page
    page.click('[data-example="spoon"]')
    page.wait_for_selector('.rv[data-state="shown"]')
    page.wait_for_selector('.mp[data-state="ready"]:not([data-busy="on"])')
    page.wait_for_function("() => +document.querySelector('.mp').dataset.holePixels > 0")
    assert page.locator(".rv-strip button").count() == 2
    assert page.inner_text(".rv-changed") == "0 pixels"
    expected = next(example for example in EXAMPLES if example.key == "spoon").hole((400, 600))
    assert np.array_equal(visitor.hole(), expected)
    visitor.choose_methods("Telea")
    page.click("#demo-run")
    page.wait_for_selector(".rv-strip button >> nth=2")
