"""A photo of forty megapixels through the page: nothing outside the hole changes, and zooming shows it as it is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.demo.conftest import OpenPage

pytestmark = pytest.mark.browser

SIZE = 7304, 5476


def patchwork(path: Path) -> Path:
    """Flat squares: as many pixels as a camera's, in a file that is quick to write and to read."""
    few = np.random.default_rng(5).integers(0, 256, (11, 16, 3), dtype=np.uint8)
    Image.fromarray(few).resize(SIZE, Image.Resampling.NEAREST).save(path, quality=90)
    return path


def test_forty_megapixels_are_opened_painted_filled_looked_at_and_taken_home(visit: OpenPage, tmp_path: Path) -> None:
    path = patchwork(tmp_path / "camera.jpg")
    visitor = visit()
    page = visitor.page
    visitor.open(path)
    assert "7304 × 5476" in page.inner_text(".mp-info")  # noqa: RUF001 - the sign the page shows
    visitor.choose_methods("Telea")
    visitor.drag((700, 500), (800, 560))
    painted = Image.fromarray(visitor.hole())
    visitor.run()
    assert page.inner_text(".rv-changed") == "0 pixels"
    page.click('.rv [data-do="zoomIn"]')
    assert page.inner_text(".rv-percent") != "Fit"
    with Image.open(visitor.download(tmp_path)) as result, Image.open(path) as photo:
        made, before = np.asarray(result), np.asarray(photo)
    assert made.shape == before.shape == (SIZE[1], SIZE[0], 3)
    hole = np.asarray(painted.resize(SIZE, Image.Resampling.NEAREST))
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    near = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    differs = (made[near] != before[near]).any(axis=2)
    assert differs[hole[near]].mean() > 0.5
    assert not differs[~hole[near]].any()
    top, bottom = slice(None, rows[0]), slice(rows[-1] + 1, None)
    left, right = slice(None, columns[0]), slice(columns[-1] + 1, None)
    assert all(np.array_equal(made[part], before[part]) for part in (top, bottom))
    assert all(np.array_equal(made[:, part], before[:, part]) for part in (left, right))
