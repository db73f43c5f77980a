"""The one function: crops, scales, fills, pastes, measures."""

import sys
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from asuka_infer.catalog import find_method
from asuka_infer.compositing import Compositing
from asuka_infer.holes import hole_sha256, shrink
from asuka_infer.images import Picture, pixel_sha256
from asuka_infer.inpaint import APP_VERSION, Framing, inpaint
from asuka_infer.inpainter import SILENT, Watch
from asuka_infer.request import LARGEST_SEED, InpaintRequest, InpaintResult, RequestError
from asuka_infer.settings import Settings, WorkingSize, change, whole


@dataclass(frozen=True)
class SpySettings(Settings):
    level: int = whole(50, lowest=0, highest=255, meaning="The grey to paint.")


@dataclass(frozen=True)
class Spy:
    """Paints the hole grey and writes down what it was handed."""

    working_size: WorkingSize = field(default_factory=lambda: WorkingSize(largest=1000))
    settings: SpySettings = SpySettings()
    weights: dict[str, str] = field(default_factory=lambda: {"spy.bin": "ab" * 32})
    seen: list[InpaintRequest] = field(default_factory=list[InpaintRequest])

    def __call__(self, request: InpaintRequest, watch: Watch = SILENT) -> InpaintResult:
        self.seen.append(request)
        for done in (1, 2, 3):
            watch.step(done, 3)
        image = request.image.copy()
        image[request.hole] = self.settings.level
        return InpaintResult(image, {"prior": np.full((2, 2, 3), 9, np.uint8)})

    def with_settings(self, **changes: Any) -> Self:
        return replace(self, settings=change(self.settings, changes))


def plain(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((height, width, 3), 200, np.uint8)


def with_hole(height: int, width: int, *parts: tuple[slice, slice]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    hole = np.zeros((height, width), bool)
    for part in parts:
        hole[part] = True
    return hole


def test_the_method_sees_the_hole_and_half_its_side_around_it() -> None:
    spy = Spy()
    hole = with_hole(300, 400, (slice(100, 140), slice(200, 220)))
    done = inpaint(spy, "spy", plain(300, 400), hole)
    assert [request.size for request in spy.seen] == [(80, 60)]
    assert spy.seen[0].hole.sum() == 800
    assert (done.image[hole] == 50).all()
    assert (done.image[~hole] == 200).all()


def test_without_a_context_the_method_sees_everything() -> None:
    spy = Spy()
    inpaint(spy, "spy", plain(30, 40), with_hole(30, 40, (slice(10, 12), slice(3, 5))), framing=Framing(None))
    assert spy.seen[0].size == (30, 40)


def test_far_apart_holes_are_filled_one_by_one_with_seeds_that_follow_each_other() -> None:
    spy = Spy()
    hole = with_hole(300, 400, (slice(10, 20), slice(10, 20)), (slice(250, 260), slice(300, 310)))
    done = inpaint(spy, "spy", plain(300, 400), hole, seed=LARGEST_SEED)
    assert [request.size for request in spy.seen] == [(20, 20), (20, 20)]
    assert [request.seed for request in spy.seen] == [LARGEST_SEED, 0]
    assert (done.image[hole] == 50).all()
    assert list(done.previews) == ["prior", "prior 2"]


def test_a_large_crop_is_scaled_down_for_the_method_and_its_fill_scaled_back() -> None:
    spy = Spy(WorkingSize(largest=100))
    hole = with_hole(300, 400, (slice(50, 250), slice(50, 350)))
    done = inpaint(spy, "spy", plain(300, 400), hole)
    assert spy.seen[0].size == (75, 100)
    # Enlarging by 4 mixes two coarse pixels across the hole's edge; deeper in, the fill is the method's own.
    assert (done.image[shrink(hole, 8)] == 50).all()
    assert (done.image[hole] < 200).all()
    assert (done.image[~hole] == 200).all()


def test_crops_have_the_multiple_and_the_smallest_side_a_method_asks_for() -> None:
    spy = Spy(WorkingSize(largest=512, multiple=8, smallest=64))
    inpaint(spy, "spy", plain(301, 403), with_hole(301, 403, (slice(100, 110), slice(100, 110))))
    inpaint(spy, "spy", plain(21, 403), with_hole(21, 403, (slice(1, 10), slice(100, 110))))
    assert spy.seen[0].size == (64, 64)
    assert all(side % 8 == 0 for request in spy.seen for side in request.size)


def test_specks_too_fine_for_the_working_size_still_count_as_known() -> None:
    spy = Spy(WorkingSize(largest=16))
    hole = np.ones((64, 64), bool)
    hole[3::8, 3::8] = False
    done = inpaint(spy, "spy", plain(64, 64), hole, framing=Framing(None))
    assert 0 < spy.seen[0].hole.sum() < spy.seen[0].hole.size
    assert (spy.seen[0].image[~spy.seen[0].hole] == 200).all()
    assert done.changed_outside == 0


def test_a_hole_finer_than_every_coarse_cell_is_filled_from_its_neighbours() -> None:
    spy = Spy(WorkingSize(largest=8))
    hole = with_hole(64, 64, (slice(0, 64, 2), slice(0, 64, 2)))
    done = inpaint(spy, "spy", plain(64, 64), hole, framing=Framing(None))
    assert spy.seen == []
    assert (done.image == 200).all()


def test_seamless_changes_only_the_ring_and_counts_it() -> None:
    class Careless(Spy):
        def __call__(self, request: InpaintRequest, watch: Watch = SILENT) -> InpaintResult:
            watch.step(1, 1)
            return InpaintResult(np.full_like(request.image, 50))

    hole = with_hole(100, 100, (slice(40, 60), slice(40, 60)))
    for compositing in ("exact", "seamless"):
        done = inpaint(Careless(), "spy", plain(100, 100), hole, framing=Framing(None), compositing=compositing)
        differing = int(((done.image != 200).any(axis=2) & ~hole).sum())
        assert done.changed_outside == differing
        assert (done.image[hole] == 50).all()
        if compositing == "exact":
            assert (differing, done.ring) == (0, 0)
        else:
            # 8 pixels straight out of each side of 20, and quarter discs of radius 9 at the corners.
            assert done.ring == differing
            assert 4 * 20 * 8 < differing < 36 * 36 - 400


def test_seamless_fades_the_method_s_own_ring_into_the_photo() -> None:
    """Against every pixel's distance to every pixel of the hole, for a method that keeps what it knows."""
    spy = Spy()
    image = np.random.default_rng(3).integers(60, 256, (41, 53, 3), dtype=np.uint8)
    hole = with_hole(41, 53, (slice(12, 20), slice(14, 31)), (slice(18, 29), slice(25, 27)))
    done = inpaint(spy, "spy", image, hole, framing=Framing(None), compositing="seamless")
    rows, columns = np.indices(hole.shape)
    away = np.min([np.hypot(rows - y, columns - x) for y, x in np.argwhere(hole)], axis=0)
    weight = np.clip(1 - away / 9, 0, 1)[..., None]
    expected = weight * 50 + (1 - weight) * image
    assert np.abs(done.image - expected).max() <= 0.5 + 1e-3
    assert np.array_equal(spy.seen[0].hole, away < 9)
    assert done.changed_outside == done.ring == np.count_nonzero((away > 0) & (away < 9))


def test_seamless_leaves_the_method_something_to_see() -> None:
    spy = Spy()
    hole = ~with_hole(30, 30, (slice(10, 13), slice(10, 13)))
    done = inpaint(spy, "spy", plain(30, 30), hole, compositing="seamless")
    assert np.array_equal(spy.seen[0].hole, hole)
    assert done.changed_outside == 0


def test_the_record_names_everything_that_makes_the_same_pixels_again() -> None:
    image, hole = plain(40, 50), with_hole(40, 50, (slice(5, 9), slice(5, 9)))
    done = inpaint(Spy().with_settings(level=60), "spy", Picture(image), hole, seed=8, framing=Framing(0.25))
    record = done.record
    assert (record.method, record.seed, record.compositing) == ("spy", 8, "exact")
    assert dict(record.settings) == {"level": 60}
    assert dict(record.framing) == {"context": 0.25}
    assert dict(record.weights) == {"spy.bin": "ab" * 32}
    assert (record.height, record.width) == (40, 50)
    assert record.image_sha256 == pixel_sha256(image)
    assert record.hole_sha256 == hole_sha256(hole)
    assert record.result_sha256 == pixel_sha256(done.image)
    assert record.versions["asuka-app"] == APP_VERSION
    assert record.versions["python"].startswith(f"{sys.version_info.major}.")
    assert record.versions["numpy"] == np.__version__


def test_the_version_is_the_project_s() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"] == APP_VERSION


@pytest.mark.parametrize("context", [-0.1, float("nan"), float("inf")])
def test_a_context_that_is_none_is_refused(context: float) -> None:
    with pytest.raises(RequestError, match="context"):
        Framing(context)


def test_an_unknown_compositing_an_empty_and_a_full_hole_are_refused() -> None:
    image = plain(8, 8)
    wrong: Any = "blurred"
    with pytest.raises(RequestError, match="choose exact or seamless"):
        inpaint(Spy(), "spy", image, with_hole(8, 8, (slice(1, 2), slice(1, 2))), compositing=wrong)
    with pytest.raises(RequestError, match="empty"):
        inpaint(Spy(), "spy", image, np.zeros((8, 8), bool))
    with pytest.raises(RequestError, match="whole image"):
        inpaint(Spy(), "spy", image, np.ones((8, 8), bool))


@pytest.mark.parametrize("compositing", ["exact", "seamless"])
def test_half_of_a_large_photograph_is_filled_in_seconds(compositing: Compositing) -> None:
    y, x = np.mgrid[0:3000, 0:4000]
    image = np.stack([x % 256, y % 256, (x + y) % 256], axis=2).astype(np.uint8)
    hole = with_hole(3000, 4000, (slice(500, 2500), slice(0, 3000)))
    done = inpaint(
        find_method("telea").load().with_settings(largest_side=256), "telea", image, hole, compositing=compositing
    )
    assert done.image.shape == image.shape
    assert done.changed_outside <= done.ring
    assert done.record.seconds < 20
