"""Holes larger than the working size: sharp where one fill would be a blur, its tones those of the whole."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pytest

from asuka_infer.inpaint import Framing, inpaint
from asuka_infer.inpainter import SILENT, Cancelled, Watch
from asuka_infer.request import Hole, InpaintRequest, InpaintResult, RgbImage
from asuka_infer.settings import Settings, WorkingSize
from asuka_infer.tiled import MOST_TILES, fill_coarse_to_fine, is_larger, tiles_over

SIDE = 128
PERIOD = 6
TILED = Framing(0.5, tiles=True)


class NoSettings(Settings):
    pass


@dataclass(frozen=True)
class Weaver:
    """Continues stripes of `PERIOD` pixels where it sees them sharp; where it sees a blur it paints the mean."""

    largest: int = SIDE
    continues: bool = True
    seen: list[InpaintRequest] = field(default_factory=list[InpaintRequest])
    settings: NoSettings = field(default_factory=NoSettings)

    @property
    def working_size(self) -> WorkingSize:
        return WorkingSize(self.largest, multiple=8, continues=self.continues)

    def __call__(self, request: InpaintRequest, watch: Watch = SILENT) -> InpaintResult:
        self.seen.append(request)
        watch.step(1, 2)
        image = request.image.copy()
        image[request.hole] = self._continued(request)[request.hole]
        watch.preview(lambda: image)
        watch.step(2, 2)
        return InpaintResult(image)

    def with_settings(self, **_changes: Any) -> Self:
        return self

    @staticmethod
    def _continued(request: InpaintRequest) -> RgbImage:
        known = ~request.hole
        for phase in range(PERIOD):
            woven = stripes(*request.size, phase)
            if np.abs(woven[known].astype(int) - request.image[known]).max() <= 8:
                return woven
        return np.full_like(request.image, np.rint(request.image[known].mean()))


def stripes(height: int, width: int, phase: int = 0) -> RgbImage:
    wave = 128 + 60 * np.sin(2 * np.pi * (np.arange(width) + phase) / PERIOD)
    return np.repeat(np.tile(np.rint(wave).astype(np.uint8), (height, 1))[..., None], 3, axis=2)


def with_hole(height: int, width: int, rows: slice, columns: slice) -> Hole:
    hole = np.zeros((height, width), np.bool_)
    hole[rows, columns] = True
    return hole


LARGE = with_hole(440, 460, slice(70, 370), slice(80, 380))


def error(result: RgbImage, truth: RgbImage, hole: Hole) -> float:
    return float(np.abs(result.astype(int) - truth)[hole].mean())


def test_a_texture_that_one_fill_would_blur_is_continued_pixel_by_pixel() -> None:
    truth = stripes(440, 460)
    blurred = inpaint(Weaver(), "weaver", truth, LARGE, framing=Framing(0.5)).image
    sharp = inpaint(Weaver(), "weaver", truth, LARGE, framing=TILED).image
    assert error(blurred, truth, LARGE) > 30
    assert error(sharp, truth, LARGE) < 1.5
    assert np.array_equal(sharp[~LARGE], truth[~LARGE])


@dataclass(frozen=True)
class Tones(Weaver):
    """Sees the ramp of the whole picture, and in a part of it nothing but the mean of what is known there."""

    whole: int = 0

    def __call__(self, request: InpaintRequest, watch: Watch = SILENT) -> InpaintResult:
        first = not self.seen
        self.seen.append(request)
        watch.step(1, 1)
        image = request.image.copy()
        ramp = np.linspace(request.image[0, 0, 0], request.image[0, -1, 0], request.size[1])
        mean = request.image[~request.hole].mean()
        image[request.hole] = np.rint(np.broadcast_to(ramp[:, None] if first else mean, image.shape)[request.hole])
        return InpaintResult(image)


def test_the_tones_of_the_whole_lead_the_tiles() -> None:
    """The deepest tiles know nothing of the ramp but through the first fill."""
    ramp = np.rint(np.linspace(20, 220, 460))
    truth = np.repeat(np.tile(ramp.astype(np.uint8), (440, 1))[..., None], 3, axis=2)
    done = inpaint(Tones(), "tones", truth, LARGE, framing=TILED).image
    middle = with_hole(440, 460, slice(170, 270), slice(180, 280))
    columns = done[170:270, 180:280, 0].mean(axis=0)
    assert error(done, truth, middle) < 12
    assert np.corrcoef(columns, ramp[180:280])[0, 1] > 0.95


@pytest.mark.parametrize("tiles", [False, True])
def test_a_hole_within_the_working_size_is_filled_in_one_look(tiles: bool) -> None:  # noqa: FBT001 - a case, not a flag
    weaver = Weaver()
    hole = with_hole(440, 460, slice(60, 60 + SIDE), slice(70, 70 + SIDE))
    inpaint(weaver, "weaver", stripes(440, 460), hole, framing=Framing(0.0, tiles=tiles))
    assert len(weaver.seen) == 1


def test_every_fill_has_its_own_seed_and_starts_from_known_pixels() -> None:
    weaver = Weaver()
    inpaint(weaver, "weaver", stripes(440, 460), LARGE, seed=2**32 - 2, framing=TILED)
    assert len(weaver.seen) <= 1 + MOST_TILES
    assert [request.seed for request in weaver.seen[:4]] == [2**32 - 2, 2**32 - 1, 0, 1]
    assert all(max(request.size) <= SIDE for request in weaver.seen)
    assert all((~request.hole).mean() > 0.1 for request in weaver.seen)


@pytest.mark.parametrize(
    "hole",
    [
        with_hole(200, 900, slice(0, 200), slice(100, 900)),
        with_hole(700, 700, slice(20, 700), slice(0, 700)),
        with_hole(40, 500, slice(3, 39), slice(20, 480)),
        with_hole(201, 203, slice(0, 201), slice(0, 202)),
    ],
)
def test_holes_at_borders_thin_ones_and_giants_are_filled_with_a_bounded_number_of_looks(hole: Hole) -> None:
    weaver = Weaver()
    truth = stripes(*hole.shape)
    done = inpaint(weaver, "weaver", truth, hole, framing=TILED)
    assert done.changed_outside == 0
    assert 2 <= len(weaver.seen) <= 1 + MOST_TILES


def test_the_same_request_gives_the_same_pixels() -> None:
    answers = [inpaint(Weaver(), "weaver", stripes(440, 460), LARGE, seed=3, framing=TILED).image for _ in range(2)]
    assert np.array_equal(answers[0], answers[1])


def random_holes(count: int) -> Iterator[Hole]:
    random = np.random.default_rng(0)
    for _ in range(count):
        height, width = (int(side) for side in random.integers(5, 400, 2))
        hole = np.zeros((height, width), np.bool_)
        for _part in range(random.integers(1, 4)):
            top, left = int(random.integers(0, height)), int(random.integers(0, width))
            hole[top : top + random.integers(1, 200), left : left + random.integers(1, 200)] = True
        yield hole


def test_tiles_cover_the_hole_and_lie_inside_the_picture() -> None:
    for hole in random_holes(200):
        height, width = hole.shape
        boxes = tiles_over(hole, 64)
        covered = np.zeros_like(hole)
        for box in boxes:
            assert box.bottom <= height
            assert box.right <= width
            assert (box.height, box.width) == (min(64, height), min(64, width))
            covered[box.slices] = True
        assert (covered >= hole).all()
        assert boxes == sorted(boxes)


def test_no_tile_is_ever_asked_for_without_a_known_pixel() -> None:
    """`InpaintRequest` refuses a picture that is all hole, so it is enough that every hole gets filled."""

    def grey(request: InpaintRequest, watch: Watch) -> RgbImage:
        watch.step(1, 1)
        return np.full_like(request.image, 128)

    for hole in random_holes(60):
        if hole.all():
            continue
        image = np.zeros((*hole.shape, 3), np.uint8)
        done = fill_coarse_to_fine(grey, InpaintRequest(image, hole), 64, SILENT)
        assert (done[~hole] == 0).all()
        assert 100 < np.median(done[hole]) < 150


def test_what_is_larger_counts_from_the_first_missing_pixel_to_the_last() -> None:
    assert not is_larger(with_hole(90, 90, slice(10, 74), slice(0, 1)), 64)
    assert is_larger(with_hole(90, 90, slice(10, 75), slice(0, 1)), 64)
    assert is_larger(with_hole(90, 90, slice(0, 1), slice(10, 75)), 64)


class Listener:
    def __init__(self, stop_at: int = 0) -> None:
        self.steps: list[tuple[int, int]] = []
        self.sizes: set[tuple[int, ...]] = set()
        self.stop_at = stop_at

    def step(self, done: int, total: int) -> None:
        self.steps.append((done, total))
        if len(self.steps) == self.stop_at:
            raise Cancelled

    def preview(self, picture: Callable[[], RgbImage]) -> None:
        self.sizes.add(picture().shape)


def test_progress_rises_over_all_fills_and_previews_show_the_whole_picture() -> None:
    watch, weaver = Listener(), Weaver()
    inpaint(weaver, "weaver", stripes(440, 460), LARGE, framing=TILED, watch=watch)
    done = [step for step, _ in watch.steps]
    assert done == sorted(done)
    assert len({total for _, total in watch.steps}) == 1
    assert done[-1] == watch.steps[-1][1]
    assert watch.sizes == {(440, 460, 3)}


def test_cancelling_in_the_third_tile_ends_it_there() -> None:
    weaver = Weaver()
    with pytest.raises(Cancelled):
        inpaint(weaver, "weaver", stripes(440, 460), LARGE, framing=TILED, watch=Listener(stop_at=7))
    assert len(weaver.seen) == 4


def test_the_record_says_that_tiles_were_allowed_and_nothing_where_they_were_not() -> None:
    image = stripes(440, 460)
    assert dict(inpaint(Weaver(), "weaver", image, LARGE, framing=TILED).record.framing) == {
        "context": 0.5, "tiles": True,
    }  # fmt: skip
    assert dict(inpaint(Weaver(), "weaver", image, LARGE).record.framing) == {"context": 0.5}


def test_a_method_that_copies_pixels_looks_once_however_large_the_hole() -> None:
    weaver = Weaver(continues=False)
    inpaint(weaver, "weaver", stripes(440, 460), LARGE, framing=TILED)
    assert len(weaver.seen) == 1
